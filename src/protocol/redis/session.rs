//! The life of one Redis client connection and its upstream connection.
//!
//! This file owns the state and the events that are not bytes: connecting, end of input, deadlines, drain.
//! `downstream` decides on requests, `upstream` matches replies. Absent on purpose: sockets, clocks, values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Settings;
use super::command::{Patience, TimeoutWatch};
use super::downstream::Batch;
use super::fifo::{Account, Effect, Fifo, Head};
use super::reject::Local;
use super::reply::Replies;
use super::request::Body;
use super::upstream::{Frame, Subscriptions};
use crate::breaker::{CallKind, Fault, Generation, Mode, State, Verdict};
use crate::gate::{Lane, Permit, Rejection};
use crate::metrics::Counter;
use crate::protocol::{self, Phase, Plan, Target, Wait};

/// One Redis client connection.
#[derive(Debug)]
pub struct Session {
    pub(super) lane: Lane,
    pub(super) settings: Arc<Settings>,
    pub(super) life: Life,
    pub(super) request: Request,
    /// Bytes of a request's head wait for the rest of it.
    pub(super) held: bool,
    pub(super) mute: Mute,
    pub(super) block: Block,
    /// Numbers the transactions, so that a late error to one MULTI cannot end another.
    pub(super) blocks: u64,
    /// The backend holds a WATCH of this connection.
    pub(super) watching: bool,
    /// A WATCH was rejected: the transaction it was to guard must not run.
    pub(super) unwatched: Option<Rejection>,
    /// A command that sets the connection's state was rejected: nothing may ever be sent on it again.
    pub(super) poison: Option<Rejection>,
    /// The breaker has been seen open since then.
    poisoned_open: bool,
    /// Probes that this connection's replies will decide, oldest first; only the last may be unspent.
    pub(super) probes: Vec<Probe>,
    /// Numbers the probes, so that a reply decides none but its own.
    probed: u32,
    pub(super) fifo: Fifo,
    pub(super) replies: Replies,
    pub(super) frame: Frame,
    pub(super) subscriptions: Subscriptions,
    /// The backend has said that it is about to close: its end of file is no news.
    pub(super) dismissed: bool,
    pub(super) client_eof: bool,
    pub(super) draining: bool,
    /// The next request waits for others to end, until then.
    pub(super) queued: Option<Box<Instant>>,
    /// What a CLIENT PAUSE adds to the present deadline.
    pub(super) grace: Duration,
}

/// Where the connection is in its life.
#[derive(Debug)]
pub(super) enum Life {
    /// Not a byte from the client: `Dial` or `Relay` at the first.
    Idle,
    /// Waits for an upstream connection: `Relay` or `Finish`.
    Dial(Box<Permit>),
    /// To `Finish` or `Abort`.
    Relay(Link),
    /// Bytes pass in both directions and nobody looks at them: to `Finish`.
    Opaque,
    /// The end, in good order.
    Finish,
    /// The end, at once.
    Abort,
}

/// The upstream side of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The breaker allowed none: the connection is poisoned from birth.
    None,
    /// It stands, and nothing has been sent; the generation that admitted it.
    Fresh(Generation),
    /// Requests have been sent.
    Used,
}

/// Where the client's byte stream is.
#[derive(Debug)]
pub(super) enum Request {
    /// At the head of a request; so much of an inline one has been searched for its end.
    Head { seen: usize },
    /// Within a request that has been decided upon.
    Body(Decided),
    /// Nothing that follows is looked at: QUIT, or a breach of the protocol.
    Closed,
    /// Everything that follows is passed on.
    Opaque,
}

/// A request that has been decided upon and has not ended.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) body: Body,
    pub(super) fate: Fate,
    pub(super) watch: Option<Box<TimeoutWatch>>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) way: Way,
    pub(super) then: Then,
}

/// Where its bytes go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the backend. `owed`: its reply is the last thing in the queue.
    Forward { owed: bool },
    /// Nowhere; its reply, if it gets one, is due when its last byte has come.
    Swallow(Option<Local>),
    /// Nowhere; another has been sent in its place, whose reply is in the queue.
    Replaced,
}

/// What follows its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request.
    GoOn,
    /// Nothing that anybody looks at: the backend hangs up by itself.
    Close,
    /// The end, after what is owed.
    HangUp,
    /// A plain relay.
    Relay,
}

/// CLIENT REPLY, as of the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mute {
    /// Requests get replies.
    No,
    /// None gets any.
    Off,
    /// The next gets none.
    Next,
}

/// MULTI, as of the next request.
#[derive(Debug)]
pub(super) enum Block {
    /// No transaction is open.
    None,
    /// One is open at the backend: what belongs to it passes.
    Open { number: u64, generation: Generation, unbounded: bool, scripted: bool },
    /// One that was rejected: the backend knows nothing of it, and none of it will pass.
    Virtual(Rejection),
}

/// A probe in the session's hands.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) number: u32,
    pub(super) permit: Permit,
    /// A command whose reply will decide it has been sent.
    pub(super) spent: bool,
    /// What the breaker was last told of whose move it is.
    owed: bool,
}

impl Session {
    /// Takes a probe in hand; its number. `spent`: what will decide it is being sent; `owed`: the next move is the
    /// backend's.
    pub(super) fn hold(&mut self, permit: Permit, spent: bool, owed: bool) -> u32 {
        if !owed {
            permit.set_owed(false);
        }
        let number = self.probed;
        self.probed = self.probed.wrapping_add(1);
        self.probes.push(Probe { number, permit, spent, owed });
        number
    }

    /// Gives out of hand the probe of this number, if it is still held.
    pub(super) fn release(&mut self, number: Option<u32>) -> Option<Permit> {
        let at = self.probes.iter().position(|probe| Some(probe.number) == number)?;
        Some(self.probes.remove(at).permit)
    }

    /// The probe in hand that nothing has been sent for yet, if its slot is still its own: a client that was silent
    /// for too long has lost it.
    pub(super) fn unspent_probe(&mut self, now: Instant) -> Option<&mut Probe> {
        let last = self.probes.last().filter(|probe| !probe.spent)?;
        if !last.permit.is_live(now) {
            self.probes.pop();
            return None;
        }
        self.probes.last_mut()
    }

    /// A session for a client that has just connected.
    pub fn new(lane: Lane, settings: Arc<Settings>) -> Self {
        Self {
            lane,
            settings,
            life: Life::Idle,
            request: Request::Head { seen: 0 },
            held: false,
            mute: Mute::No,
            block: Block::None,
            blocks: 0,
            watching: false,
            unwatched: None,
            poison: None,
            poisoned_open: false,
            probes: Vec::new(),
            probed: 0,
            fifo: Fifo::default(),
            replies: Replies::default(),
            frame: Frame::default(),
            subscriptions: Subscriptions::default(),
            dismissed: false,
            client_eof: false,
            draining: false,
            queued: None,
            grace: Duration::ZERO,
        }
    }

    /// Whether an upstream connection stands on which requests can be sent.
    pub(super) fn live(&self) -> bool {
        matches!(self.life, Life::Relay(Link::Fresh(_) | Link::Used)) && self.poison.is_none()
    }

    /// After each event: ends what is over, hands back what is not needed.
    pub(super) fn settle(&mut self) {
        let Life::Relay(link) = self.life else { return };
        if matches!(self.fifo.head(), Some(Head::Opaque)) && self.replies.at_boundary() {
            return self.relay();
        }
        let quiet = self.fifo.requests() == 0 && self.replies.at_boundary();
        let between = matches!(self.request, Request::Head { .. } | Request::Closed) && !self.held;
        if quiet && self.fifo.ends() || self.client_eof && link == Link::None {
            return self.end(Life::Finish);
        }
        let block = matches!(self.block, Block::Open { .. });
        if self.draining && quiet && between && !block && !self.relays() {
            return self.end(Life::Finish);
        }
        if !self.probes.is_empty() {
            let owed = self.backend_owes();
            for probe in self.probes.iter_mut().filter(|probe| probe.owed != owed) {
                probe.owed = owed;
                probe.permit.set_owed(owed);
            }
        }
    }

    fn relays(&self) -> bool {
        matches!(self.request, Request::Opaque)
    }

    /// Whether the next move is the backend's and it is not waiting for something other than itself.
    fn backend_owes(&self) -> bool {
        self.patience().is_some() && !self.blocked()
    }

    /// How long the backend may take, if the next move is its.
    fn patience(&self) -> Option<Patience> {
        let patience = match self.fifo.head()? {
            Head::Calls => Patience::Response,
            Head::Owed(head) => head.patience,
            Head::Local | Head::Opaque => return None,
        };
        (!(self.uploading() && self.fifo.requests() == 1)).then_some(patience)
    }

    /// Whether the last request in the queue is still on its way from the client.
    pub(super) fn uploading(&self) -> bool {
        matches!(&self.request, Request::Body(decided) if decided.fate.way == Way::Forward { owed: true })
    }

    /// Whether the backend may be waiting for something other than itself.
    fn blocked(&self) -> bool {
        matches!(self.fifo.head(), Some(Head::Owed(head)) if head.blocks())
    }

    fn limit(&self) -> Option<Duration> {
        let limit = match self.patience()? {
            Patience::Response => self.settings.response(),
            Patience::Handshake => Some(self.settings.handshake()),
            Patience::Own(own) => self.settings.response().map(|limit| limit + own),
            Patience::Forever | Patience::Unbounded => None,
        };
        limit.map(|limit| limit.saturating_add(self.grace))
    }

    /// Ends the connection. Calls still in flight say nothing.
    pub(super) fn end(&mut self, life: Life) {
        self.abandon();
        self.probes.clear();
        self.fifo.cut();
        self.life = life;
    }

    /// Whether a request had better wait for others to end.
    pub(super) fn must_wait(&mut self, batch: &Batch) -> bool {
        let now = batch.now;
        let asks = batch.closed.is_none() && batch.rejection.is_none() && self.live();
        let may = asks && matches!(self.block, Block::None) && self.probes.is_empty();
        let wait = if may { self.lane.crowded(now, CallKind::Command) } else { Duration::ZERO };
        if wait.is_zero() {
            self.queued = None;
            return false;
        }
        let until = **self.queued.get_or_insert_with(|| Box::new(now + wait));
        if now >= until {
            self.queued = None;
        }
        now < until
    }

    /// The upstream connection has failed with calls in flight: one failure, however many they are.
    pub(super) fn fail(&mut self, now: Instant, fault: Fault) {
        let verdict = Verdict::Failure(fault.into());
        let mut calls: u64 = self.calls();
        let probing = self
            .fifo
            .owed()
            .find_map(|owed| self.probes.iter().position(|probe| Some(probe.number) == owed.probe));
        let oldest = self.fifo.owed().find_map(|owed| match owed.account {
            Account::Call { generation, start } => Some((generation, start)),
            Account::None => None,
        });
        if let Some(probe) = probing {
            // The probe is what the breaker waits for, so it is the call that the failure is put down to.
            self.probes.remove(probe).permit.record(now, verdict);
        } else if let Some((generation, start)) = oldest {
            self.lane.permit_of(generation, CallKind::Command, start).record(now, verdict);
            calls -= 1;
        }
        self.lane.ignored(calls);
        self.probes.clear();
        self.fifo.cut();
    }

    /// Calls in flight that are counted by the lane.
    fn calls(&self) -> u64 {
        self.fifo.owed().filter(|owed| owed.account != Account::None).map(|owed| owed.n).sum()
    }

    /// Accounts for all calls in flight as saying nothing.
    fn abandon(&mut self) {
        let calls = self.calls();
        if calls > 0 {
            self.lane.ignored(calls);
        }
    }

    /// From now on a plain relay in both directions. Not for a client that was told of a rejection: it would send
    /// the rest of what was rejected, or act on a state that the backend knows nothing of.
    pub(super) fn relay(&mut self) {
        if self.estranged() || self.cut_short() || self.fifo.has_local() {
            return self.end(Life::Abort);
        }
        self.lane.add(Counter::Opaque, 1);
        // A relay has no call whose end a drain could wait for.
        self.end(if self.draining { Life::Finish } else { Life::Opaque });
    }
}

impl Session {
    /// Whether the client's idea of the connection differs from the backend's, and only this session keeps them apart.
    pub(super) fn estranged(&self) -> bool {
        self.poison.is_some() || self.unwatched.is_some() || matches!(self.block, Block::Virtual(_))
    }

    /// Whether a request has been rejected before its last byte has come.
    fn cut_short(&self) -> bool {
        match &self.request {
            Request::Body(decided) => !matches!(decided.fate.way, Way::Forward { .. }),
            Request::Head { .. } | Request::Closed | Request::Opaque => false,
        }
    }
}

impl protocol::Session for Session {
    fn on_client(&mut self, now: Instant, input: &[u8], _drained: bool, plan: &mut Plan) {
        if matches!(self.life, Life::Idle) && !input.is_empty() {
            match self.lane.admit_uncounted(now, CallKind::Connect) {
                Ok(permit) => self.life = Life::Dial(Box::new(permit)),
                Err(rejection) => {
                    self.poison = Some(rejection);
                    self.life = Life::Relay(Link::None);
                }
            }
        }
        match self.life {
            Life::Relay(_) => {
                self.requests(now, input, plan);
                self.settle();
            }
            Life::Opaque => plan.forward(input.len()),
            Life::Idle | Life::Dial(_) => {}
            Life::Finish | Life::Abort => plan.drop(input.len()),
        }
    }

    fn on_server(&mut self, now: Instant, input: &[u8], plan: &mut Plan) {
        match self.life {
            Life::Relay(_) => {
                self.frames(now, input, plan);
                let used = matches!(self.life, Life::Relay(Link::Used));
                if used && self.fifo.requests() == 0 && !self.held && !self.uploading() {
                    // Only handshake replies have come, which a loading backend gives too: somebody else may try.
                    self.probes.clear();
                }
                self.settle();
            }
            Life::Opaque => plan.forward(input.len()),
            _ => plan.drop(input.len()),
        }
    }

    fn replies(&mut self, now: Instant, out: &mut Vec<u8>) {
        if !self.draining && !self.fifo.local_is_due() {
            return;
        }
        let before = out.len();
        while out.len() - before < protocol::REPLY_CHUNK {
            let Some(local) = self.fifo.take_local() else { break };
            if let Some(rest) = local.render(&self.settings.reject_code(), now, out) {
                self.fifo.answer_first(rest);
                break;
            }
        }
        self.settle();
    }

    fn phase(&self) -> Phase {
        match &self.life {
            Life::Idle => Phase::Idle,
            Life::Dial(_) => Phase::Dial(Target::Backend),
            Life::Relay(_) | Life::Opaque => Phase::Relay,
            Life::Finish => Phase::Finish,
            Life::Abort => Phase::Abort,
        }
    }

    fn wait(&self) -> Wait {
        match self.life {
            Life::Relay(_) => self.limit().map_or(Wait::Nothing, Wait::Backend),
            _ => Wait::Nothing,
        }
    }

    fn on_connected(&mut self, now: Instant, _peer: Option<SocketAddr>) {
        match std::mem::replace(&mut self.life, Life::Abort) {
            Life::Dial(permit) => {
                self.life = Life::Relay(Link::Fresh(permit.generation()));
                if permit.is_probe() {
                    // A stopped server accepts connections too: only a reply decides the probe.
                    self.hold(*permit, false, false);
                } else {
                    permit.record(now, Verdict::Ignored);
                }
            }
            other => self.life = other,
        }
    }

    fn on_connect_failed(&mut self, now: Instant, fault: Option<Fault>) {
        if let Life::Dial(permit) = std::mem::replace(&mut self.life, Life::Finish) {
            if permit.is_spared() {
                // The command that waits for this connection is the one that would have been rejected over it.
                self.lane.add(Counter::WouldReject, 1);
            }
            match fault {
                Some(fault) => permit.record(now, Verdict::Failure(fault.into())),
                None => {
                    self.lane.add(Counter::LocalFaults, 1);
                    permit.record(now, Verdict::Ignored);
                }
            }
            self.fifo.answer(Local::unreachable(&self.settings.backend, fault));
        }
    }

    fn on_queued(&mut self, queued: bool) {
        if let Life::Dial(permit) = &self.life {
            permit.set_owed(!queued);
        }
    }

    fn on_full(&mut self, now: Instant, _limit: u32) {
        if let Life::Dial(permit) = std::mem::replace(&mut self.life, Life::Finish) {
            permit.record(now, Verdict::Ignored);
            self.fifo.answer(Local::full());
        }
    }

    fn queued(&self) -> Option<Instant> {
        self.queued.as_deref().copied().filter(|_| matches!(self.life, Life::Relay(_)))
    }

    fn on_client_eof(&mut self, _now: Instant) {
        self.client_eof = true;
        match self.life {
            Life::Idle => self.life = Life::Finish,
            _ => self.settle(),
        }
    }

    fn may_forward_eof(&self) -> bool {
        match self.life {
            // Redis lets go of a blocked client at its FIN. Were it kept back, a worker that died in BLPOP would
            // still be handed the next job, and the job would be lost.
            // What is left of a request that its client broke off will never come, and so neither will its reply.
            Life::Relay(_) => {
                self.fifo.is_empty() || self.blocked() || self.uploading() && self.fifo.requests() == 1
            }
            Life::Opaque => true,
            _ => false,
        }
    }

    fn on_server_eof(&mut self, now: Instant, fault: Fault) {
        let Life::Relay(link) = self.life else {
            if matches!(self.life, Life::Opaque) {
                self.end(Life::Finish);
            }
            return;
        };
        let whole = self.replies.at_boundary();
        let expected = self.dismissed
            || self.client_eof && self.may_forward_eof()
            || self.fifo.owed().any(|owed| owed.effect == Effect::Leave);
        if !expected {
            if let (Link::Fresh(generation), false) = (link, self.held) {
                // It accepted and closed before it was sent a byte, while a client's first request waits: a proxy
                // or a container's port in front of a dead server does that.
                match self.probes.is_empty() {
                    false => self.probes.remove(0).permit.record(now, Verdict::Failure(fault.into())),
                    true => self.failed_at_birth(now, generation, Verdict::Failure(fault.into())),
                }
            } else {
                self.fail(now, fault);
            }
        }
        self.end(if whole { Life::Finish } else { Life::Abort });
    }

    fn on_deadline(&mut self, now: Instant) {
        let Some(limit) = self.limit() else { return };
        if let Some(until) = self.settings.paused() {
            // Deadlines run from the end of a CLIENT PAUSE, during which nobody gets a reply.
            let until = until + limit.saturating_sub(self.grace);
            if until > now {
                self.grace += until.saturating_duration_since(now);
                return;
            }
            self.settings.pause(None);
        }
        let whole = self.replies.at_boundary();
        self.fail(now, Fault::Timeout);
        if whole {
            self.fifo.answer(Local::silent(&self.settings.backend, limit));
            self.life = Life::Finish;
        } else {
            self.life = Life::Abort;
        }
    }

    fn watches_breaker(&self) -> bool {
        self.poison.is_some() && matches!(self.life, Life::Relay(_))
    }

    fn on_breaker_change(&mut self, _now: Instant) {
        // Kept any longer, the connection would go on rejecting with the backend back; used again, it would run
        // commands on the wrong database or as the wrong user.
        let Some(poison) = &self.poison else { return };
        self.poisoned_open |= poison.is_open();
        let gate = self.lane.gate();
        if gate.rejects_all() {
            self.poisoned_open = true;
        } else if self.poisoned_open || gate.state() != State::HalfOpen || gate.mode() == Mode::Observe {
            self.hang_up();
            self.settle();
        }
    }

    fn on_drain(&mut self, _now: Instant) {
        self.draining = true;
        match self.life {
            Life::Idle | Life::Opaque => self.end(Life::Finish),
            _ => self.settle(),
        }
    }

    fn on_drain_over(&mut self, _now: Instant) {
        match self.life {
            Life::Finish | Life::Abort => {}
            _ if self.replies.at_boundary() => self.end(Life::Finish),
            _ => self.end(Life::Abort),
        }
    }
}

impl Session {
    /// A connection that the breaker let through has turned out to be none.
    pub(super) fn failed_at_birth(&self, now: Instant, generation: Generation, verdict: Verdict) {
        self.lane.passed(1);
        self.lane.permit_of(generation, CallKind::Connect, now).record(now, verdict);
    }

    /// Ends the connection after what is owed before.
    pub(super) fn hang_up(&mut self) {
        if !self.fifo.ends() {
            self.fifo.answer(Local::End);
        }
        self.request = Request::Closed;
        self.held = false;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The client is gone with calls in flight: they say nothing about the backend, but they have ended.
        self.abandon();
    }
}
