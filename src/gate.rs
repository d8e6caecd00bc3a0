//! One backend's breaker, shared by the connections that go through it.
//!
//! A call begins with [`Lane::admit`] and ends with the [`Permit`]'s verdict. While the breaker is closed and no
//! failure is on record, both are one atomic load and a few plain stores; everything else takes the lock. Logs
//! and counts of transitions are written after unlocking.
//!
//! Absent on purpose: sockets, protocols, and the clock (time is an argument here too).

mod bulkhead;
mod rejection;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::breaker::{
    Breaker, Bulkhead, CallKind, Cause, Checks, Fault, Finding, Generation, Mode, Outcome, Pace, Policy,
    Refusal, State, Ticket, Transition, Trip, Verdict, When, Why,
};
use crate::metrics::{Counter, Tally, Totals};

use bulkhead::is_setup;
pub use bulkhead::{Full, Place};
pub use rejection::{Grounds, Hint, Rejected, Rejection};

/// One backend's breaker and its figures.
#[derive(Debug)]
pub struct Gate {
    name: Arc<str>,
    /// Generation, state and "a failure is on record" in one word, so that a call can pass without the lock.
    word: AtomicU64,
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
    /// By [`Finding::label`].
    checks: BTreeMap<&'static str, u64>,
    last_check: Option<Checked>,
    /// What the last one was told that did not pass: many are told the same.
    rejection: Option<Rejection>,
    /// Places taken in the bulkhead.
    connections: u32,
}

/// A check that has been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub duration: Duration,
    /// What it found.
    pub finding: Finding,
}

/// A check that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckDue {
    /// The generation that its finding will be about.
    pub generation: Generation,
    /// From one to the next, on average.
    pub interval: Duration,
    /// How long the backend may take to answer.
    pub patience: Duration,
}

/// The gate as one worker sees it: the same breaker, a tally of its own.
#[derive(Debug, Clone)]
pub struct Lane {
    gate: Arc<Gate>,
    worker: usize,
}

/// Leave to make one call; handed back with [`Permit::record`]. Dropped without a verdict the call counts as
/// ignored, and a probe's slot is free again: a client that vanishes can never wedge the half-open state.
#[must_use]
pub struct Permit {
    lane: Lane,
    ticket: Ticket,
    kind: CallKind,
    start: Instant,
    /// A connect or a startup that was counted as one.
    setup: bool,
    reported: bool,
}

/// A gate's state and figures at one moment, for the admin API.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The backend's name.
    pub name: Arc<str>,
    /// The breaker's state.
    pub state: State,
    /// Whether its decisions are carried out.
    pub mode: Mode,
    /// Whether it is closed for some of the calls only, after its recovery.
    pub slow_start: bool,
    /// Its generation.
    pub generation: Generation,
    /// When the state was entered.
    pub since: Instant,
    /// Failures since the last success; zero unless closed.
    pub consecutive_failures: u32,
    /// Probes under way.
    pub probes_in_flight: usize,
    /// When the breaker will next act by itself: open → half-open, a probe's end, the end of a slow start.
    pub deadline: Option<Instant>,
    /// How often it has opened.
    pub trips: u64,
    /// Openings by [`crate::breaker::Condition::label`].
    pub trips_by_condition: BTreeMap<&'static str, u64>,
    /// The last opening.
    pub last_trip: Option<Arc<Trip>>,
    /// Failures by cause.
    pub failures: BTreeMap<Cause, u64>,
    /// How much the backend is asked at a time, at most.
    pub bulkhead: Bulkhead,
    /// Connections that have a place in it.
    pub connections: u32,
    /// When fusewire tests the backend by itself.
    pub check: When,
    /// Such tests by [`Finding::label`].
    pub checks: BTreeMap<&'static str, u64>,
    /// The last of them.
    pub last_check: Option<Checked>,
    /// The counts.
    pub totals: Totals,
}

const CODE_MASK: u64 = 0b11;
/// In the place of a state: closed, but not for every call (a slow start, a limit on calls in flight). It must not look
/// closed to [`Lane::closed`].
const GUARDED_CODE: u64 = 0b11;
/// A success matters: there is a run of failures for it to end, or a window for it to go into.
const RUN_FLAG: u64 = 0b100;
const GENERATION_SHIFT: u32 = 3;

fn word_of(breaker: &Breaker) -> u64 {
    let run = if breaker.wants_success() { RUN_FLAG } else { 0 };
    let limited = breaker.policy().bulkhead.calls.is_some() && breaker.mode() != Mode::Disabled;
    let code = match breaker.state() {
        State::Closed if limited || breaker.is_slow_starting() => GUARDED_CODE,
        state => u64::from(state.gauge()),
    };
    (breaker.generation() << GENERATION_SHIFT) | run | code
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
            word: AtomicU64::new(word_of(&breaker)),
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
        Lane { gate: self.clone(), worker }
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

    /// The check that is to be made next in the present state; none: no check.
    pub fn check_due(&self) -> Option<CheckDue> {
        let breaker = &self.lock().breaker;
        let policy = breaker.policy();
        let Checks { interval, .. } = policy.checks;
        let (generation, patience) = (breaker.generation(), policy.probe_timeout);
        breaker.wants_checks().then_some(CheckDue { generation, interval, patience })
    }

    /// Takes what a check has found. The next one will have ended within the longest pause and `lasting`.
    pub fn checked(&self, due: CheckDue, checked: Checked, lasting: Duration) {
        let Checked { at, duration, finding } = checked.clone();
        let verdict = match &finding {
            Finding::Ready => Verdict::Success,
            Finding::Failed(cause) => Verdict::Failure(cause.clone()),
            Finding::Alive | Finding::Nothing => Verdict::Ignored,
        };
        let outcome = Outcome { at, kind: CallKind::Check, verdict, duration };
        self.with(|inner| {
            *inner.checks.entry(finding.label()).or_default() += 1;
            inner.last_check = Some(checked);
            inner.breaker.check(due.generation, finding, Pace::longest(due.interval) + lasting, outcome);
        });
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

    /// State and figures at this moment.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut totals = Totals::default();
        self.tallies.iter().for_each(|tally| totals.absorb(tally));
        // First, so that what time alone brought about is booked when the figures are read.
        self.tick(now);
        self.with(|inner| {
            let breaker = &inner.breaker;
            Snapshot {
                name: self.name.clone(),
                state: breaker.state(),
                mode: breaker.mode(),
                slow_start: breaker.is_slow_starting(),
                generation: breaker.generation(),
                since: breaker.since(),
                consecutive_failures: breaker.consecutive_failures(),
                probes_in_flight: breaker.probes_in_flight(),
                deadline: breaker.deadline(),
                trips: breaker.trips(),
                trips_by_condition: inner.trips.clone(),
                last_trip: breaker.last_trip().cloned(),
                failures: inner.failures.clone(),
                bulkhead: breaker.policy().bulkhead.clone(),
                connections: inner.connections,
                check: breaker.policy().checks.when,
                checks: inner.checks.clone(),
                last_check: inner.last_check.clone(),
                totals,
            }
        })
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
        self.word.store(word_of(&inner.breaker), Ordering::Release);
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

fn log(name: &str, transition: &Transition) {
    let (from, to) = (transition.from.label(), transition.to.label());
    let (shout_from, shout_to) = (from.to_uppercase(), to.to_uppercase());
    let (why, mode) = (&transition.why, transition.mode.label());
    let retry_after = transition.retry_after.map(|delay| humantime::format_duration(delay).to_string());
    // Whoever reads `OPEN` in the log must not look for rejections that never were.
    let observing = if transition.mode == Mode::Observe { " (observing: nothing is rejected)" } else { "" };
    if transition.to == State::Open {
        tracing::warn!(
            backend = name,
            from,
            to,
            mode,
            reason = why.label(),
            last_error = why.cause().map(tracing::field::display),
            retry_after = retry_after.as_deref().unwrap_or("reset"),
            "Circuit breaker '{name}' transitioned from {shout_from} to {shout_to} after {why}{observing}"
        );
    } else {
        tracing::info!(
            backend = name,
            from,
            to,
            mode,
            reason = why.label(),
            "Circuit breaker '{name}' transitioned from {shout_from} to {shout_to} after {why}{observing}"
        );
    }
}

impl Lane {
    /// The gate behind it.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Counts into this worker's tally.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        self.tally().add(counter, n);
    }

    /// The generation, if the breaker is closed: a whole batch of calls may pass on it, each accounted with
    /// [`Lane::passed`] and [`Lane::succeeded`] or [`Lane::permit_of`]. One atomic load.
    #[inline]
    pub fn closed(&self) -> Option<Generation> {
        let word = self.gate.word.load(Ordering::Acquire);
        (word & CODE_MASK == u64::from(State::Closed.gauge())).then_some(word >> GENERATION_SHIFT)
    }

    /// Accounts for `n` calls let through on [`Lane::closed`].
    #[inline]
    pub fn passed(&self, n: u64) {
        self.tally().add(Counter::Admitted, n);
    }

    /// Ends `n` calls that [`Lane::passed`] accounted for with success: no lock while nothing has failed and no
    /// window is on, otherwise one for all of them.
    #[inline]
    pub fn succeeded(
        &self,
        now: Instant,
        generation: Generation,
        kind: CallKind,
        duration: Duration,
        n: u64,
    ) {
        let tally = self.tally();
        tally.add(Counter::Success, n);
        tally.observe(duration, n);
        let word = self.gate.word.load(Ordering::Acquire);
        let closed = (generation << GENERATION_SHIFT) | u64::from(State::Closed.gauge());
        if word != closed && word != closed | GUARDED_CODE {
            let outcome = Outcome { at: now, kind, verdict: Verdict::Success, duration };
            self.settle_all(Ticket::ordinary(generation), outcome, n);
        }
    }

    /// Ends one call that [`Lane::passed`] accounted for with success, without a latency sample: a blocking
    /// command that waited for a minute says nothing about the backend's speed.
    pub fn succeeded_untimed(&self, now: Instant, generation: Generation, kind: CallKind) {
        self.add(Counter::Success, 1);
        let outcome = Outcome { at: now, kind, verdict: Verdict::Success, duration: Duration::ZERO };
        self.settle(Ticket::ordinary(generation), outcome);
    }

    /// Ends `n` calls that [`Lane::passed`] accounted for without a verdict on the backend.
    #[inline]
    pub fn ignored(&self, n: u64) {
        self.tally().add(Counter::Ignored, n);
    }

    /// The permit of one call that [`Lane::passed`] accounted for, to end it with any verdict.
    pub fn permit_of(&self, generation: Generation, kind: CallKind, start: Instant) -> Permit {
        let ticket = Ticket::ordinary(generation);
        Permit { lane: self.clone(), ticket, kind, start, setup: false, reported: false }
    }

    /// Asks to make one call.
    ///
    /// # Errors
    /// A [`Rejection`], already counted, unless the breaker is closed (in a slow start: for this one), a probe slot is
    /// free, or it is merely observing.
    pub fn admit(&self, now: Instant, kind: CallKind) -> Result<Permit, Rejection> {
        self.counted(self.admit_uncounted(now, kind))
    }

    /// As [`Lane::admit`], for a step that is not a call of the client's own: a connection that is not let through
    /// shows in the figures as the commands that are rejected over it.
    ///
    /// # Errors
    /// A [`Rejection`], not counted, unless the breaker is closed or a probe slot is free.
    pub fn admit_uncounted(&self, now: Instant, kind: CallKind) -> Result<Permit, Rejection> {
        let answer = self.ask(now, kind, |breaker| breaker.admit(now, kind));
        if answer.as_ref().is_ok_and(Ticket::is_probe) {
            self.add(Counter::Probes, 1);
            self.gate.alarm.notify_one();
        }
        self.answer(now, kind, answer)
    }

    /// Asks to make a call that must not be a probe because it may rightly take long: a blocking command, a
    /// subscription, a COPY, replication.
    ///
    /// # Errors
    /// A [`Rejection`], already counted, unless the breaker is closed (in a slow start: for this one) or merely
    /// observing.
    pub fn admit_ineligible(&self, now: Instant, kind: CallKind) -> Result<Permit, Rejection> {
        let answer = self.ask(now, kind, |breaker| breaker.admit_ineligible(now));
        self.counted(self.answer(now, kind, answer))
    }

    /// Counts `n` more calls that met the same rejection as the one that was asked for: the rest of a batch.
    pub fn rejected(&self, rejection: &Rejection, n: u64) {
        let counter = match &rejection.grounds {
            Grounds::Full(_) => Counter::RejectedCalls,
            Grounds::Breaker(refusal) => match refusal.state {
                State::Open => Counter::RejectedOpen,
                State::HalfOpen => Counter::RejectedHalfOpen,
                State::Closed => Counter::RejectedSlowStart,
            },
        };
        self.add(counter, n);
    }

    /// Counts a rejection, and one that would have been.
    fn counted(&self, answer: Result<Permit, Rejection>) -> Result<Permit, Rejection> {
        match &answer {
            Err(rejection) => self.rejected(rejection, 1),
            Ok(permit) if permit.ticket.is_spared() => self.add(Counter::WouldReject, 1),
            Ok(_) => {}
        }
        answer
    }

    /// Asks the bulkhead, then the breaker. What passes is counted before the next one asks, or two would take the last
    /// place.
    fn ask(
        &self,
        now: Instant,
        kind: CallKind,
        admit: impl FnOnce(&mut Breaker) -> Result<Ticket, Refusal>,
    ) -> Result<Ticket, Rejection> {
        self.gate.with(|inner| {
            let full = inner.full(now, kind, &self.gate.tallies);
            let answer = match (full, inner.breaker.mode()) {
                (Some(limit), Mode::Enforce) => Err(Grounds::Full(limit)),
                _ => admit(&mut inner.breaker).map_err(Grounds::Breaker),
            };
            let ticket = answer.map_err(|grounds| inner.rejection(&self.gate.name, grounds))?;
            self.passed(1);
            if is_setup(kind) {
                self.add(Counter::SetupsBegun, 1);
            }
            if full.is_some() && !ticket.is_spared() {
                self.add(Counter::WouldReject, 1);
            }
            Ok(ticket)
        })
    }

    fn answer(
        &self,
        now: Instant,
        kind: CallKind,
        answer: Result<Ticket, Rejection>,
    ) -> Result<Permit, Rejection> {
        answer.map(|ticket| Permit {
            lane: self.clone(),
            ticket,
            kind,
            start: now,
            setup: is_setup(kind),
            reported: false,
        })
    }

    fn settle(&self, ticket: Ticket, outcome: Outcome) {
        self.settle_all(ticket, outcome, 1);
    }

    /// Hands the breaker the same verdict of `n` calls at once.
    fn settle_all(&self, ticket: Ticket, outcome: Outcome, n: u64) {
        let counts = outcome.verdict != Verdict::Ignored;
        let in_time = self.gate.with(|inner| {
            if let Verdict::Failure(cause) = &outcome.verdict {
                *inner.failures.entry(cause.clone()).or_default() += n;
            }
            inner.breaker.record_batch(ticket, outcome, n)
        });
        if counts && in_time < n {
            self.add(Counter::Stale, n - in_time);
        }
    }

    #[inline]
    fn tally(&self) -> &Tally {
        &self.gate.tallies[self.worker]
    }
}

impl Permit {
    /// Whether the call is a probe.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }

    /// Whether the call would have been rejected if the breaker were not merely observing.
    pub fn is_spared(&self) -> bool {
        self.ticket.is_spared()
    }

    /// When the call was admitted.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The generation that admitted it.
    pub fn generation(&self) -> Generation {
        self.ticket.generation
    }

    /// Whether its verdict would still have an effect: the breaker has not changed its state since, and a probe has its
    /// slot.
    pub fn is_live(&self, now: Instant) -> bool {
        self.lane.gate.with(|inner| inner.breaker.is_live(now, self.ticket))
    }

    /// Says whose move it is: the backend's, or the client's. Without effect on calls that are not probes.
    pub fn set_owed(&self, owed: bool) {
        if self.is_probe() {
            self.lane.gate.with(|inner| inner.breaker.set_owed(self.ticket, owed));
        }
    }

    /// Gives up the guard over a call that is no probe, without ending it: whoever keeps its generation and start
    /// ends it as one that [`Lane::passed`] accounted for.
    pub fn defer(mut self) -> Generation {
        debug_assert!(!self.is_probe(), "a probe is ended by its permit");
        debug_assert!(!self.setup, "a connect is ended by its permit");
        self.reported = true;
        self.ticket.generation
    }

    /// Ends the call.
    pub fn record(mut self, now: Instant, verdict: Verdict) {
        self.reported = true;
        self.end_setup();
        let duration = now.saturating_duration_since(self.start);
        match verdict {
            Verdict::Success => {
                self.lane.add(Counter::Success, 1);
                self.lane.tally().observe(duration, 1);
            }
            Verdict::Failure(_) => {
                self.lane.add(Counter::Failure, 1);
                self.lane.tally().observe(duration, 1);
            }
            Verdict::Ignored => self.lane.add(Counter::Ignored, 1),
        }
        self.lane.settle(self.ticket, Outcome { at: now, kind: self.kind, verdict, duration });
    }

    fn end_setup(&self) {
        if self.setup {
            self.lane.add(Counter::SetupsEnded, 1);
        }
    }

    fn release(&mut self) {
        self.end_setup();
        self.lane.add(Counter::Ignored, 1);
        if self.is_probe() {
            // The breaker only needs to know that the slot is free, so the time of it does not matter: the
            // admission's own is the one that cannot run ahead of the clock.
            let outcome = Outcome {
                at: self.start,
                kind: self.kind,
                verdict: Verdict::Ignored,
                duration: Duration::ZERO,
            };
            self.lane.settle(self.ticket, outcome);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.reported {
            self.release();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("ticket", &self.ticket)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
