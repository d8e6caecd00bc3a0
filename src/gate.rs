//! One backend's breaker, shared by the connections that go through it.
//!
//! A call begins with [`Lane::admit`] and ends with the [`Permit`]'s verdict. While the breaker is closed and no
//! failure is on record, both are one atomic load and a few plain stores; everything else takes the lock. Logs
//! and counts of transitions are written after unlocking.
//!
//! Absent on purpose: sockets, protocols, and the clock (time is an argument here too).

mod bulkhead;
mod check;
mod lane;
mod log;
mod permit;
mod rejection;
mod snapshot;
mod word;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::breaker::{Breaker, Cause, Fault, Mode, Policy, State, Transition, Why};
use crate::metrics::Tally;

pub use bulkhead::{Full, Place};
pub use check::{CheckDue, Checked};
pub use lane::Lane;
use log::log;
pub use permit::Permit;
pub use rejection::{Grounds, Hint, Rejected, Rejection};
pub use snapshot::Snapshot;
use word::Word;

/// One backend's breaker and its figures.
#[derive(Debug)]
pub struct Gate {
    name: Arc<str>,
    /// What of the breaker a call can read without the lock.
    word: Word,
    inner: Mutex<Inner>,
    tallies: Box<[Tally]>,
    /// Woken when [`Gate::deadline`] may have come nearer.
    pub alarm: Notify,
    /// Woken when there may be room for another connection.
    pub room: Notify,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct Inner {
    breaker: Breaker,
    failures: BTreeMap<Cause, u64>,
    trips: BTreeMap<&'static str, u64>,
    /// The last [`Gate::HISTORY_MAX`], oldest first.
    history: VecDeque<Transition>,
    /// By [`crate::breaker::Finding::label`].
    checks: BTreeMap<&'static str, u64>,
    last_check: Option<Checked>,
    /// What the last one was told that did not pass: many are told the same.
    rejection: Option<Rejection>,
    /// Places taken in the bulkhead.
    connections: u32,
}

impl Gate {
    /// How many transitions are remembered.
    pub const HISTORY_MAX: usize = 64;

    /// A closed gate for `workers` workers, with the same jitter each time. Tally 0 belongs to the control plane;
    /// workers count from 1.
    pub fn new(name: impl Into<Arc<str>>, policy: Policy, workers: usize, now: Instant) -> Arc<Self> {
        Self::with_seed(name, policy, workers, 0, now)
    }

    /// As [`Gate::new`], with the seed of the jitter. A fleet must not share one, or its members probe in step.
    pub fn with_seed(
        name: impl Into<Arc<str>>,
        policy: Policy,
        workers: usize,
        seed: u64,
        now: Instant,
    ) -> Arc<Self> {
        let breaker = Breaker::new(policy, seed, now);
        Arc::new(Self {
            name: name.into(),
            word: Word::new(&breaker),
            inner: Mutex::new(Inner {
                breaker,
                failures: BTreeMap::new(),
                trips: BTreeMap::new(),
                history: VecDeque::new(),
                checks: BTreeMap::new(),
                last_check: None,
                rejection: None,
                connections: 0,
            }),
            tallies: (0..=workers).map(|_| Tally::default()).collect(),
            alarm: Notify::new(),
            room: Notify::new(),
            state: watch::Sender::new(State::Closed),
        })
    }

    /// The backend's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The gate as worker `worker` (from 1; 0 is the control plane) sees it.
    pub fn lane(self: &Arc<Self>, worker: usize) -> Lane {
        assert!(worker < self.tallies.len(), "no such worker");
        Lane::new(self.clone(), worker)
    }

    /// The present state, followed by each change. The end of a slow start is one too (closed → closed), and so is a
    /// change of mode.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The present state.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Lets time pass. Called by the backend's timer, so that half-open is entered without traffic.
    pub fn tick(&self, now: Instant) {
        self.with(|inner| inner.breaker.tick(now));
    }

    /// When [`Gate::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().breaker.deadline()
    }

    /// Closes the breaker by hand.
    pub fn reset(&self, now: Instant) {
        self.with(|inner| inner.breaker.reset(now));
    }

    /// Opens the breaker by hand, for `hold` or until it is reset.
    pub fn trip(&self, now: Instant, hold: Option<Duration>) {
        self.with(|inner| inner.breaker.trip(now, hold));
    }

    /// Whether every call is rejected: it is open, and enforces that.
    pub fn rejects_all(&self) -> bool {
        let breaker = &self.lock().breaker;
        breaker.state() == State::Open && breaker.mode() == Mode::Enforce
    }

    /// Changes the mode by hand.
    pub fn set_mode(&self, now: Instant, mode: Mode) {
        self.with(|inner| {
            inner.breaker.set_mode(now, mode);
            // The state may be the same, but whoever waits for it to change waits for calls to pass.
            self.state.send_replace(inner.breaker.state());
        });
    }

    /// Changes the policy; state and figures stay.
    pub fn set_policy(&self, now: Instant, policy: Policy) {
        self.with(|inner| {
            inner.breaker.set_policy(now, policy);
            // A mode that the policy brings is a change for whoever waits for calls to pass.
            self.state.send_replace(inner.breaker.state());
        });
        self.alarm.notify_one();
        // There may be more places than before.
        self.room.notify_waiters();
    }

    /// Whether the breaker's decisions are carried out.
    pub fn mode(&self) -> Mode {
        self.lock().breaker.mode()
    }

    /// The last [`Gate::HISTORY_MAX`] transitions, oldest first.
    pub fn history(&self) -> Vec<Transition> {
        self.lock().history.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere while the lock was held leaves the breaker as it was: every change to it is a single
        // assignment away from consistent, and a proxy that refuses to go on would be worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` under the lock, then, unlocked, tells the world what changed.
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let slow = inner.breaker.is_slow_starting();
        let result = act(&mut inner);
        let transitions = inner.breaker.take_transitions();
        for transition in &transitions {
            if let Why::Tripped(trip) = &transition.why {
                *inner.trips.entry(trip.condition.label()).or_default() += 1;
                // The one failure that the breaker finds itself: nobody comes to record it.
                if let Some(cause @ Cause::Fault(Fault::ProbeSilent)) = &trip.cause {
                    *inner.failures.entry(cause.clone()).or_default() += 1;
                }
            }
            if inner.history.len() == Self::HISTORY_MAX {
                inner.history.pop_front();
            }
            inner.history.push_back(transition.clone());
        }
        self.word.publish(&inner.breaker);
        // The end of a slow start is no change of state, but whoever was turned away during it waits for one.
        let all_pass = slow && !inner.breaker.is_slow_starting();
        if !transitions.is_empty() || all_pass {
            // Sent under the lock, so that watchers see states in the order in which they were entered.
            self.state.send_replace(inner.breaker.state());
        }
        drop(inner);
        if !transitions.is_empty() {
            self.alarm.notify_one();
            transitions.iter().for_each(|transition| log(&self.name, transition));
        }
        result
    }
}

#[cfg(test)]
mod tests;
