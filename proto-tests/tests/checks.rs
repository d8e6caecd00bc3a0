//! fusewire's own checks of real servers: killed, stopped, restarted, behind a password, behind TLS, and unheard.

use proto_tests::tls::Authority;
use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Pg, Postgres, Redis, Setup};

/// Checks often, and leaves everything but checks out: only they can end an open state within an hour.
const OFTEN: &str = "failure-threshold=2,recovery-timeout=1h,check-interval=50ms,probe-timeout=500ms";

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
    assert!(proxy.log().iter().any(|line| line.contains("to CLOSED after a successful check")));
    proxy.stop();
}

#[test]
fn a_stopped_redis_fails_its_checks_and_is_closed_when_it_goes_on() {
    let redis = Redis::start();
    let more = format!("{OFTEN},check=always,check-may=half_open");
    let proxy = Setup::default().redis("cache", redis.addr(), &more).start();
    redis.freeze();
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
    // Read before the end, which cuts off the check that is under way then.
    let log = postgres.log();
    proxy.stop();
    assert_eq!(log.strip_prefix(before.as_str()), Some(""), "{log}");
}

#[test]
fn a_postgres_is_checked_through_its_kill_its_hang_and_its_restart() {
    let mut postgres = Postgres::start();
    let more = format!("{OFTEN},check=always,check-may=close,check-user=scram_user");
    let proxy = Setup::default().postgres("db", postgres.addr(), &more).start();
    await_checks(&proxy, "db", "ready", 1.0);
    postgres.kill();
    proxy.await_state("db", "open");
    assert_eq!(proxy.status("db")["last_trip"]["condition"], "check_failed");
    assert_eq!(Pg::refused(proxy.addr("db")).code, "57P03");
    postgres.restart();
    proxy.await_state("db", "closed");
    assert_eq!(Pg::session(proxy.addr("db")).rows("SELECT 1").0, ["1"]);

    postgres.freeze();
    proxy.await_state("db", "open");
    assert_eq!(proxy.status("db")["last_trip"]["cause"], "timeout");
    postgres.thaw();
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
