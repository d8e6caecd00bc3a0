//! How long an open breaker waits: longer with each trip, a little different in each process, and shorter again
//! after healthy time.
//!
//! The delay is Linkerd's: `base = min(recovery_timeout * factor^level, max)`, plus a random part of `base` of at
//! most the jitter's share, and never more than `max` in all. The way back is Envoy's: one level less for each
//! recovery timeout that was spent closed. So a backend that flaps is tried less and less often, and one that had
//! a bad night starts from the bottom the day after.
//!
//! Absent on purpose: a source of randomness. The seed comes from outside, and the same seed gives the same delays.

use std::time::Duration;

use super::policy::Policy;
use super::random::SplitMix64;

/// What a breaker remembers of its earlier trips.
#[derive(Debug)]
pub(super) struct Backoff {
    /// Trips not yet forgiven. It stops where the delay has reached its longest.
    level: u32,
    random: SplitMix64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { level: 0, random: SplitMix64(seed) }
    }

    /// The delay of a trip that happens now.
    pub(super) fn next(&mut self, policy: &Policy) -> Duration {
        let max = policy.recovery_timeout_max.max(policy.recovery_timeout);
        let base = self.base(policy, max);
        if policy.recovery_backoff.of(base) > base && base < max {
            self.level += 1;
        }
        let jitter = self.random.up_to(base, policy.recovery_jitter);
        base.saturating_add(jitter).min(max)
    }

    /// Forgives a level for each whole recovery timeout of healthy time.
    pub(super) fn decay(&mut self, policy: &Policy, healthy: Duration) {
        let intervals = healthy.as_nanos() / policy.recovery_timeout.as_nanos().max(1);
        self.level = self.level.saturating_sub(u32::try_from(intervals).unwrap_or(u32::MAX));
    }

    /// Forgives everything: an operator's word that all is well.
    pub(super) fn reset(&mut self) {
        self.level = 0;
    }

    pub(super) fn level(&self) -> u32 {
        self.level
    }

    fn base(&self, policy: &Policy, max: Duration) -> Duration {
        let grown =
            (0..self.level).fold(policy.recovery_timeout, |delay, _| policy.recovery_backoff.of(delay));
        grown.min(max)
    }
}
