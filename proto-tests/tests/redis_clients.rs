//! Real Redis clients notice no difference while the breaker is closed.

use std::process::Command;

use proto_tests::payload::Random;
use proto_tests::tools::{output_of, run, run_with_input, tool};
use proto_tests::until::PATIENCE;
use proto_tests::wire::{Reply, command};
use proto_tests::{Client, Fusewire, Redis, Setup, within};
use redis::Commands;

fn both() -> (Redis, Fusewire) {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    (redis, proxy)
}

fn cli(proxy: &Fusewire, args: &[&str]) -> Command {
    let addr = proxy.addr("cache");
    let mut command = Command::new(tool("redis-cli"));
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]).args(args);
    command
}

fn url(proxy: &Fusewire, more: &str) -> String {
    format!("redis://{}/{more}", proxy.addr("cache"))
}

#[test]
fn redis_cli_in_both_protocol_versions() {
    let (_redis, proxy) = both();
    assert_eq!(output_of(&mut cli(&proxy, &["SET", "k", "v w"])).trim(), "OK");
    assert_eq!(output_of(&mut cli(&proxy, &["GET", "k"])).trim(), "v w");
    output_of(&mut cli(&proxy, &["HSET", "h", "a", "1", "b", "2"]));
    let hash = output_of(&mut cli(&proxy, &["-3", "HGETALL", "h"]));
    assert!(hash.contains("a") && hash.contains("2"), "{hash}");
    let script = b"MULTI\nINCR n\nINCR n\nEXEC\nSELECT 3\nSET only here\nDBSIZE\n";
    let output = run_with_input(&mut cli(&proxy, &[]), script);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.split_whitespace().last(), Some("1"), "{text}");
    // Mass insertion writes everything before it reads anything.
    let mass = command(&["INCR", "mass"]).repeat(20_000);
    let output = run_with_input(&mut cli(&proxy, &["--pipe"]), &mass);
    assert!(String::from_utf8_lossy(&output.stdout).contains("errors: 0, replies: 20000"), "{output:?}");
    assert_eq!(output_of(&mut cli(&proxy, &["GET", "mass"])).trim(), "20000");
    proxy.stop_clean("cache");
}

#[test]
fn redis_cli_shows_the_rejection() {
    let (_redis, proxy) = both();
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    let text = String::from_utf8_lossy(&run(&mut cli(&proxy, &["GET", "k"])).stdout).into_owned();
    assert!(text.starts_with("CIRCUITOPEN backend 'cache' is open ("), "{text}");
    proxy.stop();
}

#[test]
fn redis_benchmark_with_and_without_pipelining() {
    let (_redis, proxy) = both();
    let addr = proxy.addr("cache");
    for (pipeline, calls) in [("1", "20000"), ("64", "200000")] {
        let mut bench = Command::new(tool("redis-benchmark"));
        bench.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-q", "-c", "20"]);
        bench.args(["-n", calls, "-P", pipeline, "-t", "ping_mbulk,set,get,lpush,lrange_100"]);
        let output = run(&mut bench);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !errors.contains("rror"), "-P {pipeline}: {text}{errors}");
        assert!(!text.contains("rror"), "-P {pipeline}: {text}");
    }
    let calls = proxy.figure("cache", "successful_calls");
    assert!(calls >= 5 * 220_000, "each command is a call of its own, but only {calls} were counted");
    proxy.stop_clean("cache");
}

#[test]
fn redis_rs_pipelines_transactions_and_resp3() {
    let (redis, proxy) = both();
    for version in ["", "?protocol=resp3"] {
        redis.client().call(&["FLUSHALL"]);
        let client = redis::Client::open(url(&proxy, version)).expect("a client");
        let mut connection = client.get_connection().expect("a connection");
        let mut pipeline = redis::pipe();
        for n in 0..1000 {
            pipeline.set(format!("k{n}"), n).ignore().get(format!("k{n}"));
        }
        let values: Vec<i64> = pipeline.query(&mut connection).expect("a pipeline");
        assert_eq!(values, (0..1000).collect::<Vec<_>>());
        let (a, b): (i64, i64) =
            redis::pipe().atomic().incr("n", 2).incr("n", 3).query(&mut connection).expect("a transaction");
        assert_eq!((a, b), (2, 5));
        let _: () = connection.hset_multiple("h", &[("x", 1), ("y", 2)]).expect("HSET");
        let hash: std::collections::BTreeMap<String, i64> = connection.hgetall("h").expect("HGETALL");
        assert_eq!(hash.len(), 2);
        let missing: Option<String> = connection.get("missing").expect("GET");
        assert_eq!(missing, None);
        let error = connection.lpush::<_, _, ()>("n", 1).expect_err("WRONGTYPE");
        assert_eq!(error.code(), Some("WRONGTYPE"));
    }
    proxy.stop_clean("cache");
}

#[test]
fn redis_rs_publish_and_subscribe() {
    let (_redis, proxy) = both();
    let client = redis::Client::open(url(&proxy, "")).expect("a client");
    let mut listener = client.get_connection().expect("a connection");
    listener.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    let mut subscription = listener.as_pubsub();
    subscription.subscribe("news").expect("SUBSCRIBE");
    subscription.psubscribe("new*").expect("PSUBSCRIBE");
    let mut speaker = client.get_connection().expect("a connection");
    for n in 0..100 {
        assert_eq!(speaker.publish::<_, _, i64>("news", n), Ok(2));
    }
    for n in 0..100 {
        for _ in 0..2 {
            let message = subscription.get_message().expect("a message");
            assert_eq!(message.get_payload::<i64>(), Ok(n));
        }
    }
    subscription.unsubscribe("news").expect("UNSUBSCRIBE");
    subscription.punsubscribe("new*").expect("PUNSUBSCRIBE");
    drop(subscription);
    assert_eq!(redis::cmd("PING").query::<String>(&mut listener), Ok("PONG".to_owned()));
    proxy.stop_clean("cache");
}

#[test]
fn redis_rs_multiplexed_connection_reads_the_rejection_and_goes_on_after_it() {
    let (_redis, proxy) = both();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(within("a multiplexed client", async {
        let client = redis::Client::open(url(&proxy, "")).expect("a client");
        // By itself it gives up after half a second, which a slow machine may take.
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.expect("a connection");
        let set: () = redis::cmd("SET").arg("k").arg(1).query_async(&mut connection).await.expect("SET");
        proxy.post("/api/v1/circuit-breaker/trip/cache");
        for _ in 0..20 {
            let refused = redis::cmd("GET").arg("k").query_async::<i64>(&mut connection).await;
            assert_eq!(refused.expect_err("a rejection").code(), Some("CIRCUITOPEN"));
        }
        proxy.post("/api/v1/circuit-breaker/reset/cache");
        // GET changes no state, so the very same connection may go on.
        assert_eq!(redis::cmd("GET").arg("k").query_async::<i64>(&mut connection).await, Ok(1));
        set
    }));
    proxy.stop();
}

#[test]
fn a_password_reaches_the_server() {
    let redis = Redis::with(&["--requirepass", "hunter2"]);
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let mut client = Client::connect(proxy.addr("cache"));
    assert!(client.call(&["GET", "k"]).error().starts_with("NOAUTH"));
    assert!(client.call(&["AUTH", "wrong"]).error().starts_with("WRONGPASS"));
    assert_eq!(client.call(&["AUTH", "hunter2"]), Reply::simple("OK"));
    assert_eq!(client.call(&["SET", "k", "v"]), Reply::simple("OK"));
    assert!(proxy.log().iter().all(|line| !line.contains("hunter2")));
    proxy.stop_clean("cache");
}

/// Commands whose replies depend on nothing but the commands before them.
fn random_command(random: &mut Random) -> Vec<u8> {
    let keys = ["a", "b", "c", "d"];
    let key = keys[random.below(keys.len())];
    let number = random.below(50).to_string();
    let long = "x".repeat(random.below(3000));
    // One channel only: in which order UNSUBSCRIBE ends several depends on the server's hash seed.
    let all: [&[&str]; 30] = [
        &["SET", key, &number],
        &["SET", key, &long],
        &["GET", key],
        &["INCR", key],
        &["APPEND", key, &number],
        &["GETRANGE", key, "0", &number],
        &["DEL", key],
        &["LPUSH", key, &number, &long],
        &["LRANGE", key, "0", "-1"],
        &["HSET", key, "f", &number],
        &["HGETALL", key],
        &["ZADD", key, &number, "m"],
        &["ZRANGE", key, "0", "-1", "WITHSCORES"],
        &["MULTI"],
        &["EXEC"],
        &["DISCARD"],
        &["PING", &long],
        &["ECHO", "\r\n$3\r\n"],
        &["EVAL", "return {1, {2, 'three'}, false, {err='X oh'}}", "0"],
        &["NOSUCHCOMMAND", key],
        &["GET"],
        &["SUBSCRIBE", "news", "news"],
        &["UNSUBSCRIBE", "news"],
        &["UNSUBSCRIBE"],
        &["PSUBSCRIBE", "x*"],
        &["PUNSUBSCRIBE"],
        &["SELECT", if number.len() == 1 { "0" } else { "1" }],
        &["HELLO", if number.len() == 1 { "2" } else { "3" }, "SETNAME", key],
        &["MGET", "a", "b", "c", "d"],
        &["TYPE", key],
    ];
    let chosen = all[random.below(all.len())];
    // HELLO answers with a connection id and is of no use for comparing; its effect on later replies is.
    match random.below(12) {
        0 => b"PING\r\n".to_vec(),
        1 => b"\r\n".to_vec(),
        2 => b"set  'q k' \"a\\x41\\n\"\n".to_vec(),
        3 => b"*0\r\n".to_vec(),
        4 => [command(&["CLIENT", "REPLY", "SKIP"]), command(&["INCR", "a"])].concat(),
        _ if chosen[0] == "HELLO" => command(&["CLIENT", "SETNAME", "c"]),
        _ => command(chosen),
    }
}

#[test]
fn every_byte_is_the_same_as_without_the_proxy() {
    let (direct, behind) = (Redis::start(), Redis::start());
    let proxy = Setup::default().redis("cache", behind.addr(), "").start();
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut input = Vec::new();
        (0..random.below(200)).for_each(|_| input.extend(random_command(&mut random)));
        input.extend(command(&["QUIT"]));
        let answers = [direct.addr(), proxy.addr("cache")].map(|addr| {
            let mut client = Client::connect(addr);
            // Cut anywhere, so that frames arrive in pieces.
            let mut rest = &input[..];
            let mut cuts = Random::new(seed);
            let mut writer = client.duplicate();
            let reader = std::thread::spawn(move || client.rest());
            while !rest.is_empty() {
                let n = (1 + cuts.below(2000)).min(rest.len());
                if writer.try_send(&rest[..n]).is_err() {
                    break;
                }
                rest = &rest[n..];
            }
            reader.join().expect("a whole answer")
        });
        let [wanted, got] = &answers;
        let at = wanted.iter().zip(got).position(|(a, b)| a != b).unwrap_or(wanted.len().min(got.len()));
        assert!(
            wanted == got,
            "seed {seed}: byte {at} differs\n direct: {}\nproxied: {}",
            wanted[at.saturating_sub(80)..wanted.len().min(at + 80)].escape_ascii(),
            got[at.saturating_sub(80)..got.len().min(at + 80)].escape_ascii()
        );
    }
    proxy.stop_clean("cache");
}

#[test]
fn monitor_and_replication_are_passed_through() {
    let (redis, proxy) = both();
    let mut monitor = Client::connect(proxy.addr("cache"));
    assert_eq!(monitor.call(&["MONITOR"]), Reply::simple("OK"));
    redis.client().call(&["SET", "seen", "1"]);
    assert!(monitor.line().contains("\"SET\" \"seen\" \"1\""));
    let mut replica = Client::connect(proxy.addr("cache"));
    replica.command(&["PSYNC", "?", "-1"]);
    assert!(replica.line().starts_with("+FULLRESYNC"));
    proxy.stop_clean("cache");
}
