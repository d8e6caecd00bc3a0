//! The text of a scrape, read back: what Prometheus would see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::publish::{Configuration, Reading, render};
use super::{Counter, FAMILIES, Histogram, Kind, Tally, Totals};
use crate::breaker::{Cause, Code, Condition, Fault, Mode, State};

const CONFIGURATION: Configuration =
    Configuration { read_at: 1_700_000_000.5, last_good: false, applied: 3, refused: 2 };

/// Alive in the process.
const TASKS: usize = 7;

/// A scrape, parsed.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    /// `name{label="value",...}` with the labels in order of name → value.
    pub(crate) series: BTreeMap<String, f64>,
    /// Name → kind.
    pub(crate) types: BTreeMap<String, String>,
    /// Name → HELP.
    pub(crate) helps: BTreeMap<String, String>,
}

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert_eq!(scrape.helps.insert(name.into(), help.into()), None, "{name} has two HELP lines");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(scrape.types.insert(name.into(), kind.into()), None, "{name} has two TYPE lines");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value: f64 = value.parse().unwrap();
                let series = canonical(series);
                assert_eq!(scrape.series.insert(series, value), None, "twice: {line}");
            }
        }
        scrape
    }

    /// The value of a series; panics if there is none.
    pub(crate) fn get(&self, series: &str) -> f64 {
        let series = canonical(series);
        *self.series.get(&series).unwrap_or_else(|| panic!("no series {series}"))
    }
}

fn canonical(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

struct Figures {
    totals: Totals,
    failures: BTreeMap<Cause, u64>,
    trips: BTreeMap<&'static str, u64>,
    checks: BTreeMap<&'static str, u64>,
}

impl Figures {
    fn of(tally: &Tally) -> Self {
        let mut totals = Totals::default();
        totals.absorb(tally);
        Self { totals, failures: BTreeMap::new(), trips: BTreeMap::new(), checks: BTreeMap::new() }
    }

    fn reading<'a>(&'a self, backend: &'a str, state: State) -> Reading<'a> {
        Reading {
            backend,
            protocol: "redis",
            state,
            mode: Mode::Enforce,
            consecutive_failures: 0,
            open_until: None,
            trips: &self.trips,
            failures: &self.failures,
            bulkhead: Default::default(),
            checks: &self.checks,
            last_check: 0.0,
            totals: &self.totals,
        }
    }
}

#[test]
fn every_family_is_shown_with_its_help_its_type_and_its_labels() {
    let figures = Figures::of(&Tally::default());
    let scrape = Scrape::parse(&render(&[figures.reading("cache", State::Closed)], &CONFIGURATION, TASKS));
    let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name.to_owned()).collect();
    assert_eq!(names.len(), FAMILIES.len(), "a name stands twice in the catalogue");
    assert_eq!(scrape.types.keys().cloned().collect::<BTreeSet<_>>(), names);
    for family in FAMILIES {
        assert_eq!(scrape.types[family.name], family.kind.label());
        assert_eq!(scrape.helps[family.name], family.help);
        assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
    }
    for series in scrape.series.keys() {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = FAMILIES
            .iter()
            .find(|family| match family.kind {
                Kind::Histogram => name.rsplit_once('_').is_some_and(|(base, _)| base == family.name),
                Kind::Counter | Kind::Gauge => name == family.name,
            })
            .unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        let labels: BTreeSet<_> =
            labels.split(',').filter_map(|label| label.split_once('=')).map(|(key, _)| key).collect();
        let mut declared: BTreeSet<_> = family.labels.iter().copied().collect();
        if name.ends_with("_bucket") {
            declared.insert("le");
        }
        assert_eq!(labels, declared, "{series}");
    }
}

#[test]
fn the_documentation_lists_exactly_what_is_shown() {
    let document = include_str!("../../docs/METRICS.md");
    let rows: Vec<Vec<&str>> = document
        .lines()
        .skip_while(|line| *line != "| name | type | labels | meaning |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let expected: Vec<Vec<String>> = FAMILIES
        .iter()
        .map(|family| {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
            vec![format!("`{}`", family.name), family.kind.label().into(), labels, family.help.into()]
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_documentation_lists_exactly_the_label_values_that_are_shown() {
    let figures = Figures::of(&Tally::default());
    let postgres = Reading { protocol: "postgres", ..figures.reading("db", State::Closed) };
    let scrape =
        Scrape::parse(&render(&[figures.reading("cache", State::Closed), postgres], &CONFIGURATION, TASKS));
    // (label, family) → values; the label `protocol` is the same for all of them. Those that are not listed are the
    // names of the configuration, the version and the bounds.
    let mut shown: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for series in scrape.series.keys() {
        let Some((family, labels)) = series.trim_end_matches('}').split_once('{') else { continue };
        for (label, value) in labels.split(',').map(|pair| pair.split_once('=').unwrap()) {
            let family = if label == "protocol" { "" } else { family };
            if !["backend", "version", "le"].contains(&label) {
                shown
                    .entry((label.into(), family.into()))
                    .or_default()
                    .insert(value.trim_matches('"').into());
            }
        }
    }
    let document = include_str!("../../docs/METRICS.md");
    let rows = document.lines().skip_while(|line| *line != "| label | of | values |").skip(2);
    let mut documented: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let quoted =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(Into::into).collect() };
        let cells: Vec<_> = row.trim_matches('|').split('|').map(quoted).collect();
        let key = (cells[0][0].clone(), cells[1].first().cloned().unwrap_or_default());
        assert_eq!(documented.insert(key, cells[2].iter().cloned().collect()), None, "twice: {row}");
    }
    assert_eq!(documented, shown);
}

#[test]
fn the_documentation_lists_the_bounds_of_the_buckets() {
    let document = include_str!("../../docs/METRICS.md").replace('\n', " ");
    let all: Vec<_> =
        buckets(std::iter::empty()).into_iter().map(|(le, _)| le).filter(|le| le != "+Inf").collect();
    assert!(document.contains(&format!(": {}. A duration", all.join(", "))), "{all:?}");
}

#[test]
fn counters_are_there_from_the_start_for_every_known_label() {
    let figures = Figures::of(&Tally::default());
    let scrape = Scrape::parse(&render(&[figures.reading("cache", State::Closed)], &CONFIGURATION, TASKS));
    let zero = |name: &str, label: &str, value: &str| {
        let series = format!("{name}{{backend=\"cache\",protocol=\"redis\",{label}=\"{value}\"}}");
        assert_eq!(scrape.get(&series), 0.0);
    };
    for fault in Fault::ALL {
        zero("circuit_breaker_failures_total", "reason", fault.label());
    }
    for condition in Condition::LABELS {
        zero("circuit_breaker_trips_total", "condition", condition);
    }
    for reason in ["open", "half_open", "slow_start", "max_calls", "max_connections", "session"] {
        zero("circuit_breaker_rejections_total", "reason", reason);
    }
    for result in ["success", "failure", "ignored"] {
        zero("circuit_breaker_calls_total", "result", result);
    }
    for result in ["success", "failure"] {
        zero("fusewire_upstream_connects_total", "result", result);
    }
    for direction in ["from_downstream", "from_upstream"] {
        zero("fusewire_bytes_total", "direction", direction);
    }
}

#[test]
fn every_condition_is_a_known_label() {
    // Whoever adds a condition is led here by the compiler, and from here to `Condition::LABELS`.
    let label = |condition: Condition| match condition {
        Condition::ConsecutiveFailures(_)
        | Condition::FailureRate { .. }
        | Condition::SlowCallRate { .. }
        | Condition::ProbeFailed
        | Condition::ProbeSlow
        | Condition::FailedChecks(_)
        | Condition::Manual => condition.label(),
    };
    let all = [
        Condition::ConsecutiveFailures(1),
        Condition::FailureRate { failed: 1, calls: 1 },
        Condition::SlowCallRate { slow: 1, calls: 1 },
        Condition::ProbeFailed,
        Condition::ProbeSlow,
        Condition::FailedChecks(1),
        Condition::Manual,
    ];
    let known = super::publish::trips_by_label(&BTreeMap::new());
    assert_eq!(known.len(), all.len());
    for condition in all {
        assert!(known.contains_key(label(condition)));
    }
}

#[test]
fn a_reply_code_named_like_a_fault_is_added_to_it() {
    let mut figures = Figures::of(&Tally::default());
    figures.failures.insert(Cause::Fault(Fault::Timeout), 2);
    figures.failures.insert(Cause::Reply(Code::new("timeout")), 3);
    figures.failures.insert(Cause::Reply(Code::new("LOADING")), 4);
    let scrape = Scrape::parse(&render(&[figures.reading("cache", State::Closed)], &CONFIGURATION, TASKS));
    let reason = |reason: &str| {
        scrape.get(&format!(
            "circuit_breaker_failures_total{{backend=\"cache\",protocol=\"redis\",reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(reason("timeout"), 5.0);
    assert_eq!(reason("LOADING"), 4.0);
}

/// The cumulative buckets of a scrape with one observation of each duration, in ascending order of `le`.
fn buckets(durations: impl Iterator<Item = Duration>) -> Vec<(String, f64)> {
    let tally = Tally::default();
    durations.for_each(|duration| tally.observe(duration, 1));
    let figures = Figures::of(&tally);
    let text = render(&[figures.reading("cache", State::Closed)], &CONFIGURATION, TASKS);
    text.lines()
        .filter_map(|line| line.strip_prefix("circuit_breaker_call_duration_seconds_bucket"))
        .map(|line| {
            let (labels, count) = line.rsplit_once(' ').unwrap();
            let le = labels.split("le=\"").nth(1).unwrap().trim_end_matches("\"}");
            (le.to_owned(), count.parse().unwrap())
        })
        .collect()
}

#[test]
fn a_duration_on_a_bound_is_inside_and_a_nanosecond_more_is_not() {
    let bounds = || Histogram::BOUNDS.iter().map(|&micros| Duration::from_micros(micros));
    let on = buckets(bounds());
    assert_eq!(on.len(), Histogram::BOUNDS.len() + 1);
    assert_eq!((&*on[0].0, &*on[4].0, &*on[19].0, &*on[20].0), ("0.00005", "0.0008", "60", "+Inf"));
    for (i, (le, count)) in on.iter().enumerate() {
        assert_eq!(*count, (i + 1).min(Histogram::BOUNDS.len()) as f64, "le {le}");
    }
    let above = buckets(bounds().map(|bound| bound + Duration::from_nanos(1)));
    for (i, (le, count)) in above.iter().enumerate() {
        assert_eq!(*count, i as f64, "le {le}");
    }
}

#[test]
fn the_sum_of_durations_is_exact_and_the_count_is_the_last_bucket() {
    let tally = Tally::default();
    tally.observe(Duration::from_micros(75), 1_000_000_000);
    tally.observe(Duration::from_secs(100), 2);
    let figures = Figures::of(&tally);
    let scrape = Scrape::parse(&render(&[figures.reading("cache", State::Closed)], &CONFIGURATION, TASKS));
    let get = |suffix: &str, le: &str| {
        scrape.get(&format!(
            "circuit_breaker_call_duration_seconds_{suffix}{{backend=\"cache\",protocol=\"redis\"{le}}}"
        ))
    };
    assert_eq!(get("sum", ""), 75_200.0);
    assert_eq!(get("count", ""), 1_000_000_002.0);
    assert_eq!(get("bucket", ",le=\"+Inf\""), 1_000_000_002.0);
    assert_eq!(get("bucket", ",le=\"60\""), 1_000_000_000.0);
    assert_eq!(get("bucket", ",le=\"0.00005\""), 0.0);
}

#[test]
fn one_state_is_hot_and_the_gauge_agrees() {
    let figures = Figures::of(&Tally::default());
    for (state, gauge) in [(State::Closed, 0.0), (State::HalfOpen, 1.0), (State::Open, 2.0)] {
        let mut reading = figures.reading("db", state);
        reading.open_until = Some(1_700_000_000.25);
        let scrape = Scrape::parse(&render(&[reading], &CONFIGURATION, TASKS));
        assert_eq!(scrape.get("circuit_breaker_state{backend=\"db\",protocol=\"redis\"}"), gauge);
        for other in [State::Closed, State::HalfOpen, State::Open] {
            let series = format!(
                "circuit_breaker_state_info{{backend=\"db\",protocol=\"redis\",state=\"{}\"}}",
                other.label()
            );
            assert_eq!(scrape.get(&series), f64::from(other == state));
        }
        let until = scrape.get("circuit_breaker_open_until_seconds{backend=\"db\",protocol=\"redis\"}");
        assert_eq!(until, if state == State::Open { 1_700_000_000.25 } else { 0.0 });
    }
    let scrape = Scrape::parse(&render(&[figures.reading("db", State::Open)], &CONFIGURATION, TASKS));
    let until = scrape.get("circuit_breaker_open_until_seconds{backend=\"db\",protocol=\"redis\"}");
    assert_eq!(until, f64::INFINITY);
}

#[test]
fn backends_do_not_mix() {
    let (a, b) = (Tally::default(), Tally::default());
    a.add(Counter::Accepted, 3);
    a.add(Counter::Closed, 1);
    b.add(Counter::Accepted, 7);
    b.add(Counter::UpstreamBytes, u64::MAX / 2);
    let (a, b) = (Figures::of(&a), Figures::of(&b));
    let text = render(&[a.reading("a", State::Closed), b.reading("b", State::Open)], &CONFIGURATION, TASKS);
    let scrape = Scrape::parse(&text);
    assert_eq!(scrape.get("fusewire_connections_total{backend=\"a\",protocol=\"redis\"}"), 3.0);
    assert_eq!(scrape.get("fusewire_connections_active{backend=\"a\",protocol=\"redis\"}"), 2.0);
    assert_eq!(scrape.get("fusewire_connections_active{backend=\"b\",protocol=\"redis\"}"), 7.0);
    assert!(text.contains(&format!(" {}\n", u64::MAX / 2)), "whole counters lose no digit");
}

#[test]
fn tasks_are_counted_for_the_whole_process() {
    assert_eq!(Scrape::parse(&render(&[], &CONFIGURATION, TASKS)).get("fusewire_tasks"), 7.0);
}

#[test]
fn a_configuration_that_was_refused_shows() {
    let scrape = Scrape::parse(&render(&[], &CONFIGURATION, TASKS));
    assert_eq!(scrape.get("fusewire_config_reloads_total{result=\"success\"}"), 3.0);
    assert_eq!(scrape.get("fusewire_config_reloads_total{result=\"failure\"}"), 2.0);
    assert_eq!(scrape.get("fusewire_config_last_reload_successful"), 0.0);
    assert_eq!(scrape.get("fusewire_config_last_reload_success_timestamp_seconds"), 1_700_000_000.5);
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_knows_itself() {
    let first = Scrape::parse(&render(&[], &CONFIGURATION, TASKS));
    let start = first.get("process_start_time_seconds");
    assert!(start > 1e9, "{start}");
    assert!(first.get("process_resident_memory_bytes") > 1e6);
    assert!(first.get("process_open_fds") >= 3.0);
    assert!(first.get("process_max_fds") >= first.get("process_open_fds"));
    let cpu = first.get("process_cpu_seconds_total");
    assert!((0.0..86_400.0).contains(&cpu), "{cpu}");
    assert_eq!(Scrape::parse(&render(&[], &CONFIGURATION, TASKS)).get("process_start_time_seconds"), start);
}
