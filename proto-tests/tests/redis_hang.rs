//! A Redis that hangs: its kernel accepts connections, the process answers nothing.

use std::thread;

use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Redis, Setup, eventually};

/// Set when the server stands still already: no answer of one that is merely slow is late.
const SOON: &str = "response_timeout = \"400ms\"";

/// Five clients at once, each with one call that will not be answered.
fn five_unanswered_calls(proxy: &Fusewire) {
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy.addr("cache"));
                client.command(&["GET", "k"]);
                let last = client.rest();
                assert!(last.is_empty() || last.starts_with(b"-"), "{}", last.escape_ascii());
            });
        }
    });
}

#[test]
fn a_hang_trips_and_the_thaw_is_found_by_a_probe() {
    let redis = Redis::start();
    let settings = "recovery-timeout=1s,probe-timeout=1s";
    let proxy = Setup::default().with_defaults().redis("cache", redis.addr(), settings).start();
    assert_eq!(Client::connect(proxy.addr("cache")).call(&["SET", "k", "v"]), Reply::simple("OK"));
    redis.freeze();
    proxy.set_defaults(SOON);
    five_unanswered_calls(&proxy);
    let line = proxy
        .await_log("Circuit breaker 'cache' transitioned from CLOSED to OPEN after 5 consecutive failures");
    assert!(line.contains("no reply in time"), "{line}");
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &[("reason", "timeout")]), 5.0);
    redis.thaw();
    eventually("an admitted call", || match Client::connect(proxy.addr("cache")).call(&["GET", "k"]) {
        Reply::Bulk(value) if value == b"v" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

/// A stopped Redis, and a client that was connected before.
fn frozen_behind_a_client() -> (Redis, Fusewire, Client) {
    let redis = Redis::start();
    let proxy = Setup::default().with_defaults().redis("cache", redis.addr(), "recovery-timeout=1h").start();
    let mut early = Client::connect(proxy.addr("cache"));
    assert_eq!(early.call(&["PING"]), Reply::simple("PONG"));
    redis.freeze();
    proxy.set_defaults(SOON);
    (redis, proxy, early)
}

#[test]
fn clients_that_give_up_first_do_not_hide_a_hang() {
    let (_redis, proxy, mut early) = frozen_behind_a_client();
    // Each closes its socket long before its call's time is over; the call goes on to its end.
    for _ in 0..5 {
        Client::connect(proxy.addr("cache")).command(&["GET", "k"]);
    }
    proxy.await_state("cache", "open");
    let reply = early.call(&["GET", "k"]);
    let wanted = "CIRCUITOPEN backend 'cache' is open (no reply in time, 5 consecutive failures)";
    assert!(reply.error().starts_with(wanted), "{reply:?}");
    proxy.stop();
}

#[test]
fn refusals_do_not_wait_for_the_hanging_server() {
    let (_redis, proxy, mut early) = frozen_behind_a_client();
    five_unanswered_calls(&proxy);
    proxy.await_state("cache", "open");
    // On an old connection and on a new one. Redis stays frozen, so nothing of this can come from it.
    let wanted =
        "CIRCUITOPEN backend 'cache' is open (no reply in time, 5 consecutive failures); retry after ";
    for client in [&mut early, &mut Client::connect(proxy.addr("cache"))] {
        for _ in 0..50 {
            let reply = client.call(&["GET", "k"]);
            assert!(reply.error().starts_with(wanted), "{reply:?}");
        }
    }
    proxy.stop();
}

#[test]
fn a_probe_that_hangs_fails_and_the_next_one_can_try() {
    let redis = Redis::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "response-timeout=400ms,recovery-timeout=300ms,probe-timeout=300ms")
        .start();
    redis.freeze();
    five_unanswered_calls(&proxy);
    eventually("a failed probe", || {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(b"PING\r\n");
        let answer = client.line();
        let tripped_again = proxy.log().iter().any(|line| line.contains("failed probe"));
        if tripped_again { Ok(()) } else { Err(answer) }
    });
    redis.thaw();
    eventually("an admitted call", || ping(&proxy));
    proxy.await_state("cache", "closed");
    proxy.stop();
}

#[test]
fn while_a_probe_is_under_way_all_other_calls_are_refused() {
    let (redis, proxy) = half_open_and_frozen();
    let mut probe = Client::connect(proxy.addr("cache"));
    probe.send(b"PING\r\n");
    proxy.await_metric("circuit_breaker_probes_total", &[("backend", "cache")], 1.0);
    for _ in 0..10 {
        let reply = Client::connect(proxy.addr("cache")).call(&["PING"]);
        let refusal = reply.error();
        assert!(refusal.starts_with("CIRCUITOPEN backend 'cache' is half-open ("), "{refusal}");
    }
    redis.thaw();
    probe.expect(b"+PONG\r\n");
    proxy.await_state("cache", "closed");
    proxy.stop();
}

#[test]
fn a_probe_whose_client_leaves_gives_its_slot_back() {
    let (redis, proxy) = half_open_and_frozen();
    let mut probe = Client::connect(proxy.addr("cache"));
    probe.send(b"PING\r\n");
    proxy.await_metric("circuit_breaker_probes_total", &[("backend", "cache")], 1.0);
    drop(probe);
    redis.thaw();
    // The probe's deadline is an hour away: only its client's going can free the slot.
    eventually("an admitted call", || ping(&proxy));
    proxy.await_state("cache", "closed");
    proxy.stop();
}

/// A frozen Redis behind a half-open breaker whose only probe may take an hour.
fn half_open_and_frozen() -> (Redis, Fusewire) {
    let mut redis = Redis::start();
    let settings = "failure-threshold=1,response-timeout=1h,recovery-timeout=500ms,probe-timeout=1h";
    let proxy = Setup::default().redis("cache", redis.addr(), settings).start();
    redis.kill();
    Client::connect(proxy.addr("cache")).call(&["PING"]);
    redis.restart();
    redis.freeze();
    proxy.await_log("transitioned from OPEN to HALF");
    (redis, proxy)
}

fn ping(proxy: &Fusewire) -> Result<(), String> {
    match Client::connect(proxy.addr("cache")).call(&["PING"]) {
        Reply::Line(b'+', _) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn blocking_commands_may_take_longer_than_the_response_timeout() {
    let redis = Redis::start();
    let proxy = Setup::default().with_defaults().redis("cache", redis.addr(), "failure-threshold=1").start();
    let [mut bounded, mut unbounded, mut subscriber] =
        std::array::from_fn(|_| Client::connect(proxy.addr("cache")));
    for client in [&mut bounded, &mut unbounded] {
        assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    }
    subscriber.command(&["SUBSCRIBE", "channel"]);
    subscriber.expect(b"*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n");
    proxy.set_defaults("response_timeout = \"300ms\"");
    bounded.command(&["BLPOP", "a", "60"]);
    unbounded.command(&["BRPOP", "b", "0"]);
    // The server's own clock: all three are silent for longer than the timeout meanwhile.
    assert_eq!(redis.client().call(&["BLPOP", "nothing", "1"]), Reply::Null);
    redis.client().call(&["PUBLISH", "channel", "news"]);
    subscriber.expect(b"*3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$4\r\nnews\r\n");
    for (client, list) in [(&mut bounded, "a"), (&mut unbounded, "b")] {
        redis.client().call(&["RPUSH", list, "job"]);
        assert_eq!(client.reply(), Reply::Many(b'*', vec![Reply::bulk(list), Reply::bulk("job")]));
    }
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}
