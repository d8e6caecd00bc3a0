//! Hours of mixed load with a fault a minute, and figures that must stay flat.
//!
//! ```text
//! soak [DURATION] [--every DURATION] [--seed N]
//! ```
//!
//! One hour by default. The checkers of `chaos` are the load; memory, descriptors and connections of fusewire are looked at
//! before each fault, when a minute of ordinary work lies behind it. At the end, when all clients are gone, fusewire must
//! hold no connection, no more descriptors than at the start, and no more memory than the early minutes took, with a
//! margin of a tenth and 4 MiB: a leak of 100 bytes a request or of one connection a fault would show.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use proto_tests::chaos::stage::Stage;
use proto_tests::process::{self, descriptors};
use proto_tests::tools::duration;
use proto_tests::until::{check, eventually};

/// What is looked at.
#[derive(Debug, Clone, Copy)]
struct Sample {
    rss: u64,
    descriptors: usize,
    connections: f64,
    upstream: f64,
    in_flight: f64,
}

impl Sample {
    fn take(stage: &Stage) -> Self {
        let proxy = &stage.proxy;
        Self {
            rss: process::rss(proxy.pid()),
            descriptors: descriptors(proxy.pid()),
            connections: proxy.metric("fusewire_connections_active", &[]),
            upstream: proxy.metric("fusewire_upstream_connections_active", &[]),
            in_flight: proxy.metric("circuit_breaker_calls_in_flight", &[]),
        }
    }
}

fn main() -> ExitCode {
    let (mut lasting, mut every, mut seed) = (Duration::from_secs(3600), Duration::from_secs(60), 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let read = match arg.as_str() {
            "--every" => {
                args.next().ok_or_else(String::new).and_then(|text| duration(&text)).map(|d| every = d)
            }
            "--seed" => {
                args.next().and_then(|text| text.parse().ok()).ok_or_else(String::new).map(|n| seed = n)
            }
            text => duration(text).map(|d| lasting = d),
        };
        if read.is_err() {
            eprintln!("soak: not understood: {arg}; soak [1h] [--every 60s] [--seed N]");
            return ExitCode::from(2);
        }
    }
    let mut stage = Stage::start(seed);
    stage.await_progress();
    let idle = descriptors(stage.proxy.pid());
    let (start, mut faults, mut samples) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < lasting {
        std::thread::sleep(
            every.saturating_sub(Duration::from_secs(3)).min(lasting.saturating_sub(start.elapsed())),
        );
        let sample = Sample::take(&stage);
        samples.push(sample);
        let fault = stage.next_fault();
        println!(
            "{:>6.0} s  {:>6} KiB  {:>3} descriptors  {:>3} clients  {:>3} upstream  {:>3} in flight   then: {}",
            start.elapsed().as_secs_f64(),
            sample.rss >> 10,
            sample.descriptors,
            sample.connections,
            sample.upstream,
            sample.in_flight,
            fault.name
        );
        fault.happen(&mut stage, Duration::from_secs(2));
        stage.await_progress();
        stage.audit();
        faults += 1;
    }
    stage.finish();
    eventually("every connection to end", || {
        let sample = Sample::take(&stage);
        check(sample.connections == 0.0 && sample.upstream == 0.0 && sample.in_flight == 0.0, sample)
    });
    let last = Sample::take(&stage);
    // The first minutes are for allocators and tables to find their size.
    let early = samples.iter().take((samples.len() / 4).max(1)).map(|sample| sample.rss).max().unwrap_or(0);
    println!("{}", stage.judge);
    println!(
        "{faults} faults in {:.0} minutes; memory {} KiB at first, {} KiB at most early, {} KiB at the end; descriptors {} \
         under load at first, {} at the end without load",
        start.elapsed().as_secs_f64() / 60.0,
        samples.first().map_or(0, |sample| sample.rss) >> 10,
        early >> 10,
        last.rss >> 10,
        idle,
        last.descriptors
    );
    let mut faulty = stage.judge.violations();
    if last.rss > early + early / 10 + (4 << 20) {
        faulty.push(format!("memory has grown to {} KiB", last.rss >> 10));
    }
    if last.descriptors > idle {
        faulty.push(format!("descriptors have grown to {}", last.descriptors));
    }
    faulty.iter().for_each(|what| println!("BROKEN: {what}"));
    if faulty.is_empty() {
        println!("flat, and every promise was kept");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
