//! Seeded simulation: the real driver, sessions and gate between made-up clients and a made-up server, over sockets
//! in memory and in virtual time, while a fault plan plays. A shadow model of each client judges every reply, and at
//! the end what ran at the server.
//!
//! One seed is one history, the same each time. A failure prints its seed and how to play it again:
//! `FUSEWIRE_SEED=7 cargo test --lib sim`. `FUSEWIRE_SEEDS=N` plays that many, `FUSEWIRE_FOR=SECONDS` as many as fit,
//! `FUSEWIRE_FROM=N` begins at another one.
//!
//! Absent on purpose: TLS and real sockets, which the tests of the whole binary have.

mod judge;
mod postgres_client;
mod postgres_server;
mod random;
mod redis_client;
mod redis_server;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Seeds of a default run.
const REDIS_SEEDS: u64 = 1500;
/// A Postgres history is shorter.
const POSTGRES_SEEDS: u64 = 6000;

/// What a run has seen, for the record.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    faults: u64,
    requests: u64,
    refused: u64,
    unknown: u64,
    trips: u64,
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.requests += other.requests;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.trips += other.trips;
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Plays seeds until there have been enough.
fn play(name: &str, seeds: u64, run: impl Fn(u64) -> Result<Figures, String>) {
    let one = number("FUSEWIRE_SEED");
    let limit = number("FUSEWIRE_FOR");
    let started = Instant::now();
    let first = one.or(number("FUSEWIRE_FROM")).unwrap_or(0);
    let count = match (one, limit) {
        (Some(_), _) => 1,
        (None, Some(_)) => u64::MAX - first,
        (None, None) => number("FUSEWIRE_SEEDS").unwrap_or(seeds),
    };
    let (mut sum, mut played) = (Figures::default(), 0);
    for seed in first..first + count {
        if limit.is_some_and(|seconds| started.elapsed().as_secs() >= seconds) {
            break;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)))
            .unwrap_or_else(|_| Err("a panic, printed above".to_owned()));
        match outcome {
            Ok(figures) => sum.add(figures),
            Err(why) => panic!(
                "seed {seed} of the {name} simulation: {why}\nplay it again: FUSEWIRE_SEED={seed} cargo test --lib sim::{name}"
            ),
        }
        played += 1;
    }
    println!("{name}: {played} seeds in {:.1} s, {sum:?}", started.elapsed().as_secs_f64());
}

#[test]
fn redis_keeps_its_promises_under_any_fault() {
    play("redis", REDIS_SEEDS, redis_client::run);
}

#[test]
fn postgres_keeps_its_promises_under_any_fault() {
    play("postgres", POSTGRES_SEEDS, postgres_client::run);
}
