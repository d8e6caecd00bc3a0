//! The API's answers as text for people.
//!
//! Only what is shown is read of an answer, so that a newer fusewire may say more. Absent on purpose: colours and
//! the terminal's width; whoever wants another form takes `--json`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use indexmap::IndexMap;
use serde::Deserialize;

/// `GET .../status`.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    details: Details,
}

#[derive(Debug, Deserialize)]
struct Details {
    breakers: IndexMap<String, Breaker>,
}

/// `GET .../status/{name}` and the answer to each change of one breaker.
#[derive(Debug, Deserialize)]
pub(super) struct Breaker {
    name: String,
    protocol: String,
    state: String,
    mode: String,
    slow_start: bool,
    since: String,
    retry_after_ms: Option<u64>,
    metrics: Calls,
    last_trip: Option<LastTrip>,
    #[serde(default)]
    check: Option<Check>,
    #[serde(default)]
    bulkhead: Option<Bulkhead>,
    #[serde(default)]
    latency_ms: Option<Latency>,
    #[serde(default)]
    history: Option<Vec<Change>>,
}

#[derive(Debug, Deserialize)]
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
    trips: u64,
}

#[derive(Debug, Deserialize)]
struct Bulkhead {
    connections: u64,
    max_connections: Option<u64>,
    calls: u64,
    max_calls: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Check {
    when: String,
    last: Option<LastCheck>,
}

#[derive(Debug, Deserialize)]
struct LastCheck {
    at: String,
    result: String,
    cause: Option<String>,
    duration_ms: f64,
}

#[derive(Debug, Deserialize)]
struct LastTrip {
    reason: String,
    at: String,
    evidence: Vec<Evidence>,
}

#[derive(Debug, Deserialize)]
struct Evidence {
    at: String,
    kind: String,
    verdict: String,
    cause: Option<String>,
    duration_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Change {
    at: String,
    from: String,
    to: String,
    reason: String,
    mode: String,
}

/// `POST /api/v1/config/reload`.
#[derive(Debug, Deserialize)]
pub(super) struct Reloaded {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    settings: Vec<String>,
    needs_restart: Vec<String>,
    warnings: Vec<String>,
}

/// A line for each breaker.
pub(super) fn table(status: &Status, now: SystemTime) -> String {
    let head = [
        "NAME",
        "PROTOCOL",
        "STATE",
        "FOR",
        "RETRY",
        "MODE",
        "CALLS",
        "FAILED",
        "REJECTED",
        "IN FLIGHT",
        "TRIPS",
        "LAST TRIP",
    ];
    let rows = status.details.breakers.values().map(|breaker| {
        let calls = &breaker.metrics;
        let trip = breaker.last_trip.as_ref().map_or("-", |trip| &trip.reason);
        vec![
            breaker.name.clone(),
            breaker.protocol.clone(),
            breaker.state_in_words().to_owned(),
            age(&breaker.since, now),
            breaker.retry().unwrap_or_else(|| "-".to_owned()),
            breaker.mode.clone(),
            calls.total_calls.to_string(),
            calls.failed_calls.to_string(),
            calls.rejected_calls.to_string(),
            calls.in_flight.to_string(),
            calls.trips.to_string(),
            trip.to_owned(),
        ]
    });
    columns(std::iter::once(head.map(str::to_owned).to_vec()).chain(rows))
}

/// All there is to know of one breaker: how it is, why it last tripped, what it has been through.
pub(super) fn story(breaker: &Breaker, now: SystemTime) -> String {
    let calls = &breaker.metrics;
    let mut text = breaker.headline(&format!(" for {}", age(&breaker.since, now)));
    let mut line = |what: &str, words: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{what:<12}{}", plain(&words));
    };
    line(
        "calls",
        format!(
            "{} ({} successful, {} failed, {} ignored, {} in flight), {} success, {} failures in a row",
            calls.total_calls,
            calls.successful_calls,
            calls.failed_calls,
            calls.ignored_calls,
            calls.in_flight,
            calls.success_rate,
            calls.consecutive_failures
        ),
    );
    let would = match calls.would_reject_calls {
        0 => String::new(),
        n => format!(", {n} more would have been"),
    };
    line("rejected", format!("{}{would}", calls.rejected_calls));
    if let Some(Latency { p50: Some(p50), p90: Some(p90), p99: Some(p99) }) = breaker.latency_ms {
        line("latency", format!("p50 {p50} ms, p90 {p90} ms, p99 {p99} ms"));
    }
    if let Some(check) = breaker.check.as_ref().filter(|check| check.when != "off" || check.last.is_some()) {
        let last = match &check.last {
            None => "none yet".to_owned(),
            Some(LastCheck { at, result, cause, duration_ms }) => {
                let cause = cause.as_ref().map_or(String::new(), |cause| format!(" ({cause})"));
                format!("the last at {at}: {result}{cause}, {duration_ms} ms")
            }
        };
        line("checks", format!("{}, {last}", check.when));
    }
    if let Some(Bulkhead { connections, max_connections, calls, max_calls }) = breaker.bulkhead {
        let of = |n: u64, max: Option<u64>, what: &str| Some(format!("{n} of {} {what}", max?));
        let used = [of(connections, max_connections, "connections"), of(calls, max_calls, "calls")];
        let used: Vec<String> = used.into_iter().flatten().collect();
        if !used.is_empty() {
            line("bulkhead", used.join(", "));
        }
    }
    line("trips", calls.trips.to_string());
    if let Some(trip) = &breaker.last_trip {
        let _ = writeln!(text, "\nLast trip at {}: {}", plain(&trip.at), plain(&trip.reason));
        let head = ["AT", "CALL", "VERDICT", "CAUSE", "TOOK"].map(str::to_owned).to_vec();
        let rows = trip.evidence.iter().map(|outcome| {
            let cause = outcome.cause.clone().unwrap_or_else(|| "-".to_owned());
            let took = format!("{} ms", outcome.duration_ms);
            vec![outcome.at.clone(), outcome.kind.clone(), outcome.verdict.clone(), cause, took]
        });
        if !trip.evidence.is_empty() {
            text += &columns(std::iter::once(head).chain(rows));
        }
    }
    if let Some(history) = breaker.history.as_ref().filter(|history| !history.is_empty()) {
        text += "\nTransitions\n";
        let head = ["AT", "FROM", "TO", "MODE", "WHY"].map(str::to_owned).to_vec();
        let rows = history.iter().map(|change| {
            [&change.at, &change.from, &change.to, &change.mode, &change.reason].map(String::clone).to_vec()
        });
        text += &columns(std::iter::once(head).chain(rows));
    }
    text
}

/// How a breaker is after a change.
pub(super) fn outcome(breaker: &Breaker) -> String {
    breaker.headline("")
}

/// What a reload has changed.
pub(super) fn reloaded(done: &Reloaded) -> String {
    let mut text = String::new();
    for (what, names) in [
        ("added", &done.added),
        ("removed", &done.removed),
        ("changed", &done.changed),
        ("settings", &done.settings),
        ("needs a restart", &done.needs_restart),
    ] {
        if !names.is_empty() {
            let _ = writeln!(text, "{what}: {}", plain(&names.join(", ")));
        }
    }
    for warning in &done.warnings {
        let _ = writeln!(text, "warning: {}", plain(warning));
    }
    if text.is_empty() { "nothing has changed\n".to_owned() } else { text }
}

/// Without what a terminal would act on.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl Breaker {
    fn state_in_words(&self) -> &str {
        if self.slow_start { "slow start" } else { &self.state }
    }

    /// When trying again may help; none while closed.
    fn retry(&self) -> Option<String> {
        match (self.state.as_str(), self.retry_after_ms) {
            ("closed", _) => None,
            (_, None) => Some("reset".to_owned()),
            (_, Some(0)) => Some("now".to_owned()),
            (_, Some(millis)) => Some(words(Duration::from_millis(millis))),
        }
    }

    /// `cache (redis): open for 12s, enforce; retry after 18s`.
    fn headline(&self, lasting: &str) -> String {
        let retry = match self.retry() {
            None => String::new(),
            Some(at) if at == "reset" => "; until it is reset".to_owned(),
            Some(at) if at == "now" => "; retry now".to_owned(),
            Some(at) => format!("; retry after {at}"),
        };
        let text = format!(
            "{} ({}): {}{lasting}, mode {}{retry}",
            self.name,
            self.protocol,
            self.state_in_words(),
            self.mode
        );
        plain(&text) + "\n"
    }
}

/// How long ago, to two units; `?` if the other machine's clock says something odd.
fn age(since: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(since) {
        // The clocks of two machines may differ a little.
        Ok(since) => words(now.duration_since(since).unwrap_or_default()),
        Err(_) => "?".to_owned(),
    }
}

/// A duration in its two largest units; below a minute with tenths of a second.
fn words(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        return format!("{:.1}s", duration.as_secs_f64());
    }
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Rows of equal length, each column as wide as its widest cell.
fn columns(rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> =
        rows.map(|row| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>()).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
