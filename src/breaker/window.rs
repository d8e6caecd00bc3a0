//! The calls that a rate is taken of: the last N, or those of the last while.
//!
//! Both hold running totals, so a decision costs the same whatever their size. Absent on purpose: thresholds.

use std::time::{Duration, Instant};

use super::policy::{Rates, Span};

/// What a window knows of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

/// Sums over samples. A call that was slow to fail is in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) calls: u32,
    pub(super) failed: u32,
    pub(super) slow: u32,
}

impl Sums {
    fn add(&mut self, sample: Sample) {
        self.calls = self.calls.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(sample.failed));
        self.slow = self.slow.saturating_add(u32::from(sample.slow));
    }

    fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failed = self.failed.saturating_sub(other.failed);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

/// A window of either kind, empty at first.
#[derive(Debug)]
pub(super) enum Window {
    Count(Ring),
    Time(Box<Buckets>),
}

impl Window {
    /// None while no rate is on.
    pub(super) fn of(rates: &Rates, now: Instant) -> Option<Self> {
        rates.are_on().then(|| Self::new(rates.window, now))
    }

    pub(super) fn new(span: Span, now: Instant) -> Self {
        match span {
            Span::Calls(size) => Self::Count(Ring::new(size)),
            Span::Time(length) => Self::Time(Box::new(Buckets::new(length, now))),
        }
    }

    /// Takes a call that ended at `now`; what lies in the window then.
    pub(super) fn push(&mut self, now: Instant, sample: Sample) -> Sums {
        match self {
            Self::Count(ring) => ring.push(sample),
            Self::Time(buckets) => buckets.push(now, sample),
        }
    }
}

/// The last N calls.
#[derive(Debug)]
pub(super) struct Ring {
    size: usize,
    /// Grows up to `size`, so that a window of 100 000 costs nothing until it has seen as many calls.
    samples: Vec<Sample>,
    /// Where the oldest sample is, once the ring is full.
    oldest: usize,
    sums: Sums,
}

impl Ring {
    fn new(size: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
        Self { size, samples: Vec::new(), oldest: 0, sums: Sums::default() }
    }

    fn push(&mut self, sample: Sample) -> Sums {
        if self.samples.len() < self.size {
            self.samples.push(sample);
        } else if let Some(place) = self.samples.get_mut(self.oldest) {
            let mut gone = Sums::default();
            gone.add(std::mem::replace(place, sample));
            self.sums.subtract(gone);
            self.oldest = (self.oldest + 1) % self.size;
        }
        self.sums.add(sample);
        self.sums
    }
}

/// The calls of the last while, in ten slices of time. Slices begin at whole widths from the window's own
/// beginning, so what was seen within the last nine widths is always in it and what is older than ten never is.
#[derive(Debug)]
pub(super) struct Buckets {
    width: Duration,
    slices: [Sums; Self::COUNT],
    /// The slice of the present, and when it began.
    current: usize,
    began: Instant,
    sums: Sums,
}

impl Buckets {
    const COUNT: usize = 10;

    fn new(length: Duration, now: Instant) -> Self {
        let width = (length / Self::COUNT as u32).max(Duration::from_nanos(1));
        Self { width, slices: [Sums::default(); Self::COUNT], current: 0, began: now, sums: Sums::default() }
    }

    fn push(&mut self, now: Instant, sample: Sample) -> Sums {
        self.advance(now);
        if let Some(slice) = self.slices.get_mut(self.current) {
            slice.add(sample);
            self.sums.add(sample);
        }
        self.sums
    }

    /// Moves on by whole widths and keeps the remainder: rounding it away would stretch the window a little with
    /// each call.
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began);
        let widths = elapsed.as_nanos() / self.width.as_nanos();
        if widths == 0 {
            return;
        }
        // After a turn of the whole window all of it is too old.
        for _ in 0..usize::try_from(widths).unwrap_or(Self::COUNT).min(Self::COUNT) {
            self.current = (self.current + 1) % Self::COUNT;
            if let Some(slice) = self.slices.get_mut(self.current) {
                self.sums.subtract(std::mem::take(slice));
            }
        }
        let remainder = elapsed.as_nanos() % self.width.as_nanos();
        self.began = now - Duration::from_nanos(u64::try_from(remainder).unwrap_or(0));
    }
}
