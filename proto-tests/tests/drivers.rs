//! The client libraries that applications use, in their own languages: real drivers against a real server through
//! the real proxy.
//!
//! Each test runs one script of `drivers/` as a child process. The script finds the server, the proxy and the admin
//! API in its environment and asks for crashes and restarts of the server on its standard output. docs/DRIVERS.md says
//! what was observed.
//!
//! Absent on purpose: installing anything. proto-tests/run.sh does.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proto_tests::postgres_server::client;
use proto_tests::process::Process;
use proto_tests::tools::{output_of, run as run_tool, script as script_command, tool};
use proto_tests::{Postgres, Redis, Setup};

/// How long a script may take before it is killed: far more than any needs.
const LIMIT: Duration = Duration::from_secs(180);

/// The timer never ends the open state by itself: a script says when.
const SETTINGS: &str = "recovery-timeout=1h";

/// A server that a script may kill.
trait Server {
    fn kill(&mut self);
    fn restart(&mut self);
}

impl Server for Redis {
    fn kill(&mut self) {
        Redis::kill(self);
    }
    fn restart(&mut self) {
        Redis::restart(self);
    }
}

impl Server for Postgres {
    fn kill(&mut self) {
        Postgres::kill(self);
    }
    fn restart(&mut self) {
        Postgres::restart(self);
    }
}

fn with_redis(script: &[&str]) {
    let mut redis = Redis::start();
    let addr = redis.addr();
    run(script, &mut redis, &addr.to_string(), Setup::default().redis("it", addr, SETTINGS));
}

fn with_postgres(script: &[&str]) {
    with_postgres_set(SETTINGS, script);
}

fn with_postgres_set(settings: &str, script: &[&str]) {
    let mut postgres = Postgres::start();
    let addr = postgres.addr();
    run(script, &mut postgres, &addr.to_string(), Setup::default().postgres("it", addr, settings));
}

/// Runs a script to its end, with the server at its command; a script that fails or hangs fails the test with all
/// that it said.
fn run(script: &[&str], server: &mut dyn Server, addr: &str, setup: Setup) {
    let proxy = setup.start();
    let mut command = script_command(script[0]);
    command.args(&script[1..]);
    command.env("DRIVER_SERVER", addr).env("DRIVER_PROXY", proxy.addr("it").to_string());
    command.env("DRIVER_ADMIN", proxy.admin().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start(&mut command);
    let child = process.child();
    let mut stdin = child.stdin.take().expect("a pipe");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut stderr = child.stderr.take().expect("a pipe");
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).into_owned()
    });
    let (sender, lines) = std::sync::mpsc::channel();
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));

    let deadline = Instant::now() + LIMIT;
    let mut late = false;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                match line.as_str() {
                    "!kill" => server.kill(),
                    "!restart" => server.restart(),
                    _ => continue,
                }
                writeln!(stdin, "done").ok();
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                late = true;
                process.kill();
                break;
            }
        }
    }
    drop(stdin);
    let status = process.wait();
    let errors = errors.join().unwrap_or_default();
    assert!(!late, "{script:?} still ran after {LIMIT:?}:\n{errors}");
    assert!(status.success(), "{script:?} failed with {status}:\n{errors}");
    proxy.stop();
}

#[test]
fn libpq_tries_its_next_host_while_the_breaker_is_open() {
    let (primary, standby) = (Postgres::start(), Postgres::start());
    let proxy = Setup::default()
        .postgres("it", primary.addr(), SETTINGS)
        .postgres("next", standby.addr(), SETTINGS)
        .start();
    let hosts = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=postgres",
        proxy.addr("it").port(),
        proxy.addr("next").port()
    );
    let reached = || {
        let mut psql = Command::new(tool("psql"));
        psql.args(["-X", "-A", "-t", "-c", "SHOW port", &hosts]).env("LC_ALL", "C");
        output_of(&mut psql).trim().to_owned()
    };
    assert_eq!(reached(), primary.port().to_string());
    proxy.post("/api/v1/circuit-breaker/trip/it");
    assert_eq!(reached(), standby.port().to_string());
    let mut ready = client("pg_isready", proxy.addr("it"));
    let said = run_tool(&mut ready);
    assert!(String::from_utf8_lossy(&said.stdout).contains("rejecting connections"), "{said:?}");
    proxy.post("/api/v1/circuit-breaker/reset/it");
    assert_eq!(reached(), primary.port().to_string());
    proxy.stop();
}

#[test]
fn redis_py_resp2() {
    with_redis(&["python/redis_py.py", "2"]);
}

#[test]
fn redis_py_resp3() {
    with_redis(&["python/redis_py.py", "3"]);
}

#[test]
fn redis_py_asyncio_resp2() {
    with_redis(&["python/redis_asyncio.py", "2"]);
}

#[test]
fn redis_py_asyncio_resp3() {
    with_redis(&["python/redis_asyncio.py", "3"]);
}

#[test]
fn psycopg3() {
    // One of its pools tests connections by empty queries; nothing else in the script sends any.
    with_postgres_set(&format!("{SETTINGS},answer-empty-queries=true"), &["python/psycopg3.py"]);
}

#[test]
fn psycopg2_and_sqlalchemy() {
    with_postgres(&["python/psycopg2_and_sqlalchemy.py"]);
}

#[test]
fn asyncpg() {
    with_postgres(&["python/asyncpg_and_pool.py"]);
}

#[test]
fn node_redis_resp2() {
    with_redis(&["node/node_redis.js", "2"]);
}

#[test]
fn node_redis_resp3() {
    with_redis(&["node/node_redis.js", "3"]);
}

#[test]
fn ioredis_resp2() {
    with_redis(&["node/ioredis.js", "2"]);
}

#[test]
fn ioredis_resp3() {
    with_redis(&["node/ioredis.js", "3"]);
}

#[test]
fn node_postgres() {
    with_postgres(&["node/pg.js"]);
}
