//! A gate's state and figures at one moment, taken together so that they agree with each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Checked, Gate};
use crate::breaker::{Bulkhead, Cause, Generation, Mode, State, Trip, When};
use crate::metrics::Totals;

/// A gate's state and figures at one moment, for the admin API.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The backend's name.
    pub name: Arc<str>,
    /// The breaker's state.
    pub state: State,
    /// Whether its decisions are carried out.
    pub mode: Mode,
    /// Whether it is closed for some of the calls only, after its recovery.
    pub slow_start: bool,
    /// Its generation.
    pub generation: Generation,
    /// When the state was entered.
    pub since: Instant,
    /// Failures since the last success; zero unless closed.
    pub consecutive_failures: u32,
    /// Probes under way.
    pub probes_in_flight: usize,
    /// When the breaker will next act by itself: open → half-open, a probe's end, the end of a slow start.
    pub deadline: Option<Instant>,
    /// How often it has opened.
    pub trips: u64,
    /// Openings by [`crate::breaker::Condition::label`].
    pub trips_by_condition: BTreeMap<&'static str, u64>,
    /// The last opening.
    pub last_trip: Option<Arc<Trip>>,
    /// Failures by cause.
    pub failures: BTreeMap<Cause, u64>,
    /// How much the backend is asked at a time, at most.
    pub bulkhead: Bulkhead,
    /// Connections that have a place in it.
    pub connections: u32,
    /// When fusewire tests the backend by itself.
    pub check: When,
    /// Such tests by [`crate::breaker::Finding::label`].
    pub checks: BTreeMap<&'static str, u64>,
    /// The last of them.
    pub last_check: Option<Checked>,
    /// The counts.
    pub totals: Totals,
}

impl Gate {
    /// State and figures at this moment.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut totals = Totals::default();
        self.tallies.iter().for_each(|tally| totals.absorb(tally));
        // First, so that what time alone brought about is booked when the figures are read.
        self.tick(now);
        self.with(|inner| {
            let breaker = &inner.breaker;
            Snapshot {
                name: self.name.clone(),
                state: breaker.state(),
                mode: breaker.mode(),
                slow_start: breaker.is_slow_starting(),
                generation: breaker.generation(),
                since: breaker.since(),
                consecutive_failures: breaker.consecutive_failures(),
                probes_in_flight: breaker.probes_in_flight(),
                deadline: breaker.deadline(),
                trips: breaker.trips(),
                trips_by_condition: inner.trips.clone(),
                last_trip: breaker.last_trip().cloned(),
                failures: inner.failures.clone(),
                bulkhead: breaker.policy().bulkhead.clone(),
                connections: inner.connections,
                check: breaker.policy().checks.when,
                checks: inner.checks.clone(),
                last_check: inner.last_check.clone(),
                totals,
            }
        })
    }
}
