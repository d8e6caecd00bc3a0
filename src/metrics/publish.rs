//! Figures in Prometheus' text format.
//!
//! Each scrape writes the present figures afresh, into a recorder that lives no longer than the scrape: nothing
//! is remembered in between, so a scrape can change nothing, two at once cannot disturb each other, and a backend
//! that is gone leaves no series behind.
//!
//! Absent on purpose: the exporter's own histogram. It is fed one observation at a time and keeps each of them
//! (24 bytes) until the next scrape; at 200 000 calls a second a scrape interval of 15 s would be 72 MB, and an
//! admin port that nobody scrapes would fill the memory. Our tallies are buckets already, so they are written out
//! as they are, with the exporter's formatting.

use std::collections::BTreeMap;

use ::metrics::{Key, Label, Level, Metadata, Recorder};
use indexmap::IndexMap;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use metrics_exporter_prometheus::{LabelSet, PrometheusBuilder, PrometheusRecorder};

use super::family::{self, FAMILIES, Family, Kind};
use super::process::Process;
use super::{Counter, Histogram, Totals};
use crate::breaker::{Cause, Condition, Fault, Finding, Mode, State};

/// The Content-Type of what [`render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One backend's figures at the moment of a scrape.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// The backend's name.
    pub backend: &'a str,
    /// `redis` or `postgres`.
    pub protocol: &'static str,
    /// The breaker's state.
    pub state: State,
    /// Whether its decisions are carried out.
    pub mode: Mode,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// When an open breaker becomes half-open, in seconds since 1970; none when only a reset ends it. Of no
    /// meaning in other states.
    pub open_until: Option<f64>,
    /// Openings by condition.
    pub trips: &'a BTreeMap<&'static str, u64>,
    /// Failures by cause.
    pub failures: &'a BTreeMap<Cause, u64>,
    /// The limits on connections and on calls in flight, and how many there are.
    pub bulkhead: [Use; 2],
    /// Checks by what they found.
    pub checks: &'a BTreeMap<&'static str, u64>,
    /// How long the last check took, in seconds; 0 before the first.
    pub last_check: f64,
    /// The counts.
    pub totals: &'a Totals,
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// None: as many as come.
    pub limit: Option<u32>,
    /// Now.
    pub used: u64,
}

impl Use {
    /// How many more would pass; none: as many as come.
    pub fn headroom(&self) -> Option<u64> {
        self.limit.map(|limit| u64::from(limit).saturating_sub(self.used))
    }
}

/// How the configuration came to be in force.
#[derive(Debug, Clone, Copy)]
pub struct Configuration {
    /// Unix time at which it was read.
    pub read_at: f64,
    /// Whether the last attempt to read it again led to it.
    pub last_good: bool,
    /// Attempts that went well.
    pub applied: u64,
    /// Attempts that changed nothing because something was wrong.
    pub refused: u64,
}

/// Everything that `/metrics` shows, with a HELP and a TYPE line for each family. `tasks` are alive in the process.
pub fn render(readings: &[Reading<'_>], configuration: &Configuration, tasks: usize) -> String {
    let mut sheet = Sheet::new();
    sheet.gauge(&family::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    sheet.gauge(&family::TASKS, &[], tasks as f64);
    sheet.counter(&family::RELOADS, &["success"], configuration.applied);
    sheet.counter(&family::RELOADS, &["failure"], configuration.refused);
    sheet.gauge(&family::CONFIG_READ, &[], configuration.read_at);
    sheet.gauge(&family::CONFIG_GOOD, &[], if configuration.last_good { 1.0 } else { 0.0 });
    for reading in readings {
        reading.write_breaker(&mut sheet);
        reading.write_connections(&mut sheet);
    }
    sheet.histograms(&family::CALL_DURATION, readings);
    sheet.process(&Process::read());
    sheet.finish()
}

/// Failures by metric label, a zero for each fault that has not happened: a rate over a series that does not
/// exist yet misses its first increase.
pub fn failures_by_label(failures: &BTreeMap<Cause, u64>) -> BTreeMap<&str, u64> {
    let mut sums: BTreeMap<&str, u64> = Fault::ALL.iter().map(|fault| (fault.label(), 0)).collect();
    for (cause, n) in failures {
        // Added up, because a row of a user's own verdict table may bear the name of a fault.
        *sums.entry(cause.label()).or_default() += n;
    }
    sums
}

/// Trips by condition, with a zero for each condition that has not fired.
pub fn trips_by_label(trips: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let mut sums: BTreeMap<&str, u64> = Condition::LABELS.iter().map(|&label| (label, 0)).collect();
    sums.extend(trips);
    sums
}

/// Checks by what they found, with a zero for what none has.
pub fn checks_by_label(checks: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let mut sums: BTreeMap<&str, u64> = Finding::LABELS.iter().map(|&label| (label, 0)).collect();
    sums.extend(checks);
    sums
}

impl Reading<'_> {
    fn write_breaker(&self, sheet: &mut Sheet) {
        let (on, totals) = ([self.backend, self.protocol], self.totals);
        let with = |label| [self.backend, self.protocol, label];
        sheet.gauge(&family::STATE, &on, f64::from(self.state.gauge()));
        for state in [State::Closed, State::HalfOpen, State::Open] {
            let here = if state == self.state { 1.0 } else { 0.0 };
            sheet.gauge(&family::STATE_INFO, &with(state.label()), here);
        }
        for mode in Mode::ALL {
            let here = if mode == self.mode { 1.0 } else { 0.0 };
            sheet.gauge(&family::MODE, &with(mode.label()), here);
        }
        let open_until = match self.state {
            State::Open => self.open_until.unwrap_or(f64::INFINITY),
            State::Closed | State::HalfOpen => 0.0,
        };
        sheet.gauge(&family::OPEN_UNTIL, &on, open_until);
        sheet.gauge(&family::RUN, &on, f64::from(self.consecutive_failures));
        sheet.gauge(&family::IN_FLIGHT, &on, totals.in_flight() as f64);

        for (of, place) in ["connections", "calls"].into_iter().zip(self.bulkhead) {
            let or_inf = |n: Option<u64>| n.map_or(f64::INFINITY, |n| n as f64);
            sheet.gauge(&family::LIMIT, &with(of), or_inf(place.limit.map(u64::from)));
            sheet.gauge(&family::HEADROOM, &with(of), or_inf(place.headroom()));
        }

        sheet.counter(&family::CALLS, &with("success"), totals.get(Counter::Success));
        sheet.counter(&family::CALLS, &with("failure"), totals.get(Counter::Failure));
        sheet.counter(&family::CALLS, &with("ignored"), totals.get(Counter::Ignored));
        for (reason, n) in failures_by_label(self.failures) {
            sheet.counter(&family::FAILURES, &with(reason), n);
        }
        for (condition, n) in trips_by_label(self.trips) {
            sheet.counter(&family::TRIPS, &with(condition), n);
        }
        sheet.counter(&family::REJECTIONS, &with("open"), totals.get(Counter::RejectedOpen));
        sheet.counter(&family::REJECTIONS, &with("half_open"), totals.get(Counter::RejectedHalfOpen));
        sheet.counter(&family::REJECTIONS, &with("slow_start"), totals.get(Counter::RejectedSlowStart));
        sheet.counter(&family::REJECTIONS, &with("max_calls"), totals.get(Counter::RejectedCalls));
        sheet.counter(
            &family::REJECTIONS,
            &with("max_connections"),
            totals.get(Counter::RejectedConnections),
        );
        sheet.counter(&family::REJECTIONS, &with("session"), totals.get(Counter::RejectedSession));
        sheet.counter(&family::WOULD_REJECT, &on, totals.get(Counter::WouldReject));
        sheet.counter(&family::PROBES, &on, totals.get(Counter::Probes));
        for (result, n) in checks_by_label(self.checks) {
            sheet.counter(&family::CHECKS, &with(result), n);
        }
        sheet.gauge(&family::CHECK_DURATION, &on, self.last_check);
        sheet.counter(&family::STALE, &on, totals.get(Counter::Stale));
    }

    fn write_connections(&self, sheet: &mut Sheet) {
        let (on, totals) = ([self.backend, self.protocol], self.totals);
        let with = |label| [self.backend, self.protocol, label];
        sheet.counter(&family::CONNECTIONS, &on, totals.get(Counter::Accepted));
        sheet.gauge(&family::CONNECTIONS_ACTIVE, &on, totals.downstream_active() as f64);
        sheet.counter(&family::UPSTREAM_CONNECTS, &with("success"), totals.get(Counter::Connected));
        sheet.counter(&family::UPSTREAM_CONNECTS, &with("failure"), totals.get(Counter::ConnectFailed));
        sheet.gauge(&family::UPSTREAM_ACTIVE, &on, totals.upstream_active() as f64);
        sheet.counter(&family::BYTES, &with("from_downstream"), totals.get(Counter::DownstreamBytes));
        sheet.counter(&family::BYTES, &with("from_upstream"), totals.get(Counter::UpstreamBytes));
        sheet.counter(&family::OPAQUE, &on, totals.get(Counter::Opaque));
        sheet.counter(&family::CLIENT_ERRORS, &on, totals.get(Counter::ClientMalformed));
        sheet.counter(&family::CLIENT_TLS_FAILURES, &on, totals.get(Counter::ClientTlsFailed));
        sheet.counter(&family::CANCELS, &on, totals.get(Counter::Cancels));
        sheet.counter(&family::LOCAL_FAULTS, &on, totals.get(Counter::LocalFaults));
    }
}

/// One scrape's text in the making.
struct Sheet {
    recorder: PrometheusRecorder,
    /// What the recorder cannot hold: histograms, and a counter that is not whole.
    direct: String,
}

impl Sheet {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for family in FAMILIES {
            let help = family.help.into();
            match family.kind {
                Kind::Counter => recorder.describe_counter(family.name.into(), None, help),
                Kind::Gauge => recorder.describe_gauge(family.name.into(), None, help),
                Kind::Histogram => {}
            }
        }
        Self { recorder, direct: String::new() }
    }

    /// `values` are those of the family's labels, in their order.
    fn counter(&mut self, family: &Family, values: &[&str], n: u64) {
        debug_assert_eq!(family.kind, Kind::Counter);
        self.recorder.register_counter(&key(family, values), &METADATA).absolute(n);
    }

    fn gauge(&mut self, family: &Family, values: &[&str], value: f64) {
        debug_assert_eq!(family.kind, Kind::Gauge);
        self.recorder.register_gauge(&key(family, values), &METADATA).set(value);
    }

    fn histograms(&mut self, family: &Family, readings: &[Reading<'_>]) {
        if readings.is_empty() {
            return;
        }
        self.head(family);
        for reading in readings {
            let labels = label_set(family, &[reading.backend, reading.protocol]);
            self.histogram(family, &labels, reading.totals);
        }
        self.direct.push('\n');
    }

    fn histogram(&mut self, family: &Family, labels: &LabelSet, totals: &Totals) {
        let out = &mut self.direct;
        let mut count = 0_u64;
        let bounds = Histogram::BOUNDS.iter().map(|&micros| micros as f64 / 1e6);
        for (n, bound) in totals.latency_counts.iter().zip(bounds.chain([f64::INFINITY])) {
            count += n;
            let le = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            write_metric_line(out, family.name, Some("bucket"), labels, Some(("le", le)), count, None);
        }
        let nanos: u128 = totals.latency_nanos.iter().map(|&nanos| u128::from(nanos)).sum();
        let sum = nanos as f64 / 1e9;
        write_metric_line::<&str, _>(out, family.name, Some("sum"), labels, None, sum, None);
        write_metric_line::<&str, _>(out, family.name, Some("count"), labels, None, count, None);
    }

    fn process(&mut self, process: &Process) {
        let gauges = [
            (&family::START_TIME, process.start_seconds),
            (&family::RESIDENT, process.resident_bytes.map(|bytes| bytes as f64)),
            (&family::OPEN_FDS, process.open_fds.map(|fds| fds as f64)),
            (&family::MAX_FDS, process.max_fds),
        ];
        for (family, value) in gauges {
            if let Some(value) = value {
                self.gauge(family, &[], value);
            }
        }
        if let Some(seconds) = process.cpu_seconds {
            let family = &family::CPU;
            self.head(family);
            let labels = label_set(family, &[]);
            write_metric_line::<&str, _>(&mut self.direct, family.name, None, &labels, None, seconds, None);
        }
    }

    fn head(&mut self, family: &Family) {
        write_help_line(&mut self.direct, family.name, None, None, family.help);
        write_type_line(&mut self.direct, family.name, None, None, family.kind.label());
    }

    fn finish(self) -> String {
        let mut text = self.recorder.handle().render();
        text.push_str(&self.direct);
        text
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(family: &Family, values: &[&str]) -> Key {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels = family.labels.iter().zip(values).map(|(&name, &value)| Label::new(name, value.to_owned()));
    Key::from_parts(family.name, labels.collect::<Vec<_>>())
}

fn label_set(family: &Family, values: &[&str]) -> LabelSet {
    LabelSet::from_key_and_global(&key(family, values), &IndexMap::new())
}
