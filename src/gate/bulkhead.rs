//! How much a backend is asked at a time: places for connections, and a count of calls in flight.
//!
//! Calls are counted by the workers' tallies anyway, so a limit on them adds nothing up while there is none, and with one
//! takes the gate's lock for each call, under which the tallies add up. What is turned away is counted by itself and is no
//! verdict. Absent on purpose: a queue. What waits, waits where it is, and asks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Gate, Inner, Lane};
use crate::breaker::{CallKind, Mode, State};
use crate::metrics::{Counter, Tally};

/// A place among a backend's connections. Dropped, it is free.
#[derive(Debug)]
pub struct Place(Arc<Gate>);

/// No place is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// How many there are.
    pub limit: u32,
    /// How long to wait for one before that is the answer.
    pub wait: Duration,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.connections = inner.connections.saturating_sub(1);
        drop(inner);
        self.0.room.notify_one();
    }
}

/// Whether a call makes a connection, of which there is another limit.
pub(super) fn is_setup(kind: CallKind) -> bool {
    matches!(kind, CallKind::Connect | CallKind::Startup)
}

impl Inner {
    /// The limit on calls in flight, if it is reached: what becomes of one more says the mode.
    pub(super) fn full(&mut self, now: Instant, kind: CallKind, tallies: &[Tally]) -> Option<u32> {
        let limit = self.breaker.policy().bulkhead.calls?;
        if is_setup(kind) || self.breaker.mode() == Mode::Disabled {
            return None;
        }
        self.breaker.tick(now);
        let in_flight: u64 = tallies.iter().map(Tally::commands_in_flight).sum();
        // An open breaker has something to say that is more to the point.
        (in_flight >= u64::from(limit) && self.breaker.state() != State::Open).then_some(limit)
    }
}

impl Lane {
    /// Takes a place among the backend's connections.
    ///
    /// # Errors
    /// If all are taken, unless the breaker does not enforce. It is not counted: whoever waits in vain calls
    /// [`Lane::turned_away`].
    pub fn take_place(&self) -> Result<Place, Full> {
        let mut inner = self.gate().lock();
        let bulkhead = &inner.breaker.policy().bulkhead;
        let full = bulkhead.connections.filter(|&limit| inner.connections >= limit);
        match (full, inner.breaker.mode()) {
            (Some(limit), Mode::Enforce) => return Err(Full { limit, wait: bulkhead.wait }),
            (Some(_), Mode::Observe) => self.add(Counter::WouldReject, 1),
            _ => {}
        }
        inner.connections += 1;
        Ok(Place(self.gate().clone()))
    }

    /// Counts a client that got no place.
    pub fn turned_away(&self) {
        self.add(Counter::RejectedConnections, 1);
    }

    /// How long a call had better wait before it asks, because as many are in flight as may be; zero: not at all.
    pub fn crowded(&self, now: Instant, kind: CallKind) -> Duration {
        if self.closed().is_some() {
            return Duration::ZERO;
        }
        let mut inner = self.gate().lock();
        let (wait, mode) = (inner.breaker.policy().bulkhead.wait, inner.breaker.mode());
        if wait.is_zero() || mode != Mode::Enforce || inner.full(now, kind, &self.gate().tallies).is_none() {
            return Duration::ZERO;
        }
        wait
    }
}
