//! fusewire's own tests of a backend: when they are made, what they may find, and what a finding may do.
//!
//! A check is no call: it goes into no window and no run of calls, and a good one never ends a run, or a backend that
//! answers PING while every query hangs would never trip. Absent on purpose: how a check is made, which its protocol
//! knows, and a source of randomness.

use std::time::Duration;

use super::policy::Share;
use super::random::SplitMix64;
use super::verdict::Cause;

/// Which checks are made, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    /// In which states.
    pub when: When,
    /// From the end of one to the beginning of the next, on average.
    pub interval: Duration,
    /// What a good one may do to an open breaker.
    pub may: Remedy,
}

impl Default for Checks {
    fn default() -> Self {
        Self { when: When::Off, interval: Duration::from_secs(5), may: Remedy::HalfOpen }
    }
}

/// In which states checks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In none.
    Off,
    /// While open and half-open, unless an operator has opened it.
    WhileOpen,
    /// While closed, too: then as many failed checks in a row as `failure_threshold` trip it.
    Always,
}

impl When {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Off, Self::WhileOpen, Self::Always];

    /// The word in the configuration and the API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::WhileOpen => "while_open",
            Self::Always => "always",
        }
    }
}

/// What a good check may do to an open breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// End the recovery timeout early: the next call is a probe.
    HalfOpen,
    /// The same, and count as a successful probe.
    Close,
}

impl Remedy {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::HalfOpen, Self::Close];

    /// The word in the configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Close => "close",
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The backend answered as one that works.
    Ready,
    /// It answered, but that does not say whether it serves calls: a Redis that wants a password first says so while
    /// loading, too, and a full Postgres still serves the sessions that it has.
    Alive,
    /// It failed.
    Failed(Cause),
    /// Nothing: fusewire's own machine is out of descriptors, ports or memory.
    Nothing,
}

impl Finding {
    /// Every metric label.
    pub const LABELS: [&'static str; 4] = ["ready", "alive", "failed", "nothing"];

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Alive => "alive",
            Self::Failed(_) => "failed",
            Self::Nothing => "nothing",
        }
    }

    /// Why it failed.
    pub fn cause(&self) -> Option<&Cause> {
        if let Self::Failed(cause) = self { Some(cause) } else { None }
    }
}

/// Whether checks are to be believed. One that let calls through which then failed was wrong: whatever ails the backend,
/// a check does not see it. From then on probes decide, until a check fails or a probe succeeds.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// The present state was entered on the word of a check.
    vouched: bool,
    refuted: bool,
}

impl Trust {
    pub(super) fn believes(&self) -> bool {
        !self.refuted
    }

    pub(super) fn vouch(&mut self) {
        self.vouched = true;
    }

    /// The breaker opens. `lasting`: it had been closed for so long that this is another outage.
    pub(super) fn tripped(&mut self, lasting: bool) {
        self.refuted = !lasting && (self.refuted || self.vouched);
        self.vouched = false;
    }
}

/// When the next check is made: every interval, a quarter of it more or less, so that a fleet does not check in step.
#[derive(Debug)]
pub struct Pace(SplitMix64);

impl Pace {
    /// Processes of one fleet get different seeds.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64(seed))
    }

    /// How long to wait for the next one, from three to five quarters of the interval.
    pub fn next(&mut self, interval: Duration) -> Duration {
        const HALF: Option<Share> = Share::from_millionths(Share::WHOLE / 2);
        let spread = HALF.map_or(Duration::ZERO, |half| self.0.up_to(interval, half));
        interval * 3 / 4 + spread
    }

    /// The longest that [`Pace::next`] may say.
    pub fn longest(interval: Duration) -> Duration {
        interval * 5 / 4
    }
}
