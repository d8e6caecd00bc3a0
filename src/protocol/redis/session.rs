//! The life of one Redis client connection and its upstream connection.
//!
//! This file owns the state and the events that are not bytes: connecting, end of input, deadlines, drain.
//! `downstream` decides on requests, `upstream` matches replies, `patience` knows whose move it is, `ending` accounts
//! for calls whose connection is over. Absent on purpose: sockets, clocks, values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Settings;
use super::fate::{Decided, Way};
use super::fifo::{Fifo, Head};
use super::owed::Effect;
use super::probe::Probes;
use super::reject::Local;
use super::reply::Replies;
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
    pub(super) blocks: u32,
    /// The backend holds a WATCH of this connection.
    pub(super) watching: bool,
    /// A WATCH was rejected: the transaction it was to guard must not run.
    pub(super) unwatched: Option<Rejection>,
    /// A command that sets the connection's state was rejected: nothing may ever be sent on it again.
    pub(super) poison: Option<Rejection>,
    /// The breaker has been seen open since then.
    poisoned_open: bool,
    pub(super) probes: Probes,
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
    /// Within a request that has been decided upon, and that has not come whole.
    Body(Box<Decided>),
    /// Nothing that follows is looked at: QUIT, or a breach of the protocol.
    Closed,
    /// Everything that follows is passed on.
    Opaque,
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
    Open { number: u32, generation: Generation, unbounded: bool, scripted: bool },
    /// One that was rejected: the backend knows nothing of it, and none of it will pass.
    Virtual(Rejection),
}

impl Session {
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
            probes: Probes::default(),
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
        if self.draining && quiet && between && !block {
            return self.end(Life::Finish);
        }
        if !self.probes.is_empty() {
            let owed = self.backend_owes();
            self.probes.set_owed(owed);
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
        // With nothing owed before it a reply's turn may come in the middle of a message that was pushed.
        if !self.fifo.local_is_due() || !self.replies.at_boundary() {
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
                    self.probes.hold(*permit, false, false);
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

    fn is_parting(&self) -> bool {
        self.client_eof && self.may_forward_eof()
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
                match self.probes.release_oldest() {
                    Some(probe) => probe.record(now, Verdict::Failure(fault.into())),
                    None => self.failed_at_birth(now, generation, Verdict::Failure(fault.into())),
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

impl Drop for Session {
    fn drop(&mut self) {
        // The client is gone with calls in flight: they say nothing about the backend, but they have ended.
        self.abandon();
    }
}
