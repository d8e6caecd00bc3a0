//! What the client is owed, in the order of its requests: the backend's replies and fusewire's own.
//!
//! Run lengths instead of one entry a call: a pipeline of a million GETs is one entry, and one that needs no memory of its
//! own while nothing is behind it. Absent on purpose: bytes.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::owed::{Account, Calls, Owed};
use super::reject::Local;

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
    /// What is owed behind the entries, while it is nothing but ordinary calls: mostly all that is owed at all.
    calls: Option<Calls>,
    /// Requests among the entries that the backend owes a reply for.
    requests: u64,
}

/// What is owed next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Head<'a> {
    /// The backend's replies to ordinary calls.
    Calls,
    /// The backend's reply.
    Owed(&'a Owed),
    /// A reply of fusewire's own.
    Local,
    /// From here on the connection is a plain relay.
    Opaque,
}

/// What is owed.
#[derive(Debug)]
pub(super) enum Entry {
    /// The backend's reply.
    Owed(Owed),
    /// A reply of fusewire's own.
    Local(Local),
    /// From here on the connection is a plain relay.
    Opaque,
}

impl Fifo {
    /// The next thing owed.
    #[inline]
    pub(super) fn head(&self) -> Option<Head<'_>> {
        match self.entries.front() {
            None => self.calls.map(|_| Head::Calls),
            Some(Entry::Owed(owed)) => Some(Head::Owed(owed)),
            Some(Entry::Local(_)) => Some(Head::Local),
            Some(Entry::Opaque) => Some(Head::Opaque),
        }
    }

    /// The next thing owed, if it is the backend's and no ordinary call.
    #[inline]
    pub(super) fn head_owed(&mut self) -> Option<&mut Owed> {
        match self.entries.front_mut() {
            Some(Entry::Owed(owed)) => Some(owed),
            _ => None,
        }
    }

    /// The last thing owed, if it is the backend's and no ordinary call.
    pub(super) fn tail_owed(&mut self) -> Option<&mut Owed> {
        match self.entries.back_mut() {
            Some(Entry::Owed(owed)) if self.calls.is_none() => Some(owed),
            _ => None,
        }
    }

    /// Nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.calls.is_none()
    }

    /// Requests that the backend owes a reply for.
    #[inline]
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether it holds more than a well-behaved client could want.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    /// The backend owes more.
    pub(super) fn owe(&mut self, owed: Owed) {
        if let Some(calls) = owed.ordinary() {
            return self.owe_calls(calls);
        }
        self.requests += owed.n;
        self.spill();
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

    /// The backend owes the replies to more ordinary calls.
    #[inline]
    pub(super) fn owe_calls(&mut self, more: Calls) {
        self.requests += more.n;
        match &mut self.calls {
            Some(calls)
                if calls.generation == more.generation
                    && (calls.start == more.start || self.entries.len() > BLUR_ABOVE) =>
            {
                calls.n += more.n;
            }
            _ => {
                self.spill();
                self.calls = Some(more);
            }
        }
    }

    /// Makes the ordinary calls at the end an entry, for something else to get behind them.
    fn spill(&mut self) {
        if let Some(calls) = self.calls.take() {
            self.entries.push_back(Entry::Owed(calls.into()));
        }
    }

    /// Fusewire owes a reply.
    pub(super) fn answer(&mut self, local: Local) {
        self.spill();
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
        self.spill();
        self.entries.push_back(Entry::Opaque);
    }

    /// The ordinary calls whose replies are owed next, if such are.
    #[inline]
    pub(super) fn ordinary(&self) -> Option<Calls> {
        match self.entries.front() {
            None => self.calls,
            Some(Entry::Owed(owed)) => owed.ordinary(),
            Some(Entry::Local(_) | Entry::Opaque) => None,
        }
    }

    /// Takes `n` of the requests that are owed a reply next, which all belong to the same entry, off the head.
    #[inline]
    pub(super) fn take(&mut self, n: u64) {
        self.requests -= n;
        match (self.entries.front_mut(), &mut self.calls) {
            (Some(Entry::Owed(owed)), _) if owed.n > n => owed.n -= n,
            (Some(_), _) => drop(self.pop()),
            (None, Some(calls)) if calls.n > n => calls.n -= n,
            (None, _) => self.calls = None,
        }
    }

    /// Takes one request off the head; its entry, with `n` = 1.
    #[inline]
    pub(super) fn take_one(&mut self) -> Option<Owed> {
        let taken = match (self.entries.front_mut(), self.calls) {
            (Some(Entry::Owed(owed)), _) if owed.n == 1 => {
                self.requests -= 1;
                return match self.pop() {
                    Some(Entry::Owed(owed)) => Some(owed),
                    _ => None,
                };
            }
            (Some(Entry::Owed(owed)), _) => owed.clone(),
            (None, Some(calls)) => calls.into(),
            (Some(_), _) | (None, None) => return None,
        };
        self.take(1);
        Some(Owed { n: 1, ..taken })
    }

    /// Takes the entry off the head.
    fn pop(&mut self) -> Option<Entry> {
        let taken = self.entries.pop_front();
        if self.entries.is_empty() {
            // Room for what is not there would be a fifth of what an idle connection takes; to have it again costs a
            // tenth of a call that is not ordinary.
            self.entries = VecDeque::new();
        }
        taken
    }

    /// Takes the last request back, if it is still owed a reply.
    pub(super) fn take_back(&mut self) -> Option<Owed> {
        self.spill();
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

    /// Whether the next thing owed is a reply of fusewire's own.
    #[inline]
    pub(super) fn local_is_due(&self) -> bool {
        matches!(self.entries.front(), Some(Entry::Local(_)))
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
    pub(super) fn owed(&self) -> impl Iterator<Item = Cow<'_, Owed>> {
        let entries = self.entries.iter().filter_map(|entry| match entry {
            Entry::Owed(owed) => Some(Cow::Borrowed(owed)),
            Entry::Local(_) | Entry::Opaque => None,
        });
        entries.chain(self.calls.map(|calls| Cow::Owned(calls.into())))
    }

    /// Whether fusewire's own replies are among what is owed.
    pub(super) fn has_local(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Entry::Local(_)))
    }

    /// Whether the connection ends with what is owed.
    pub(super) fn ends(&self) -> bool {
        self.calls.is_none() && matches!(self.entries.back(), Some(Entry::Local(Local::End)))
    }

    /// The backend will not answer any more: what can still be said is what comes before its next reply.
    pub(super) fn cut(&mut self) {
        let keep = self.entries.iter().position(|entry| !matches!(entry, Entry::Local(_)));
        if let Some(keep) = keep {
            self.entries.truncate(keep);
        }
        self.calls = None;
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
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::redis::reject::Text;

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

    #[test]
    fn ordinary_calls_of_one_admission_own_nothing() {
        let mut fifo = Fifo::default();
        let calls = Calls { n: 3, generation: 1, start: Instant::now() };
        fifo.owe_calls(calls);
        fifo.owe_calls(calls);
        assert_eq!((fifo.ordinary().map(|calls| calls.n), fifo.requests()), (Some(6), 6));
        fifo.take(6);
        assert!(fifo.is_empty());
        assert_eq!(fifo.entries.capacity(), 0);
    }

    #[test]
    fn in_a_long_queue_only_durations_blur() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let hollow = |generation, start| Owed { conclusive: false, ..Owed::calls(1, generation, start) };
        let blocking = || Owed { timed: false, ..Owed::calls(1, 0, now) };
        for long in [false, true] {
            let mut fifo = Fifo::default();
            (0..if long { 2 * BLUR_ABOVE } else { BLUR_ABOVE / 2 }).for_each(|_| fifo.owe(blocking()));
            let mut grows = |owed| {
                let before = fifo.owed().count();
                fifo.owe(owed);
                fifo.owed().count() > before
            };
            for kind in [hollow, |generation, start| Owed::calls(1, generation, start)] {
                assert!(grows(kind(1, now)), "another kind");
                assert!(!grows(kind(1, now)), "the same");
                assert_eq!(grows(kind(1, later)), !long, "later");
                assert!(grows(kind(2, later)), "of another generation");
            }
        }
    }

    /// What a queue without run lengths would hold: the account of a request, or a reply of fusewire's own.
    type Model = VecDeque<Option<(Account, bool)>>;

    fn model(fifo: &Fifo) -> (Vec<(Account, bool)>, bool) {
        let one_by_one =
            fifo.owed().flat_map(|owed| (0..owed.n).map(move |_| (owed.account, owed.conclusive)));
        (one_by_one.collect(), fifo.has_local())
    }

    proptest! {
        #[test]
        fn a_queue_of_runs_is_a_queue(
            does in prop::collection::vec((0u8..7, 0u64..2, 0u64..2, 1u64..4), 0..60),
        ) {
            let now = Instant::now();
            let (mut fifo, mut plain) = (Fifo::default(), Model::new());
            for (what, time, generation, n) in does {
                let start = now + Duration::from_secs(time);
                let account = Account::Call { generation, start };
                match what {
                    0 | 1 => {
                        fifo.owe_calls(Calls { n, generation, start });
                        plain.extend((0..n).map(|_| Some((account, true))));
                    }
                    2 => {
                        fifo.owe(Owed { conclusive: false, ..Owed::calls(n, generation, start) });
                        plain.extend((0..n).map(|_| Some((account, false))));
                    }
                    3 => {
                        fifo.answer(Local::Text(Text::Ok));
                        plain.push_back(None);
                    }
                    4 => {
                        if fifo.take_local().is_some() {
                            prop_assert_eq!(plain.pop_front(), Some(None));
                        }
                    }
                    5 => {
                        let expected = plain.back().copied().flatten();
                        let tail = fifo.tail_owed().map(|owed| (owed.account, owed.conclusive));
                        prop_assert!(tail.is_none() || tail == expected);
                        let taken = fifo.take_back();
                        prop_assert!(taken.as_ref().is_none_or(|owed| owed.n == 1));
                        let taken = taken.map(|owed| (owed.account, owed.conclusive));
                        prop_assert_eq!(taken, expected);
                        if taken.is_some() {
                            plain.pop_back();
                        }
                    }
                    _ => {
                        let expected = plain.front().copied().flatten();
                        let ordinary = fifo.ordinary();
                        prop_assert_eq!(ordinary.is_some(), expected.is_some_and(|(_, ordinary)| ordinary));
                        match ordinary {
                            Some(calls) if calls.n >= n => {
                                fifo.take(n);
                                for _ in 0..n {
                                    let Calls { generation, start, .. } = calls;
                                    let account = Account::Call { generation, start };
                                    prop_assert_eq!(plain.pop_front(), Some(Some((account, true))));
                                }
                            }
                            _ => {
                                let taken = fifo.take_one();
                                prop_assert!(taken.as_ref().is_none_or(|owed| owed.n == 1));
                                let taken = taken.map(|owed| (owed.account, owed.conclusive));
                                prop_assert_eq!(taken, expected);
                                if taken.is_some() {
                                    plain.pop_front();
                                }
                            }
                        }
                    }
                }
                let requests: Vec<_> = plain.iter().flatten().copied().collect();
                prop_assert_eq!(fifo.requests(), requests.len() as u64);
                prop_assert_eq!(fifo.is_empty(), plain.is_empty());
                prop_assert_eq!(model(&fifo), (requests, plain.contains(&None)));
            }
        }
    }
}
