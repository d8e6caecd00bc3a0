//! Requests: from the client's bytes to spans.
//!
//! With a closed breaker a pipeline of ordinary commands is one span and one entry in the queue; every other request
//! is put to `decide` when its head is known.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;

use super::asked::Asked;
use super::command::{Command, TimeoutWatch};
use super::fate::{Decided, Fate, Then, Way};
use super::owed::{Account, Calls, Owed};
use super::reject::Local;
use super::request::{self, Body, Breach, Flow, Head, Known, Peek};
use super::session::{Block, Life, Link, Mute, Request, Session};
use super::{Live, Settings};
use crate::breaker::{CallKind, Generation};
use crate::gate::Rejection;
use crate::metrics::Counter;
use crate::protocol::Plan;

/// What holds for all requests of one read.
pub(super) struct Batch {
    pub(super) now: Instant,
    /// The generation, if the breaker is closed.
    pub(super) closed: Option<Generation>,
    /// What the breaker said to the first request that it did not let through.
    pub(super) rejection: Option<Rejection>,
    /// The settings in force, once something depends on them.
    live: OnceCell<Guard<Arc<Live>>>,
    /// Ordinary calls not yet in the queue.
    run: u64,
}

impl Batch {
    /// The settings in force, the same for the whole batch.
    pub(super) fn live(&self, settings: &Settings) -> &Live {
        self.live.get_or_init(|| settings.live.load())
    }
}

impl Session {
    /// Takes in what the client has sent.
    pub(super) fn requests(&mut self, now: Instant, input: &[u8], plan: &mut Plan) {
        let closed = self.lane.closed();
        let mut batch = Batch { now, closed, rejection: None, live: OnceCell::new(), run: 0 };
        self.held = false;
        loop {
            let rest = input.get(plan.consumed()..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let more = match &mut self.request {
                Request::Head { seen } => {
                    let head = request::head(rest, seen);
                    self.head(&mut batch, head, rest, plan)
                }
                Request::Body(_) => self.rest(rest, plan),
                Request::Closed => {
                    plan.drop(rest.len());
                    break;
                }
                Request::Opaque => {
                    plan.forward(rest.len());
                    break;
                }
            };
            match more {
                Ok(true) => {}
                Ok(false) => {
                    self.held = matches!(self.request, Request::Head { .. });
                    break;
                }
                Err(breach) => {
                    self.flush(&mut batch);
                    self.breached(breach);
                    plan.drop(input.len() - plan.consumed());
                    break;
                }
            }
        }
        self.flush(&mut batch);
        if self.fifo.is_full() && matches!(self.life, Life::Relay(_)) && !self.fifo.ends() {
            self.breached(Breach::TooManyInFlight);
        }
    }

    /// At the head of a request. Whether to go on.
    #[inline]
    fn head(
        &mut self,
        batch: &mut Batch,
        head: Head<'_>,
        rest: &[u8],
        plan: &mut Plan,
    ) -> Result<bool, Breach> {
        match head {
            Head::Partial => Ok(false),
            Head::Broken(breach) => Err(breach),
            Head::Nothing(len) => {
                self.request = Request::Head { seen: 0 };
                if self.mute == Mute::Next {
                    // It is a request all the same, and CLIENT REPLY SKIP counts requests.
                    self.mute = Mute::No;
                }
                match self.live() {
                    true => {
                        plan.forward(len);
                        self.sent();
                    }
                    false => plan.drop(len),
                }
                Ok(true)
            }
            Head::Command { name, args, len } => {
                let command = Command::of(name);
                if command == Command::Ordinary
                    && batch.closed.is_some()
                    && self.open_road()
                    && !(self.settings.names_unbounded()
                        && batch.live(&self.settings).unbounded.mentions(name))
                {
                    let known = Known::new(rest, name, args, len);
                    return self.ordinary(batch, Body::new(args), len, known, rest, plan);
                }
                let behind = rest.get(len..).unwrap_or_default();
                let Live { cures, unbounded, .. } = batch.live(&self.settings);
                let needs_arguments = command.needs_arguments()
                    || cures.depends_on_argument(name)
                    || unbounded.depends_on_argument(name);
                let first = match needs_arguments {
                    false => [&b""[..]; 2],
                    true => match request::peek(behind, args) {
                        Peek::Partial => return Ok(false),
                        Peek::Broken(breach) => return Err(breach),
                        Peek::Words(words) => words,
                    },
                };
                let command = if unbounded.has(name, first[0]) { command.unbounded() } else { command };
                let cure = cures.has(name, first[0]);
                self.flush(batch);
                if self.must_wait(batch) {
                    return Ok(false);
                }
                let asked = Asked { command, cure, args, first, muted: false, at: batch.now };
                let fate = self.begin(batch, asked, plan);
                pass(&fate, len, plan);
                let watch = self.watch(command, &fate);
                // A request without arguments ends here, and there may be nothing behind it to come back for.
                self.body(Decided { body: Body::new(args), fate, watch }, behind, plan)
            }
            Head::Inline { words, len } => {
                let Some((name, arguments)) = words.split_first() else { return Ok(true) };
                let command = Command::of(name);
                let word = |at: usize| arguments.get(at).map_or(&b""[..], Vec::as_slice);
                if self.must_wait(batch) {
                    return Ok(false);
                }
                let args = arguments.len() as u64;
                let first = [word(0), word(1)];
                let Live { cures, unbounded, .. } = batch.live(&self.settings);
                let command = if unbounded.has(name, first[0]) { command.unbounded() } else { command };
                let cure = cures.has(name, first[0]);
                self.flush(batch);
                let asked = Asked { command, cure, args, first, muted: false, at: batch.now };
                let fate = self.begin(batch, asked, plan);
                pass(&fate, len, plan);
                let mut watch = self.watch(command, &fate);
                if let Some(watch) = &mut watch {
                    arguments.iter().for_each(|argument| watch.argument(Some(argument)));
                }
                self.finished(fate, watch);
                Ok(true)
            }
        }
    }

    /// An ordinary request with nothing in its way, whose head takes `len` bytes of `rest`, and those behind it that
    /// begin alike: one span. Whether to go on.
    #[inline]
    fn ordinary(
        &mut self,
        batch: &mut Batch,
        mut body: Body,
        len: usize,
        known: Option<Known<'_>>,
        rest: &[u8],
        plan: &mut Plan,
    ) -> Result<bool, Breach> {
        batch.run += 1;
        let flow = body.advance(rest.get(len..).unwrap_or_default(), None);
        if let Flow::Done(more) = flow {
            let mut whole = len + more;
            while let Some(len) = known.and_then(|known| known.again(rest.get(whole..)?)) {
                batch.run += 1;
                whole += len;
            }
            plan.forward(whole);
            self.request = Request::Head { seen: 0 };
            return Ok(true);
        }
        let fate = Fate { way: Way::Forward { owed: true }, then: Then::GoOn };
        self.request = Request::Body(Box::new(Decided { body, fate, watch: None }));
        match flow {
            Flow::Done(more) | Flow::Partial(more) => {
                plan.forward(len + more);
                Ok(false)
            }
            Flow::Broken(breach) => Err(breach),
        }
    }

    /// Whether a request had better wait for others to end.
    fn must_wait(&mut self, batch: &Batch) -> bool {
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

    /// The rest of a request that has been decided upon. Whether to go on.
    fn rest(&mut self, rest: &[u8], plan: &mut Plan) -> Result<bool, Breach> {
        match std::mem::replace(&mut self.request, Request::Head { seen: 0 }) {
            Request::Body(decided) => self.body(*decided, rest, plan),
            other => {
                self.request = other;
                Ok(true)
            }
        }
    }

    /// A request that has been decided upon, behind its head. Whether to go on.
    fn body(&mut self, mut decided: Decided, rest: &[u8], plan: &mut Plan) -> Result<bool, Breach> {
        let flow = match &mut decided.watch {
            Some(watch) => decided.body.advance(rest, Some(&mut |word| watch.argument(word))),
            None => decided.body.advance(rest, None),
        };
        let more = match flow {
            Flow::Done(len) => {
                pass(&decided.fate, len, plan);
                self.finished(decided.fate, decided.watch);
                return Ok(true);
            }
            Flow::Partial(len) => {
                pass(&decided.fate, len, plan);
                Ok(false)
            }
            Flow::Broken(breach) => Err(breach),
        };
        self.request = Request::Body(Box::new(decided));
        more
    }

    /// A request's last byte has come.
    fn finished(&mut self, fate: Fate, watch: Option<Box<TimeoutWatch>>) {
        self.request = Request::Head { seen: 0 };
        match fate.way {
            Way::Forward { owed } => {
                if let (true, Some(watch), Some(tail)) = (owed, watch, self.fifo.tail_owed()) {
                    match watch.found() {
                        Some(patience) => tail.patience = patience,
                        None => tail.timed = true,
                    }
                }
            }
            Way::Swallow(Some(local)) => self.fifo.answer(local),
            Way::Swallow(None) | Way::Replaced => {}
        }
        match fate.then {
            Then::GoOn => {}
            Then::Close => self.request = Request::Closed,
            Then::HangUp => self.hang_up(),
            // Nothing behind it would be looked at: the transaction of a rejected WATCH would run.
            Then::Relay if self.estranged() => self.hang_up(),
            Then::Relay => {
                self.fifo.relay();
                self.request = Request::Opaque;
            }
        }
    }

    /// The client has broken the protocol: it is told so after all that it is owed, and hung up on.
    fn breached(&mut self, breach: Breach) {
        self.lane.add(Counter::ClientMalformed, 1);
        if self.uploading()
            && let Some(owed) = self.fifo.take_back()
        {
            // The backend has been given a part of this request at most, and will never see the rest.
            self.forget(&owed);
        }
        if self.mute == Mute::No {
            self.fifo.answer(Local::breach(breach));
        }
        self.hang_up();
    }

    fn forget(&mut self, owed: &Owed) {
        if matches!(owed.account, Account::Call { .. }) {
            self.lane.ignored(1);
        }
        drop(self.probes.release(owed.probe));
    }

    /// Whether an ordinary command passes without a second look while the breaker is closed.
    #[inline]
    fn open_road(&self) -> bool {
        self.mute == Mute::No && self.live() && !matches!(self.block, Block::Virtual(_))
    }

    /// Puts the ordinary calls of this batch into the queue, before something else gets behind them.
    #[inline]
    fn flush(&mut self, batch: &mut Batch) {
        if let (1.., Some(generation)) = (batch.run, batch.closed) {
            self.lane.passed(batch.run);
            self.fifo.owe_calls(Calls { n: batch.run, generation, start: batch.now });
            self.sent();
            batch.run = 0;
        }
    }

    /// Something has been sent to the backend.
    pub(super) fn sent(&mut self) {
        if matches!(self.life, Life::Relay(Link::Fresh(_))) {
            self.life = Life::Relay(Link::Used);
        }
    }

    /// What to look for in the arguments of a request that has been let through.
    fn watch(&self, command: Command, fate: &Fate) -> Option<Box<TimeoutWatch>> {
        match command {
            // Inside a transaction they do not block.
            Command::Blocking(clock)
                if fate.way == (Way::Forward { owed: true }) && !matches!(self.block, Block::Open { .. }) =>
            {
                Some(Box::new(TimeoutWatch::new(clock)))
            }
            _ => None,
        }
    }
}

/// Passes `len` bytes of a request on, or not.
#[inline]
fn pass(fate: &Fate, len: usize, plan: &mut Plan) {
    match fate.way {
        Way::Forward { .. } => plan.forward(len),
        Way::Swallow(_) | Way::Replaced => plan.drop(len),
    }
}
