//! fusewire's own checks of real servers: killed, stopped, restarted, behind a password, behind TLS, and unheard.

use std::fs;

use proto_tests::process::{self, Signal};
use proto_tests::tls::Authority;
use proto_tests::tools::free_port;
use proto_tests::until::check;
use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Pg, Postgres, Redis, Setup, eventually};
use tempfile::TempDir;

/// Checks often, and leaves everything but checks out: only they can end an open state within an hour.
const OFTEN: &str = "failure-threshold=2,recovery-timeout=1h,check-interval=50ms";

/// How long a check may take, among the defaults: set while the server stands still, and not while it may just be slow.
const SOON: &str = "probe_timeout = \"500ms\"";

fn ping(proxy: &Fusewire) -> Reply {
    Client::connect(proxy.addr("cache")).call(&["PING"])
}

fn await_checks(proxy: &Fusewire, name: &str, result: &str, more: f64) {
    let labels = [("backend", name), ("result", result)];
    let before = proxy.metric("circuit_breaker_checks_total", &labels);
    proxy.await_metric("circuit_breaker_checks_total", &labels, before + more);
}

#[test]
fn a_killed_redis_is_left_alone_until_it_answers_and_then_closed_without_a_user() {
    let mut redis = Redis::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), &format!("{OFTEN},check=while_open,check-may=close"))
        .start();
    assert_eq!(ping(&proxy), Reply::simple("PONG"));
    redis.kill();
    (0..2).for_each(|_| drop(ping(&proxy).error().to_owned()));
    proxy.await_state("cache", "open");
    await_checks(&proxy, "cache", "failed", 3.0);
    let check = &proxy.status("cache")["check"];
    assert_eq!((&check["when"], &check["last"]["cause"]), (&"while_open".into(), &"refused".into()));
    let calls = proxy.figure("cache", "total_calls");
    redis.restart();
    proxy.await_state("cache", "closed");
    assert_eq!(proxy.figure("cache", "total_calls"), calls, "no call was made, and no check is one");
    assert_eq!(ping(&proxy), Reply::simple("PONG"));
    proxy.await_log("to CLOSED after a successful check");
    proxy.stop();
}

#[test]
fn a_stopped_redis_fails_its_checks_and_is_closed_when_it_goes_on() {
    let redis = Redis::start();
    let more = format!("{OFTEN},check=always,check-may=half_open");
    let proxy = Setup::default().with_defaults().redis("cache", redis.addr(), &more).start();
    redis.freeze();
    proxy.set_defaults(SOON);
    // Nobody calls: the checks find out by themselves.
    proxy.await_state("cache", "open");
    let status = proxy.status("cache");
    assert_eq!(status["last_trip"]["condition"], "check_failed");
    assert_eq!(status["last_trip"]["evidence"][0]["kind"], "check");
    assert_eq!(
        (&status["metrics"]["total_calls"], &status["metrics"]["failed_calls"]),
        (&0.into(), &0.into())
    );
    assert!(ping(&proxy).error().contains("no reply in time, 2 failed checks in a row"));
    redis.thaw();
    proxy.set_defaults("");
    proxy.await_state("cache", "half_open");
    assert_eq!(ping(&proxy), Reply::simple("PONG"));
    proxy.await_state("cache", "closed");
    proxy.stop();
}

#[test]
fn a_redis_that_wants_a_password_is_told_from_one_that_is_gone_and_no_more() {
    let mut redis = Redis::with(&["--requirepass", "hunter2"]);
    let more = format!("{OFTEN},check=while_open,check-may=close,failure-errors=NOAUTH");
    // NOAUTH counts as a failure of the second one's: then it is one for checks, too.
    let mild = format!("{OFTEN},check=while_open,check-may=close");
    let proxy =
        Setup::default().redis("cache", redis.addr(), &mild).redis("strict", redis.addr(), &more).start();
    redis.kill();
    for name in ["cache", "strict"] {
        (0..2).for_each(|_| drop(Client::connect(proxy.addr(name)).call(&["PING"]).error().to_owned()));
        proxy.await_state(name, "open");
    }
    redis.restart();
    proxy.await_state("cache", "half_open");
    assert!(ping(&proxy).error().starts_with("NOAUTH"), "a user's probe decides");
    proxy.await_state("cache", "closed");
    await_checks(&proxy, "strict", "failed", 3.0);
    assert_eq!(proxy.status("strict")["check"]["last"]["cause"], "NOAUTH");
    assert_eq!(proxy.state("strict"), "open");
    proxy.stop();
}

#[test]
fn checks_of_a_postgres_leave_no_line_in_its_log() {
    let postgres = Postgres::start();
    let all = format!("{OFTEN},check=always");
    let proxy = Setup::default()
        .postgres("scram", postgres.addr(), &format!("{all},check-user=scram_user"))
        .postgres("md5", postgres.addr(), &format!("{all},check-user=md5_user"))
        .postgres("trust", postgres.addr(), &format!("{all},check-user=postgres"))
        .start();
    let before = postgres.log();
    for name in ["scram", "md5", "trust"] {
        await_checks(&proxy, name, "ready", 20.0);
    }
    // The checks that are under way at the end are not cut off.
    proxy.stop();
    let log = postgres.log();
    assert_eq!(log.strip_prefix(before.as_str()), Some(""), "{log}");
}

/// How much of what the server has said has not been read yet, for each connection that somebody has to it.
fn unread(postgres: &Postgres) -> Vec<u64> {
    let list = fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
    let server = format!("0100007F:{:04X}", postgres.port());
    let of_client = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        // Its peer, and that it is established.
        let is_one = columns.get(2..4)? == [server.as_str(), "01"];
        let queued = columns[4].split_once(':')?.1;
        is_one.then(|| u64::from_str_radix(queued, 16).ok())?
    };
    list.lines().filter_map(of_client).collect()
}

#[test]
fn a_check_whose_backend_is_removed_in_its_middle_is_not_cut_off() {
    let (redis, mut postgres) = (Redis::start(), Postgres::start());
    let dir = TempDir::with_prefix("fusewire-checks-").expect("a temporary directory");
    let file = dir.path().join("fusewire.toml");
    let listen = format!("127.0.0.1:{}", free_port());
    let backend = format!(
        "[[backend]]\nprotocol = \"postgres\"\nname = \"db\"\nlisten = \"{listen}\"\nupstream = \"{}\"\n\
         check = \"always\"\ncheck_interval = \"50ms\"\ncheck_user = \"postgres\"\n",
        postgres.addr()
    );
    fs::write(&file, backend).expect("a file");
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "")
        .args(&["--config", file.to_str().expect("a path")])
        .start();
    await_checks(&proxy, "db", "ready", 1.0);
    let before = postgres.log();
    postgres.freeze();
    eventually("a check under way", || {
        let unread = unread(&postgres);
        check(unread.len() == 1, unread)
    });
    // It has yet to read the answer when it is told.
    process::freeze(proxy.pid());
    postgres.thaw();
    eventually("an answer", || {
        let unread = unread(&postgres);
        check(unread.iter().any(|bytes| *bytes > 0), unread)
    });
    fs::write(&file, "").expect("a file");
    proxy.signal(Signal::HUP);
    proxy.signal(Signal::CONT);
    proxy.await_log("Configuration reloaded");
    proxy.stop();
    // What it has to say of a session is in its log when all have ended.
    postgres.shutdown(Signal::INT);
    postgres.wait();
    let log = postgres.log();
    let said = log.strip_prefix(before.as_str()).expect("a log that goes on");
    assert!(!said.contains("client") && said.contains("shut down"), "{said}");
}

#[test]
fn a_postgres_is_checked_through_its_kill_its_hang_and_its_restart() {
    let mut postgres = Postgres::start();
    let more = format!("{OFTEN},check=always,check-may=close,check-user=scram_user");
    let proxy = Setup::default().with_defaults().postgres("db", postgres.addr(), &more).start();
    await_checks(&proxy, "db", "ready", 1.0);
    postgres.kill();
    proxy.await_state("db", "open");
    assert_eq!(proxy.status("db")["last_trip"]["condition"], "check_failed");
    assert_eq!(Pg::refused(proxy.addr("db")).code, "57P03");
    postgres.restart();
    proxy.await_state("db", "closed");
    assert_eq!(Pg::session(proxy.addr("db")).rows("SELECT 1").0, ["1"]);

    postgres.freeze();
    proxy.set_defaults(SOON);
    proxy.await_state("db", "open");
    assert_eq!(proxy.status("db")["last_trip"]["cause"], "timeout");
    postgres.thaw();
    proxy.set_defaults("");
    proxy.await_state("db", "closed");
    assert_eq!(Pg::session(proxy.addr("db")).rows("SELECT 1").0, ["1"]);
    proxy.stop();
}

#[test]
fn checks_are_encrypted_when_the_way_to_the_server_is() {
    let authority = Authority::new();
    let postgres = Postgres::with_tls(&authority.issue("postgres"), None);
    let checks = format!("{OFTEN},check=always,check-user=scram_user,upstream-tls=verify-ca");
    let trusting = format!("{checks},upstream-ca={}", authority.path().display());
    let other = Authority::new();
    let distrusting = format!("{checks},upstream-ca={}", other.path().display());
    let proxy = Setup::default()
        .postgres("good", postgres.addr(), &trusting)
        .postgres("bad", postgres.addr(), &distrusting)
        .start();
    await_checks(&proxy, "good", "ready", 2.0);
    proxy.await_state("bad", "open");
    assert_eq!(proxy.status("bad")["last_trip"]["cause"], "tls");
    proxy.stop();
}

#[test]
fn settings_of_checks_are_changed_while_it_runs() {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "check-interval=20ms").start();
    assert_eq!(proxy.status("cache")["check"], serde_json::json!({"when": "off", "last": null}));
    let patch = r#"{"check": "always"}"#;
    let path = "/api/v1/circuit-breaker/config/cache";
    let answer = proto_tests::http::request(proxy.admin(), "PATCH", path, &[], patch).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    await_checks(&proxy, "cache", "ready", 3.0);
    assert_eq!(proxy.get(path).json()["settings"]["check"], "always");
    proxy.stop();
}
