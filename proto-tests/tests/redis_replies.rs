//! Every command whose replies are not one frame each, at a real server: the bytes are those of a direct connection, and
//! the proxy's count of what is owed is right, which a rejection shows that must come right behind them.

use std::net::SocketAddr;

use proto_tests::wire::{Reply, command};
use proto_tests::{Client, Fusewire, Redis, Setup, eventually};

/// A server whose DEBUG may be used.
fn both() -> (Redis, Fusewire) {
    let redis = Redis::with(&["--enable-debug-command", "yes"]);
    let proxy = Setup::default().redis("cache", redis.addr(), "recovery-timeout=1h").start();
    (redis, proxy)
}

fn opaque(proxy: &Fusewire) -> u64 {
    proxy.metric("fusewire_opaque_connections_total", &[]) as u64
}

/// `SET k v` for each line, as multibulk requests.
fn script(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| command(&line.split(' ').collect::<Vec<_>>())).collect()
}

/// A client that speaks this version. HELLO answers with a connection id, which is of no use for comparing.
fn speaking(addr: SocketAddr, version: &str) -> Client {
    let mut client = Client::connect(addr);
    if version != "2" {
        client.call(&["HELLO", version]);
    }
    client
}

/// What a direct client is told.
fn direct(redis: &Redis, version: &str, input: &[u8]) -> Vec<u8> {
    redis.client().call(&["FLUSHALL"]);
    let mut client = speaking(redis.addr(), version);
    client.send(input);
    client.half_close();
    client.rest()
}

/// The bytes of a direct connection, then a rejection, then the connection goes on.
#[track_caller]
fn in_step(redis: &Redis, proxy: &Fusewire, version: &str, lines: &[&str]) {
    let input = script(lines);
    let wanted = direct(redis, version, &input);
    redis.client().call(&["FLUSHALL"]);
    let mut client = speaking(proxy.addr("cache"), version);
    client.send(&input);
    client.expect(&wanted);
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    client.command(&["GET", "k"]);
    let line = client.line();
    assert!(line.starts_with("-CIRCUITOPEN "), "{lines:?}: {line}");
    proxy.post("/api/v1/circuit-breaker/reset/cache");
    client.command(&["QUIT"]);
    client.expect(b"+OK\r\n");
    client.eof();
}

/// Scripts whose replies have to be counted, in RESP2 and RESP3.
const SCRIPTS: [&[&str]; 12] = [
    &["SUBSCRIBE a b", "UNSUBSCRIBE", "ECHO z"],
    &["SUBSCRIBE a a b", "UNSUBSCRIBE a nosuch", "UNSUBSCRIBE", "ECHO z"],
    &["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "UNSUBSCRIBE x y", "ECHO z"],
    &[
        "SUBSCRIBE a",
        "PSUBSCRIBE p* q*",
        "SSUBSCRIBE s",
        "UNSUBSCRIBE",
        "PUNSUBSCRIBE",
        "SUNSUBSCRIBE",
        "ECHO z",
    ],
    &["SUBSCRIBE a", "PING", "PING hi", "GET k", "UNSUBSCRIBE a", "PING"],
    &["SUBSCRIBE", "GET", "SUBSCRIBE a", "RESET", "ECHO z"],
    &["CLIENT REPLY SKIP", "SET k 1", "GET k", "CLIENT REPLY SKIP", "NOSUCH", "GET k"],
    &["CLIENT REPLY OFF", "SET k 1", "NOSUCH", "CLIENT REPLY SKIP", "GET k", "CLIENT REPLY ON", "GET k"],
    &["CLIENT REPLY NOSUCH", "CLIENT REPLY", "GET k"],
    &["SET k 1", "WATCH k", "SET k 2", "MULTI", "GET k", "EXEC", "GET k"],
    &[
        "MULTI", "GET k", "NOSUCH", "EXEC", "MULTI", "RESET", "GET k", "MULTI", "DISCARD", "EXEC", "MULTI",
        "MULTI", "DISCARD",
    ],
    &[
        "SHUTDOWN NOSUCH",
        "DEBUG SLEEP 0",
        "WAIT 0 10",
        "XADD block 1-1 f v",
        "XREAD COUNT 1 STREAMS block 0",
        "ECHO z",
    ],
];

#[test]
fn replies_are_counted_as_the_server_gives_them() {
    let (redis, proxy) = both();
    for script in SCRIPTS {
        in_step(&redis, &proxy, "2", script);
        in_step(&redis, &proxy, "3", script);
    }
    assert_eq!((opaque(&proxy), proxy.figure("cache", "failed_calls")), (0, 0));
    proxy.stop();
}

#[test]
fn pushes_of_every_kind_answer_nobody() {
    let (redis, proxy) = both();
    let scripts: [&[&str]; 4] = [
        // Redis 7.0 puts the client's own message into the array of EXEC, and does not count it there.
        &["SUBSCRIBE news", "MULTI", "PUBLISH news one", "INCR n", "PUBLISH news two", "EXEC", "ECHO z"],
        &["SUBSCRIBE news", "PSUBSCRIBE n*", "PUBLISH news one", "GET k", "UNSUBSCRIBE", "PUNSUBSCRIBE"],
        &["CLIENT TRACKING ON", "GET k", "SET k v", "GET k", "FLUSHALL", "ECHO z"],
        &["CLIENT REPLY OFF", "SUBSCRIBE a", "UNSUBSCRIBE a", "CLIENT REPLY ON", "ECHO z"],
    ];
    for script in scripts {
        in_step(&redis, &proxy, "3", script);
    }
    assert_eq!((opaque(&proxy), proxy.figure("cache", "failed_calls")), (0, 0));
    proxy.stop();
}

#[test]
fn every_type_passes_unchanged() {
    let (redis, proxy) = both();
    let kinds = [
        "string", "integer", "double", "null", "array", "set", "map", "attrib", "push", "bignum", "verbatim",
        "true", "false",
    ];
    let lines: Vec<String> = kinds.iter().map(|kind| format!("DEBUG PROTOCOL {kind}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    in_step(&redis, &proxy, "2", &lines);
    in_step(&redis, &proxy, "3", &lines);
    assert_eq!((opaque(&proxy), proxy.figure("cache", "failed_calls")), (0, 0));
    proxy.stop();
}

#[test]
fn what_cannot_be_accounted_for_makes_a_plain_relay() {
    let (redis, proxy) = both();
    let scripts: [&[&str]; 4] = [
        // Which protocol is spoken then cannot be known.
        &["CLIENT REPLY SKIP", "HELLO 3", "PING"],
        &["MULTI", "SUBSCRIBE a b", "GET k", "EXEC", "PING"],
        &["MULTI", "UNSUBSCRIBE", "EXEC", "GET k"],
        &["MULTI", "CLIENT REPLY OFF", "EXEC", "CLIENT REPLY ON", "GET k"],
    ];
    for (n, lines) in scripts.into_iter().enumerate() {
        let input = script(lines);
        let wanted = direct(&redis, "2", &input);
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(&input);
        client.expect(&wanted);
        assert_eq!(opaque(&proxy), n as u64 + 1, "{lines:?}");
    }
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn a_thousand_muted_commands_while_open_get_one_reply_to_on() {
    let (redis, proxy) = both();
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    client.command(&["CLIENT", "REPLY", "OFF"]);
    client.send(&command(&["SET", "k", "v"]).repeat(1000));
    client.command(&["CLIENT", "REPLY", "ON"]);
    client.expect(b"+OK\r\n");
    proxy.post("/api/v1/circuit-breaker/reset/cache");
    assert_eq!(client.call(&["GET", "k"]), Reply::Null);
    assert_eq!(redis.client().call(&["DBSIZE"]), Reply::int(0));
    proxy.stop();
}

#[test]
fn a_select_that_was_rejected_takes_the_write_behind_it_along() {
    let (redis, proxy) = both();
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    client.command(&["SELECT", "3"]);
    assert!(client.line().starts_with("-CIRCUITOPEN"));
    proxy.post("/api/v1/circuit-breaker/reset/cache");
    // Whether the connection has ended already or not: nothing reaches the server.
    client.try_send(&command(&["SET", "k", "v"])).ok();
    client.rest();
    assert_eq!(redis.client().call(&["DBSIZE"]), Reply::int(0));
    proxy.stop();
}

#[test]
fn a_transaction_whose_multi_was_rejected_never_runs() {
    let (redis, proxy) = both();
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    assert_eq!(client.call(&["MULTI"]), Reply::simple("OK"));
    proxy.post("/api/v1/circuit-breaker/reset/cache");
    assert!(client.call(&["SET", "k", "v"]).error().starts_with("CIRCUITOPEN"));
    assert!(
        client.call(&["EXEC"]).error().starts_with("EXECABORT Transaction discarded because of: CIRCUITOPEN")
    );
    assert_eq!(client.call(&["GET", "k"]), Reply::Null);
    // One that was open when the breaker tripped is discarded instead of run.
    assert_eq!(client.call(&["MULTI"]), Reply::simple("OK"));
    assert_eq!(client.call(&["SET", "k", "v"]), Reply::simple("QUEUED"));
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    assert_eq!(client.call(&["SET", "l", "v"]), Reply::simple("QUEUED"));
    assert!(client.call(&["EXEC"]).error().starts_with("EXECABORT"));
    assert_eq!(redis.client().call(&["DBSIZE"]), Reply::int(0));
    proxy.post("/api/v1/circuit-breaker/reset/cache");
    assert_eq!(client.call(&["SET", "k", "v"]), Reply::simple("OK"), "it is no longer in a transaction");
    proxy.stop();
}

#[test]
fn nothing_of_a_smuggled_request_reaches_the_server() {
    let (redis, proxy) = both();
    let calls = || {
        let Reply::Bulk(text) = redis.client().call(&["INFO", "commandstats"]) else { panic!("no INFO") };
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines()
            .filter(|line| line.contains("incr") || line.contains("flush"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for input in [
        &b"*1\r\n$4\r\nINCRxx"[..],
        b"*2\r\n$4\r\nINCR\r\n$1\r\nkxx*1\r\n$8\r\nFLUSHALL\r\n",
        b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r*1\r\n$8\r\nFLUSHALL\r\n",
        b"*2\r\n$4\r\nINCR\r\n$01\r\nk\r\n",
        b"*2\r\n$4\r\nINCR\r\n$+1\r\nk\r\n",
        b"*02\r\n$4\r\nINCR\r\n$1\r\nk\r\n",
        b"INCR \0k\r\n",
        b"INCR \"k\r\n",
    ] {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(input);
        let answer = client.rest();
        assert!(
            answer.starts_with(b"-ERR Protocol error"),
            "{}: {}",
            input.escape_ascii(),
            answer.escape_ascii()
        );
        // The connection to the server is gone too: whatever part it was given will not be completed.
        eventually("an idle server", || match redis.client().call(&["INFO", "clients"]) {
            Reply::Bulk(text) if text.windows(19).any(|part| part == b"connected_clients:1") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(calls(), [""; 0], "{}", input.escape_ascii());
    }
    assert_eq!((proxy.figure("cache", "failed_calls"), proxy.state("cache")), (0, "closed".to_owned()));
    proxy.stop();
}

#[test]
fn a_blocked_client_that_half_closes_is_let_go_and_loses_no_job() {
    let (redis, proxy) = both();
    let mut worker = Client::connect(proxy.addr("cache"));
    worker.command(&["BLPOP", "jobs", "0"]);
    let blocked = |n: u64| {
        let wanted = format!("blocked_clients:{n}\r");
        eventually("blocked clients", || match redis.client().call(&["INFO", "clients"]) {
            Reply::Bulk(text) if String::from_utf8_lossy(&text).contains(&wanted) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    blocked(1);
    worker.half_close();
    worker.eof();
    blocked(0);
    assert_eq!(redis.client().call(&["RPUSH", "jobs", "one"]), Reply::int(1));
    assert_eq!(
        redis.client().call(&["LRANGE", "jobs", "0", "-1"]),
        Reply::Many(b'*', vec![Reply::bulk("one")])
    );
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn quit_shutdown_and_browsers_end_as_they_do_at_the_server() {
    let (redis, proxy) = both();
    for input in
        [script(&["GET k", "QUIT", "GET k"]), b"POST / HTTP/1.1\r\n\r\n".to_vec(), b"Host: x\r\n".to_vec()]
    {
        let [wanted, got] = [redis.addr(), proxy.addr("cache")].map(|addr| {
            let mut client = Client::connect(addr);
            client.send(&input);
            client.rest()
        });
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&wanted));
    }
    let mut client = Client::connect(proxy.addr("cache"));
    client.command(&["SHUTDOWN", "NOSAVE"]);
    client.eof();
    assert_eq!((proxy.figure("cache", "failed_calls"), proxy.state("cache")), (0, "closed".to_owned()));
    proxy.stop();
}
