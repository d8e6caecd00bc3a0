//! What is owed to the client, in the order of its requests: replies of the backend and replies of our own.
//!
//! A **flight** is one ReadyForQuery that the backend owes (PROTOCOLS.md §3.3): a simple Query, a FunctionCall,
//! or an extended run up to its Sync. Three things bend that rule, and each is a method here: after an error in an
//! extended run the server skips everything up to the Sync, *even a Query* ([`Queue::skip`]); during COPY IN it
//! swallows Syncs ([`Queue::copy_in`]); and a Query within an extended run has a ReadyForQuery of its own
//! ([`Queue::promote`]).

use std::collections::VecDeque;
use std::time::Instant;

use super::ledger::{Account, Ledger};
use super::local::Local;

/// The replies owed.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    flights: usize,
    /// Flights after which a transaction may be open, as far as we can tell.
    entangled: usize,
}

#[derive(Debug)]
enum Entry {
    Flight(Flight),
    Local(Local),
}

/// What a flight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The startup, up to the first ReadyForQuery.
    Startup,
    /// A Query or FunctionCall.
    Simple,
    /// An extended run, up to its Sync.
    Extended,
}

/// A ReadyForQuery that the backend owes.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) kind: Kind,
    pub(super) account: Account,
    /// When its request was whole; until then, when it began.
    pub(super) start: Instant,
    /// The backend has all it needs to answer: the Query's end, the run's Sync.
    pub(super) whole: bool,
    /// It may leave a transaction open.
    entangled: bool,
    /// Extended messages that have not been answered yet.
    pub(super) pending: u32,
    /// How many of these stood before the last Flush: the backend owes their answers although the run is not whole.
    pub(super) flushed: u32,
    /// An Execute is among them, or was.
    pub(super) executed: bool,
    /// A simple one that stands within an extended run, and is skipped if that fails.
    pub(super) within: bool,
    /// It is a COPY under way.
    pub(super) copying: bool,
    /// It has been settled as a failure.
    pub(super) failed: bool,
    /// CopyDone and CopyFail sent before its Sync.
    ends_before: u32,
    /// CopyDone and CopyFail sent after its Query or Sync.
    ends_after: u32,
}

impl Flight {
    pub(super) fn new(kind: Kind, account: Account, start: Instant, entangled: bool) -> Self {
        Self {
            kind,
            account,
            start,
            whole: false,
            entangled,
            pending: 0,
            flushed: 0,
            executed: false,
            within: false,
            copying: false,
            failed: false,
            ends_before: 0,
            ends_after: 0,
        }
    }

    /// Whether the backend owes an answer now.
    pub(super) fn is_owed(&self) -> bool {
        (self.whole || self.flushed > 0) && !self.copying
    }

    /// Tells the gate whose move it is, if the flight is a probe: a client that stalls in the middle of its
    /// request must not pass for a silent backend.
    pub(super) fn owed(&self, owed: bool) {
        if let Account::Permit(permit) = &self.account {
            permit.set_owed(owed);
        }
    }
}

/// What a CopyInResponse means for the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyIn {
    /// The client has sent the end of the data already.
    Over,
    /// As before, and the Sync that the run seemed to end with was swallowed: the run goes on.
    OverWithinRun,
    /// The data is still to come.
    Data,
    /// As before, within an extended run.
    DataWithinRun,
}

impl Queue {
    /// The most entries. Each stands for a message of at least five bytes that a server has not answered yet, or
    /// for a change between forwarding and rejecting.
    pub(super) const MAX: usize = 1 << 20;

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= Self::MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.capacity() == 0 {
            // Most connections never have more than one in flight, and most of the time none.
            self.entries.reserve_exact(1);
        }
        self.entries.push_back(entry);
    }

    /// Flights under way.
    #[inline]
    pub(super) fn flights(&self) -> usize {
        self.flights
    }

    /// Whether some flight may leave a transaction open.
    #[inline]
    pub(super) fn is_entangled(&self) -> bool {
        self.entangled > 0
    }

    #[inline]
    pub(super) fn launch(&mut self, flight: Flight) {
        self.flights += 1;
        self.entangled += usize::from(flight.entangled);
        self.push(Entry::Flight(flight));
    }

    /// Queues a reply of our own; equal ones that follow each other are counted.
    pub(super) fn reply(&mut self, local: Local) {
        match (self.entries.back_mut(), local) {
            (Some(Entry::Local(Local::Refused(last, n))), Local::Refused(next, m)) if *last == next => {
                *n += m
            }
            (Some(Entry::Local(Local::Empty(last, n))), Local::Empty(next, m)) if *last == next => *n += m,
            (Some(Entry::Local(Local::Ready(n))), Local::Ready(m)) => *n += m,
            (_, local) => self.push(Entry::Local(local)),
        }
    }

    /// The Sync of a rejected extended run has come: its ReadyForQuery is due after its error.
    pub(super) fn reply_ready(&mut self) {
        match self.entries.pop_back() {
            // The error has not left yet, so the pair can be counted with those before it.
            Some(Entry::Local(Local::Refusal(rejection))) => self.reply(Local::Refused(rejection, 1)),
            other => {
                self.entries.extend(other);
                self.reply(Local::Ready(1));
            }
        }
    }

    /// The flight at the head, if a flight is there.
    #[inline]
    pub(super) fn head(&mut self) -> Option<&mut Flight> {
        match self.entries.front_mut() {
            Some(Entry::Flight(flight)) => Some(flight),
            _ => None,
        }
    }

    /// As [`Queue::head`], to look at.
    #[inline]
    pub(super) fn peek(&self) -> Option<&Flight> {
        match self.entries.front() {
            Some(Entry::Flight(flight)) => Some(flight),
            _ => None,
        }
    }

    /// Whether the startup is what the backend owes.
    pub(super) fn is_starting(&self) -> bool {
        self.peek().is_some_and(|head| head.kind == Kind::Startup)
    }

    /// The last flight, if nothing comes after it.
    #[inline]
    pub(super) fn tail(&mut self) -> Option<&mut Flight> {
        match self.entries.back_mut() {
            Some(Entry::Flight(flight)) => Some(flight),
            _ => None,
        }
    }

    /// Whether some reply of our own is queued.
    pub(super) fn has_local(&self) -> bool {
        self.entries.len() > self.flights
    }

    /// The reply of our own whose turn it is.
    #[inline]
    pub(super) fn local(&mut self) -> Option<&mut Local> {
        match self.entries.front_mut() {
            Some(Entry::Local(local)) => Some(local),
            _ => None,
        }
    }

    /// Whether the next thing owed is a reply of our own.
    #[inline]
    pub(super) fn local_is_due(&self) -> bool {
        matches!(self.entries.front(), Some(Entry::Local(_)))
    }

    /// Drops the reply of our own at the head.
    pub(super) fn local_sent(&mut self) {
        if self.local_is_due() {
            self.entries.pop_front();
        }
    }

    /// Takes the flight at the head.
    #[inline]
    pub(super) fn land(&mut self) -> Option<Flight> {
        if self.local_is_due() {
            return None;
        }
        self.take(0)
    }

    fn take(&mut self, at: usize) -> Option<Flight> {
        match self.entries.remove(at) {
            Some(Entry::Flight(flight)) => {
                self.flights -= 1;
                self.entangled -= usize::from(flight.entangled);
                Some(flight)
            }
            Some(local) => {
                self.entries.insert(at, local);
                None
            }
            None => None,
        }
    }

    fn second(&self) -> Option<&Flight> {
        match self.entries.get(1) {
            Some(Entry::Flight(flight)) => Some(flight),
            _ => None,
        }
    }

    /// Marks the head as possibly leaving a transaction open.
    pub(super) fn entangle(&mut self) {
        if let Some(Entry::Flight(flight)) = self.entries.front_mut()
            && !flight.entangled
        {
            flight.entangled = true;
            self.entangled += 1;
        }
    }

    /// An Execute has been added to the run that is being sent.
    #[inline]
    pub(super) fn executes(&mut self) {
        if let Some(tail) = self.tail() {
            tail.executed = true;
        }
    }

    /// A Flush has come.
    pub(super) fn flush(&mut self) {
        if let Some(Entry::Flight(flight)) = self.entries.back_mut()
            && flight.kind == Kind::Extended
            && !flight.whole
            && flight.pending > 0
        {
            flight.flushed = flight.pending;
            flight.owed(true);
        }
    }

    /// The Query or FunctionCall being sent is whole; `plain`: it cannot leave a transaction open. Its flight is
    /// the last one, unless the server has meanwhile skipped it.
    #[inline]
    pub(super) fn completed(&mut self, now: Instant, plain: bool) {
        if let Some(Entry::Flight(flight)) = self.entries.back_mut()
            && flight.kind == Kind::Simple
            && !flight.whole
        {
            flight.whole = true;
            flight.start = now;
            flight.owed(true);
            if plain && flight.entangled && !flight.copying {
                flight.entangled = false;
                self.entangled -= 1;
            }
        }
    }

    /// The part of an extended run that a Query cut short is over when all its messages have been answered: what
    /// comes next belongs to the Query.
    #[inline]
    pub(super) fn promote(&mut self, now: Instant, ledger: &mut Ledger) {
        while let Some(head) = self.peek()
            && head.kind == Kind::Extended
            && !head.whole
            && head.pending == 0
            && self.second().is_some_and(|next| next.within)
        {
            if let Some(done) = self.take(0) {
                ledger.success(now, done.account, done.start);
            }
        }
    }

    /// After an error in the extended run at the head the server skips everything up to the Sync. Whether that
    /// Sync is yet to come.
    pub(super) fn skip(&mut self, ledger: &mut Ledger) -> bool {
        loop {
            match self.peek() {
                Some(head) if head.kind == Kind::Extended && !head.whole => {}
                _ => return false,
            }
            // Even a Query that was sent after a Sync: a COPY IN may have swallowed that Sync meanwhile.
            if self.second().is_none() {
                return true;
            }
            if let Some(skipped) = self.take(1) {
                let extended = skipped.kind == Kind::Extended;
                ledger.ignore(skipped.account);
                if let (true, Some(head)) = (extended, self.head()) {
                    head.whole = skipped.whole;
                }
            }
        }
    }

    /// The client has sent CopyDone or CopyFail before the server asked for data.
    pub(super) fn copy_ended_early(&mut self) {
        // Before an Execute there is no COPY that it could end, and the server ignores it.
        if let Some(tail) = self.tail()
            && (tail.whole || tail.executed || tail.kind == Kind::Simple)
        {
            let ends = if tail.whole { &mut tail.ends_after } else { &mut tail.ends_before };
            *ends = ends.saturating_add(1);
        }
    }

    /// The head has turned out to be a COPY IN. Syncs that were sent before the data's end are swallowed: drivers
    /// send Parse, Bind, Execute, Sync, then data, CopyDone and another Sync, and get one ReadyForQuery.
    pub(super) fn copy_in(&mut self, ledger: &mut Ledger) -> Option<CopyIn> {
        loop {
            let head = self.head()?;
            if head.ends_before > 0 {
                head.ends_before -= 1;
                return Some(CopyIn::Over);
            }
            let extended = head.kind == Kind::Extended;
            if extended && !head.whole {
                return Some(CopyIn::DataWithinRun);
            }
            if extended {
                head.whole = false;
            }
            if head.ends_after > 0 {
                head.ends_after -= 1;
                return Some(if extended { self.resume(ledger) } else { CopyIn::Over });
            }
            let bare = |next: &Flight| next.kind == Kind::Extended && next.whole && next.pending == 0;
            if !self.second().is_some_and(bare) {
                return Some(if extended { CopyIn::DataWithinRun } else { CopyIn::Data });
            }
            if let Some(swallowed) = self.take(1) {
                ledger.ignore(swallowed.account);
                if let Some(head) = self.head() {
                    head.ends_after = swallowed.ends_after;
                    head.whole = true;
                }
            }
        }
    }

    /// The head's Sync was swallowed and the data's end came after it, so what was sent next still belongs to the
    /// head's run.
    fn resume(&mut self, ledger: &mut Ledger) -> CopyIn {
        match self.entries.get_mut(1) {
            Some(Entry::Flight(next)) if next.kind == Kind::Extended => {
                if let Some(next) = self.take(1) {
                    ledger.ignore(next.account);
                    if let Some(head) = self.head() {
                        head.whole = next.whole;
                        head.executed = next.executed;
                        head.pending = head.pending.saturating_add(next.pending);
                        head.ends_before = next.ends_before;
                        head.ends_after = next.ends_after;
                    }
                }
                // If that is not whole, it is what the client is within already.
                CopyIn::Over
            }
            Some(Entry::Flight(next)) => {
                next.within = true;
                CopyIn::Over
            }
            _ => CopyIn::OverWithinRun,
        }
    }

    /// Whether the run at the head goes no further without more of the client: the server owes nothing of it now.
    pub(super) fn is_stalled(&self) -> bool {
        let cut_short = self.second().is_some_and(|next| next.within);
        self.peek()
            .is_some_and(|head| head.kind == Kind::Extended && !head.whole && head.flushed == 0 && !cut_short)
    }

    /// Takes all flights, and leaves the replies of our own.
    pub(super) fn abandon(&mut self) -> Vec<Flight> {
        let (mut flights, mut locals) = (Vec::new(), VecDeque::new());
        for entry in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Flight(flight) => flights.push(flight),
                Entry::Local(_) => locals.push_back(entry),
            }
        }
        (self.entries, self.flights, self.entangled) = (locals, 0, 0);
        flights
    }

    /// Takes all flights and forgets every reply of our own: the connection is over.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Flight> + use<> {
        self.flights = 0;
        self.entangled = 0;
        std::mem::take(&mut self.entries).into_iter().filter_map(|entry| match entry {
            Entry::Flight(flight) => Some(flight),
            Entry::Local(_) => None,
        })
    }
}
