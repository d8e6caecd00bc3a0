//! fusewire's own tests of a backend, as the gate keeps account of them: which one is due, and what it has found.
//!
//! Absent on purpose: the test itself, which is the proxy's, and when the next one begins, which is its [`Pace`]'s.

use std::time::{Duration, Instant};

use super::Gate;
use crate::breaker::{CallKind, Checks, Finding, Generation, Outcome, Pace, Verdict};

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

impl Gate {
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
}
