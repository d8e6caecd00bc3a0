//! A breaker's states by name, and what there is to say about a change from one to another.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::evidence::Trip;
use super::policy::Mode;
use super::verdict::Cause;

/// Counts state changes. A verdict from an older generation has no effect.
pub type Generation = u64;

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
    /// The mode in which it happened. While observing nothing followed from it.
    pub mode: Mode,
}

/// The cause of a [`Transition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// To open.
    Tripped(Arc<Trip>),
    /// To half-open: the recovery delay has passed.
    DelayPassed,
    /// To half-open or closed: one of fusewire's own checks succeeded.
    CheckSucceeded,
    /// To closed: this many probes succeeded.
    ProbesSucceeded(u32),
    /// To closed: an operator reset it.
    Reset,
    /// To closed: an operator disabled it.
    Disabled,
}

impl Why {
    /// The word in logs and in the API: for a trip its condition.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tripped(trip) => trip.condition.label(),
            Self::DelayPassed => "delay_passed",
            Self::CheckSucceeded => "check_succeeded",
            Self::ProbesSucceeded(_) => "probe_succeeded",
            Self::Reset => "reset",
            Self::Disabled => "disabled",
        }
    }

    /// What made the backend fail; none unless it tripped by itself.
    pub fn cause(&self) -> Option<&Cause> {
        if let Self::Tripped(trip) = self { trip.cause.as_ref() } else { None }
    }
}

impl fmt::Display for Why {
    /// What follows "after" in the log: `5 consecutive failures`, `its recovery timeout`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tripped(trip) => trip.condition.fmt(f),
            Self::DelayPassed => f.write_str("its recovery timeout"),
            Self::CheckSucceeded => f.write_str("a successful check"),
            Self::ProbesSucceeded(1) => f.write_str("1 successful probe"),
            Self::ProbesSucceeded(n) => write!(f, "{n} successful probes"),
            Self::Reset => f.write_str("a manual reset"),
            Self::Disabled => f.write_str("it was disabled"),
        }
    }
}
