//! What a closed breaker remembers, and when that is enough to trip it.
//!
//! It is begun afresh on every change of state: what was seen before an outage says nothing about the backend that
//! came back. Absent on purpose: what happens after a trip.

use std::collections::VecDeque;
use std::time::Instant;

use super::evidence::{Condition, Outcome, Trip};
use super::policy::{Policy, Rates};
use super::ramp::Ramp;
use super::verdict::{CallKind, Cause, Verdict};
use super::window::{Sample, Sums, Window};

/// Failed checks since the last one, or the last call, that succeeded. A run of its own: a backend that answers checks
/// while calls fail must trip, and so must one that nobody calls.
#[derive(Debug, Default)]
struct FailedChecks {
    n: u32,
    /// The last of them.
    recent: VecDeque<Outcome>,
}

/// The memory of a closed breaker.
#[derive(Debug)]
pub(super) struct Closed {
    /// Failures since the last success.
    pub(super) failures: u32,
    /// The last failure in sight.
    cause: Option<Cause>,
    /// None while no rate is on.
    window: Option<Window>,
    /// The last outcomes: of the run, or with a window of all calls.
    recent: VecDeque<Outcome>,
    checks: FailedChecks,
    /// The slow start that is under way.
    pub(super) ramp: Option<Ramp>,
}

impl Closed {
    pub(super) fn new(policy: &Policy, now: Instant) -> Self {
        let window = Window::of(&policy.rates, now);
        let (recent, checks) = (VecDeque::new(), FailedChecks::default());
        Self { failures: 0, cause: None, window, recent, checks, ramp: None }
    }

    /// Goes on under another policy. What a window of another shape held cannot be carried over; all else is.
    pub(super) fn adopt(&mut self, before: &Policy, policy: &Policy, now: Instant) {
        let (old, new) = (&before.rates, &policy.rates);
        if old.window != new.window || old.are_on() != new.are_on() {
            self.window = Window::of(new, now);
        }
        if policy.slow_start.is_none() {
            self.ramp = None;
        }
    }

    /// Whether a success would change anything: it ends a run, of calls or of checks, and it goes into a window.
    pub(super) fn wants_success(&self) -> bool {
        self.failures > 0 || self.checks.n > 0 || self.window.is_some()
    }

    /// Takes one check that has failed; the trip if there are as many in a row as failures may be.
    pub(super) fn check_failed(&mut self, policy: &Policy, cause: &Cause, outcome: Outcome) -> Option<Trip> {
        let FailedChecks { n, recent } = &mut self.checks;
        *n = n.saturating_add(1);
        let at = outcome.at;
        remember(recent, outcome);
        policy.failure_threshold.filter(|&threshold| *n >= threshold)?;
        let condition = Condition::FailedChecks(*n);
        let evidence = std::mem::take(recent).into_iter().collect();
        Some(Trip { at, condition, cause: Some(cause.clone()), evidence })
    }

    /// A check has succeeded. It ends the run of checks only.
    pub(super) fn check_succeeded(&mut self) {
        self.checks = FailedChecks::default();
    }

    /// Takes one outcome that is not ignored; the trip if it is the last straw.
    pub(super) fn take(&mut self, policy: &Policy, outcome: &Outcome) -> Option<Trip> {
        match &outcome.verdict {
            Verdict::Ignored => return None,
            Verdict::Success => {
                self.failures = 0;
                self.checks = FailedChecks::default();
                if self.window.is_none() {
                    self.recent.clear();
                    return None;
                }
            }
            Verdict::Failure(cause) => {
                self.failures = self.failures.saturating_add(1);
                self.cause = Some(cause.clone());
            }
        }
        remember(&mut self.recent, outcome.clone());

        let rates = &policy.rates;
        let sample = Sample { failed: outcome.verdict != Verdict::Success, slow: is_slow(rates, outcome) };
        let sums = self.window.as_mut().map(|window| window.push(outcome.at, sample));
        // The run comes first: on a total outage it is both the sooner and the plainer answer to "why".
        let by_run = policy.failure_threshold.filter(|&threshold| self.failures >= threshold);
        let condition = match by_run {
            Some(_) => Condition::ConsecutiveFailures(self.failures),
            None => by_rate(rates, sums?)?,
        };
        Some(self.trip(outcome.at, condition))
    }

    fn trip(&mut self, at: Instant, condition: Condition) -> Trip {
        let recent = std::mem::take(&mut self.recent);
        let behind = match condition {
            Condition::ConsecutiveFailures(n) => usize::try_from(n).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let skipped = recent.len().saturating_sub(behind);
        let cause = match condition {
            // Whatever else has failed, slowness is what it tripped on.
            Condition::SlowCallRate { .. } => None,
            _ => self.cause.take(),
        };
        Trip { at, condition, cause, evidence: recent.into_iter().skip(skipped).collect() }
    }
}

fn remember(recent: &mut VecDeque<Outcome>, outcome: Outcome) {
    if recent.len() == Trip::EVIDENCE_MAX {
        recent.pop_front();
    }
    recent.push_back(outcome);
}

/// Whether a call took longer than a call should. A startup never does: most of its time may be its user's, who
/// looks for the password.
pub(super) fn is_slow(rates: &Rates, outcome: &Outcome) -> bool {
    rates.slow_call_rate.is_some()
        && outcome.kind != CallKind::Startup
        && outcome.duration > rates.slow_call_duration
}

fn by_rate(rates: &Rates, sums: Sums) -> Option<Condition> {
    let Sums { calls, failed, slow } = sums;
    if calls < rates.least_calls() {
        return None;
    }
    if rates.failure_rate.is_some_and(|rate| rate.is_reached(failed, calls)) {
        return Some(Condition::FailureRate { failed, calls });
    }
    let is_slow = rates.slow_call_rate.is_some_and(|rate| rate.is_reached(slow, calls));
    is_slow.then_some(Condition::SlowCallRate { slow, calls })
}
