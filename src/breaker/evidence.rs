//! What a trip was decided on: *why did it trip?* is the first question anyone asks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::policy::Percent;
use super::verdict::{CallKind, Cause, Verdict};

/// One call's end, as the breaker saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// When the verdict was known.
    pub at: Instant,
    /// What kind of call it was.
    pub kind: CallKind,
    /// How it ended.
    pub verdict: Verdict,
    /// From its admission to its verdict.
    pub duration: Duration,
}

/// The condition that opened a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// This many failures in a row.
    ConsecutiveFailures(u32),
    /// So many of the calls in the window failed.
    FailureRate {
        /// Those that failed.
        failed: u32,
        /// All in the window.
        calls: u32,
    },
    /// So many of the calls in the window were slow.
    SlowCallRate {
        /// Those that were slow, whether they succeeded or failed.
        slow: u32,
        /// All in the window.
        calls: u32,
    },
    /// A probe failed while half-open.
    ProbeFailed,
    /// A probe succeeded, but took longer than a call should.
    ProbeSlow,
    /// This many of fusewire's own checks failed in a row.
    FailedChecks(u32),
    /// An operator opened it.
    Manual,
}

impl Condition {
    /// Every metric label.
    pub const LABELS: [&'static str; 7] = [
        "consecutive_failures",
        "failure_rate",
        "slow_call_rate",
        "probe_failed",
        "probe_slow",
        "check_failed",
        "manual",
    ];

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ConsecutiveFailures(_) => "consecutive_failures",
            Self::FailureRate { .. } => "failure_rate",
            Self::SlowCallRate { .. } => "slow_call_rate",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeSlow => "probe_slow",
            Self::FailedChecks(_) => "check_failed",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ConsecutiveFailures(1) => f.write_str("1 consecutive failure"),
            Self::ConsecutiveFailures(n) => write!(f, "{n} consecutive failures"),
            Self::FailureRate { failed: part, calls: of } => {
                write!(f, "failure rate {} of {of} calls", Percent { part, of })
            }
            Self::SlowCallRate { slow: part, calls: of } => {
                write!(f, "slow-call rate {} of {of} calls", Percent { part, of })
            }
            Self::ProbeFailed => f.write_str("a failed probe"),
            Self::ProbeSlow => f.write_str("a slow probe"),
            Self::FailedChecks(1) => f.write_str("a failed check"),
            Self::FailedChecks(n) => write!(f, "{n} failed checks in a row"),
            Self::Manual => f.write_str("a manual trip"),
        }
    }
}

/// One opening of a breaker and the outcomes behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trip {
    /// When it opened.
    pub at: Instant,
    /// What fired.
    pub condition: Condition,
    /// The last failure's cause; none for a manual trip and for slow calls.
    pub cause: Option<Cause>,
    /// The last outcomes that the condition was decided on, oldest first, at most [`Trip::EVIDENCE_MAX`]. For a
    /// rate the successes are among them.
    pub evidence: Arc<[Outcome]>,
}

impl Trip {
    /// How many outcomes a trip keeps.
    pub const EVIDENCE_MAX: usize = 32;
}

impl fmt::Display for Trip {
    /// `connection refused, 5 consecutive failures`: the words that clients, logs and the API all show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{cause}, {}", self.condition),
            None => self.condition.fmt(f),
        }
    }
}
