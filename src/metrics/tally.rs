//! One worker's counts for one backend.
//!
//! A tally has a single writer, so it adds with a relaxed load and store instead of a locked instruction. Readers
//! see each figure whole, though two figures may be an instant apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The things that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Counter {
    /// Calls let through.
    Admitted,
    /// Calls that ended in success.
    Success,
    /// Calls that ended in failure.
    Failure,
    /// Calls that ended without saying anything about the backend.
    Ignored,
    /// Connects and startups among the calls that were let through.
    SetupsBegun,
    /// Those of them that have ended.
    SetupsEnded,
    /// Verdicts that came from an older generation and so changed nothing but figures.
    Stale,
    /// Calls rejected while open.
    RejectedOpen,
    /// Calls rejected while half-open, every probe slot being taken.
    RejectedHalfOpen,
    /// Calls rejected after a recovery, beyond the share that a slow start lets through.
    RejectedSlowStart,
    /// Calls turned away because as many were in flight as may be.
    RejectedCalls,
    /// Client connections turned away because the backend had as many as it may have.
    RejectedConnections,
    /// Calls let through while observing that would have been rejected.
    WouldReject,
    /// Calls rejected on a poisoned connection, or together with the rejected call they depend on.
    RejectedSession,
    /// Calls admitted as probes.
    Probes,
    /// Client connections accepted.
    Accepted,
    /// Client connections ended.
    Closed,
    /// Upstream connections established.
    Connected,
    /// Upstream connections that could not be established.
    ConnectFailed,
    /// Upstream connections ended.
    Disconnected,
    /// Bytes read from clients.
    DownstreamBytes,
    /// Bytes read from the backend.
    UpstreamBytes,
    /// Connections that became a plain relay because their protocol was not understood or asked for it.
    Opaque,
    /// Connections closed because the client broke the protocol.
    ClientMalformed,
    /// Client connections closed because their TLS handshake failed.
    ClientTlsFailed,
    /// Cancel requests forwarded.
    Cancels,
    /// Faults of this machine, not of a backend: out of descriptors, ports or memory.
    LocalFaults,
}

impl Counter {
    /// How many there are.
    pub const COUNT: usize = Self::LocalFaults as usize + 1;
}

/// One worker's counts for one backend. See the file's head for its single-writer rule.
#[derive(Debug)]
#[repr(align(128))]
pub struct Tally {
    counters: [AtomicU64; Counter::COUNT],
    latency: Histogram,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counters: [const { AtomicU64::new(0) }; Counter::COUNT], latency: Histogram::default() }
    }
}

impl Tally {
    /// Adds `n`. Only the tally's own worker may call it.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        bump(&self.counters[counter as usize], n);
    }

    /// Commands and queries that this worker let through and that have not ended. Any worker may ask.
    pub fn commands_in_flight(&self) -> u64 {
        commands_in_flight(|counter| self.counters[counter as usize].load(Relaxed))
    }

    /// Records `n` calls of the same duration. Only the tally's own worker may call it.
    #[inline]
    pub fn observe(&self, duration: Duration, n: u64) {
        self.latency.record(duration, n);
    }
}

/// Without connects and startups. Some may end while the figures are read.
fn commands_in_flight(get: impl Fn(Counter) -> u64) -> u64 {
    let ended = [Counter::Success, Counter::Failure, Counter::Ignored].map(&get);
    let setups = get(Counter::SetupsBegun).saturating_sub(get(Counter::SetupsEnded));
    get(Counter::Admitted).saturating_sub(ended.iter().sum::<u64>() + setups)
}

#[inline]
fn bump(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Call durations in fixed buckets that fit both a 50 µs Redis call and a 10 s query.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; Histogram::BOUNDS.len() + 1],
    nanos: [AtomicU64; Histogram::BOUNDS.len() + 1],
}

impl Default for Histogram {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { counts: zeros(), nanos: zeros() }
    }
}

impl Histogram {
    /// Upper bounds, in microseconds; one more bucket takes what is above.
    pub const BOUNDS: [u64; 20] = [
        50, 100, 200, 400, 800, 1_500, 3_000, 6_000, 12_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
    ];

    #[inline]
    fn record(&self, duration: Duration, n: u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS.partition_point(|bound| bound * 1000 < nanos);
        bump(&self.counts[bucket], n);
        bump(&self.nanos[bucket], nanos.saturating_mul(n));
    }
}

/// The sum of a backend's tallies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    counters: [u64; Counter::COUNT],
    /// Calls per latency bucket, not cumulative; the last is above every bound.
    pub latency_counts: [u64; Histogram::BOUNDS.len() + 1],
    /// Summed durations per latency bucket, in nanoseconds.
    pub latency_nanos: [u64; Histogram::BOUNDS.len() + 1],
}

impl Totals {
    /// Adds a tally in.
    pub fn absorb(&mut self, tally: &Tally) {
        for (sum, cell) in self.counters.iter_mut().zip(&tally.counters) {
            *sum = sum.wrapping_add(cell.load(Relaxed));
        }
        for (sum, cell) in self.latency_counts.iter_mut().zip(&tally.latency.counts) {
            *sum = sum.wrapping_add(cell.load(Relaxed));
        }
        for (sum, cell) in self.latency_nanos.iter_mut().zip(&tally.latency.nanos) {
            *sum = sum.wrapping_add(cell.load(Relaxed));
        }
    }

    /// One count.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Calls that have ended, whatever their verdict; rejections are not calls.
    pub fn calls(&self) -> u64 {
        self.get(Counter::Success) + self.get(Counter::Failure) + self.get(Counter::Ignored)
    }

    /// Rejections of every kind.
    pub fn rejections(&self) -> u64 {
        self.get(Counter::RejectedOpen)
            + self.get(Counter::RejectedHalfOpen)
            + self.get(Counter::RejectedSlowStart)
            + self.get(Counter::RejectedCalls)
            + self.get(Counter::RejectedConnections)
            + self.get(Counter::RejectedSession)
    }

    /// Calls admitted and not yet ended.
    pub fn in_flight(&self) -> u64 {
        self.get(Counter::Admitted).saturating_sub(self.calls())
    }

    /// The same without connects and startups: what a limit on calls is about.
    pub fn commands_in_flight(&self) -> u64 {
        commands_in_flight(|counter| self.get(counter))
    }

    /// Client connections that are open.
    pub fn downstream_active(&self) -> u64 {
        self.get(Counter::Accepted).saturating_sub(self.get(Counter::Closed))
    }

    /// Upstream connections that are open.
    pub fn upstream_active(&self) -> u64 {
        self.get(Counter::Connected).saturating_sub(self.get(Counter::Disconnected))
    }

    /// The upper bound, in seconds, of the bucket that holds the `q`-quantile (0 to 1) of call durations,
    /// interpolated within the bucket; none before the first call.
    pub fn latency_quantile(&self, q: f64) -> Option<f64> {
        let total: u64 = self.latency_counts.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        for (bucket, &count) in self.latency_counts.iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                let low = if bucket == 0 { 0 } else { Histogram::BOUNDS[bucket - 1] } as f64;
                let high = Histogram::BOUNDS.get(bucket).map_or(low, |&bound| bound as f64);
                return Some((low + (high - low) * (rank - below) / count) / 1e6);
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_over_workers() {
        let (a, b) = (Tally::default(), Tally::default());
        a.add(Counter::Admitted, 3);
        b.add(Counter::Admitted, 4);
        b.add(Counter::Success, 5);
        let mut totals = Totals::default();
        totals.absorb(&a);
        totals.absorb(&b);
        assert_eq!(totals.get(Counter::Admitted), 7);
        assert_eq!(totals.in_flight(), 2);
    }

    #[test]
    fn a_duration_on_a_bound_belongs_to_that_bucket() {
        let tally = Tally::default();
        tally.observe(Duration::from_micros(50), 1);
        tally.observe(Duration::from_nanos(50_001), 2);
        tally.observe(Duration::from_secs(3600), 1);
        let mut totals = Totals::default();
        totals.absorb(&tally);
        assert_eq!(totals.latency_counts[0], 1);
        assert_eq!(totals.latency_counts[1], 2);
        assert_eq!(totals.latency_counts[Histogram::BOUNDS.len()], 1);
    }

    #[test]
    fn quantiles_interpolate_within_a_bucket() {
        let tally = Tally::default();
        tally.observe(Duration::from_micros(75), 100);
        let mut totals = Totals::default();
        totals.absorb(&tally);
        let median = totals.latency_quantile(0.5).unwrap();
        assert!((median - 75e-6).abs() < 1e-9, "{median}");
        assert_eq!(Totals::default().latency_quantile(0.5), None);
    }
}
