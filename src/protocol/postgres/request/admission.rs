//! Whether a unit passes.
//!
//! Admission is one decision per unit, made at its first message (PROTOCOLS.md §3.4), and only where a rejection
//! cannot hurt: the last transaction status is `I` and nothing in flight can change it. A batch is judged by one
//! look at the breaker.

use std::time::Instant;

use crate::breaker::{CallKind, Generation};
use crate::gate::Lane;
use crate::protocol::postgres::ledger::Account;
use crate::protocol::postgres::message::Message;
use crate::protocol::postgres::session::Session;
use crate::protocol::postgres::statement::Scanner;

/// How much of a statement is looked at to see whether it may last: enough for a comment before it.
pub(super) const TEXT_MAX: usize = 1024;

/// What becomes of a unit that begins.
pub(super) enum Decision {
    Pass(Account),
    Refuse,
    Hold,
}

/// One slice of input.
#[derive(Default)]
pub(super) struct Batch {
    /// The breaker's generation if it is closed, once looked at.
    closed: Option<Option<Generation>>,
    /// Units passed and not yet reported.
    pub(super) passed: u64,
}

impl Batch {
    #[inline]
    fn closed(&mut self, lane: &Lane) -> Option<Generation> {
        *self.closed.get_or_insert_with(|| lane.closed())
    }
}

impl Session {
    /// Whether a rejection now cannot fall into a transaction.
    #[inline]
    pub(super) fn may_reject(&self) -> bool {
        self.server.status == b'I' && !self.queue.is_entangled()
    }

    /// Whether nothing stands against calls: the breaker is closed, and no rejection is being carried on.
    pub(super) fn passes(&self, batch: &mut Batch) -> bool {
        self.client.sticky.is_none() && batch.closed(self.ledger.lane()).is_some()
    }

    /// Whether a unit passes that begins with this message.
    #[inline]
    pub(super) fn decide(
        &mut self,
        now: Instant,
        message: Message<'_>,
        within: bool,
        batch: &mut Batch,
    ) -> Decision {
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
}

/// The beginning of the statement in a Query or Parse, read; none while too little of it is there. Other messages
/// have none, which reads as one.
pub(super) fn head(message: Message<'_>) -> Option<Scanner> {
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
