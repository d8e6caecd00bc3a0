//! Medians, ratios and their spread, as Markdown for docs/PERFORMANCE.md and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::load::Done;
use crate::peer::Kind;
use crate::rows::{Row, Work};
use crate::usage::Usage;

/// What one peer has shown in a row: one figure a round.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) kind: Kind,
    rates: Vec<f64>,
    /// CPU seconds per operation.
    cpu: Vec<f64>,
    /// Context switches per operation.
    switches: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// System calls per operation.
    pub(crate) calls: Option<f64>,
    /// KiB at the end.
    pub(crate) rss: Option<f64>,
    /// KiB for each idle client.
    pub(crate) idle: Option<f64>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn of(kind: Kind) -> Self {
        let none = Vec::new;
        Self {
            kind,
            rates: none(),
            cpu: none(),
            switches: none(),
            p50: none(),
            p99: none(),
            calls: None,
            rss: None,
            idle: None,
        }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, done: &Done, cost: Option<Usage>) {
        self.rates.push(done.rate);
        self.p50.extend(done.p50);
        self.p99.extend(done.p99);
        if let Some(cost) = cost {
            self.cpu.push(cost.cpu / done.operations);
            self.switches.push(cost.switches / done.operations);
        }
    }

    fn json(&self) -> Value {
        json!({
            "peer": self.kind.name(), "operations_per_second": self.rates, "cpu_seconds_per_operation": self.cpu,
            "context_switches_per_operation": self.switches, "system_calls_per_operation": self.calls,
            "p50_ms": self.p50, "p99_ms": self.p99, "rss_kib": self.rss, "kib_per_idle_client": self.idle,
        })
    }
}

/// All rows so far.
pub(crate) struct Report {
    rounds: usize,
    seconds: f64,
    rows: Vec<(&'static str, String, String, Value)>,
}

/// A ratio of medians, and the least and the greatest ratio of a round.
#[derive(Clone, Copy)]
struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    fn of(mine: &[f64], base: &[f64]) -> Option<Self> {
        let rounds: Vec<f64> = mine.iter().zip(base).map(|(mine, base)| mine / base).collect();
        let median = median(mine)? / median(base)?;
        let (low, high) =
            rounds.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), r| (low.min(*r), high.max(*r)));
        Some(Self { median, low, high })
    }

    fn text(self) -> String {
        format!("{:.2} ({:.2}–{:.2})", self.median, self.low, self.high)
    }
}

impl Report {
    /// Nothing yet.
    pub(crate) fn new(rounds: usize, seconds: f64) -> Self {
        Self { rounds, seconds, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: &'static Row, measured: Vec<Measured>) {
        let line = summary(row, &measured);
        let peers: Vec<Value> = measured.iter().map(Measured::json).collect();
        let json = json!({"row": row.name, "title": row.title, "peers": peers});
        self.rows.push((row.name, line, detail(row, &measured), json));
    }

    /// The figures of the row that was added last.
    pub(crate) fn last(&self) -> &str {
        self.rows.last().map_or("", |(_, _, detail, _)| detail)
    }

    /// Everything, for a program.
    pub(crate) fn json(&self) -> Value {
        let rows: Vec<&Value> = self.rows.iter().map(|(_, _, _, json)| json).collect();
        json!({"rounds": self.rounds, "seconds": self.seconds, "machine": machine(), "rows": rows})
    }

    /// The table, and the figures behind it.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "{}; medians of {} rounds of about {} s, HAProxy's = 1.00, in brackets the least and the greatest ratio of a \
             round.\n\n| workload | forwarder | relay | protocol-aware | fusewire must reach | fusewire | |\n\
             |---|---|---|---|---|---|---|\n",
            machine(),
            self.rounds,
            self.seconds
        );
        self.rows.iter().for_each(|(_, line, _, _)| text.push_str(line));
        text.push_str("\nThe figures behind it:\n\n```text\n");
        self.rows.iter().for_each(|(_, _, detail, _)| text.push_str(detail));
        text + "```\n"
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().wrapping_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// What it ran on.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

/// A row of the table.
fn summary(row: &Row, measured: &[Measured]) -> String {
    let find = |kind| measured.iter().find(|measured: &&Measured| measured.kind == kind);
    let base = find(Kind::Haproxy).or_else(|| find(Kind::Direct));
    let cpu = |kind| {
        let short = match (find(kind), base) {
            (Some(Measured { idle: Some(kib), .. }), _) => Some(format!("{kib:.1} KiB")),
            (Some(mine), Some(base)) => {
                Ratio::of(&mine.cpu, &base.cpu).map(|ratio| format!("{:.2}", ratio.median))
            }
            _ => None,
        };
        short.unwrap_or_else(|| "–".to_owned())
    };
    let aware = [Kind::Nutcracker, Kind::Pgbouncer].into_iter().filter(|kind| find(*kind).is_some());
    let aware: Vec<String> = aware.map(|kind| format!("{} {}", kind.name(), cpu(kind))).collect();
    let aware = if aware.is_empty() { "–".to_owned() } else { aware.join(", ") };
    let (mut must, mut reached, mut met) = (Vec::new(), Vec::new(), true);
    if let (Some(mine), Some(base)) = (find(Kind::Fusewire), base) {
        let mut judge = |demand: Option<String>, value: Option<String>, good: bool| {
            must.extend(demand.clone());
            reached.extend(value);
            met &= demand.is_none() || good;
        };
        if let Some(ratio) = Ratio::of(&mine.cpu, &base.cpu) {
            let most = row.must.cpu;
            judge(
                most.map(|most| format!("≤ {most:.2} cpu")),
                Some(format!("{} cpu", ratio.text())),
                most.is_none_or(|most| ratio.median <= most),
            );
        }
        if let Some(ratio) = Ratio::of(&mine.rates, &base.rates) {
            let least = row.must.rate;
            judge(
                least.map(|least| format!("≥ {least:.2} ×")),
                Some(format!("{} ×", ratio.text())),
                least.is_none_or(|least| ratio.median >= least),
            );
        }
        let rejected = matches!(row.work, Work::Rejected { .. });
        let (name, mine_at, base_at) =
            if rejected { ("p99", &mine.p99, &base.p99) } else { ("p50", &mine.p50, &base.p50) };
        if let (true, Some(ratio)) = (row.must.latency, Ratio::of(mine_at, base_at)) {
            judge(
                Some(format!("{name} ≤ 1.00")),
                Some(format!("{name} {}", ratio.text())),
                ratio.median <= 1.0,
            );
        }
        if let (Some(most), Some(kib)) = (row.must.kib, mine.idle) {
            let base = base.idle.unwrap_or(f64::NAN);
            judge(
                Some(format!("≤ {most:.1} KiB")),
                Some(format!("{kib:.1} KiB (HAProxy {base:.1})")),
                kib <= most,
            );
        }
    }
    format!(
        "| {} | {} | {} | {aware} | {} | {} | {} |\n",
        row.title,
        cpu(Kind::Forwarder),
        cpu(Kind::Relay),
        must.join(", "),
        reached.join(", "),
        if met { "met" } else { "**short**" }
    )
}

/// Every peer's figures in a row.
fn detail(row: &Row, measured: &[Measured]) -> String {
    let mut text = format!("{}: {}\n", row.name, row.title);
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let mib = row.work.unit() == "GiB";
    for peer in measured {
        if let Some(idle) = peer.idle {
            let _ = writeln!(
                text,
                "  {:<10} {idle:>8.2} KiB a client {:>10} KiB RSS",
                peer.kind.name(),
                number(peer.rss, 0)
            );
            continue;
        }
        let _ = writeln!(
            text,
            "  {:<10} {:>9} {} {:>8} cpu s/{} {:>6} p50 {:>6} p99 ms {:>8} switches/op {:>7} syscalls/op {:>7} KiB RSS",
            peer.kind.name(),
            number(median(&peer.rates), 0),
            if mib { "MiB/s" } else { "ops/s" },
            number(median(&peer.cpu).map(|cpu| cpu * row.work.per_unit()), 3),
            row.work.unit(),
            number(median(&peer.p50), 3),
            number(median(&peer.p99), 3),
            number(median(&peer.switches), 4),
            number(peer.calls, 3),
            number(peer.rss, 0)
        );
    }
    text
}
