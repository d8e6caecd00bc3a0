//! The detailed view of a breaker: every figure there is, and the last transitions.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;

use super::{millis_up, success_rate, to_micros};
use crate::backends::Backend;
use crate::breaker::Transition;
use crate::clock::Moment;
use crate::gate::Snapshot;
use crate::metrics::publish::{checks_by_label, failures_by_label, trips_by_label};
use crate::metrics::{Counter, Totals};

/// `GET /api/v1/circuit-breaker/metrics`.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Metrics {
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

impl Metrics {
    pub(in crate::admin) fn new<'a>(
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

fn quantile_ms(totals: &Totals, q: f64) -> Option<f64> {
    totals.latency_quantile(q).map(|seconds| to_micros(seconds * 1e3))
}
