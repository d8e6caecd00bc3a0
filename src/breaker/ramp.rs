//! Slow start: after its recovery a backend gets a growing share of its calls, not all of them at once.
//!
//! A database that has just come up has cold caches and an empty connection table; the whole waiting load in its
//! first second can put it down again. Absent on purpose: chance. The share is kept by a running credit, so of any
//! run of calls it is the exact share that passes.

use std::time::{Duration, Instant};

use super::policy::Share;

/// A slow start under way.
#[derive(Debug)]
pub(super) struct Ramp {
    began: Instant,
    length: Duration,
    /// In millionths of a call. A call passes for a whole one.
    credit: u32,
}

impl Ramp {
    /// What passes at the beginning: 1 %, as in HAProxy.
    const LEAST: u32 = Share::WHOLE / 100;

    /// It begins with the credit of one call: the first one passes even if it is the only one for a while.
    pub(super) fn new(now: Instant, length: Duration) -> Self {
        Self { began: now, length, credit: Share::WHOLE }
    }

    pub(super) fn end(&self) -> Instant {
        self.began + self.length
    }

    /// Whether the next call passes.
    pub(super) fn passes(&mut self, now: Instant) -> bool {
        self.credit += self.share(now);
        let passes = self.credit >= Share::WHOLE;
        if passes {
            self.credit -= Share::WHOLE;
        }
        passes
    }

    /// The share of calls that pass, in millionths: it grows in a straight line with time.
    fn share(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        let share = elapsed.saturating_mul(u128::from(Share::WHOLE)) / self.length.as_nanos().max(1);
        u32::try_from(share).unwrap_or(Share::WHOLE).clamp(Self::LEAST, Share::WHOLE)
    }
}
