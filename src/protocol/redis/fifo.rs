//! What the client is owed, in the order of its requests: the backend's replies and fusewire's own.
//!
//! Run lengths instead of one entry a call: a pipeline of a million GETs is one entry. Absent on purpose: bytes.

use std::collections::VecDeque;
use std::time::Instant;

use super::command::{Patience, Topic};
use super::reject::Local;
use crate::breaker::Generation;

/// Above so many entries, calls that differ only in the time of their admission share an entry: their durations
/// blur, the memory does not grow.
const BLUR_ABOVE: usize = 1024;
/// More unlike requests in flight than this, and the client is one that writes and never reads. A transaction is three
/// entries, and some drivers write a pipeline of tens of thousands before they read.
pub(super) const ENTRIES_MAX: usize = 256 * 1024;

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    entries: VecDeque<Entry>,
    /// Requests among the entries that the backend owes a reply for.
    requests: u64,
}

/// What is owed next.
#[derive(Debug)]
pub(super) enum Entry {
    /// The backend's reply.
    Owed(Owed),
    /// A reply of fusewire's own.
    Local(Local),
    /// From here on the connection is a plain relay.
    Opaque,
}

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
    Multi(u64),
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
    fn common(&self) -> bool {
        self.expect == Expect::Reply
            && self.effect == Effect::None
            && (self.timed || self.patience == Patience::Unbounded)
            && self.probe.is_none()
    }

    /// Whether it is a call like most.
    fn plain(&self) -> bool {
        self.common() && self.timed && self.patience == Patience::Response
    }
}

impl Fifo {
    /// The next thing owed.
    #[inline]
    pub(super) fn head(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// The next thing owed, if it is the backend's.
    #[inline]
    pub(super) fn head_owed(&mut self) -> Option<&mut Owed> {
        match self.entries.front_mut() {
            Some(Entry::Owed(owed)) => Some(owed),
            _ => None,
        }
    }

    /// The last thing owed, if it is the backend's.
    pub(super) fn tail_owed(&mut self) -> Option<&mut Owed> {
        match self.entries.back_mut() {
            Some(Entry::Owed(owed)) => Some(owed),
            _ => None,
        }
    }

    /// Nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Requests that the backend owes a reply for.
    #[inline]
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether it holds more than a well-behaved client could want.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    /// The backend owes more.
    #[inline]
    pub(super) fn owe(&mut self, owed: Owed) {
        self.requests += owed.n;
        let blur = self.entries.len() > BLUR_ABOVE;
        if owed.common()
            && let Some(Entry::Owed(tail)) = self.entries.back_mut()
            && tail.common()
            && tail.patience == owed.patience
            && tail.conclusive == owed.conclusive
            && tail.scripted == owed.scripted
            && same(tail.account, owed.account, blur)
        {
            tail.n += owed.n;
        } else {
            self.entries.push_back(Entry::Owed(owed));
        }
    }

    /// Fusewire owes a reply.
    pub(super) fn answer(&mut self, local: Local) {
        if let Local::Rejected(n, rejection) = &local
            && let Some(Entry::Local(Local::Rejected(tail, same))) = self.entries.back_mut()
            && same == rejection
        {
            *tail += n;
        } else {
            self.entries.push_back(Entry::Local(local));
        }
    }

    /// Fusewire owes a reply before everything else.
    pub(super) fn answer_first(&mut self, local: Local) {
        self.entries.push_front(Entry::Local(local));
    }

    /// From here on, a plain relay.
    pub(super) fn relay(&mut self) {
        self.entries.push_back(Entry::Opaque);
    }

    /// Takes one request off the head if it is one of several ordinary calls: nothing is copied but their account.
    #[inline]
    pub(super) fn take_ordinary(&mut self) -> Option<(Generation, Instant)> {
        let Some(Entry::Owed(owed)) = self.entries.front_mut() else { return None };
        let Account::Call { generation, start } = owed.account else { return None };
        if owed.n < 2 || !owed.conclusive || !owed.plain() {
            return None;
        }
        owed.n -= 1;
        self.requests -= 1;
        Some((generation, start))
    }

    /// Takes one request off the head; its entry, with `n` = 1.
    #[inline]
    pub(super) fn take_one(&mut self) -> Option<Owed> {
        let Some(Entry::Owed(owed)) = self.entries.front_mut() else { return None };
        self.requests -= 1;
        if owed.n > 1 {
            owed.n -= 1;
            return Some(Owed { n: 1, ..owed.clone() });
        }
        let taken = self.entries.pop_front();
        if self.entries.is_empty() {
            // Room for what is not there would be a fifth of what an idle connection takes; to have it again costs a
            // hundredth of a call.
            self.entries = VecDeque::new();
        }
        match taken {
            Some(Entry::Owed(owed)) => Some(owed),
            _ => None,
        }
    }

    /// Takes the last request back, if it is still owed a reply.
    pub(super) fn take_back(&mut self) -> Option<Owed> {
        let Some(Entry::Owed(owed)) = self.entries.back_mut() else { return None };
        self.requests -= 1;
        if owed.n > 1 {
            owed.n -= 1;
            return Some(Owed { n: 1, ..owed.clone() });
        }
        match self.entries.pop_back() {
            Some(Entry::Owed(owed)) => Some(owed),
            _ => None,
        }
    }

    /// Takes the local reply off the head.
    pub(super) fn take_local(&mut self) -> Option<Local> {
        match self.entries.front() {
            Some(Entry::Local(_)) => match self.entries.pop_front() {
                Some(Entry::Local(local)) => Some(local),
                _ => None,
            },
            _ => None,
        }
    }

    /// What the backend owes, in order.
    pub(super) fn owed(&self) -> impl Iterator<Item = &Owed> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Owed(owed) => Some(owed),
            Entry::Local(_) | Entry::Opaque => None,
        })
    }

    /// Whether fusewire's own replies are among what is owed.
    pub(super) fn has_local(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Entry::Local(_)))
    }

    /// Whether the connection ends with what is owed.
    pub(super) fn ends(&self) -> bool {
        matches!(self.entries.back(), Some(Entry::Local(Local::End)))
    }

    /// The backend will not answer any more: what can still be said is what comes before its next reply.
    pub(super) fn cut(&mut self) {
        let keep = self.entries.iter().position(|entry| !matches!(entry, Entry::Local(_)));
        if let Some(keep) = keep {
            self.entries.truncate(keep);
        }
        self.requests = 0;
    }
}

#[inline]
fn same(a: Account, b: Account, blur: bool) -> bool {
    match (a, b) {
        (Account::Call { generation: a, .. }, Account::Call { generation: b, .. }) if blur => a == b,
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_owns_nothing() {
        let now = Instant::now();
        let mut fifo = Fifo::default();
        for generation in 0..100 {
            fifo.owe(Owed::calls(1, generation, now));
        }
        while fifo.take_one().is_some() {}
        assert_eq!(fifo.entries.capacity(), 0);
    }
}
