//! A reply that the backend owes: how its call is counted, what it will look like, and what it changes.
//!
//! Absent on purpose: the order of what is owed, which is `fifo`'s.

use std::time::Instant;

use super::command::{Patience, Topic};
use super::reject::Local;
use crate::breaker::Generation;

/// So many requests that the backend owes a reply for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) n: u64,
    pub(super) account: Account,
    pub(super) expect: Expect,
    pub(super) effect: Effect,
    pub(super) patience: Patience,
    /// Success of it shows that the backend works.
    pub(super) conclusive: bool,
    /// Its duration is a latency sample.
    pub(super) timed: bool,
    /// A conclusive reply decides this probe of the session's.
    pub(super) probe: Option<u32>,
    /// A script has a part in it, and the configuration makes nothing of the errors that scripts return.
    pub(super) scripted: bool,
}

/// Ordinary calls of the same admission: one whole reply each, which says something about the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Calls {
    /// How many; not 0.
    pub(super) n: u64,
    pub(super) generation: Generation,
    pub(super) start: Instant,
}

/// How it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// A call, counted as admitted.
    Call { generation: Generation, start: Instant },
    /// No call of its own: fusewire's own request, one that passes whatever the breaker says, or one that the
    /// probe's permit accounts for.
    None,
}

/// What its reply looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// One frame.
    Reply,
    /// So many confirmations, or one error.
    Confirmations { topic: Topic, leave: bool, left: u64 },
    /// Confirmations until no subscription of the topic is left, at least one; or one error.
    LeaveAll(Topic),
}

/// What its reply changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The protocol version.
    Hello,
    /// Everything.
    Reset,
    /// A transaction was opened, unless it is an error; its number.
    Multi(u32),
    /// It holds a transaction's replies.
    Exec,
    /// The backend closes the connection.
    Leave,
    /// The backend holds back all replies until then.
    Pause(Instant),
    /// It no longer does.
    Unpause,
    /// The client gets this in its place.
    Replace(Box<Local>),
    /// Fusewire has asked for itself: the client gets nothing.
    Withhold,
}

impl Owed {
    /// `n` ordinary calls.
    #[inline]
    pub(super) fn calls(n: u64, generation: Generation, start: Instant) -> Self {
        Self {
            n,
            account: Account::Call { generation, start },
            expect: Expect::Reply,
            effect: Effect::None,
            patience: Patience::Response,
            conclusive: true,
            timed: true,
            probe: None,
            scripted: false,
        }
    }

    /// Whether the backend may be waiting for something other than itself.
    pub(super) fn blocks(&self) -> bool {
        matches!(self.patience, Patience::Own(_) | Patience::Forever)
    }

    /// Whether it may be counted together with another of its kind: a pipeline of scripts is one entry too. A
    /// blocking command may not, for its timeout is its own and found only later.
    pub(super) fn common(&self) -> bool {
        self.expect == Expect::Reply
            && matches!(self.effect, Effect::None)
            && (self.timed || self.patience == Patience::Unbounded)
            && self.probe.is_none()
    }

    /// The ordinary calls that it stands for, if it does.
    #[inline]
    pub(super) fn ordinary(&self) -> Option<Calls> {
        let Account::Call { generation, start } = self.account else { return None };
        let plain = self.common() && self.timed && self.patience == Patience::Response;
        (plain && self.conclusive && !self.scripted).then_some(Calls { n: self.n, generation, start })
    }
}

impl From<Calls> for Owed {
    fn from(Calls { n, generation, start }: Calls) -> Self {
        Self::calls(n, generation, start)
    }
}
