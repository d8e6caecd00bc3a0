//! A transaction whose BEGIN was rejected, and what becomes of what belongs to it (ADR 0011).

use std::time::Instant;

use super::admission::{Batch, TEXT_MAX, head};
use super::{Act, Run, Step};
use crate::breaker::{CallKind, Verdict};
use crate::metrics::Counter;
use crate::protocol::postgres::lost::{Lost, Peek};
use crate::protocol::postgres::message::Message;
use crate::protocol::postgres::session::Session;
use crate::protocol::postgres::statement::Turn;

/// Whether a transaction whose BEGIN was rejected goes on in the client's mind (ADR 0011). What belongs to it must
/// never run by itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doom {
    /// No.
    #[default]
    None,
    /// Perhaps. Left by COMMIT, ROLLBACK, and by a BEGIN that passes.
    Doomed,
    /// As before, and the rejected run has parsed a COMMIT or ROLLBACK: its Execute is the end.
    Ending,
}

impl Doom {
    /// After a rejected message with this tag, which would have done this.
    pub(super) fn after(self, tag: u8, lost: &Lost) -> Self {
        match (tag, self) {
            _ if lost.begins => Doom::Doomed,
            (b'P', Doom::Doomed) if lost.ends => Doom::Ending,
            (b'P', Doom::Ending) if !lost.ends => Doom::Doomed,
            (b'E', Doom::Ending) => Doom::None,
            (_, doom) => doom,
        }
    }

    /// After the Sync of a rejected run: a COMMIT or ROLLBACK that was parsed and not executed ended nothing.
    pub(super) fn after_sync(self) -> Self {
        if self == Doom::Ending { Doom::Doomed } else { self }
    }
}

/// What becomes of a unit while a transaction is doomed.
pub(super) enum Fate {
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

impl Session {
    /// What becomes of a unit that begins with this message while a transaction is doomed.
    pub(super) fn doomed(&mut self, now: Instant, message: Message<'_>, run: Run, batch: &mut Batch) -> Fate {
        // Only a run of Close passes without an end of the doom. Whatever hides behind it was not looked at.
        if run != Run::Outside {
            return self.stranded();
        }
        let Some(scanner) = head(message) else { return Fate::Step(Step::Hold) };
        // What lies behind that which is looked at may be anything.
        let whole = message.is_whole() && message.len <= TEXT_MAX;
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
}
