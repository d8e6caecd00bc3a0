//! The client's messages while bytes flow: which unit each belongs to, and what becomes of it.
//!
//! Absent on purpose: the units themselves, which are in `simple` and `extended`; whether they pass, which is in
//! `admission`; and what a rejected BEGIN or Parse leaves behind, which is in `doom` and `missing`.

mod admission;
mod doom;
mod extended;
mod missing;
mod simple;

use std::time::Instant;

use super::empty::{Known, Look};
use super::local::Local;
use super::lost::Peek;
use super::message::{HEADER, Header, Message};
use super::names::{Name, Names};
use super::session::{Session, Stage};
use super::statement::Shape;
use crate::breaker::Generation;
use crate::gate::Rejection;
use crate::protocol::Plan;
use admission::Batch;
use doom::Doom;

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
            Act::Forward(End::Answer) => self.answered(),
            Act::Refuse { tag, peek, opens } => self.refused(now, tag, peek, opens),
        }
    }

    /// A rejected message has been read to its end.
    fn refused(&mut self, now: Instant, tag: u8, peek: Peek, opens: bool) {
        let lost = peek.finish();
        self.client.doom = self.client.doom.after(tag, &lost);
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
                self.client.doom = self.client.doom.after_sync();
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
}
