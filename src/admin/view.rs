//! The JSON of the API. Its keys are an interface: scripts and the dashboard are built on them.
//!
//! The detailed view is in `detail`. Absent on purpose: anything but conversion. What a figure means is said where it is
//! counted.

mod detail;

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde::Serialize;

use crate::backends::Backend;
use crate::breaker::{Outcome, State, Trip, Verdict};
use crate::clock::Moment;
use crate::gate::{Checked, Snapshot};
use crate::metrics::{Counter, Totals};
pub(super) use detail::Metrics;

/// `GET /api/v1/circuit-breaker/status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    summary: Summary,
    details: Details,
}

/// How many circuits are well. Healthy is closed, degraded half-open, failed open.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Summary {
    healthy_circuits: usize,
    degraded_circuits: usize,
    failed_circuits: usize,
}

#[derive(Debug, Serialize)]
struct Details {
    global: Global,
    breakers: IndexMap<String, Breaker>,
}

#[derive(Debug, Serialize)]
struct Global {
    total_circuits: usize,
    open_circuits: usize,
    half_open_circuits: usize,
    closed_circuits: usize,
}

/// `GET /api/v1/circuit-breaker/status/{name}`.
#[derive(Debug, Serialize)]
pub(super) struct Breaker {
    name: String,
    protocol: &'static str,
    state: &'static str,
    mode: &'static str,
    /// Closed, but after its recovery not yet for every call.
    slow_start: bool,
    since: String,
    /// Null when closed, and when only a reset ends it.
    retry_after_ms: Option<u64>,
    metrics: Calls,
    last_trip: Option<LastTrip>,
    check: Check,
    bulkhead: Bulkhead,
}

#[derive(Debug, Serialize)]
struct Calls {
    total_calls: u64,
    successful_calls: u64,
    failed_calls: u64,
    success_rate: String,
    consecutive_failures: u32,
    ignored_calls: u64,
    rejected_calls: u64,
    would_reject_calls: u64,
    in_flight: u64,
    probes: u64,
    stale_verdicts: u64,
    trips: u64,
}

/// What the backend is asked at a time. A limit that is off is null.
#[derive(Debug, Serialize)]
struct Bulkhead {
    connections: u32,
    max_connections: Option<u32>,
    calls: u64,
    max_calls: Option<u32>,
}

/// fusewire's own tests of the backend.
#[derive(Debug, Serialize)]
struct Check {
    /// `off`, `while_open` or `always`.
    when: &'static str,
    /// Null before the first.
    last: Option<LastCheck>,
}

#[derive(Debug, Serialize)]
struct LastCheck {
    at: String,
    /// The metric label.
    result: &'static str,
    /// The metric label of why it failed.
    cause: Option<String>,
    duration_ms: f64,
}

#[derive(Debug, Serialize)]
struct LastTrip {
    /// The metric label.
    condition: &'static str,
    /// The metric label; null for a manual trip and for slow calls.
    cause: Option<String>,
    /// Both in words, as clients and the log are told.
    reason: String,
    at: String,
    /// Oldest first.
    evidence: Vec<Evidence>,
}

#[derive(Debug, Serialize)]
struct Evidence {
    at: String,
    kind: &'static str,
    verdict: &'static str,
    cause: Option<String>,
    duration_ms: f64,
}

/// `GET /health`.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: &'static str,
    version: &'static str,
    circuit_breakers: Summary,
}

impl Summary {
    pub(super) fn new(states: impl Iterator<Item = State>) -> Self {
        let mut summary = Self::default();
        for state in states {
            match state {
                State::Closed => summary.healthy_circuits += 1,
                State::HalfOpen => summary.degraded_circuits += 1,
                State::Open => summary.failed_circuits += 1,
            }
        }
        summary
    }

    fn total(self) -> usize {
        self.healthy_circuits + self.degraded_circuits + self.failed_circuits
    }

    /// Degraded while some circuit is not closed, unhealthy while none lets a call through.
    fn word(self) -> &'static str {
        if self.healthy_circuits == self.total() {
            "healthy"
        } else if self.failed_circuits == self.total() {
            "unhealthy"
        } else {
            "degraded"
        }
    }
}

impl Status {
    pub(super) fn new(breakers: impl Iterator<Item = (State, Breaker)>) -> Self {
        let (states, breakers): (Vec<State>, IndexMap<_, _>) =
            breakers.map(|(state, breaker)| (state, (breaker.name.clone(), breaker))).unzip();
        let summary = Summary::new(states.into_iter());
        let global = Global {
            total_circuits: summary.total(),
            open_circuits: summary.failed_circuits,
            half_open_circuits: summary.degraded_circuits,
            closed_circuits: summary.healthy_circuits,
        };
        Self { summary, details: Details { global, breakers } }
    }
}

impl Breaker {
    pub(super) fn new(backend: &Backend, snapshot: &Snapshot, moment: &Moment) -> Self {
        let totals = &snapshot.totals;
        Self {
            name: snapshot.name.to_string(),
            protocol: backend.protocol(),
            state: snapshot.state.label(),
            mode: snapshot.mode.label(),
            slow_start: snapshot.slow_start,
            since: moment.rfc3339(snapshot.since),
            retry_after_ms: retry_after(snapshot, moment.now).map(millis_up),
            metrics: Calls {
                total_calls: totals.calls(),
                successful_calls: totals.get(Counter::Success),
                failed_calls: totals.get(Counter::Failure),
                success_rate: success_rate(totals),
                consecutive_failures: snapshot.consecutive_failures,
                ignored_calls: totals.get(Counter::Ignored),
                rejected_calls: totals.rejections(),
                would_reject_calls: totals.get(Counter::WouldReject),
                in_flight: totals.in_flight(),
                probes: totals.get(Counter::Probes),
                stale_verdicts: totals.get(Counter::Stale),
                trips: snapshot.trips,
            },
            last_trip: snapshot.last_trip.as_ref().map(|trip| LastTrip::new(trip, moment)),
            check: Check {
                when: snapshot.check.label(),
                last: snapshot.last_check.as_ref().map(|check| LastCheck::new(check, moment)),
            },
            bulkhead: Bulkhead {
                connections: snapshot.connections,
                max_connections: snapshot.bulkhead.connections,
                calls: totals.commands_in_flight(),
                max_calls: snapshot.bulkhead.calls,
            },
        }
    }
}

impl LastCheck {
    fn new(check: &Checked, moment: &Moment) -> Self {
        Self {
            at: moment.rfc3339(check.at),
            result: check.finding.label(),
            cause: check.finding.cause().map(|cause| cause.label().to_owned()),
            duration_ms: to_micros(check.duration.as_secs_f64() * 1e3),
        }
    }
}

impl LastTrip {
    fn new(trip: &Trip, moment: &Moment) -> Self {
        Self {
            condition: trip.condition.label(),
            cause: trip.cause.as_ref().map(|cause| cause.label().to_owned()),
            reason: trip.to_string(),
            at: moment.rfc3339(trip.at),
            evidence: trip.evidence.iter().map(|outcome| Evidence::new(outcome, moment)).collect(),
        }
    }
}

impl Evidence {
    fn new(outcome: &Outcome, moment: &Moment) -> Self {
        let (verdict, cause) = match &outcome.verdict {
            Verdict::Success => ("success", None),
            Verdict::Failure(cause) => ("failure", Some(cause.label().to_owned())),
            Verdict::Ignored => ("ignored", None),
        };
        Self {
            at: moment.rfc3339(outcome.at),
            kind: outcome.kind.label(),
            verdict,
            cause,
            duration_ms: to_micros(outcome.duration.as_secs_f64() * 1e3),
        }
    }
}

impl Health {
    pub(super) fn new(circuit_breakers: Summary) -> Self {
        Self { status: circuit_breakers.word(), version: env!("CARGO_PKG_VERSION"), circuit_breakers }
    }
}

/// How long a client had better wait: what a rejection's own hint says.
fn retry_after(snapshot: &Snapshot, now: Instant) -> Option<Duration> {
    match (snapshot.state, snapshot.deadline) {
        (State::Closed, _) => None,
        (State::HalfOpen, None) => Some(Duration::ZERO),
        (_, deadline) => deadline.map(|at| at.saturating_duration_since(now)),
    }
}

/// Rounded up, so that whoever waits as long as it was told is not early.
fn millis_up(delay: Duration) -> u64 {
    u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The share of successes among the calls that said something about the backend. A single failure among any
/// number of calls never reads as `100.0%`.
fn success_rate(totals: &Totals) -> String {
    let (successes, failures) = (totals.get(Counter::Success), totals.get(Counter::Failure));
    if failures == 0 {
        return "100.0%".to_owned();
    }
    let percent = 100.0 * successes as f64 / (successes as f64 + failures as f64);
    format!("{:.1}%", percent.min(99.9))
}

/// Milliseconds to three places: more would be noise.
fn to_micros(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}
