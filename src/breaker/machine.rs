//! closed → open → half-open → closed | open, with a generation for each state.
//!
//! Absent on purpose: clocks, locks, randomness, logs. [`Breaker::tick`] is the only thing that time does, and
//! every public entry ticks first, so a late timer cannot change what a call is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::evidence::{Condition, Outcome, Trip};
use super::policy::Policy;
use super::verdict::{CallKind, Cause, Fault, Verdict};

/// Counts state changes. A verdict from an older generation has no effect.
pub type Generation = u64;

/// One backend's breaker.
#[derive(Debug)]
pub struct Breaker {
    policy: Policy,
    phase: Phase,
    generation: Generation,
    since: Instant,
    trips: u64,
    last_trip: Option<Arc<Trip>>,
    next_probe: u64,
    transitions: Vec<Transition>,
}

/// The state with the data that only it has. [`Breaker::enter`] is the only way from one to another.
#[derive(Debug)]
enum Phase {
    /// Left for `Open` by a trip condition or by hand.
    Closed(Run),
    /// Left for `HalfOpen` when `until` has passed, for `Closed` by hand. Without `until` only by hand.
    Open { until: Option<Instant> },
    /// Left for `Closed` after enough successes or by hand, for `Open` by a failed or silent probe or by hand.
    HalfOpen { successes: u32, slots: Vec<Slot> },
}

/// Failures since the last success, and the outcomes to show if they trip the breaker.
#[derive(Debug, Default)]
struct Run {
    failures: u32,
    outcomes: VecDeque<Outcome>,
}

/// A probe under way.
#[derive(Debug)]
struct Slot {
    probe: u64,
    admitted: Instant,
    expires: Instant,
    kind: CallKind,
    /// The backend owes the next move. A probe that expires while its client is the silent one decides nothing.
    owed: bool,
}

/// The three states, without their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are rejected.
    Open,
    /// A few calls pass as probes, the rest are rejected.
    HalfOpen,
}

impl State {
    /// `closed`, `open`, `half_open`: the word in the API and in labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// The value of the `circuit_breaker_state` gauge: 0 closed, 1 half-open, 2 open.
    pub fn gauge(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// Leave to make one call, and what to hand back with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    /// The generation that admitted the call.
    pub generation: Generation,
    probe: Option<u64>,
}

impl Ticket {
    /// A ticket of a closed breaker, for callers that know the generation to be closed.
    pub(crate) fn ordinary(generation: Generation) -> Self {
        Self { generation, probe: None }
    }

    /// Whether the call is a probe and so holds a slot until it reports.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

/// Why a call is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `Open`, or `HalfOpen` with every probe slot taken.
    pub state: State,
    /// The trip that began this outage.
    pub trip: Option<Arc<Trip>>,
    /// When trying again may help; none when only an operator can close the breaker.
    pub retry_at: Option<Instant>,
}

/// A change of state, to be logged and counted by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The state that was left.
    pub from: State,
    /// The state that was entered.
    pub to: State,
    /// When.
    pub at: Instant,
    /// The generation that began.
    pub generation: Generation,
    /// What caused it.
    pub why: Why,
    /// For a transition to open: how long until probes; none when only an operator ends it.
    pub retry_after: Option<Duration>,
}

/// The cause of a [`Transition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// To open.
    Tripped(Arc<Trip>),
    /// To half-open: the recovery delay has passed.
    DelayPassed,
    /// To closed: this many probes succeeded.
    ProbesSucceeded(u32),
    /// To closed: an operator reset it.
    Reset,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            phase: Phase::Closed(Run::default()),
            generation: 0,
            since: now,
            trips: 0,
            last_trip: None,
            next_probe: 0,
            transitions: Vec::new(),
        }
    }

    /// Asks to make one call.
    ///
    /// # Errors
    /// [`Refusal`] while open, and while half-open with every probe slot taken.
    pub fn admit(&mut self, now: Instant, kind: CallKind) -> Result<Ticket, Refusal> {
        self.tick(now);
        let generation = self.generation;
        match &mut self.phase {
            Phase::Closed(_) => Ok(Ticket::ordinary(generation)),
            Phase::HalfOpen { slots, .. } if slots.len() < self.policy.probes as usize => {
                let probe = self.next_probe;
                self.next_probe += 1;
                let expires = now + self.policy.probe_timeout;
                slots.push(Slot { probe, admitted: now, expires, kind, owed: true });
                Ok(Ticket { generation, probe: Some(probe) })
            }
            _ => Err(self.refusal()),
        }
    }

    /// Asks for leave to make a call that may rightly take long (a blocking command, a COPY): passes when
    /// closed, and is never a probe.
    ///
    /// # Errors
    /// [`Refusal`] unless closed.
    pub fn admit_ineligible(&mut self, now: Instant) -> Result<Ticket, Refusal> {
        self.tick(now);
        match self.phase {
            Phase::Closed(_) => Ok(Ticket::ordinary(self.generation)),
            _ => Err(self.refusal()),
        }
    }

    /// Takes the verdict of an admitted call. Returns whether it had any effect on the breaker: one from an
    /// older generation, or from a probe whose slot has expired, has none.
    pub fn record(&mut self, ticket: Ticket, outcome: Outcome) -> bool {
        let now = outcome.at;
        self.tick(now);
        if ticket.generation != self.generation {
            return false;
        }
        match &mut self.phase {
            Phase::Open { .. } => false,
            Phase::Closed(run) => {
                match &outcome.verdict {
                    Verdict::Ignored => return false,
                    Verdict::Success => *run = Run::default(),
                    Verdict::Failure(cause) => {
                        let cause = cause.clone();
                        run.push(outcome);
                        if run.failures >= self.policy.failure_threshold {
                            let condition = Condition::ConsecutiveFailures(run.failures);
                            let evidence = run.outcomes.drain(..).collect();
                            self.open(Trip { at: now, condition, cause: Some(cause), evidence });
                        }
                    }
                }
                true
            }
            Phase::HalfOpen { successes, slots } => {
                let Some(at) = slots.iter().position(|slot| Some(slot.probe) == ticket.probe) else {
                    return false;
                };
                slots.swap_remove(at);
                match &outcome.verdict {
                    Verdict::Ignored => {}
                    Verdict::Success => {
                        *successes += 1;
                        let successes = *successes;
                        if successes >= self.policy.success_threshold {
                            self.enter(now, Phase::Closed(Run::default()), Why::ProbesSucceeded(successes));
                        }
                    }
                    Verdict::Failure(cause) => {
                        let cause = cause.clone();
                        self.probe_failed(now, cause, outcome);
                    }
                }
                true
            }
        }
    }

    /// Says whose move it is in a probe: the backend's (`owed`), or its client's. A probe that expires is a
    /// failure only when the backend was the silent one.
    pub fn set_owed(&mut self, ticket: Ticket, owed: bool) {
        if ticket.generation != self.generation {
            return;
        }
        if let Phase::HalfOpen { slots, .. } = &mut self.phase
            && let Some(slot) = slots.iter_mut().find(|slot| Some(slot.probe) == ticket.probe)
        {
            slot.owed = owed;
        }
    }

    /// Lets time pass: open becomes half-open when its delay is over, expired probes lose their slots.
    pub fn tick(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Closed(_) => {}
            Phase::Open { until } => {
                if until.is_some_and(|until| until <= now) {
                    let phase = Phase::HalfOpen { successes: 0, slots: Vec::new() };
                    self.enter(now, phase, Why::DelayPassed);
                }
            }
            Phase::HalfOpen { slots, .. } => {
                let silent = slots.iter().position(|slot| slot.expires <= now && slot.owed);
                match silent.map(|at| slots.swap_remove(at)) {
                    Some(slot) => {
                        let cause = Cause::Fault(Fault::ProbeSilent);
                        let duration = now.saturating_duration_since(slot.admitted);
                        let verdict = Verdict::Failure(cause.clone());
                        self.probe_failed(
                            now,
                            cause,
                            Outcome { at: now, kind: slot.kind, verdict, duration },
                        );
                    }
                    None => slots.retain(|slot| slot.expires > now),
                }
            }
        }
    }

    /// When [`Breaker::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Closed(_) => None,
            Phase::Open { until } => *until,
            Phase::HalfOpen { slots, .. } => slots.iter().map(|slot| slot.expires).min(),
        }
    }

    /// Closes the breaker by hand and forgets the run of failures.
    pub fn reset(&mut self, now: Instant) {
        self.tick(now);
        match &mut self.phase {
            Phase::Closed(run) => *run = Run::default(),
            _ => self.enter(now, Phase::Closed(Run::default()), Why::Reset),
        }
    }

    /// Opens the breaker by hand: for `hold`, after which probes decide, or until it is reset.
    pub fn trip(&mut self, now: Instant, hold: Option<Duration>) {
        self.tick(now);
        let trip = Trip { at: now, condition: Condition::Manual, cause: None, evidence: Arc::new([]) };
        self.open_until(hold.map(|hold| now + hold), trip);
    }

    /// The present state.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed(_) => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// The present generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// When the present state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Failures since the last success; zero unless closed.
    pub fn consecutive_failures(&self) -> u32 {
        match &self.phase {
            Phase::Closed(run) => run.failures,
            _ => 0,
        }
    }

    /// How often it has opened, re-openings by failed probes included.
    pub fn trips(&self) -> u64 {
        self.trips
    }

    /// The last opening; kept after recovery.
    pub fn last_trip(&self) -> Option<&Arc<Trip>> {
        self.last_trip.as_ref()
    }

    /// Probes under way.
    pub fn probes_in_flight(&self) -> usize {
        match &self.phase {
            Phase::HalfOpen { slots, .. } => slots.len(),
            _ => 0,
        }
    }

    /// What a call that is not let through is told.
    fn refusal(&self) -> Refusal {
        Refusal { state: self.state(), trip: self.last_trip.clone(), retry_at: self.deadline() }
    }

    /// The transitions since the last call of this.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    fn probe_failed(&mut self, now: Instant, cause: Cause, outcome: Outcome) {
        let evidence = Arc::new([outcome]);
        self.open(Trip { at: now, condition: Condition::ProbeFailed, cause: Some(cause), evidence });
    }

    fn open(&mut self, trip: Trip) {
        self.open_until(Some(trip.at + self.policy.recovery_timeout), trip);
    }

    fn open_until(&mut self, until: Option<Instant>, trip: Trip) {
        let (now, trip) = (trip.at, Arc::new(trip));
        self.trips += 1;
        self.last_trip = Some(trip.clone());
        self.enter(now, Phase::Open { until }, Why::Tripped(trip));
    }

    fn enter(&mut self, now: Instant, phase: Phase, why: Why) {
        let from = self.state();
        let retry_after = match phase {
            Phase::Open { until } => until.map(|until| until.saturating_duration_since(now)),
            _ => None,
        };
        self.phase = phase;
        self.generation += 1;
        self.since = now;
        let (to, generation) = (self.state(), self.generation);
        self.transitions.push(Transition { from, to, at: now, generation, why, retry_after });
    }
}

impl Run {
    fn push(&mut self, failure: Outcome) {
        self.failures = self.failures.saturating_add(1);
        if self.outcomes.len() == Trip::EVIDENCE_MAX {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(failure);
    }
}
