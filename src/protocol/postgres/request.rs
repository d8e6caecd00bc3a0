//! The client's messages while bytes flow: which unit each belongs to, and whether that unit passes.
//!
//! Admission is one decision per unit, made at its first message (PROTOCOLS.md §3.4), and only where a rejection
//! cannot hurt: the last transaction status is `I` and nothing in flight can change it. A batch is judged by one
//! look at the breaker.

use std::time::Instant;

use super::empty::{Known, Look};
use super::ledger::Account;
use super::message::{HEADER, Header};
use super::reply::{Gravity, Reply};
use super::session::{Session, Stage};
use super::statement::{Name, Names, Peek, Scanner, Shape, Turn};
use super::units::{Flight, Kind, Local, Queue};
use crate::breaker::{CallKind, Generation, Verdict};
use crate::gate::{Lane, Rejection};
use crate::metrics::Counter;
use crate::protocol::Plan;

/// How much of a statement is looked at to see whether it may last: enough for a comment before it.
const TEXT_MAX: usize = 1024;
/// How much of a Bind is looked at for its statement's name.
const NAMES_MAX: usize = 1024;
/// How far ahead Close messages are followed to see whether nothing but a Sync comes after them.
const CLOSES_MAX: usize = 16 * 1024;
/// A statement name that nobody has prepared. A Bind or Describe that names a rejected statement in the middle of
/// a run that has begun is replaced by one that names this, so that the server itself raises the error in its
/// turn. Were the message forwarded, it could meet an older statement of the same name.
const NOBODY: &[u8] = b"fusewire: its Parse was rejected\0";

/// The client's side of a session.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// The message that is being read, if its end has not come.
    body: Option<Body>,
    pub(super) run: Run,
    /// COPY data is expected: Syncs are swallowed.
    pub(super) copying: bool,
    /// Nothing that the client sends matters any more: our last word is queued.
    pub(super) is_over: bool,
    /// Terminate has been sent.
    pub(super) terminated: bool,
    /// The rejection that everything meets until nothing more can be read.
    sticky: Option<Box<Rejection>>,
    /// Statements whose Parse was rejected.
    names: Names,
    /// Statements that are known to be empty.
    pub(super) empties: Known,
    doom: Doom,
    /// The last generation known to be closed, for units that pass because they belong to what began then.
    generation: Generation,
    /// What the server has asked for in authentication, and what the client has answered.
    pub(super) challenges: u32,
    answers: u32,
    /// The next unit waits for others to end, until then.
    pub(super) queued: Option<Box<Instant>>,
}

/// Where the client is with respect to extended runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Between units.
    #[default]
    Outside,
    /// Within a run that is forwarded. Left by its Sync.
    Inside,
    /// As before, but the server has met an error and skips everything up to the Sync.
    Skipped,
    /// Within a run that is rejected. Left by its Sync.
    Rejected,
}

/// Whether a transaction whose BEGIN was rejected goes on in the client's mind (ADR 0011). What belongs to it must
/// never run by itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Doom {
    /// No.
    #[default]
    None,
    /// Perhaps. Left by COMMIT, ROLLBACK, and by a BEGIN that passes.
    Doomed,
    /// As before, and the rejected run has parsed a COMMIT or ROLLBACK: its Execute is the end.
    Ending,
}

#[derive(Debug)]
struct Body {
    left: usize,
    act: Act,
}

/// What becomes of a message.
#[derive(Debug)]
enum Act {
    Forward(End),
    Drop,
    /// Dropped, after a look at what it would have done. `opens`: it is the first of its unit.
    Refuse {
        tag: u8,
        peek: Peek,
        opens: bool,
    },
}

/// What the end of a forwarded message means.
#[derive(Debug)]
enum End {
    Nothing,
    /// The Query is whole, and of this shape; a FunctionCall has none.
    Query(Option<Shape>),
    /// An answer in authentication is whole.
    Answer,
}

/// What to do with a message whose header has been read.
enum Step {
    Take(Act),
    /// Forward this in its place.
    Replace(Vec<u8>),
    /// Drop so many bytes that are all there.
    Drop(usize),
    /// More bytes are needed to decide.
    Hold,
    /// The session has changed its stage: look again.
    Again,
}

/// A message whose header has been read, with as much of its body as there is.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) tag: u8,
    /// The body's length when whole.
    pub(super) len: usize,
    pub(super) body: &'a [u8],
    /// The message and everything behind it.
    pub(super) rest: &'a [u8],
}

impl<'a> Message<'a> {
    #[inline]
    pub(super) fn new(tag: u8, len: usize, rest: &'a [u8]) -> Self {
        let body = rest.get(HEADER..).unwrap_or_default();
        Self { tag, len, body: body.get(..len).unwrap_or(body), rest }
    }

    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.body.len() == self.len
    }
}

/// What becomes of a unit while a transaction is doomed.
enum Fate {
    /// It is judged as ever.
    Ordinary,
    /// It is judged as ever, and if it passes the doom is over.
    Revives,
    /// It is a ROLLBACK.
    RollsBack,
    /// It is a COMMIT, which must not succeed.
    Fails,
    /// This is to be done with it.
    Step(Step),
}

enum Decision {
    Pass(Account),
    Refuse,
    Hold,
}

/// One slice of input.
#[derive(Default)]
struct Batch {
    /// The breaker's generation if it is closed, once looked at.
    closed: Option<Option<Generation>>,
    passed: u64,
}

impl Batch {
    #[inline]
    fn closed(&mut self, lane: &Lane) -> Option<Generation> {
        *self.closed.get_or_insert_with(|| lane.closed())
    }
}

impl Client {
    /// The startup packet is to be forwarded first.
    pub(super) fn expect_startup(&mut self, len: usize, generation: Generation) {
        self.generation = generation;
        self.body = Some(Body { left: len, act: Act::Forward(End::Nothing) });
    }

    /// Nothing of the client's is half sent.
    pub(super) fn is_idle(&self) -> bool {
        self.body.is_none() && self.run == Run::Outside && !self.is_over
    }
}

impl Session {
    /// Whether authentication waits for the client.
    pub(super) fn client_owes(&self) -> bool {
        self.client.answers < self.client.challenges
    }

    /// Whether a rejection now cannot fall into a transaction.
    #[inline]
    fn may_reject(&self) -> bool {
        self.server.status == b'I' && !self.queue.is_entangled()
    }

    /// Takes the client's bytes in [`Stage::Relay`].
    pub(super) fn on_requests(&mut self, now: Instant, input: &[u8], drained: bool, plan: &mut Plan) {
        let mut batch = Batch::default();
        loop {
            let rest = input.get(plan.consumed()..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match self.stage {
                Stage::Relay if self.client.is_over => plan.drop(rest.len()),
                Stage::Relay => {}
                Stage::Opaque => plan.forward(rest.len()),
                _ => plan.drop(rest.len()),
            }
            if plan.consumed() == input.len() {
                break;
            }
            if self.client.body.is_some() {
                self.take_body(now, rest, plan);
                continue;
            }
            let Some(header) = Header::read(rest) else { break };
            let Some(len) = header.client_body() else {
                self.client_malformed("invalid message length");
                continue;
            };
            match self.request(now, Message::new(header.tag, len, rest), &mut batch) {
                // The closed path: a whole message of an extended run leaves no state behind.
                Step::Take(Act::Forward(End::Nothing)) if len <= rest.len() - HEADER => {
                    plan.forward(HEADER + len);
                }
                Step::Take(act) => {
                    match act {
                        Act::Forward(_) => plan.forward(HEADER),
                        Act::Drop | Act::Refuse { .. } => plan.drop(HEADER),
                    }
                    self.client.body = Some(Body { left: len, act });
                    self.take_body(now, rest.get(HEADER..).unwrap_or_default(), plan);
                }
                Step::Replace(message) => {
                    plan.insert(&message);
                    plan.drop(HEADER);
                    self.client.body = Some(Body { left: len, act: Act::Drop });
                }
                Step::Drop(n) => plan.drop(n),
                Step::Hold => break,
                Step::Again => {}
            }
        }
        if batch.passed > 0 {
            self.lane().passed(batch.passed);
        }
        if drained && plan.consumed() == input.len() && self.client.body.is_none() {
            self.client.sticky = None;
        }
    }

    /// Takes what there is of the message that is being read.
    #[inline]
    fn take_body(&mut self, now: Instant, rest: &[u8], plan: &mut Plan) {
        let Some(body) = &mut self.client.body else { return };
        let n = body.left.min(rest.len());
        body.left -= n;
        match &mut body.act {
            Act::Forward(end) => {
                if let End::Query(Some(shape)) = end {
                    shape.feed(rest.get(..n).unwrap_or_default());
                }
                plan.forward(n);
            }
            Act::Drop => plan.drop(n),
            Act::Refuse { peek, .. } => {
                peek.feed(rest.get(..n).unwrap_or_default());
                plan.drop(n);
            }
        }
        if body.left == 0
            && let Some(Body { act, .. }) = self.client.body.take()
        {
            self.message_ended(now, act);
        }
    }

    #[inline]
    fn message_ended(&mut self, now: Instant, act: Act) {
        match act {
            Act::Forward(End::Nothing) | Act::Drop => {}
            Act::Forward(End::Query(shape)) => {
                if let Some(shape) = &shape {
                    self.client.empties.ran(shape);
                }
                self.queue.completed(now, shape.is_none_or(|shape| shape.is_plain()));
            }
            Act::Forward(End::Answer) => {
                self.client.answers = self.client.answers.saturating_add(1);
                if !self.client_owes() {
                    self.probe_owed(true);
                }
            }
            Act::Refuse { tag, peek, opens } => self.refused(now, tag, peek, opens),
        }
    }

    /// A rejected message has been read to its end.
    fn refused(&mut self, now: Instant, tag: u8, peek: Peek, opens: bool) {
        let lost = peek.finish();
        self.client.doom = match (tag, self.client.doom) {
            _ if lost.begins => Doom::Doomed,
            (b'P', Doom::Doomed) if lost.ends => Doom::Ending,
            (b'P', Doom::Ending) if !lost.ends => Doom::Doomed,
            (b'E', Doom::Ending) => Doom::None,
            (_, doom) => doom,
        };
        let room = lost.name.is_none_or(|name| {
            self.client.empties.lost(&name);
            self.client.names.insert(&name)
        });
        let rejection = self.client.sticky.clone();
        match (rejection, opens) {
            (Some(rejection), _) if lost.sets || !room => {
                // A session that goes on without its SET would work as the wrong user or in the wrong schema.
                self.refuse_session(now, &rejection, self.settings.reject_query());
            }
            (None, _) if lost.sets || !room => {
                self.end_for("a statement that sets session state was rejected with those before it");
            }
            (Some(rejection), true) => self.queue.reply(match tag {
                b'Q' | b'F' => Local::Refused(rejection, 1),
                _ => Local::Refusal(rejection),
            }),
            _ => {}
        }
    }

    /// Ends a session whose state is no longer what its client believes.
    fn end_for(&mut self, message: &str) {
        let code = self.settings.reject_query();
        let hint = "connect again";
        let fatal = Reply { gravity: Gravity::Fatal, code: code.as_str(), message, detail: "", hint };
        self.end_with(fatal.bytes());
    }

    /// Decides about a message.
    fn request(&mut self, now: Instant, message: Message<'_>, batch: &mut Batch) -> Step {
        let tag = message.tag;
        if self.queue.is_full() {
            self.too_many();
            return Step::Again;
        }
        match (tag, self.client.run) {
            (b'X', _) => {
                self.client.terminated = true;
                Step::Take(Act::Forward(End::Nothing))
            }
            (b'S', Run::Rejected) => {
                self.client.run = Run::Outside;
                if self.client.doom == Doom::Ending {
                    self.client.doom = Doom::Doomed;
                }
                self.queue.reply_ready();
                Step::Take(Act::Drop)
            }
            (_, Run::Rejected) => Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: false }),
            (b'p', _) => Step::Take(Act::Forward(End::Answer)),
            (b'd' | b'c' | b'f' | b'H', _) => self.stray(tag),
            (b'S', run) => self.sync(now, run, batch),
            (b'Q' | b'F' | b'P' | b'B' | b'D' | b'E' | b'C', Run::Skipped) => {
                Step::Take(Act::Forward(End::Nothing))
            }
            (b'P' | b'C', _) if self.is_to_be_learned(message) => Step::Hold,
            (b'Q' | b'P' | b'B', Run::Outside) if !self.passes(batch) && self.may_reject() => {
                match self.look_for_empty(message) {
                    Look::Empty(len, answer) => self.stand_in(tag, len, answer),
                    Look::Partial => Step::Hold,
                    Look::Other if tag == b'Q' => self.simple(now, message, Run::Outside, batch),
                    Look::Other => self.extended(now, message, Run::Outside, batch),
                }
            }
            (b'Q' | b'F', run) => self.simple(now, message, run, batch),
            (b'P' | b'B' | b'D' | b'E' | b'C', run) => self.extended(now, message, run, batch),
            _ if self.queue.has_local() || self.client.sticky.is_some() => {
                self.client_malformed("invalid frontend message type");
                Step::Again
            }
            _ => {
                self.turn_opaque(now);
                Step::Again
            }
        }
    }

    /// Answers an empty unit in the server's place.
    fn stand_in(&mut self, tag: u8, len: usize, answer: Vec<u8>) -> Step {
        if tag == b'P' {
            // The server's unnamed statement is another one.
            self.client.names.insert(&Name::default());
        }
        self.queue.reply(Local::Empty(answer, 1));
        Step::Drop(len)
    }

    /// COPY data, which a server outside COPY IN ignores, and Flush, which opens nothing. They go the way of what
    /// went before them.
    fn stray(&mut self, tag: u8) -> Step {
        if self.client.sticky.is_some() && self.queue.flights() == 0 {
            return Step::Take(Act::Drop);
        }
        if tag == b'H' {
            if self.client.run != Run::Skipped {
                self.queue.flush();
            }
        } else if matches!(tag, b'c' | b'f') {
            if self.client.copying {
                self.client.copying = false;
            } else {
                self.queue.copy_ended_early();
            }
        }
        Step::Take(Act::Forward(End::Nothing))
    }

    fn sync(&mut self, now: Instant, run: Run, batch: &mut Batch) -> Step {
        if self.client.copying {
            return Step::Take(Act::Forward(End::Nothing));
        }
        self.client.run = Run::Outside;
        match self.queue.tail() {
            Some(tail) if run != Run::Outside && tail.kind == Kind::Extended && !tail.whole => {
                tail.whole = true;
                tail.start = now;
                tail.owed(true);
            }
            _ => {
                // By itself it is no call. While calls are rejected it must not hang on the backend either.
                if run == Run::Outside && self.may_reject() && !self.passes(batch) {
                    self.queue.reply(Local::Ready(1));
                    return Step::Take(Act::Drop);
                }
                let mut flight = Flight::new(Kind::Extended, Account::Settled, now, false);
                flight.whole = true;
                self.queue.launch(flight);
            }
        }
        Step::Take(Act::Forward(End::Nothing))
    }

    fn simple(&mut self, now: Instant, message: Message<'_>, run: Run, batch: &mut Batch) -> Step {
        let tag = message.tag;
        let within = run == Run::Inside;
        let mut revives = false;
        if self.client.doom != Doom::None {
            match self.doomed(now, message, run, batch) {
                Fate::Ordinary => {}
                Fate::Revives => revives = true,
                Fate::Step(step) => return step,
                Fate::RollsBack => {
                    self.client.doom = Doom::None;
                    self.queue.reply(Local::RolledBack);
                    self.queue.reply(Local::Ready(1));
                    return Step::Take(Act::Drop);
                }
                Fate::Fails => {
                    self.client.doom = Doom::None;
                    self.lane().add(Counter::RejectedSession, 1);
                    self.queue.reply(Local::Undone);
                    self.queue.reply(Local::Ready(1));
                    return Step::Take(Act::Drop);
                }
            }
        }
        let account = match self.decide(now, message, within, batch) {
            Decision::Pass(account) => account,
            Decision::Refuse => {
                return Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: true });
            }
            Decision::Hold => return Step::Hold,
        };
        if revives {
            self.client.doom = Doom::None;
        }
        let mut flight = Flight::new(Kind::Simple, account, now, true);
        flight.within = within;
        flight.owed(false);
        self.queue.launch(flight);
        Step::Take(Act::Forward(End::Query((tag == b'Q').then(Shape::default))))
    }

    fn extended(&mut self, now: Instant, message: Message<'_>, run: Run, batch: &mut Batch) -> Step {
        let tag = message.tag;
        let mut passing_name = None;
        let mut revives = false;
        let mut act = Step::Take(Act::Forward(End::Nothing));
        // Close touches nothing but names.
        if self.client.doom != Doom::None && tag != b'C' {
            match self.doomed(now, message, run, batch) {
                Fate::Ordinary => {}
                Fate::Revives | Fate::RollsBack => revives = true,
                Fate::Step(step) => return step,
                Fate::Fails => {
                    self.lane().add(Counter::RejectedSession, 1);
                    self.queue.reply(Local::Undone);
                    self.client.run = Run::Rejected;
                    return Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: false });
                }
            }
        }
        if !self.client.names.is_empty() {
            match self.names_rejected(message) {
                None => return Step::Hold,
                Some(true) if run == Run::Outside && self.may_reject() && self.passes(batch) => {
                    self.lane().add(Counter::RejectedSession, 1);
                    self.queue.reply(Local::Missing);
                    self.client.run = Run::Rejected;
                    return Step::Take(Act::Drop);
                }
                Some(true) => act = Step::Replace(substitute(tag)),
                Some(false) => {}
            }
            if tag == b'P' {
                let Some(name) = name_at(message.body, message.len) else { return Step::Hold };
                passing_name = Some(name);
            }
        }
        if run == Run::Inside {
            self.extend(now, batch);
        } else {
            let closes_only = if tag == b'C' && self.may_reject() && !self.passes(batch) {
                match closes_only(message.rest) {
                    None if message.rest.len() < CLOSES_MAX => return Step::Hold,
                    answer => answer == Some(true),
                }
            } else {
                false
            };
            let decision = if closes_only {
                Decision::Pass(Account::Settled)
            } else {
                self.decide(now, message, false, batch)
            };
            let account = match decision {
                Decision::Pass(account) => account,
                Decision::Refuse => {
                    self.client.run = Run::Rejected;
                    return Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: true });
                }
                Decision::Hold => return Step::Hold,
            };
            if revives {
                self.client.doom = Doom::None;
            }
            let mut flight = Flight::new(Kind::Extended, account, now, !closes_only);
            flight.pending = 1;
            flight.owed(false);
            self.queue.launch(flight);
            self.client.run = Run::Inside;
        }
        if tag == b'E' {
            self.queue.executes();
        }
        self.learn(message);
        if let Some(name) = passing_name {
            self.client.names.remove(&name);
        }
        act
    }

    /// Whether nothing stands against calls: the breaker is closed, and no rejection is being carried on.
    fn passes(&self, batch: &mut Batch) -> bool {
        self.client.sticky.is_none() && batch.closed(self.ledger.lane()).is_some()
    }

    /// One more message in the run that is being sent.
    fn extend(&mut self, now: Instant, batch: &mut Batch) {
        match self.queue.tail() {
            Some(tail) if tail.kind == Kind::Extended && !tail.whole => {
                tail.pending = tail.pending.saturating_add(1);
            }
            // A Query has cut the run short; what follows is a part of its own.
            _ => {
                batch.passed += 1;
                let account = Account::Passed(self.client.generation);
                let mut flight = Flight::new(Kind::Extended, account, now, true);
                flight.pending = 1;
                self.queue.launch(flight);
            }
        }
    }

    /// Whether a unit passes that begins with this message.
    #[inline]
    fn decide(&mut self, now: Instant, message: Message<'_>, within: bool, batch: &mut Batch) -> Decision {
        // A Query within a run that has begun is part of what was let through.
        if let (Some(rejection), false) = (&self.client.sticky, within) {
            self.ledger.lane().rejected(rejection, 1);
            return Decision::Refuse;
        }
        if let Some(generation) = batch.closed(self.ledger.lane()) {
            self.client.generation = generation;
        } else if self.may_reject() && !within {
            return self.ask(now, message);
        }
        batch.passed += 1;
        Decision::Pass(Account::Passed(self.client.generation))
    }

    /// What becomes of a unit that begins with this message while a transaction is doomed.
    fn doomed(&mut self, now: Instant, message: Message<'_>, run: Run, batch: &mut Batch) -> Fate {
        // Only a run of Close passes without an end of the doom. Whatever hides behind it was not looked at.
        if run != Run::Outside {
            return self.stranded();
        }
        let Some(scanner) = head(message) else { return Fate::Step(Step::Hold) };
        let whole = message.is_whole();
        match scanner.turn() {
            Some(Turn::Begins) => return Fate::Revives,
            Some(Turn::RollsBack) if whole => return Fate::RollsBack,
            Some(Turn::Commits) if whole => return Fate::Fails,
            Some(Turn::Empty) if whole && matches!(message.tag, b'Q' | b'P') => return Fate::Ordinary,
            _ => {}
        }
        if self.client.sticky.is_some() {
            return Fate::Ordinary;
        }
        if self.passes(batch) {
            return self.stranded();
        }
        match self.ledger.lane().admit_ineligible(now, CallKind::Query) {
            Ok(permit) => {
                permit.record(now, Verdict::Ignored);
                self.stranded()
            }
            Err(rejection) => {
                self.client.sticky = Some(Box::new(rejection));
                let tag = message.tag;
                if !matches!(tag, b'Q' | b'F') {
                    self.client.run = Run::Rejected;
                }
                Fate::Step(Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: true }))
            }
        }
    }

    /// The backend is there again, and nobody can tell whether this belongs to the transaction that was rejected.
    fn stranded(&mut self) -> Fate {
        self.lane().add(Counter::RejectedSession, 1);
        self.end_for("the BEGIN before this statement was rejected, and no ROLLBACK came after it");
        Fate::Step(Step::Again)
    }

    /// Asks the gate, the breaker not being closed.
    fn ask(&mut self, now: Instant, message: Message<'_>) -> Decision {
        let Some(scanner) = head(message) else { return Decision::Hold };
        if self.must_wait(now) {
            return Decision::Hold;
        }
        let lane = self.ledger.lane();
        let answer = if scanner.lasts() {
            lane.admit_ineligible(now, CallKind::Query)
        } else {
            lane.admit(now, CallKind::Query)
        };
        match answer {
            Ok(permit) => Decision::Pass(Account::Permit(Box::new(permit))),
            Err(rejection) => {
                self.client.sticky = Some(Box::new(rejection));
                Decision::Refuse
            }
        }
    }

    /// Whether a unit had better wait for others to end.
    fn must_wait(&mut self, now: Instant) -> bool {
        let wait = self.ledger.lane().crowded(now, CallKind::Query);
        let queued = &mut self.client.queued;
        if wait.is_zero() {
            *queued = None;
            return false;
        }
        let until = **queued.get_or_insert_with(|| Box::new(now + wait));
        if now >= until {
            *queued = None;
        }
        now < until
    }

    /// Whether a Bind or Describe names a statement whose Parse was rejected; none while its name is not there.
    fn names_rejected(&self, message: Message<'_>) -> Option<bool> {
        let Message { tag, len, body, .. } = message;
        let name = match tag {
            b'B' => memchr::memchr(0, body).and_then(|at| body.get(at + 1..)),
            b'D' if body.first() == Some(&b'S') => body.get(1..),
            b'D' if body.is_empty() && len > 0 => None,
            _ => return Some(false),
        };
        let skipped = name.map_or(0, |name| body.len() - name.len());
        match name.and_then(|name| name_at(name, len - skipped)) {
            Some(name) => Some(self.client.names.contains(&name)),
            // A Bind without end is the server's to refuse; a portal's name without end is not waited for.
            None if message.is_whole() => Some(false),
            None if body.len() >= NAMES_MAX => Some(true),
            None => None,
        }
    }

    /// Tells the gate whose move it is in a startup that is a probe.
    pub(super) fn probe_owed(&mut self, owed: bool) {
        if let Some(Flight { kind: Kind::Startup, account: Account::Permit(permit), .. }) = self.queue.peek()
        {
            permit.set_owed(owed);
        }
    }

    fn too_many(&mut self) {
        let message = format!("more than {} requests are waiting for their replies", Queue::MAX);
        let fatal = Reply { gravity: Gravity::Fatal, code: "54000", message: &message, detail: "", hint: "" };
        self.end_with(fatal.bytes());
    }
}

/// The beginning of the statement in a Query or Parse, read; none while too little of it is there. Other messages
/// have none, which reads as one.
fn head(message: Message<'_>) -> Option<Scanner> {
    let Message { tag, body, .. } = message;
    let text = match tag {
        b'Q' => Some(body),
        b'P' => memchr::memchr(0, body).and_then(|at| body.get(at + 1..)),
        _ => Some(&[][..]),
    };
    let enough = message.is_whole() || text.is_some_and(|text| text.len() >= TEXT_MAX);
    if matches!(tag, b'Q' | b'P') && !enough && body.len() < 2 * TEXT_MAX {
        return None;
    }
    let text = text.unwrap_or_default();
    // A Parse goes on with the types of its parameters.
    let text = memchr::memchr(0, text).and_then(|at| text.get(..at)).unwrap_or(text);
    let mut scanner = Scanner::default();
    scanner.feed(text.get(..TEXT_MAX).unwrap_or(text));
    scanner.finish();
    Some(scanner)
}

/// The name at the beginning of a body that has `len` bytes when whole; none while its end is missing and
/// matters.
pub(super) fn name_at(body: &[u8], len: usize) -> Option<Name> {
    match memchr::memchr(0, body) {
        Some(at) => body.get(..at).map(Name::new),
        None if body.len() == len || body.len() >= Name::MAX => Some(Name::new(body)),
        None => None,
    }
}

/// Whether nothing but Close messages comes before the next Sync or Flush; none while that is not there.
fn closes_only(mut rest: &[u8]) -> Option<bool> {
    loop {
        let header = Header::read(rest)?;
        match header.tag {
            b'C' => rest = rest.get(HEADER + header.client_body()?..)?,
            tag => return Some(matches!(tag, b'S' | b'H')),
        }
    }
}

/// A Bind or Describe of a statement that does not exist.
fn substitute(tag: u8) -> Vec<u8> {
    let mut body = Vec::new();
    if tag == b'D' {
        body.push(b'S');
        body.extend_from_slice(NOBODY);
    } else {
        body.push(0);
        body.extend_from_slice(NOBODY);
        body.extend_from_slice(&[0; 6]);
    }
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![tag];
    message.extend_from_slice(&len.to_be_bytes());
    message.append(&mut body);
    message
}
