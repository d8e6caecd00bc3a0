//! The last minutes of each backend, a sample a second, so that a dashboard opened after the alarm shows what led
//! to it.
//!
//! Absent on purpose: the disk, and anything older. That is Prometheus' work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::backends::{Backend, Backends};
use crate::clock::Moment;
use crate::gate::Snapshot;
use crate::metrics::{Counter, Totals};

/// Samples kept for each backend, about 20 KB: five minutes.
pub(super) const SAMPLES_MAX: usize = 300;

/// State changes kept for each backend.
const STATES_MAX: usize = 128;

/// The last minutes, by backend.
#[derive(Debug, Default)]
pub(super) struct History {
    backends: BTreeMap<Arc<str>, Track>,
}

#[derive(Debug)]
struct Track {
    samples: VecDeque<Sample>,
    /// When it entered which state, oldest first.
    states: VecDeque<(f64, &'static str)>,
    before: Totals,
    at: Instant,
}

/// What happened since the sample before. Rates are per second, times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Unix time in seconds.
    at: f64,
    calls: f64,
    failures: f64,
    rejections: f64,
    in_flight: u64,
    /// Null when no call ended.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// `GET /api/v1/history`.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Past {
    at: f64,
    version: &'static str,
    backends: Vec<Story>,
}

#[derive(Debug, Serialize)]
struct Story {
    name: String,
    protocol: &'static str,
    listen: String,
    upstream: String,
    failure_threshold: Option<u32>,
    /// `[unix seconds, state]`, oldest first.
    states: Vec<(f64, &'static str)>,
    samples: Columns,
}

/// The samples by column, oldest first: the form that charts take, and half the length.
#[derive(Debug, Default, Serialize)]
struct Columns {
    at: Vec<f64>,
    calls: Vec<f64>,
    failures: Vec<f64>,
    rejections: Vec<f64>,
    in_flight: Vec<u64>,
    p50_ms: Vec<Option<f64>>,
    p99_ms: Vec<Option<f64>>,
}

impl History {
    /// Adds what has happened to a backend since its sample before. The first one only sets the mark.
    pub(super) fn add(&mut self, snapshot: &Snapshot, moment: &Moment) {
        let track = self.track(snapshot, moment);
        let elapsed = moment.now.saturating_duration_since(track.at).as_secs_f64();
        if elapsed > 0.0 {
            let sample = Sample::between(&track.before, &snapshot.totals, elapsed, moment);
            push(&mut track.samples, sample, SAMPLES_MAX);
            track.before = snapshot.totals.clone();
            track.at = moment.now;
        }
    }

    /// Notes the state that a backend is in. Returns the one that it left, if it left one.
    pub(super) fn enter(&mut self, snapshot: &Snapshot, moment: &Moment) -> Option<&'static str> {
        let track = self.track(snapshot, moment);
        let from = track.states.back().map(|(_, state)| *state);
        let to = snapshot.state.label();
        if from == Some(to) {
            return None;
        }
        push(&mut track.states, (moment.unix_seconds(snapshot.since), to), STATES_MAX);
        from
    }

    /// Forgets backends that are no more.
    pub(super) fn retain(&mut self, backends: &[Arc<Backend>]) {
        self.backends.retain(|name, _| backends.iter().any(|backend| backend.name() == name));
    }

    /// The last sample of each backend.
    pub(super) fn last(&self) -> BTreeMap<&str, &Sample> {
        let tracks = self.backends.iter();
        tracks.filter_map(|(name, track)| Some((&**name, track.samples.back()?))).collect()
    }

    /// Everything that is remembered of these backends.
    pub(super) fn past(&self, backends: &Backends, moment: &Moment) -> Past {
        let stories = backends.all().iter().map(|backend| self.story(backend)).collect();
        Past { at: moment.unix_seconds(moment.now), version: env!("CARGO_PKG_VERSION"), backends: stories }
    }

    fn story(&self, backend: &Backend) -> Story {
        let config = backend.config();
        let track = self.backends.get(&config.name);
        Story {
            name: config.name.to_string(),
            protocol: config.protocol.label(),
            listen: config.listen.to_string(),
            upstream: config.upstream.to_string(),
            failure_threshold: config.breaker.failure_threshold,
            states: track.map(|track| track.states.iter().copied().collect()).unwrap_or_default(),
            samples: track.map(|track| Columns::of(&track.samples)).unwrap_or_default(),
        }
    }

    fn track(&mut self, snapshot: &Snapshot, moment: &Moment) -> &mut Track {
        self.backends.entry(snapshot.name.clone()).or_insert_with(|| Track {
            samples: VecDeque::new(),
            states: VecDeque::from([(moment.unix_seconds(snapshot.since), snapshot.state.label())]),
            before: snapshot.totals.clone(),
            at: moment.now,
        })
    }
}

impl Sample {
    fn between(before: &Totals, after: &Totals, seconds: f64, moment: &Moment) -> Self {
        let rate = |from: u64, to: u64| round(to.saturating_sub(from) as f64 / seconds);
        let mut ended = Totals::default();
        for (bucket, count) in ended.latency_counts.iter_mut().enumerate() {
            let (from, to) = (before.latency_counts.get(bucket), after.latency_counts.get(bucket));
            *count = to.copied().unwrap_or(0).saturating_sub(from.copied().unwrap_or(0));
        }
        let quantile = |q| ended.latency_quantile(q).map(|seconds| round(seconds * 1e3));
        Self {
            at: moment.unix_seconds(moment.now),
            calls: rate(before.calls(), after.calls()),
            failures: rate(before.get(Counter::Failure), after.get(Counter::Failure)),
            rejections: rate(before.rejections(), after.rejections()),
            in_flight: after.in_flight(),
            p50_ms: quantile(0.50),
            p99_ms: quantile(0.99),
        }
    }
}

impl Columns {
    fn of(samples: &VecDeque<Sample>) -> Self {
        let mut columns = Self::default();
        for sample in samples {
            columns.at.push(sample.at);
            columns.calls.push(sample.calls);
            columns.failures.push(sample.failures);
            columns.rejections.push(sample.rejections);
            columns.in_flight.push(sample.in_flight);
            columns.p50_ms.push(sample.p50_ms);
            columns.p99_ms.push(sample.p99_ms);
        }
        columns
    }
}

fn push<T>(deque: &mut VecDeque<T>, item: T, max: usize) {
    if deque.len() >= max {
        deque.pop_front();
    }
    deque.push_back(item);
}

/// Three places: more would be noise.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests;
