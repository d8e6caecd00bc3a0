//! The numbers that a breaker decides by.
//!
//! Rates and factors are whole numbers of small parts, not floating point: `3 of 10 >= 30%` is then exact, and a
//! policy can be compared with another one.

use std::fmt;
use std::time::Duration;

use super::check::Checks;

/// When a breaker trips, how long it stays open, and what closes it.
///
/// Valid by construction in [`crate::config`]: every count is at least 1, every duration above zero, and
/// `recovery_timeout_max` is not below `recovery_timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether it enforces what it decides; an operator may change that later.
    pub mode: Mode,
    /// Failures in a row that trip a closed breaker; none: off.
    pub failure_threshold: Option<u32>,
    /// Rates that trip a closed breaker.
    pub rates: Rates,
    /// How long a tripped breaker stays open before it lets a probe through; the first time, with back-off.
    pub recovery_timeout: Duration,
    /// What each further trip multiplies the recovery timeout by.
    pub recovery_backoff: Factor,
    /// The longest recovery timeout, jitter included.
    pub recovery_timeout_max: Duration,
    /// The share of the recovery timeout that is added at random, at most.
    pub recovery_jitter: Share,
    /// Successful probes that close a half-open breaker.
    pub success_threshold: u32,
    /// Probes let through at a time while half-open.
    pub probes: u32,
    /// How long a probe may hold its slot without reporting.
    pub probe_timeout: Duration,
    /// For how long after its recovery a breaker lets only a growing share of calls through; none: off.
    pub slow_start: Option<Duration>,
    /// fusewire's own tests of the backend.
    pub checks: Checks,
    /// How much the backend is asked at a time. The gate keeps it; the machine knows no calls in flight.
    pub bulkhead: Bulkhead,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            failure_threshold: Some(5),
            rates: Rates::default(),
            recovery_timeout: Duration::from_secs(30),
            recovery_backoff: Factor::ONE,
            recovery_timeout_max: Duration::from_secs(300),
            recovery_jitter: Share::NONE,
            success_threshold: 1,
            probes: 1,
            probe_timeout: Duration::from_secs(10),
            slow_start: None,
            checks: Checks::default(),
            bulkhead: Bulkhead::default(),
        }
    }
}

/// Limits on what a backend is asked at a time. What is turned away for them says nothing about the backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bulkhead {
    /// Connections to it; none: as many as come.
    pub connections: Option<u32>,
    /// Calls in flight; none: as many as come.
    pub calls: Option<u32>,
    /// How long what is beyond a limit waits for a place before it is turned away.
    pub wait: Duration,
}

/// Trip conditions over a window of calls. Without a rate there is no window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// The calls that are looked at.
    pub window: Span,
    /// With fewer calls than this in the window nothing is decided. A count window needs no more than it holds.
    pub min_calls: u32,
    /// The share of failures that trips; none: off.
    pub failure_rate: Option<Share>,
    /// The share of slow calls that trips; none: off.
    pub slow_call_rate: Option<Share>,
    /// A call that takes longer is slow.
    pub slow_call_duration: Duration,
}

impl Rates {
    /// Whether any rate is on.
    pub fn are_on(&self) -> bool {
        self.failure_rate.is_some() || self.slow_call_rate.is_some()
    }

    /// The calls that a decision takes: a window of the last 10 calls never holds 20.
    pub(super) fn least_calls(&self) -> u32 {
        match self.window {
            Span::Calls(size) => self.min_calls.min(size),
            Span::Time(_) => self.min_calls,
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            window: Span::Calls(100),
            min_calls: 20,
            failure_rate: None,
            slow_call_rate: None,
            slow_call_duration: Duration::from_secs(1),
        }
    }
}

/// How far back a window reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The last so many calls.
    Calls(u32),
    /// The calls of so long, in ten buckets.
    Time(Duration),
}

/// Whether a breaker's decisions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Calls are rejected while it is open.
    Enforce,
    /// It decides, logs and counts as if it enforced, and rejects nothing.
    Observe,
    /// It stays closed. Calls are counted.
    Disabled,
}

impl Mode {
    /// Every mode, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Enforce, Self::Observe, Self::Disabled];

    /// The word in the configuration, the API and labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Disabled => "disabled",
        }
    }
}

/// A share of a whole, from nothing to all of it, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// 0 %.
    pub const NONE: Self = Self(0);
    /// The millionths of a whole.
    pub const WHOLE: u32 = 1_000_000;

    /// So many millionths; none above the whole.
    pub const fn from_millionths(n: u32) -> Option<Self> {
        if n <= Self::WHOLE { Some(Self(n)) } else { None }
    }

    /// In millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Whether `part` of `of` is this share or more. Nothing is no share of nothing.
    pub(super) fn is_reached(self, part: u32, of: u32) -> bool {
        of > 0 && u64::from(part) * u64::from(Self::WHOLE) >= u64::from(self.0) * u64::from(of)
    }
}

/// `60%`, `33.3%`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Percent {
    pub(super) part: u32,
    pub(super) of: u32,
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded down: 2999 of 10000 must not read as the 30% that would have tripped.
        let permille = u64::from(self.part) * 1000 / u64::from(self.of.max(1));
        match permille % 10 {
            0 => write!(f, "{}%", permille / 10),
            tenth => write!(f, "{}.{tenth}%", permille / 10),
        }
    }
}

/// A multiplier from 1, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u32);

impl Factor {
    /// 1: nothing grows.
    pub const ONE: Self = Self(100);

    /// So many hundredths; none below 1.
    pub const fn from_hundredths(n: u32) -> Option<Self> {
        if n >= Self::ONE.0 { Some(Self(n)) } else { None }
    }

    /// In hundredths.
    pub fn hundredths(self) -> u32 {
        self.0
    }

    /// The product, or the longest duration that there is.
    pub(super) fn of(self, duration: Duration) -> Duration {
        duration.checked_mul(self.0).map_or(Duration::MAX, |product| product / Self::ONE.0)
    }
}
