//! The servers, fusewire in front of them, and the checkers at work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bank::{self, Bank};
use super::faults::{FAULTS, Fault, Target};
use super::history::{self, Promise, directly};
use super::island::Island;
use super::judge::Judge;
use super::pair::Pair;
use super::postgres_checker::{self, PostgresChecker, Serves};
use super::random::Random;
use super::redis_checker::{DATABASES, RedisChecker, users};
use super::sample::Sample;
use crate::disk::Disk;
use crate::postgres_server::Options;
use crate::until::{check, eventually};
use crate::wire::Reply;
use crate::{Fusewire, Postgres, Redis, Setup};

/// Short enough for the faults to show. A probe comes soon after, so that each fault is also a recovery.
const SETTINGS: &str = "failure-threshold=3,recovery-timeout=250ms,response-timeout=800ms,connect-timeout=500ms,\
                        handshake-timeout=2s,probe-timeout=1s,tcp-user-timeout=1s";

/// Answers that a checker must get after a fault to have made progress.
const PROGRESS: u64 = 20;

/// Everything that takes part.
#[derive(Debug)]
pub struct Stage {
    /// What the checkers have seen.
    pub judge: Arc<Judge>,
    /// fusewire.
    pub proxy: Fusewire,
    /// fusewire before its first client.
    pub fresh: Sample,
    /// A Redis that syncs each write.
    pub redis: Redis,
    /// Where it keeps its data, if that can be filled.
    pub disk: Option<Disk>,
    /// A Redis with a replica.
    pub pair: Pair,
    /// A Redis behind a cable.
    pub island: Option<Island>,
    /// A Postgres.
    pub postgres: Postgres,
    /// A Postgres with a standby.
    pub bank: Bank,
    checkers: Vec<(Target, RedisChecker)>,
    tellers: [(Target, PostgresChecker); 2],
    random: Random,
    /// Faults that may happen.
    chosen: Vec<Fault>,
    /// Those that are still to come before each has been.
    deck: Vec<Fault>,
}

impl Stage {
    /// Starts everything. What the seed decides is which requests are made and which faults happen; when, the machine
    /// decides. Each client rests for `pace` after what it has done.
    pub fn start(seed: u64, pace: Duration) -> Self {
        let judge = Arc::<Judge>::default();
        let disk = Disk::possible().then(|| Disk::with_room("192m"));
        let island = Island::possible().then(Island::build);
        let mut args: Vec<String> =
            ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned).into();
        args.extend(["--auto-aof-rewrite-min-size", "16mb"].map(str::to_owned));
        args.extend(users());
        if let Some(disk) = &disk {
            args.extend(["--dir".to_owned(), disk.path().display().to_string()]);
        }
        let redis = Redis::with(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let pair = Pair::start();
        let postgres = Postgres::with(Options { settings: &["synchronous_commit=on"], ..Options::default() });
        let bank = Bank::start();
        let mut setup = Setup::default()
            .redis("cache", redis.addr(), SETTINGS)
            .redis("pair", format!("unix:{}", pair.address().display()), SETTINGS)
            .postgres("db", postgres.addr(), SETTINGS)
            // Its table in the file has the addresses.
            .args(&["--config", &bank.file().to_string_lossy()])
            .args(&["--postgres", &format!("name={},{SETTINGS}", bank::NAME)])
            .args(&["--log-level", "warn"]);
        if let Some(island) = &island {
            setup = setup.redis("island", island.addr(), SETTINGS);
        }
        let proxy = setup.start();
        let fresh = Sample::take(&proxy);
        let redis_clients =
            |name: &str, promise| RedisChecker::start(name, proxy.addr(name), 4, pace, promise, &judge, seed);
        let mut checkers = vec![
            (Target::Redis, redis_clients("cache", Promise::Durable)),
            (Target::Pair, redis_clients("pair", Promise::Replicated)),
        ];
        if island.is_some() {
            checkers.push((Target::Island, redis_clients("island", Promise::Durable)));
        }
        let teller = |name, server, addr, serves, clients| {
            PostgresChecker::start(name, server, addr, serves, (clients, pace), &judge, seed)
        };
        let tellers = [
            (Target::Postgres, teller("db", &postgres, proxy.addr("db"), Serves::Primary, 5)),
            (Target::Bank, teller(bank::NAME, bank.primary(), bank.addr(), Serves::Either, 4)),
        ];
        let possible = |fault: &&Fault| fault.target != Target::Island || island.is_some();
        let chosen = FAULTS.iter().filter(possible).copied().collect();
        let (random, deck) = (Random::new(seed), Vec::new());
        Self {
            judge,
            proxy,
            fresh,
            redis,
            disk,
            pair,
            island,
            postgres,
            bank,
            checkers,
            tellers,
            random,
            chosen,
            deck,
        }
    }

    /// Lets only those faults happen that have this in their name.
    pub fn only(&mut self, name: &str) {
        self.chosen.retain(|fault| fault.name.contains(name));
        assert!(!self.chosen.is_empty(), "there is no such fault here: {name}");
    }

    /// Lets only those faults happen that do not take long.
    pub fn brief(&mut self) {
        self.chosen.retain(|fault| !fault.is_long);
    }

    /// The next fault: each happens once, in an order of the seed's, before any happens again.
    pub fn next_fault(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.chosen);
            self.random.shuffle(&mut self.deck);
        }
        self.deck.pop().expect("there are faults")
    }

    /// How many kinds of faults may happen here.
    pub fn kinds(&self) -> usize {
        self.chosen.len()
    }

    /// Waits until every checker gets answers again, and commits: whatever happened, nothing is stuck.
    pub fn await_progress(&self) {
        let before = self.tellers.each_ref().map(|(_, teller)| teller.commits());
        self.await_answers(PROGRESS);
        for ((target, teller), before) in self.tellers.iter().zip(before) {
            eventually(&format!("commits of {target:?}"), || {
                let now = teller.commits();
                check(now > before, now)
            });
        }
    }

    /// Waits until an optimistic increment in Redis' database 0 has been acknowledged.
    pub fn await_increment(&self) {
        for (_, checker) in self.checkers.iter().filter(|(target, _)| *target == Target::Redis) {
            eventually("an increment", || {
                let told = checker.shared.acknowledged[0].load(Ordering::Relaxed);
                check(told > 0, told)
            });
        }
    }

    /// Waits until every checker has got so many more answers.
    pub fn await_answers(&self, least: u64) {
        let redis = self.checkers.iter().map(|(target, checker)| (*target, &*checker.replies));
        let postgres = self.tellers.iter().map(|(target, teller)| (*target, &*teller.answers));
        for (target, answers) in redis.chain(postgres) {
            let before = answers.load(Ordering::Relaxed);
            eventually(&format!("answers of {target:?}"), || {
                let more = answers.load(Ordering::Relaxed) - before;
                check(more >= least, more)
            });
        }
    }

    /// Compares the servers with what was acknowledged so far.
    pub fn audit(&self) {
        self.audit_redis();
        self.audit_postgres(false);
    }

    fn audit_redis(&self) {
        for (target, checker) in &self.checkers {
            let addr = match target {
                Target::Redis => self.redis.addr(),
                Target::Pair => self.pair.primary().addr(),
                Target::Island => self.island.as_ref().expect("it has a checker").addr(),
                Target::Postgres | Target::Bank => continue,
            };
            eventually("an audit", || {
                history::audit(addr, &format!("{target:?}"), &checker.histories, &self.judge)
                    .map_err(|error| error.to_string())
            });
        }
    }

    fn audit_postgres(&self, is_over: bool) {
        for (target, teller) in &self.tellers {
            let server = match target {
                Target::Bank => self.bank.primary(),
                _ => &self.postgres,
            };
            eventually("Postgres", || {
                let mut pg = crate::Pg::try_connect(server.addr()).map_err(|error| error.to_string())?;
                pg.startup("postgres", "postgres").map_err(|error| error.to_string())
            });
            teller.audit(server, &self.judge, is_over);
        }
    }

    /// Ends the checkers, and compares everything.
    pub fn finish(&mut self) {
        self.rest();
        self.audit_redis();
        self.audit_shared();
        self.audit_postgres(true);
    }

    /// The same after the servers have been tampered with: every kind of damage must be seen.
    pub fn finish_after_sabotage(&mut self) {
        let [_, (_, teller)] = &self.tellers;
        self.bank.sabotage(teller);
        self.rest();
        let redis = self.redis.addr();
        directly(redis, &["DEL", "shared:d0:counter"]).expect("a deletion");
        let key = match directly(redis, &["RANDOMKEY"]) {
            Ok(Reply::Bulk(key)) => String::from_utf8_lossy(&key).into_owned(),
            other => panic!("no key in database 0: {other:?}"),
        };
        directly(redis, &["MOVE", &key, "1"]).expect("a move");
        directly(self.pair.primary().addr(), &["FLUSHALL"]).expect("a loss");
        postgres_checker::sabotage(&self.postgres);
        // Last what breaks most promises: the judge keeps only so many.
        self.audit_shared();
        self.audit_postgres(true);
        self.audit_redis();
    }

    fn rest(&mut self) {
        self.judge.end();
        self.checkers.iter_mut().for_each(|(_, checker)| checker.join());
        self.tellers.iter_mut().for_each(|(_, teller)| teller.join());
    }

    /// Optimistic increments: none that was acknowledged is lost, none ran twice.
    fn audit_shared(&self) {
        for (target, checker) in &self.checkers {
            let (addr, keeps) = match target {
                Target::Redis => (self.redis.addr(), true),
                Target::Pair => (self.pair.primary().addr(), false),
                _ => continue,
            };
            for db in 0..DATABASES as usize {
                let mut direct = super::redis_checker::Connection::open(addr).expect("a connection");
                let mut ask = |args: &[&str]| direct.call(args).expect("an answer");
                ask(&["AUTH", "admin", super::redis_checker::ADMIN]);
                ask(&["SELECT", &db.to_string()]);
                let found: u64 = match ask(&["GET", &format!("shared:d{db}:counter")]) {
                    Reply::Bulk(text) => String::from_utf8_lossy(&text).parse().expect("a number"),
                    _ => 0,
                };
                let told = checker.shared.acknowledged[db].load(Ordering::Relaxed);
                let most = told + checker.shared.maybe[db].load(Ordering::Relaxed);
                if found > most || keeps && found < told {
                    self.judge.violation(format!(
                        "{target:?}: {found} increments in database {db}; {told} were acknowledged, {most} asked for"
                    ));
                }
            }
        }
    }
}
