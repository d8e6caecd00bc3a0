//! The bulkhead before real servers: native errors, a place that is freed, a wait, and never a failure.

use proto_tests::http;
use proto_tests::pgwire::query;
use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Pg, Postgres, Redis, Setup, eventually, within};

/// Awaits what the bulkhead counts. The figure `in_flight` has connects and startups, too, and so is there while the command
/// still waits for its connection.
fn await_calls(proxy: &Fusewire, name: &str, n: u64) {
    eventually("calls in flight", || {
        let bulkhead = &proxy.status(name)["bulkhead"];
        proto_tests::until::check(bulkhead["calls"] == n, bulkhead)
    });
}

#[test]
fn a_redis_client_beyond_the_connections_reads_what_redis_says_and_a_freed_place_is_taken() {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "max-connections=2").start();
    let connect = || Client::connect(proxy.addr("cache"));
    // Whoever says nothing takes no place.
    let _silent = [connect(), connect(), connect()];
    let (mut one, mut two) = (connect(), connect());
    for client in [&mut one, &mut two] {
        assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    }
    for _ in 0..9 {
        let mut third = connect();
        assert_eq!(third.call(&["PING"]).error(), "ERR max number of clients reached");
        third.eof();
    }
    let status = proxy.status("cache");
    assert_eq!((&status["state"], &status["metrics"]["failed_calls"]), (&"closed".into(), &0.into()));
    let bulkhead = &status["bulkhead"];
    assert_eq!((&bulkhead["connections"], &bulkhead["max_connections"]), (&2.into(), &2.into()));
    let of = |of| proxy.metric("circuit_breaker_bulkhead_headroom", &[("of", of)]);
    assert_eq!((of("connections"), of("calls")), (0.0, f64::INFINITY));
    let rejected = [("reason", "max_connections")];
    assert_eq!(proxy.metric("circuit_breaker_rejections_total", &rejected), 9.0);
    drop(one);
    eventually("a free place", || match connect().call(&["PING"]) {
        reply if reply == Reply::simple("PONG") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(two.call(&["PING"]), Reply::simple("PONG"));
    proxy.stop();
}

#[test]
fn a_postgres_session_beyond_the_connections_is_refused_as_the_server_would_and_cancels_pass() {
    let postgres = Postgres::start();
    let proxy = Setup::default().postgres("db", postgres.addr(), "max-connections=1").start();
    let mut held = Pg::session(proxy.addr("db"));
    let refused = Pg::refused(proxy.addr("db"));
    assert_eq!(
        (refused.code.as_str(), refused.message.as_str()),
        ("53300", "sorry, too many clients already")
    );
    let psql = proto_tests::tools::run(&mut proto_tests::postgres_server::psql(proxy.addr("db"), "SELECT 1"));
    assert!(String::from_utf8_lossy(&psql.stderr).contains("sorry, too many clients already"), "{psql:?}");
    assert_eq!(held.rows("SELECT 1").0, ["1"]);
    assert_eq!((proxy.state("db"), proxy.figure("db", "failed_calls")), ("closed".to_owned(), 0));
    // A cancel request of a session that nobody knows is none of the connections.
    let mut packet = vec![0, 0, 0, 16];
    packet.extend_from_slice(&80_877_102_u32.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let mut cancel = Pg::connect(proxy.addr("db"));
    cancel.send(&packet);
    assert!(cancel.receive().is_none(), "closed without a word");
    assert_eq!(proxy.metric("fusewire_cancel_requests_total", &[]), 1.0);
    proxy.stop();
}

#[test]
fn calls_beyond_the_limit_are_rejected_and_what_has_begun_goes_on() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "max-calls=1")
        .postgres("db", postgres.addr(), "max-calls=1")
        .start();
    let mut busy = Client::connect(proxy.addr("cache"));
    let mut other = Client::connect(proxy.addr("cache"));
    assert_eq!(other.call(&["PING"]), Reply::simple("PONG"));
    busy.command(&["BLPOP", "list", "0"]);
    await_calls(&proxy, "cache", 1);
    let full = "CIRCUITOPEN backend 'cache' is full (1 call in flight); retry after 0 ms";
    for _ in 0..9 {
        assert_eq!(other.call(&["GET", "x"]).error(), full);
    }
    redis.client().call(&["RPUSH", "list", "x"]);
    assert!(matches!(busy.reply(), Reply::Many(b'*', _)));
    assert_eq!(other.call(&["GET", "x"]), Reply::Null);

    let (mut busy, mut within) = (Pg::session(proxy.addr("db")), Pg::session(proxy.addr("db")));
    let mut late = Pg::session(proxy.addr("db"));
    within.query("BEGIN");
    busy.send(&query("SELECT pg_advisory_lock(1), pg_sleep(0.1)"));
    busy.until_ready();
    within.query("SELECT 1");
    // Blocks until the other lets go of the lock.
    let mut blocked = Pg::session(proxy.addr("db"));
    blocked.send(&query("SELECT pg_advisory_lock(1)"));
    await_calls(&proxy, "db", 1);
    let (error, status) = late.error("SELECT 1");
    assert_eq!((error.code.as_str(), status), ("57000", 'I'));
    assert_eq!(error.message, "backend 'db' is full (1 call in flight)");
    assert_eq!(within.rows("SELECT 2").0, ["2"], "a transaction that has begun goes on");
    within.query("COMMIT");
    eventually("the end of what blocks", || {
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'";
        let cancelled = postgres.sql(cancel);
        proto_tests::until::check(cancelled == "t", cancelled)
    });
    blocked.until_ready();
    assert_eq!(late.rows("SELECT 3").0, ["3"]);
    for name in ["cache", "db"] {
        assert_eq!(
            (proxy.state(name), proxy.figure(name, "failed_calls")),
            ("closed".to_owned(), 0),
            "{name}"
        );
        assert!(
            proxy.metric("circuit_breaker_rejections_total", &[("backend", name), ("reason", "max_calls")])
                >= 1.0
        );
    }
    proxy.stop();
}

#[test]
fn what_is_beyond_a_limit_waits_for_a_place_in_its_order() {
    let redis = Redis::start();
    let more = "max-connections=2,max-calls=1,bulkhead-wait=30s";
    let proxy = Setup::default().redis("cache", redis.addr(), more).start();
    let connect = || Client::connect(proxy.addr("cache"));
    let (mut one, mut two) = (connect(), connect());
    assert_eq!(two.call(&["PING"]), Reply::simple("PONG"));
    one.command(&["BLPOP", "list", "0"]);
    await_calls(&proxy, "cache", 1);
    // A pipeline, the end of which comes only when it is under way.
    two.send(b"SET k 1\r\n*2\r\n$4\r\nINCR\r\n$1\r\nk\r\nGET");
    let mut three = connect();
    three.command(&["PING"]);
    two.send(b" k\r\n");
    redis.client().call(&["RPUSH", "list", "x"]);
    one.reply();
    assert_eq!(two.reply(), Reply::simple("OK"));
    assert_eq!(two.reply(), Reply::int(2));
    assert_eq!(two.reply(), Reply::bulk("2"));
    drop(one);
    assert_eq!(three.reply(), Reply::simple("PONG"), "the place of the one that has left");
    // A client that has half-closed gets its answer, too.
    let mut four = connect();
    four.command(&["BLPOP", "list", "0"]);
    drop(three);
    await_calls(&proxy, "cache", 1);
    two.command(&["GET", "k"]);
    two.half_close();
    redis.client().call(&["RPUSH", "list", "x"]);
    four.reply();
    assert_eq!(two.reply(), Reply::bulk("2"));
    assert_eq!(proxy.figure("cache", "rejected_calls"), 0);
    proxy.stop();
}

#[test]
fn a_wait_that_is_over_is_a_rejection() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let more = "max-connections=2,max-calls=1,bulkhead-wait=20ms";
    let proxy =
        Setup::default().redis("cache", redis.addr(), more).postgres("db", postgres.addr(), more).start();
    let (mut blocked, mut two) = (Client::connect(proxy.addr("cache")), Client::connect(proxy.addr("cache")));
    assert_eq!(two.call(&["PING"]), Reply::simple("PONG"));
    blocked.command(&["BLPOP", "list", "0"]);
    await_calls(&proxy, "cache", 1);
    assert!(two.call(&["PING"]).error().starts_with("CIRCUITOPEN backend 'cache' is full"));
    let mut three = Client::connect(proxy.addr("cache"));
    assert_eq!(three.call(&["PING"]).error(), "ERR max number of clients reached");

    let (mut one, mut two) = (Pg::session(proxy.addr("db")), Pg::session(proxy.addr("db")));
    one.send(&query("SELECT pg_sleep(600)"));
    await_calls(&proxy, "db", 1);
    assert_eq!(two.error("SELECT 1").0.code, "57000");
    assert_eq!(Pg::refused(proxy.addr("db")).code, "53300");
    // What is under way would be waited for.
    drop((one, blocked));
    proxy.stop();
}

#[tokio::test]
async fn limits_change_while_clients_wait() {
    let redis = Redis::start();
    let more = "max-connections=1,bulkhead-wait=1m";
    let proxy = Setup::default().redis("cache", redis.addr(), more).start();
    let mut held = Client::connect(proxy.addr("cache"));
    assert_eq!(held.call(&["PING"]), Reply::simple("PONG"));
    let mut waiting = Client::connect(proxy.addr("cache"));
    waiting.command(&["PING"]);
    proxy.await_metric("fusewire_connections_active", &[], 2.0);
    let path = "/api/v1/circuit-breaker/config/cache";
    let answer =
        http::request(proxy.admin(), "PATCH", path, &[], r#"{"max_connections": 2}"#).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let reply =
        within("a place", tokio::task::spawn_blocking(move || waiting.reply())).await.expect("a reply");
    assert_eq!(reply, Reply::simple("PONG"));
    proxy.stop();
}

#[test]
fn a_bulkhead_under_load_rejects_and_never_trips() {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "max-calls=4").start();
    let addr = proxy.addr("cache");
    let (mut passed, mut rejected) = (0, 0);
    std::thread::scope(|scope| {
        let load = || {
            let mut client = Client::connect(addr);
            (0..500).filter(|_| client.call(&["PING"]) == Reply::simple("PONG")).count()
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(load)).collect();
        for thread in threads {
            let ok = thread.join().expect("a client");
            (passed, rejected) = (passed + ok, rejected + 500 - ok);
        }
    });
    assert!(passed > 0);
    let status = proxy.status("cache");
    assert_eq!(status["metrics"]["rejected_calls"], rejected as u64);
    assert_eq!((&status["state"], &status["metrics"]["failed_calls"]), (&"closed".into(), &0.into()));
    assert_eq!(proxy.figure("cache", "in_flight"), 0);
    proxy.stop();
}
