//! How this session's calls are counted: every call that is passed ends exactly once.
//!
//! Successes that were sent together and end together are reported together, so a pipelined batch costs the gate
//! one entry.

use std::time::Instant;

use crate::breaker::{CallKind, Cause, Generation, Verdict};
use crate::gate::{Lane, Permit};

/// The claim that a call in flight has on a verdict.
#[derive(Debug, Default)]
pub(super) enum Account {
    /// None, or none any more: it is no call (a Sync by itself) or it has been settled.
    #[default]
    Settled,
    /// Passed while the breaker was closed, or within a transaction that began so.
    Passed(Generation),
    /// Asked for at the gate: perhaps a probe.
    Permit(Box<Permit>),
}

/// Counts and settles accounts.
#[derive(Debug)]
pub(super) struct Ledger {
    lane: Lane,
    streak: Option<Streak>,
}

/// Successes not yet reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streak {
    generation: Generation,
    start: Instant,
    n: u64,
}

impl Ledger {
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, streak: None }
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Ends a call that began at `start` with success.
    pub(super) fn success(&mut self, now: Instant, account: Account, start: Instant) {
        match account {
            Account::Settled => {}
            Account::Permit(permit) => {
                self.flush(now);
                permit.record(now, Verdict::Success);
            }
            Account::Passed(generation) => match &mut self.streak {
                Some(streak) if streak.generation == generation && streak.start == start => streak.n += 1,
                _ => {
                    self.flush(now);
                    self.streak = Some(Streak { generation, start, n: 1 });
                }
            },
        }
    }

    /// Ends a call with failure. Whether there was a call to end.
    pub(super) fn failure(&mut self, now: Instant, account: Account, start: Instant, cause: Cause) -> bool {
        // Verdicts reach the breaker in the order of the replies: a success after a failure ends its run.
        self.flush(now);
        match account {
            Account::Settled => return false,
            Account::Passed(generation) => {
                let permit = self.lane.permit_of(generation, CallKind::Query, start);
                permit.record(now, Verdict::Failure(cause));
            }
            Account::Permit(permit) => permit.record(now, Verdict::Failure(cause)),
        }
        true
    }

    /// Ends a call that says nothing. A probe's slot is free again.
    pub(super) fn ignore(&mut self, account: Account) {
        match account {
            Account::Settled => {}
            Account::Passed(_) => self.lane.ignored(1),
            Account::Permit(permit) => drop(permit),
        }
    }

    /// Ends a call with any verdict.
    pub(super) fn settle(&mut self, now: Instant, account: Account, start: Instant, verdict: Verdict) {
        match verdict {
            Verdict::Success => self.success(now, account, start),
            Verdict::Failure(cause) => {
                self.failure(now, account, start, cause);
            }
            Verdict::Ignored => self.ignore(account),
        }
    }

    /// Reports what has been gathered. To be called at the end of every entry.
    #[inline]
    pub(super) fn flush(&mut self, now: Instant) {
        if let Some(Streak { generation, start, n }) = self.streak.take() {
            let duration = now.saturating_duration_since(start);
            self.lane.succeeded(now, generation, CallKind::Query, duration, n);
        }
    }
}
