//! What happens to the servers: each fault is inflicted, lasts a while and is cured.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::history::directly;
use super::judge::Figure;
use super::redis_checker::{ADMIN, Connection};
use super::stage::Stage;
use crate::pgwire::Pg;
use crate::process::{self, Signal};
use crate::until::{check, eventually};

/// One kind of fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What happens.
    pub name: &'static str,
    /// Whom it happens to.
    pub target: Target,
    /// It takes seconds, and much of it is in another fault too: not for the short form.
    pub is_long: bool,
    inflict: fn(&mut Stage, Duration),
}

/// Whom it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The Redis that syncs each write.
    Redis,
    /// The Redis with a replica.
    Pair,
    /// The Redis behind a cable.
    Island,
    /// The Postgres.
    Postgres,
    /// The Postgres with a standby.
    Bank,
}

/// Every fault; those of an island need one.
pub const FAULTS: &[Fault] = &[
    fault("redis killed", Target::Redis, redis_killed),
    fault("redis stopped", Target::Redis, redis_stopped),
    fault("redis restarted", Target::Redis, redis_restarted),
    fault("redis out of memory", Target::Redis, redis_out_of_memory),
    fault("redis out of disk", Target::Redis, redis_out_of_disk),
    fault("redis out of connections", Target::Redis, redis_out_of_connections),
    fault("redis clients killed", Target::Redis, redis_clients_killed),
    fault("redis paused", Target::Redis, redis_paused),
    fault("redis failing over", Target::Pair, redis_failing_over),
    fault("redis black-holed", Target::Island, island_cut),
    fault("redis answers black-holed", Target::Island, island_cut_answers),
    fault("postgres killed", Target::Postgres, postgres_killed),
    fault("postgres stopped", Target::Postgres, postgres_stopped),
    fault("postgres restarted", Target::Postgres, postgres_restarted),
    fault("a postgres backend killed", Target::Postgres, postgres_backend_killed),
    fault("postgres out of connections", Target::Postgres, postgres_out_of_connections),
    fault("postgres out of disk", Target::Postgres, postgres_out_of_disk),
    fault("postgres sessions terminated", Target::Postgres, postgres_terminated),
    fault("postgres failing over", Target::Bank, bank_killed),
    long("postgres failing over while it hangs", Target::Bank, bank_hanging),
    long("postgres switching over, told late", Target::Bank, bank_switching_over),
];

const fn fault(name: &'static str, target: Target, inflict: fn(&mut Stage, Duration)) -> Fault {
    Fault { name, target, is_long: false, inflict }
}

const fn long(name: &'static str, target: Target, inflict: fn(&mut Stage, Duration)) -> Fault {
    Fault { name, target, is_long: true, inflict }
}

impl Fault {
    /// Lets it happen, for about so long, and cures it.
    pub fn happen(&self, stage: &mut Stage, span: Duration) {
        (self.inflict)(stage, span);
    }
}

/// Asks the Redis itself. A server in trouble may not answer; the fault is then already there.
fn tell(stage: &Stage, args: &[&str]) {
    directly(stage.redis.addr(), args).ok();
}

fn redis_killed(stage: &mut Stage, span: Duration) {
    stage.redis.kill();
    sleep(span);
    stage.redis.restart();
}

fn redis_stopped(stage: &mut Stage, span: Duration) {
    stage.redis.freeze();
    sleep(span);
    stage.redis.thaw();
}

fn redis_restarted(stage: &mut Stage, span: Duration) {
    tell(stage, &["SHUTDOWN"]);
    sleep(span / 4);
    stage.redis.restart();
}

fn redis_out_of_memory(stage: &mut Stage, span: Duration) {
    tell(stage, &["CONFIG", "SET", "maxmemory", "1"]);
    sleep(span);
    tell(stage, &["CONFIG", "SET", "maxmemory", "0"]);
}

/// A Redis that must sync each write ends itself when it cannot.
fn redis_out_of_disk(stage: &mut Stage, span: Duration) {
    let Some(disk) = &stage.disk else { return redis_killed(stage, span) };
    let filler = disk.path().join("filler");
    // As large as it gets.
    fs::write(&filler, vec![b'x'; 1 << 30]).ok();
    sleep(span);
    fs::remove_file(&filler).ok();
    stage.redis.restart();
}

fn redis_out_of_connections(stage: &mut Stage, span: Duration) {
    let Ok(mut admin) = Connection::open(stage.redis.addr()) else { return };
    admin.call(&["AUTH", "admin", ADMIN]).ok();
    // Those that are there stay, and when they end none can take their place.
    admin.call(&["CONFIG", "SET", "maxclients", "1"]).ok();
    admin.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).ok();
    sleep(span);
    admin.call(&["CONFIG", "SET", "maxclients", "2000"]).ok();
}

fn redis_clients_killed(stage: &mut Stage, span: Duration) {
    for _ in 0..5 {
        tell(stage, &["CLIENT", "KILL", "TYPE", "normal"]);
        sleep(span / 5);
    }
}

fn redis_paused(stage: &mut Stage, span: Duration) {
    let millis = span.as_millis().to_string();
    tell(stage, &["CLIENT", "PAUSE", &millis, "ALL"]);
    sleep(span);
    tell(stage, &["CLIENT", "UNPAUSE"]);
}

/// The primary dies, its replica takes its place and its address; then the dead one comes back as the replica.
fn redis_failing_over(stage: &mut Stage, span: Duration) {
    stage.pair.fail_over(span / 2);
}

fn island_cut(stage: &mut Stage, span: Duration) {
    let island = stage.island.as_ref().expect("chosen only with an island");
    island.cut();
    sleep(span);
    island.mend();
}

fn island_cut_answers(stage: &mut Stage, span: Duration) {
    let island = stage.island.as_ref().expect("chosen only with an island");
    island.cut_answers();
    sleep(span);
    island.mend();
}

fn postgres_killed(stage: &mut Stage, span: Duration) {
    stage.postgres.kill();
    sleep(span);
    stage.postgres.restart();
}

fn postgres_stopped(stage: &mut Stage, span: Duration) {
    stage.postgres.freeze();
    sleep(span);
    stage.postgres.thaw();
}

fn postgres_restarted(stage: &mut Stage, span: Duration) {
    stage.postgres.shutdown(Signal::INT);
    stage.postgres.wait();
    sleep(span / 4);
    stage.postgres.restart();
}

/// The postmaster takes all the others down with it, and recovers.
fn postgres_backend_killed(stage: &mut Stage, span: Duration) {
    let of_a_client =
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%account%' AND pid <> pg_backend_pid() LIMIT 1";
    if let Ok(pid) = stage.postgres.sql(of_a_client).parse() {
        process::send(pid, Signal::KILL);
    }
    sleep(span);
}

fn postgres_out_of_connections(stage: &mut Stage, span: Duration) {
    let mut all = Vec::new();
    while let Ok(mut pg) = Pg::try_connect(stage.postgres.addr()) {
        if pg.startup("postgres", "postgres").is_err() {
            break;
        }
        all.push(pg);
    }
    sleep(span);
}

/// No file may grow beyond a size: the log of changes cannot be written, and Postgres ends itself.
fn postgres_out_of_disk(stage: &mut Stage, span: Duration) {
    let postmaster = stage.postgres.pid();
    limit_files(postmaster, "65536:unlimited");
    // Processes that are there already have the old limit.
    process::children(postmaster).into_iter().for_each(|pid| limit_files(pid, "65536:unlimited"));
    sleep(span);
    stage.postgres.kill();
    stage.postgres.restart();
}

/// Limits the size of files that a process writes. Only its owner may without further rights. One that has just ended is
/// fine.
fn limit_files(pid: u32, limit: &str) {
    let Ok(owner) = fs::metadata(format!("/proc/{pid}")) else { return };
    let mut command = Command::new("prlimit");
    if process::is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
        .args(["--pid", &pid.to_string(), &format!("--fsize={limit}")])
        .stderr(Stdio::null())
        .status()
        .ok();
}

fn postgres_terminated(stage: &mut Stage, span: Duration) {
    for _ in 0..5 {
        stage.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%account%' AND pid <> pg_backend_pid()");
        sleep(span / 5);
    }
}

/// The primary dies and its standby takes its place; then the dead one gets a copy and is the standby.
fn bank_killed(stage: &mut Stage, span: Duration) {
    stage.bank.primary_mut().kill();
    sleep(span / 2);
    stage.bank.promote();
    stage.bank.announce(&stage.proxy);
    stage.bank.copy();
}

/// The primary hangs, its standby takes its place, and then the old one goes on as if nothing had happened. Whoever is
/// still connected to it is served, but no commit may be acknowledged there.
fn bank_hanging(stage: &mut Stage, span: Duration) {
    stage.bank.primary().freeze();
    sleep(span / 2);
    stage.bank.promote();
    stage.bank.announce(&stage.proxy);
    stage.bank.other().thaw();
    sleep(span / 2);
    stage.bank.copy();
}

/// The two change places in order, but fusewire is told late: for a while clients find a server that takes no writes.
fn bank_switching_over(stage: &mut Stage, span: Duration) {
    let refused = |stage: &Stage| stage.judge.figure(Figure::PostgresReadOnly);
    let before = refused(stage);
    stage.bank.primary().shutdown(Signal::INT);
    stage.bank.primary_mut().wait();
    stage.bank.promote();
    stage.bank.follow();
    sleep(span / 2);
    eventually("a write that a standby refuses", || {
        let now = refused(stage);
        check(now > before, now)
    });
    stage.bank.announce(&stage.proxy);
}
