//! The main job with a real Redis: it dies, five calls fail, the rest is refused at once, it comes back, one
//! probe closes the breaker.

use proto_tests::wire::Reply;
use proto_tests::{Client, Fake, Fusewire, Redis, Setup, Step, eventually};

const CACHE: [(&str, &str); 1] = [("backend", "cache")];

fn proxy_for(redis: &Redis, settings: &str) -> Fusewire {
    Setup::default().redis("cache", redis.addr(), settings).start()
}

/// One call on a connection of its own that finds nobody upstream: it must read why, then the end.
fn failed_call(proxy: &Fusewire) {
    let mut client = Client::connect(proxy.addr("cache"));
    client.command(&["GET", "k"]);
    let reply = client.reply();
    let error = reply.error();
    assert!(error.starts_with("ERR "), "{error}");
    assert!(error.contains("connection refused"), "{error}");
    client.eof();
}

/// The milliseconds in `...; retry after 12400 ms`.
fn retry_after(rejection: &str) -> u64 {
    let tail = rejection.rsplit_once("; retry after ").map(|(_, tail)| tail);
    let number = tail.and_then(|tail| tail.strip_suffix(" ms"));
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no delay in `{rejection}`"))
}

#[test]
fn five_failures_open_the_breaker_and_the_sixth_call_is_refused_at_once() {
    let mut redis = Redis::start();
    let proxy = proxy_for(&redis, "recovery-timeout=1h");
    let mut early = Client::connect(proxy.addr("cache"));
    assert_eq!(early.call(&["SET", "k", "v"]), Reply::simple("OK"));
    assert_eq!(early.call(&["GET", "k"]), Reply::bulk("v"));
    assert_eq!(proxy.state("cache"), "closed");

    redis.kill();
    early.eof();
    assert_eq!(proxy.figure("cache", "failed_calls"), 0, "an idle connection that ends is no failure");
    for failures in 1..=5 {
        assert_eq!(proxy.state("cache"), "closed", "after {} failures", failures - 1);
        failed_call(&proxy);
        proxy.await_figure("cache", "failed_calls", failures);
    }
    proxy.await_state("cache", "open");

    let mut client = Client::connect(proxy.addr("cache"));
    let wanted =
        "CIRCUITOPEN backend 'cache' is open (connection refused, 5 consecutive failures); retry after ";
    for _ in 0..100 {
        let reply = client.call(&["GET", "k"]);
        let rejection = reply.error();
        assert!(rejection.starts_with(wanted), "{rejection}");
        assert!(retry_after(rejection) <= 3_600_000, "{rejection}");
    }
    // A pipeline on the same connection: as many refusals as commands, in one go.
    client.send(&b"PING\r\n".repeat(50));
    for _ in 0..50 {
        assert!(client.reply().error().starts_with(wanted));
    }

    let status = proxy.status("cache");
    assert_eq!(status["name"], "cache", "{status:#}");
    assert_eq!(status["metrics"]["failed_calls"], 5, "a rejection is no failure: {status:#}");
    assert_eq!(proxy.metric("circuit_breaker_state", &CACHE), 2.0);
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &CACHE), 5.0);
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &[CACHE[0], ("reason", "refused")]), 5.0);
    assert_eq!(proxy.metric("circuit_breaker_trips_total", &CACHE), 1.0);
    assert_eq!(proxy.metric("circuit_breaker_rejections_total", &CACHE), 150.0);
    let line = proxy
        .await_log("Circuit breaker 'cache' transitioned from CLOSED to OPEN after 5 consecutive failures");
    assert!(line.contains("connection refused"), "the log says why: {line}");
    proxy.stop();
}

#[test]
fn the_breaker_goes_half_open_by_itself_and_one_probe_closes_it() {
    let mut redis = Redis::start();
    let proxy = proxy_for(&redis, "recovery-timeout=500ms");
    redis.kill();
    (0..5).for_each(|_| failed_call(&proxy));
    // The log is watched, not the API: no traffic at all may be needed.
    proxy.await_log("transitioned from CLOSED to OPEN");
    proxy.await_log("transitioned from OPEN to HALF");
    redis.restart();
    // If the probe comes while the delay of a trip is under way it is refused like any call; a next one is not.
    eventually("an admitted probe", || match Client::connect(proxy.addr("cache")).call(&["SET", "k", "v"]) {
        Reply::Line(b'+', _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(proxy.state("cache"), "closed");
    assert_eq!(proxy.metric("circuit_breaker_state", &CACHE), 0.0);
    assert_eq!(proxy.figure("cache", "consecutive_failures"), 0);
    assert_eq!(Client::connect(proxy.addr("cache")).call(&["GET", "k"]), Reply::bulk("v"));
    proxy.await_log("to CLOSED");
    proxy.stop();
}

#[test]
fn a_failed_probe_opens_the_breaker_again() {
    let mut redis = Redis::start();
    let proxy = proxy_for(&redis, "recovery-timeout=300ms");
    redis.kill();
    (0..5).for_each(|_| failed_call(&proxy));
    eventually("a second trip", || {
        let reply = Client::connect(proxy.addr("cache")).call(&["PING"]);
        match proxy.metric("circuit_breaker_trips_total", &CACHE) {
            trips if trips >= 2.0 => Ok(()),
            trips => Err(format!("{trips} trips, {reply:?}")),
        }
    });
    let line = proxy.await_log("failed probe");
    assert!(line.contains("to OPEN"), "{line}");
    proxy.stop();
}

#[test]
fn a_recovery_timer_runs_out_for_each_backend_alone() {
    let (mut dead, alive) = (Redis::start(), Redis::start());
    dead.kill();
    let proxy = Setup::default()
        .redis("cache", dead.addr(), "failure-threshold=2,recovery-timeout=1h")
        .redis("queue", alive.addr(), "")
        .start();
    (0..2).for_each(|_| failed_call(&proxy));
    proxy.await_state("cache", "open");
    assert_eq!(proxy.state("queue"), "closed");
    assert_eq!(Client::connect(proxy.addr("queue")).call(&["PING"]), Reply::simple("PONG"));
    proxy.stop();
}

#[test]
fn the_users_own_errors_never_trip() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "failure-threshold=2");
    let mut client = Client::connect(proxy.addr("cache"));
    client.call(&["SET", "text", "abc"]);
    for _ in 0..20 {
        assert!(client.call(&["LPUSH", "text", "x"]).error().starts_with("WRONGTYPE"));
        assert!(client.call(&["NOSUCH"]).error().starts_with("ERR unknown command"));
        assert!(client.call(&["EVALSHA", "0000", "0"]).error().starts_with("NOSCRIPT"));
    }
    assert_eq!(proxy.state("cache"), "closed");
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn loading_replies_trip_although_the_handshake_succeeds() {
    let fake = Fake::start(vec![
        Step::Await(b"SELECT".to_vec()),
        Step::Send(b"+OK\r\n".to_vec()),
        Step::Await(b"GET".to_vec()),
        Step::Send(b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()),
        Step::Silence,
    ]);
    let proxy =
        Setup::default().redis("cache", fake.addr(), "failure-threshold=3,recovery-timeout=1h").start();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.addr("cache"));
        assert_eq!(client.call(&["SELECT", "0"]), Reply::simple("OK"));
        assert!(client.call(&["GET", "k"]).error().starts_with("LOADING"));
    }
    proxy.await_state("cache", "open");
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &[CACHE[0], ("reason", "LOADING")]), 3.0);
    proxy.stop();
}

#[test]
fn a_hundred_commands_on_one_dying_connection_are_one_failure() {
    let ping = b"PING\r\n";
    let last_word = [Step::Close, Step::Reset];
    for end in last_word {
        let fake = Fake::start(vec![Step::AwaitLength(100 * ping.len()), end.clone()]);
        let proxy = Setup::default().redis("cache", fake.addr(), "failure-threshold=5").start();
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(&ping.repeat(100));
        client.rest();
        proxy.await_figure("cache", "failed_calls", 1);
        assert_eq!(proxy.figure("cache", "consecutive_failures"), 1, "{end:?}");
        assert_eq!(proxy.state("cache"), "closed");
        proxy.stop();
    }
}

#[test]
fn malformed_replies_are_failures() {
    let fake = Fake::start(vec![
        Step::Await(b"PING".to_vec()),
        Step::Send(b"$5\r\nabcdeXX+PONG\r\n".to_vec()),
        Step::Silence,
    ]);
    let proxy =
        Setup::default().redis("cache", fake.addr(), "failure-threshold=2,recovery-timeout=1h").start();
    for _ in 0..2 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(b"PING\r\n");
        client.rest();
    }
    proxy.await_state("cache", "open");
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &[CACHE[0], ("reason", "malformed")]), 2.0);
    proxy.stop();
}

#[test]
fn a_reply_that_ends_in_the_middle_is_a_failure_and_nothing_is_invented() {
    let fake =
        Fake::start(vec![Step::Await(b"GET".to_vec()), Step::Send(b"$10\r\nabc".to_vec()), Step::Close]);
    let proxy =
        Setup::default().redis("cache", fake.addr(), "failure-threshold=2,recovery-timeout=1h").start();
    for _ in 0..2 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.command(&["GET", "k"]);
        let got = client.rest();
        assert_eq!(got, b"$10\r\nabc", "no error may be written into a started reply");
    }
    proxy.await_state("cache", "open");
    proxy.stop();
}

#[test]
fn replies_that_drip_are_passed_on_as_they_come() {
    let reply = b"*3\r\n$3\r\nabc\r\n:-12\r\n*1\r\n$-1\r\n";
    let fake = Fake::start(vec![
        Step::Await(b"GET".to_vec()),
        Step::Drip(reply[..10].to_vec()),
        Step::Await(b"PING".to_vec()),
        Step::Drip(reply[10..].to_vec()),
        Step::Drip(b"+PONG\r\n".to_vec()),
        Step::Silence,
    ]);
    let proxy = Setup::default().redis("cache", fake.addr(), "").start();
    let mut client = Client::connect(proxy.addr("cache"));
    client.command(&["GET", "k"]);
    // The first half must arrive although the rest of the frame has not been sent.
    client.expect(&reply[..10]);
    client.send(b"PING\r\n");
    client.expect(&reply[10..]);
    client.expect(b"+PONG\r\n");
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn a_rejected_select_never_lets_a_write_into_the_wrong_database() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "recovery-timeout=1h");
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    assert!(client.call(&["SELECT", "3"]).error().starts_with("CIRCUITOPEN"));
    proxy.post("/api/v1/circuit-breaker/reset/cache");
    // The write may be refused or the connection be gone; it must not land in database 0.
    client.try_send(&proto_tests::wire::command(&["SET", "k", "v"])).ok();
    let answer = client.rest();
    assert!(
        answer.is_empty() || answer.starts_with(b"-CIRCUITOPEN"),
        "{:?}",
        answer.escape_ascii().to_string()
    );
    assert_eq!(redis.client().call(&["DBSIZE"]), Reply::int(0));
    proxy.stop();
}

#[test]
fn a_rejected_transaction_is_rejected_whole() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "recovery-timeout=1h");
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    client.call(&["MULTI"]);
    proxy.post("/api/v1/circuit-breaker/reset/cache");
    client.command(&["SET", "k", "v"]);
    client.command(&["EXEC"]);
    assert!(client.reply().error().starts_with("CIRCUITOPEN"));
    assert!(client.reply().error().starts_with("EXECABORT"));
    assert_eq!(redis.client().call(&["DBSIZE"]), Reply::int(0));
    // The next block is a real one.
    assert_eq!(client.call(&["MULTI"]), Reply::simple("OK"));
    assert_eq!(client.call(&["SET", "k", "v"]), Reply::simple("QUEUED"));
    assert_eq!(client.call(&["EXEC"]), Reply::Many(b'*', vec![Reply::simple("OK")]));
    proxy.stop();
}

#[test]
fn commands_in_flight_when_the_breaker_trips_run_to_their_end() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "recovery-timeout=1h");
    let mut waiting = Client::connect(proxy.addr("cache"));
    waiting.command(&["BLPOP", "list", "0"]);
    let mut direct = redis.client();
    eventually("a blocked client", || match direct.call(&["INFO", "clients"]) {
        Reply::Bulk(info) if String::from_utf8_lossy(&info).contains("blocked_clients:1") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    waiting.command(&["PING"]);
    direct.call(&["LPUSH", "list", "x"]);
    // The reply first, the rejection of what was sent after the trip behind it.
    assert_eq!(waiting.reply(), Reply::Many(b'*', vec![Reply::bulk("list"), Reply::bulk("x")]));
    assert!(waiting.reply().error().starts_with("CIRCUITOPEN"));
    proxy.stop();
}
