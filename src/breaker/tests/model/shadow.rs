//! What the breaker should know and do, from a plain list of calls and a few words about checks.

use super::*;

/// What a check that says "it works" is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// As much as ever.
    Good,
    /// The present state was entered on it.
    Given,
    /// Nothing: calls that were let through on it have failed.
    Broken,
}

/// What a check does to the breaker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// It stays open, until the next check at least.
    Prolongs,
    HalfOpens,
    Closes,
    Trips(Condition),
}

/// Everything that a closed breaker may know, as a list, and what checks have said in any state.
#[derive(Debug)]
pub(super) struct Model {
    policy: Policy,
    began: Instant,
    calls: Vec<(Instant, bool, bool)>,
    pub(super) run: u32,
    pub(super) level: u32,
    pub(super) trips: u64,
    closed_since: Instant,
    failed_checks: u32,
    /// While half-open, of probes and of checks that count as one.
    successes: u32,
    word: Word,
    /// The last trip was an operator's.
    pub(super) forced: bool,
    /// The last trip was over a backend that did not answer at all.
    dead: bool,
}

impl Model {
    pub(super) fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            began: now,
            calls: Vec::new(),
            run: 0,
            level: 0,
            trips: 0,
            closed_since: now,
            failed_checks: 0,
            successes: 0,
            word: Word::Good,
            forced: false,
            dead: false,
        }
    }

    fn forget(&mut self, now: Instant) {
        (self.began, self.run, self.failed_checks) = (now, 0, 0);
        self.calls.clear();
    }

    /// An operator closes it, or changes to or from a mode that needs no breaker.
    pub(super) fn reset(&mut self, now: Instant) {
        self.forget(now);
        (self.level, self.word) = (0, Word::Good);
    }

    /// A probe has succeeded; whether that closes the breaker.
    pub(super) fn probe_succeeded(&mut self) -> bool {
        self.word = Word::Good;
        self.successes += 1;
        self.successes >= self.policy.success_threshold
    }

    /// What a check of the present generation does, unless the breaker is disabled or forced open.
    pub(super) fn check(&mut self, state: State, finding: &Finding) -> Effect {
        let may_close = self.policy.checks.may == Remedy::Close;
        match (state, finding) {
            (_, Finding::Nothing) | (State::Closed | State::HalfOpen, Finding::Alive) => Effect::Nothing,
            (State::Closed, Finding::Ready) => {
                self.failed_checks = 0;
                Effect::Nothing
            }
            (State::Closed, Finding::Failed(_)) => {
                self.failed_checks += 1;
                if self.policy.failure_threshold.is_none_or(|threshold| self.failed_checks < threshold) {
                    return Effect::Nothing;
                }
                self.word = Word::Good;
                Effect::Trips(Condition::FailedChecks(self.failed_checks))
            }
            (State::Open, Finding::Failed(_)) => {
                self.word = Word::Good;
                Effect::Prolongs
            }
            (State::HalfOpen, Finding::Failed(_)) => {
                self.word = Word::Good;
                Effect::Trips(Condition::FailedChecks(1))
            }
            (_, Finding::Ready | Finding::Alive) if self.word == Word::Broken => Effect::Nothing,
            (State::Open, Finding::Alive) if !self.dead => Effect::Nothing,
            (State::HalfOpen, Finding::Ready) if !may_close => Effect::Nothing,
            (State::Open | State::HalfOpen, good) => {
                self.word = Word::Given;
                self.successes += u32::from(may_close && *good == Finding::Ready);
                match self.successes >= self.policy.success_threshold {
                    true => Effect::Closes,
                    false if state == State::Open => Effect::HalfOpens,
                    false => Effect::Nothing,
                }
            }
        }
    }

    /// The condition that a call at `now` fulfils.
    pub(super) fn take(&mut self, now: Instant, failed: bool, slow: bool) -> Option<Condition> {
        let rates = &self.policy.rates;
        let slow = slow && rates.slow_call_rate.is_some();
        self.calls.push((now, failed, slow));
        self.run = if failed { self.run + 1 } else { 0 };
        self.failed_checks = if failed { self.failed_checks } else { 0 };
        if self.policy.failure_threshold.is_some_and(|threshold| self.run >= threshold) {
            return Some(Condition::ConsecutiveFailures(self.run));
        }
        let (inside, least): (Vec<_>, u32) = match rates.window {
            Span::Calls(n) => (self.calls.iter().rev().take(n as usize).collect(), rates.min_calls.min(n)),
            Span::Time(length) => {
                let slice = |at: Instant| (at - self.began).as_nanos() / (length / 10).as_nanos();
                let inside = self.calls.iter().filter(|call| slice(call.0) + 10 > slice(now)).collect();
                (inside, rates.min_calls)
            }
        };
        let calls = u32::try_from(inside.len()).unwrap();
        let failed = u32::try_from(inside.iter().filter(|call| call.1).count()).unwrap();
        let slow = u32::try_from(inside.iter().filter(|call| call.2).count()).unwrap();
        let reached = |rate: Option<Share>, part: u32| {
            rate.is_some_and(|rate| {
                f64::from(part) / f64::from(calls) >= f64::from(rate.millionths()) / 1e6 - 1e-9
            })
        };
        if calls < least {
            None
        } else if reached(rates.failure_rate, failed) {
            Some(Condition::FailureRate { failed, calls })
        } else {
            reached(rates.slow_call_rate, slow).then_some(Condition::SlowCallRate { slow, calls })
        }
    }

    /// Whether a closed breaker would not be the same after a success.
    pub(super) fn wants_success(&self) -> bool {
        let rates = &self.policy.rates;
        let windowed = rates.failure_rate.is_some() || rates.slow_call_rate.is_some();
        self.run > 0 || self.failed_checks > 0 || windowed
    }

    /// The shortest and the longest delay of a trip, by PEERS' formulas; moves the level on.
    fn delay(&mut self) -> (f64, f64) {
        let policy = &self.policy;
        let max = policy.recovery_timeout_max.as_secs_f64();
        let factor = if policy.recovery_backoff.of(SECOND) > SECOND {
            policy.recovery_backoff.of(SECOND).as_secs_f64()
        } else {
            1.0
        };
        let grown = policy.recovery_timeout.as_secs_f64() * factor.powi(self.level as i32);
        let base = grown.min(max);
        if factor > 1.0 && grown < max {
            self.level += 1;
        }
        let jitter = f64::from(policy.recovery_jitter.millionths()) / 1e6;
        (base, (base + base * jitter).min(max))
    }

    pub(super) fn follow(&mut self, transition: &Transition) -> Result<(), TestCaseError> {
        let healthy = match transition.from {
            State::Closed => (transition.at - self.closed_since).as_nanos(),
            State::Open | State::HalfOpen => 0,
        };
        let steps = healthy / self.policy.recovery_timeout.as_nanos();
        self.level = self.level.saturating_sub(u32::try_from(steps).unwrap());
        if let Why::Tripped(trip) = &transition.why {
            self.trips += 1;
            self.forced = trip.condition == Condition::Manual;
            self.dead = matches!(trip.cause, Some(Cause::Fault(_)));
        }
        match &transition.why {
            Why::Tripped(trip) if trip.condition != Condition::Manual => {
                let (least, most) = self.delay();
                let delay = transition.retry_after.unwrap().as_secs_f64();
                prop_assert!(
                    (least - 1e-6..=most + 1e-6).contains(&delay),
                    "{delay} not in {least}..={most}"
                );
                // After healthy time it is another outage, and the next check's word is good again.
                self.word = if steps > 0 || self.word == Word::Good { Word::Good } else { Word::Broken };
            }
            Why::Reset | Why::Disabled => (self.level, self.word) = (0, Word::Good),
            _ => {}
        }
        if transition.to != State::HalfOpen {
            self.successes = 0;
        }
        if transition.to == State::Closed {
            self.closed_since = transition.at;
            self.forget(transition.at);
        }
        prop_assert_eq!(transition.to == State::Open, transition.why.label() == self.label_of(transition));
        Ok(())
    }

    fn label_of(&self, transition: &Transition) -> &'static str {
        if let Why::Tripped(trip) = &transition.why { trip.condition.label() } else { "" }
    }
}
