//! The catalogue of what `/metrics` shows: name, kind, labels and meaning of every family of series.
//!
//! Names and labels are an interface: dashboards and alerts are built on them. Label values come from the
//! configuration or from small closed sets, never from a client or a server.

/// One family of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The name, with its unit and, for a counter, `_total`.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// The labels of each of its series, in this order.
    pub labels: &'static [&'static str],
    /// What it means: the HELP line, and the row of `docs/METRICS.md`.
    pub help: &'static str,
}

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// The word on a TYPE line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const BACKEND: &[&str] = &["backend", "protocol"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

pub(super) const STATE: Family =
    gauge("circuit_breaker_state", BACKEND, "State of the breaker: 0 closed, 1 half-open, 2 open.");
pub(super) const STATE_INFO: Family = gauge(
    "circuit_breaker_state_info",
    &["backend", "protocol", "state"],
    "1 for the state that the breaker is in, 0 for the others; state is closed, half_open or open.",
);
pub(super) const MODE: Family = gauge(
    "circuit_breaker_mode",
    &["backend", "protocol", "mode"],
    "1 for the mode that the breaker is in, 0 for the others; mode is enforce, observe or disabled.",
);
pub(super) const CALLS: Family = counter(
    "circuit_breaker_calls_total",
    &["backend", "protocol", "result"],
    "Calls that have ended; result is success, failure or ignored (the call said nothing about the backend).",
);
pub(super) const FAILURES: Family = counter(
    "circuit_breaker_failures_total",
    &["backend", "protocol", "reason"],
    "Calls that ended in failure, by cause; reason is a transport fault or a row of the verdict table.",
);
pub(super) const TRIPS: Family = counter(
    "circuit_breaker_trips_total",
    &["backend", "protocol", "condition"],
    "Openings of the breaker, re-openings by a failed probe included, by the condition that fired.",
);
pub(super) const REJECTIONS: Family = counter(
    "circuit_breaker_rejections_total",
    &["backend", "protocol", "reason"],
    "Calls that were not let through; reason is open, half_open (every probe slot taken), slow_start (beyond the \
     share that passes after a recovery), max_calls or max_connections (beyond the bulkhead; the latter are connections) or \
     session (they depend on a rejected call).",
);
pub(super) const WOULD_REJECT: Family = counter(
    "circuit_breaker_would_reject_total",
    BACKEND,
    "Calls that were let through only because the breaker is in mode observe.",
);
pub(super) const CALL_DURATION: Family = Family {
    name: "circuit_breaker_call_duration_seconds",
    kind: Kind::Histogram,
    labels: BACKEND,
    help: "Time from admission to verdict of the calls that ended in success or failure.",
};
pub(super) const IN_FLIGHT: Family =
    gauge("circuit_breaker_calls_in_flight", BACKEND, "Calls that were let through and have not ended.");
pub(super) const LIMIT: Family = gauge(
    "circuit_breaker_bulkhead_limit",
    &["backend", "protocol", "of"],
    "What the backend is asked at a time, at most; of is connections or calls. +Inf without a limit.",
);
pub(super) const HEADROOM: Family = gauge(
    "circuit_breaker_bulkhead_headroom",
    &["backend", "protocol", "of"],
    "How many more would pass the bulkhead; of is connections or calls. +Inf without a limit.",
);
pub(super) const PROBES: Family = counter(
    "circuit_breaker_probes_total",
    BACKEND,
    "Calls that were let through as probes while half-open.",
);
pub(super) const CHECKS: Family = counter(
    "circuit_breaker_checks_total",
    &["backend", "protocol", "result"],
    "Tests of the backend that fusewire has made by itself; result is ready, alive (it answered, which does not say whether \
     it serves calls), failed or nothing (fusewire's own machine was at fault). They are no calls.",
);
pub(super) const CHECK_DURATION: Family = gauge(
    "circuit_breaker_last_check_duration_seconds",
    BACKEND,
    "How long the last check took; 0 before the first.",
);
pub(super) const STALE: Family = counter(
    "circuit_breaker_stale_verdicts_total",
    BACKEND,
    "Verdicts that came too late to move the breaker: its state had changed since the call was admitted.",
);
pub(super) const RUN: Family = gauge(
    "circuit_breaker_consecutive_failures",
    BACKEND,
    "Failures since the last success; 0 unless the breaker is closed.",
);
pub(super) const OPEN_UNTIL: Family = gauge(
    "circuit_breaker_open_until_seconds",
    BACKEND,
    "Unix time at which an open breaker becomes half-open; 0 when it is not open, +Inf when only a reset ends it.",
);

pub(super) const CONNECTIONS: Family =
    counter("fusewire_connections_total", BACKEND, "Client connections accepted.");
pub(super) const CONNECTIONS_ACTIVE: Family =
    gauge("fusewire_connections_active", BACKEND, "Client connections that are open.");
pub(super) const UPSTREAM_CONNECTS: Family = counter(
    "fusewire_upstream_connects_total",
    &["backend", "protocol", "result"],
    "Attempts to connect to the backend that have ended; result is success or failure.",
);
pub(super) const UPSTREAM_ACTIVE: Family =
    gauge("fusewire_upstream_connections_active", BACKEND, "Connections to the backend that are open.");
pub(super) const BYTES: Family = counter(
    "fusewire_bytes_total",
    &["backend", "protocol", "direction"],
    "Bytes read; direction is from_downstream (from clients) or from_upstream (from the backend).",
);
pub(super) const OPAQUE: Family = counter(
    "fusewire_opaque_connections_total",
    BACKEND,
    "Connections that became a plain relay, because they asked for it or their protocol was not understood.",
);
pub(super) const CLIENT_ERRORS: Family = counter(
    "fusewire_client_protocol_errors_total",
    BACKEND,
    "Client connections closed because the client broke the protocol.",
);
pub(super) const CLIENT_TLS_FAILURES: Family = counter(
    "fusewire_client_tls_failures_total",
    BACKEND,
    "Client connections closed because their TLS handshake failed.",
);
pub(super) const CANCELS: Family =
    counter("fusewire_cancel_requests_total", BACKEND, "Cancel requests forwarded to the backend.");
pub(super) const LOCAL_FAULTS: Family = counter(
    "fusewire_local_faults_total",
    BACKEND,
    "Faults of fusewire's own machine (out of descriptors, ports or memory); never held against a backend.",
);
pub(super) const BUILD_INFO: Family =
    gauge("fusewire_build_info", &["version"], "Always 1; the labels say what is running.");
pub(super) const TASKS: Family = gauge(
    "fusewire_tasks",
    &[],
    "Tasks that are alive: one for each client connection, and a few for listeners, timers, checks and the admin API.",
);
pub(super) const RELOADS: Family = counter(
    "fusewire_config_reloads_total",
    &["result"],
    "Attempts to read the configuration again; result is success, or failure (something was wrong and nothing changed).",
);
pub(super) const CONFIG_READ: Family = gauge(
    "fusewire_config_last_reload_success_timestamp_seconds",
    &[],
    "Unix time at which the configuration in force was read.",
);
pub(super) const CONFIG_GOOD: Family = gauge(
    "fusewire_config_last_reload_successful",
    &[],
    "Whether the last attempt to read the configuration went well: 0 means that the file is not what is in force.",
);

pub(super) const START_TIME: Family =
    gauge("process_start_time_seconds", &[], "Unix time at which the process started.");
pub(super) const RESIDENT: Family =
    gauge("process_resident_memory_bytes", &[], "Memory of the process that is in RAM, in bytes.");
pub(super) const OPEN_FDS: Family = gauge("process_open_fds", &[], "Open file descriptors.");
pub(super) const MAX_FDS: Family = gauge(
    "process_max_fds",
    &[],
    "File descriptors that the process may have open (its soft limit), +Inf without a limit.",
);
pub(super) const CPU: Family =
    counter("process_cpu_seconds_total", &[], "Processor time used, user and system, in seconds.");

/// Every family, in the order of `docs/METRICS.md`.
pub const FAMILIES: &[Family] = &[
    STATE,
    STATE_INFO,
    MODE,
    CALLS,
    FAILURES,
    TRIPS,
    REJECTIONS,
    WOULD_REJECT,
    CALL_DURATION,
    IN_FLIGHT,
    LIMIT,
    HEADROOM,
    PROBES,
    CHECKS,
    CHECK_DURATION,
    STALE,
    RUN,
    OPEN_UNTIL,
    CONNECTIONS,
    CONNECTIONS_ACTIVE,
    UPSTREAM_CONNECTS,
    UPSTREAM_ACTIVE,
    BYTES,
    OPAQUE,
    CLIENT_ERRORS,
    CLIENT_TLS_FAILURES,
    CANCELS,
    LOCAL_FAULTS,
    BUILD_INFO,
    TASKS,
    RELOADS,
    CONFIG_READ,
    CONFIG_GOOD,
    START_TIME,
    RESIDENT,
    OPEN_FDS,
    MAX_FDS,
    CPU,
];
