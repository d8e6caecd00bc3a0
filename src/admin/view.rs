//! The JSON of the API. Its keys are an interface: scripts and the dashboard are built on them.
//!
//! Absent on purpose: anything but conversion. What a figure means is said where it is counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde::Serialize;

use crate::backends::Backend;
use crate::breaker::{Outcome, State, Transition, Trip, Verdict};
use crate::clock::Moment;
use crate::gate::{Checked, Snapshot};
use crate::metrics::publish::{checks_by_label, failures_by_label, trips_by_label};
use crate::metrics::{Counter, Totals};

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

/// `GET /api/v1/circuit-breaker/metrics`.
#[derive(Debug, Serialize)]
pub(super) struct Metrics {
    breakers: IndexMap<String, Detail>,
}

#[derive(Debug, Serialize)]
struct Detail {
    name: String,
    protocol: &'static str,
    state: &'static str,
    mode: &'static str,
    slow_start: bool,
    generation: u64,
    since: String,
    calls: DetailCalls,
    failures_by_cause: BTreeMap<String, u64>,
    rejections: Rejections,
    trips: Trips,
    probes: Probes,
    checks: BTreeMap<&'static str, u64>,
    latency_ms: Latency,
    connections: Connections,
    bytes: Bytes,
    local_faults: u64,
    /// The last transitions, oldest first.
    history: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    at: String,
    generation: u64,
    from: &'static str,
    to: &'static str,
    /// The label: a trip's condition, `delay_passed`, `check_succeeded`, `probe_succeeded`, `reset` or `disabled`.
    why: &'static str,
    /// In words.
    reason: String,
    /// The metric label of the last failure's cause; null unless it tripped on failures.
    cause: Option<String>,
    /// For a transition to open; null when only a reset ends it.
    retry_after_ms: Option<u64>,
    mode: &'static str,
}

#[derive(Debug, Serialize)]
struct DetailCalls {
    total: u64,
    successful: u64,
    failed: u64,
    ignored: u64,
    in_flight: u64,
    stale_verdicts: u64,
    consecutive_failures: u32,
    success_rate: String,
}

#[derive(Debug, Serialize)]
struct Rejections {
    total: u64,
    open: u64,
    half_open: u64,
    slow_start: u64,
    max_calls: u64,
    /// Connections, not calls.
    max_connections: u64,
    session: u64,
    /// While observing; not in the total.
    would_reject: u64,
}

#[derive(Debug, Serialize)]
struct Trips {
    total: u64,
    by_condition: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct Probes {
    total: u64,
    in_flight: usize,
}

/// Null before the first call.
#[derive(Debug, Serialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Connections {
    accepted: u64,
    active: u64,
    upstream_established: u64,
    upstream_failed: u64,
    upstream_active: u64,
    opaque: u64,
    client_protocol_errors: u64,
    cancel_requests: u64,
}

#[derive(Debug, Serialize)]
struct Bytes {
    from_downstream: u64,
    from_upstream: u64,
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

impl Metrics {
    pub(super) fn new<'a>(
        views: impl Iterator<Item = (&'a Backend, Snapshot, Vec<Transition>)>,
        moment: &Moment,
    ) -> Self {
        let details = views.map(|(backend, snapshot, history)| {
            let protocol = backend.protocol();
            (snapshot.name.to_string(), Detail::new(protocol, &snapshot, &history, moment))
        });
        Self { breakers: details.collect() }
    }
}

impl Detail {
    fn new(protocol: &'static str, snapshot: &Snapshot, history: &[Transition], moment: &Moment) -> Self {
        let totals = &snapshot.totals;
        let get = |counter| totals.get(counter);
        let failures = failures_by_label(&snapshot.failures);
        Self {
            name: snapshot.name.to_string(),
            protocol,
            state: snapshot.state.label(),
            mode: snapshot.mode.label(),
            slow_start: snapshot.slow_start,
            generation: snapshot.generation,
            since: moment.rfc3339(snapshot.since),
            calls: DetailCalls {
                total: totals.calls(),
                successful: get(Counter::Success),
                failed: get(Counter::Failure),
                ignored: get(Counter::Ignored),
                in_flight: totals.in_flight(),
                stale_verdicts: get(Counter::Stale),
                consecutive_failures: snapshot.consecutive_failures,
                success_rate: success_rate(totals),
            },
            failures_by_cause: failures.into_iter().map(|(cause, n)| (cause.to_owned(), n)).collect(),
            rejections: Rejections {
                total: totals.rejections(),
                open: get(Counter::RejectedOpen),
                half_open: get(Counter::RejectedHalfOpen),
                slow_start: get(Counter::RejectedSlowStart),
                max_calls: get(Counter::RejectedCalls),
                max_connections: get(Counter::RejectedConnections),
                session: get(Counter::RejectedSession),
                would_reject: get(Counter::WouldReject),
            },
            trips: Trips {
                total: snapshot.trips,
                by_condition: trips_by_label(&snapshot.trips_by_condition),
            },
            probes: Probes { total: get(Counter::Probes), in_flight: snapshot.probes_in_flight },
            checks: checks_by_label(&snapshot.checks),
            latency_ms: Latency {
                p50: quantile_ms(totals, 0.50),
                p90: quantile_ms(totals, 0.90),
                p99: quantile_ms(totals, 0.99),
            },
            connections: Connections {
                accepted: get(Counter::Accepted),
                active: totals.downstream_active(),
                upstream_established: get(Counter::Connected),
                upstream_failed: get(Counter::ConnectFailed),
                upstream_active: totals.upstream_active(),
                opaque: get(Counter::Opaque),
                client_protocol_errors: get(Counter::ClientMalformed),
                cancel_requests: get(Counter::Cancels),
            },
            bytes: Bytes {
                from_downstream: get(Counter::DownstreamBytes),
                from_upstream: get(Counter::UpstreamBytes),
            },
            local_faults: get(Counter::LocalFaults),
            history: history.iter().map(|transition| Change::new(transition, moment)).collect(),
        }
    }
}

impl Change {
    fn new(transition: &Transition, moment: &Moment) -> Self {
        let why = &transition.why;
        Self {
            at: moment.rfc3339(transition.at),
            generation: transition.generation,
            from: transition.from.label(),
            to: transition.to.label(),
            why: why.label(),
            reason: why.to_string(),
            cause: why.cause().map(|cause| cause.label().to_owned()),
            retry_after_ms: transition.retry_after.map(millis_up),
            mode: transition.mode.label(),
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

fn quantile_ms(totals: &Totals, q: f64) -> Option<f64> {
    totals.latency_quantile(q).map(|seconds| to_micros(seconds * 1e3))
}

/// Milliseconds to three places: more would be noise.
fn to_micros(millis: f64) -> f64 {
    (millis * 1e3).round() / 1e3
}
