//! closed → open → half-open → closed | open, with a generation for each state.
//!
//! Absent on purpose: clocks, locks, randomness, logs. [`Breaker::tick`] is the only thing that time does, and
//! every public entry ticks first, so a late timer cannot change what a call is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::check::{Finding, Remedy, Trust, When};
use super::closed::{Closed, is_slow};
use super::evidence::{Condition, Outcome, Trip};
use super::policy::{Mode, Policy};
use super::ramp::Ramp;
use super::ticket::{Leave, Refusal, Ticket};
use super::transition::{Generation, State, Transition, Why};
use super::verdict::{CallKind, Cause, Fault, Verdict};

/// One backend's breaker.
#[derive(Debug)]
pub struct Breaker {
    policy: Policy,
    mode: Mode,
    phase: Phase,
    backoff: Backoff,
    trust: Trust,
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
    /// Left for `Open` by a trip condition or by hand. Never left while disabled.
    Closed(Closed),
    /// Left for `HalfOpen` when `until` has passed or by a check that succeeds, for `Closed` by hand or by such a check.
    /// Without `until` only by hand.
    Open { until: Option<Instant> },
    /// Left for `Closed` after enough successes or by hand, for `Open` by a failed or silent probe, by a failed check or by
    /// hand.
    HalfOpen { successes: u32, slots: Vec<Slot> },
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
    /// The client has never had a move of its own since the admission, so the time is all the backend's.
    timed: bool,
}

impl Breaker {
    /// A closed breaker. Those of one fleet get different seeds, so that their jitters differ.
    pub fn new(policy: Policy, seed: u64, now: Instant) -> Self {
        Self {
            mode: policy.mode,
            phase: Phase::Closed(Closed::new(&policy, now)),
            policy,
            backoff: Backoff::new(seed),
            trust: Trust::default(),
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
    /// [`Refusal`] while open, while half-open with every probe slot taken, and in a slow start beyond its share.
    /// Never while observing or disabled.
    pub fn admit(&mut self, now: Instant, kind: CallKind) -> Result<Ticket, Refusal> {
        self.tick(now);
        let answer = self.decide(now, Some(kind));
        self.enforce(answer)
    }

    /// Asks for leave to make a call that may rightly take long (a blocking command, a COPY): it is never a probe.
    ///
    /// # Errors
    /// As [`Breaker::admit`], and while half-open with a free slot too.
    pub fn admit_ineligible(&mut self, now: Instant) -> Result<Ticket, Refusal> {
        self.tick(now);
        let answer = self.decide(now, None);
        self.enforce(answer)
    }

    /// The answer to a call, which may become a probe if its kind is given.
    fn decide(&mut self, now: Instant, probe: Option<CallKind>) -> Result<Ticket, Refusal> {
        let generation = self.generation;
        match (&mut self.phase, probe) {
            (Phase::Closed(closed), _) => {
                let passes = closed.ramp.as_mut().is_none_or(|ramp| ramp.passes(now));
                if passes { Ok(Ticket::ordinary(generation)) } else { Err(self.refusal()) }
            }
            (Phase::HalfOpen { slots, .. }, Some(kind)) if slots.len() < self.policy.probes as usize => {
                let probe = self.next_probe;
                self.next_probe += 1;
                let expires = now + self.policy.probe_timeout;
                slots.push(Slot { probe, admitted: now, expires, kind, owed: true, timed: true });
                Ok(Ticket { generation, leave: Leave::Probe(probe) })
            }
            _ => Err(self.refusal()),
        }
    }

    /// What becomes of an answer in this mode. Probes are probes in every mode, or an observing breaker would never
    /// close again.
    fn enforce(&self, answer: Result<Ticket, Refusal>) -> Result<Ticket, Refusal> {
        match answer {
            Err(_) if self.mode == Mode::Observe => {
                Ok(Ticket { generation: self.generation, leave: Leave::Spared })
            }
            answer => answer,
        }
    }

    /// Takes the verdict of an admitted call. Returns whether it came in time: one from an older generation, or from
    /// a probe whose slot has expired, does not, and has no effect.
    pub fn record(&mut self, ticket: Ticket, outcome: Outcome) -> bool {
        self.record_batch(ticket, outcome, 1) == 1
    }

    /// Takes the same verdict of `n` calls, as if they had been recorded one by one. Returns how many came in time.
    pub fn record_batch(&mut self, ticket: Ticket, outcome: Outcome, n: u64) -> u64 {
        let now = outcome.at;
        self.tick(now);
        if ticket.generation != self.generation {
            return 0;
        }
        match &mut self.phase {
            // A call that was spared: had it been refused, there would be nothing to learn from it.
            Phase::Open { .. } => n,
            Phase::Closed(_) if self.mode == Mode::Disabled || outcome.verdict == Verdict::Ignored => n,
            Phase::Closed(closed) => {
                for taken in 1..=n {
                    if let Some(trip) = closed.take(&self.policy, &outcome) {
                        self.open(trip);
                        return taken;
                    }
                    if !closed.wants_success() {
                        // It was a success, and more of them change nothing.
                        break;
                    }
                }
                n
            }
            Phase::HalfOpen { successes, slots } => {
                let Some(probe) = ticket.probe() else { return n };
                let Some(at) = slots.iter().position(|slot| slot.probe == probe) else { return 0 };
                let slot = slots.swap_remove(at);
                match &outcome.verdict {
                    Verdict::Ignored => {}
                    Verdict::Success if slot.timed && is_slow(&self.policy.rates, &outcome) => {
                        self.probe_failed(Condition::ProbeSlow, None, outcome);
                    }
                    Verdict::Success => {
                        *successes += 1;
                        let successes = *successes;
                        self.trust = Trust::default();
                        self.recover(now, successes, Why::ProbesSucceeded(successes));
                    }
                    Verdict::Failure(cause) => {
                        let cause = Some(cause.clone());
                        self.probe_failed(Condition::ProbeFailed, cause, outcome);
                    }
                }
                n
            }
        }
    }

    /// Whether the verdict of this call would come in time: the generation that admitted it lasts, and a probe has its
    /// slot.
    pub fn is_live(&mut self, now: Instant, ticket: Ticket) -> bool {
        self.tick(now);
        let holds = match (&self.phase, ticket.probe()) {
            (Phase::HalfOpen { slots, .. }, Some(probe)) => slots.iter().any(|slot| slot.probe == probe),
            (_, probe) => probe.is_none(),
        };
        holds && ticket.generation == self.generation
    }

    /// Takes what a check has found that was begun in `generation`; the next one will have been made within `next`. What an
    /// older generation's check has found changes nothing, and neither does any while it is disabled or forced open.
    pub fn check(&mut self, generation: Generation, finding: Finding, next: Duration, outcome: Outcome) {
        let now = outcome.at;
        self.tick(now);
        if generation != self.generation || self.mode == Mode::Disabled || self.is_forced_open() {
            return;
        }
        match (&mut self.phase, finding) {
            (_, Finding::Nothing) => {}
            (Phase::Closed(closed), Finding::Failed(cause)) => {
                if let Some(trip) = closed.check_failed(&self.policy, &cause, outcome) {
                    self.trust = Trust::default();
                    self.open(trip);
                }
            }
            (Phase::Closed(closed), Finding::Ready) => closed.check_succeeded(),
            (Phase::Closed(_), Finding::Alive) => {}
            (Phase::Open { until }, Finding::Failed(_)) => {
                // A user's call would only find out the same. It ends by itself if no more checks are made.
                *until = until.map(|until| until.max(now + next));
                self.trust = Trust::default();
            }
            (Phase::Open { .. }, Finding::Ready) if self.trust.believes() => {
                let close = self.policy.checks.may == Remedy::Close;
                self.half_open(now, u32::from(close), Why::CheckSucceeded);
                self.trust.vouch();
                if close {
                    self.recover(now, 1, Why::CheckSucceeded);
                }
            }
            (Phase::Open { .. }, Finding::Alive) if self.trust.believes() => {
                // That it answers is news only if it did not: LOADING may well hide behind the wish for a password.
                let cause = self.last_trip.as_ref().and_then(|trip| trip.cause.as_ref());
                if matches!(cause, Some(Cause::Fault(_))) {
                    self.half_open(now, 0, Why::CheckSucceeded);
                    self.trust.vouch();
                }
            }
            (Phase::Open { .. }, Finding::Ready | Finding::Alive) => {}
            (Phase::HalfOpen { .. }, Finding::Failed(cause)) => {
                self.trust = Trust::default();
                self.probe_failed(Condition::FailedChecks(1), Some(cause), outcome);
            }
            (Phase::HalfOpen { successes, .. }, Finding::Ready)
                if self.policy.checks.may == Remedy::Close && self.trust.believes() =>
            {
                *successes += 1;
                let successes = *successes;
                self.trust.vouch();
                self.recover(now, successes, Why::CheckSucceeded);
            }
            (Phase::HalfOpen { .. }, Finding::Ready | Finding::Alive) => {}
        }
    }

    /// Whether checks are to be made in the present state.
    pub fn wants_checks(&self) -> bool {
        let when = match self.policy.checks.when {
            When::Off => false,
            When::WhileOpen => self.state() != State::Closed,
            When::Always => true,
        };
        when && self.mode != Mode::Disabled && !self.is_forced_open()
    }

    /// Whether an operator has opened it, whose word goes before that of a check.
    fn is_forced_open(&self) -> bool {
        let manual = self.last_trip.as_ref().is_some_and(|trip| trip.condition == Condition::Manual);
        manual && self.state() == State::Open
    }

    /// Says whose move it is in a probe: the backend's (`owed`), or its client's. A probe that expires is a
    /// failure only when the backend was the silent one.
    pub fn set_owed(&mut self, ticket: Ticket, owed: bool) {
        if ticket.generation != self.generation {
            return;
        }
        if let Phase::HalfOpen { slots, .. } = &mut self.phase
            && let Some(slot) = slots.iter_mut().find(|slot| Some(slot.probe) == ticket.probe())
        {
            slot.owed = owed;
            slot.timed &= owed;
        }
    }

    /// Lets time pass: open becomes half-open when its delay is over, expired probes lose their slots, a slow start
    /// comes to its end.
    pub fn tick(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Closed(closed) => {
                if closed.ramp.as_ref().is_some_and(|ramp| ramp.end() <= now) {
                    closed.ramp = None;
                }
            }
            Phase::Open { until } => {
                if until.is_some_and(|until| until <= now) {
                    self.half_open(now, 0, Why::DelayPassed);
                }
            }
            Phase::HalfOpen { slots, .. } => {
                let silent = slots.iter().position(|slot| slot.expires <= now && slot.owed);
                match silent.map(|at| slots.swap_remove(at)) {
                    Some(slot) => {
                        let cause = Cause::Fault(Fault::ProbeSilent);
                        let duration = now.saturating_duration_since(slot.admitted);
                        let verdict = Verdict::Failure(cause.clone());
                        let outcome = Outcome { at: now, kind: slot.kind, verdict, duration };
                        self.probe_failed(Condition::ProbeFailed, Some(cause), outcome);
                    }
                    None => slots.retain(|slot| slot.expires > now),
                }
            }
        }
    }

    /// When [`Breaker::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Closed(closed) => closed.ramp.as_ref().map(Ramp::end),
            Phase::Open { until } => *until,
            Phase::HalfOpen { slots, .. } => slots.iter().map(|slot| slot.expires).min(),
        }
    }

    /// Closes the breaker by hand, at once and for all calls, and forgets its run, its window and its back-off. The
    /// mode stays.
    pub fn reset(&mut self, now: Instant) {
        self.tick(now);
        self.close(now, Why::Reset);
    }

    /// Opens the breaker by hand: for `hold`, after which probes decide, or until it is reset. While disabled it
    /// does nothing.
    pub fn trip(&mut self, now: Instant, hold: Option<Duration>) {
        self.tick(now);
        if self.mode == Mode::Disabled {
            return;
        }
        self.forgive(now);
        let trip = Trip { at: now, condition: Condition::Manual, cause: None, evidence: Arc::new([]) };
        self.open_until(hold.map(|hold| now + hold), trip);
    }

    /// Goes on under another policy: the state, its end, the run of failures and the probes under way stay. The mode
    /// changes only if the policy's does, so that one that was set by hand survives.
    pub fn set_policy(&mut self, now: Instant, policy: Policy) {
        self.tick(now);
        let mode = policy.mode;
        let before = std::mem::replace(&mut self.policy, policy);
        if let Phase::Closed(closed) = &mut self.phase {
            closed.adopt(&before, &self.policy, now);
        }
        if before.mode != mode {
            self.set_mode(now, mode);
        }
    }

    /// Changes the mode. To disable is to close; between enforcing and observing the state stays, so that what
    /// was observed holds at once when it is enforced.
    pub fn set_mode(&mut self, now: Instant, mode: Mode) {
        self.tick(now);
        let before = std::mem::replace(&mut self.mode, mode);
        if before != mode && (before == Mode::Disabled || mode == Mode::Disabled) {
            self.close(now, Why::Disabled);
        }
    }

    /// What it goes by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether decisions are carried out.
    pub fn mode(&self) -> Mode {
        self.mode
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
            Phase::Closed(closed) => closed.failures,
            _ => 0,
        }
    }

    /// Whether it is closed for some of the calls only, after its recovery.
    pub fn is_slow_starting(&self) -> bool {
        matches!(&self.phase, Phase::Closed(closed) if closed.ramp.is_some())
    }

    /// Whether a success would change anything. If not, it need not be recorded.
    pub fn wants_success(&self) -> bool {
        matches!(&self.phase, Phase::Closed(closed) if closed.wants_success()) && self.mode != Mode::Disabled
    }

    /// How many steps of back-off the next trip would wait.
    pub fn backoff_level(&self) -> u32 {
        self.backoff.level()
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
        let retry_at = match self.phase {
            // Whoever waits for the end of a slow start comes with everyone else.
            Phase::Closed(_) => None,
            _ => self.deadline(),
        };
        Refusal { state: self.state(), trip: self.last_trip.clone(), retry_at }
    }

    /// The transitions since the last call of this.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    fn half_open(&mut self, now: Instant, successes: u32, why: Why) {
        self.enter(now, Phase::HalfOpen { successes, slots: Vec::new() }, why);
    }

    /// Closes if these are successes enough.
    fn recover(&mut self, now: Instant, successes: u32, why: Why) {
        if successes >= self.policy.success_threshold {
            let mut closed = Closed::new(&self.policy, now);
            closed.ramp = self.policy.slow_start.map(|length| Ramp::new(now, length));
            self.enter(now, Phase::Closed(closed), why);
        }
    }

    /// Forgets what a closed breaker knows, and closes it if it is not closed.
    fn close(&mut self, now: Instant, why: Why) {
        self.backoff.reset();
        self.trust = Trust::default();
        let fresh = Closed::new(&self.policy, now);
        match &mut self.phase {
            Phase::Closed(closed) => *closed = fresh,
            _ => self.enter(now, Phase::Closed(fresh), why),
        }
    }

    fn probe_failed(&mut self, condition: Condition, cause: Option<Cause>, outcome: Outcome) {
        self.open(Trip { at: outcome.at, condition, cause, evidence: Arc::new([outcome]) });
    }

    fn open(&mut self, trip: Trip) {
        self.forgive(trip.at);
        let lasted = trip.at.saturating_duration_since(self.since);
        let lasting = self.state() == State::Closed && lasted >= self.policy.recovery_timeout;
        self.trust.tripped(lasting);
        let delay = self.backoff.next(&self.policy);
        self.open_until(Some(trip.at + delay), trip);
    }

    /// Credits the time that was spent closed against the back-off.
    fn forgive(&mut self, now: Instant) {
        if let Phase::Closed(_) = self.phase {
            self.backoff.decay(&self.policy, now.saturating_duration_since(self.since));
        }
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
        let mode = self.mode;
        self.transitions.push(Transition { from, to, at: now, generation, why, retry_after, mode });
    }
}
