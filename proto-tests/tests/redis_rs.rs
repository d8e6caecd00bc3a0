//! The `redis` crate, asynchronous: a multiplexed connection and the connection manager, RESP2 and RESP3, against a
//! real server with and without the proxy. docs/DRIVERS.md says what was observed.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use proto_tests::until::PATIENCE;
use proto_tests::wire::Reply;
use proto_tests::{Fusewire, Redis, Setup, eventually, within};
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, RedisError, RedisResult, Script, Value, cmd, pipe,
};

const VERSIONS: [&str; 2] = ["", "?protocol=resp3"];

fn client(addr: SocketAddr, more: &str) -> Client {
    Client::open(format!("redis://{addr}/{more}")).expect("a client")
}

/// A connection that waits for slow machines: by itself it gives up after half a second.
async fn multiplexed(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(PATIENCE))
        .set_connection_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// A manager that tries again soon and does not give up.
async fn manager(client: Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_min_delay(Duration::from_millis(5))
        .set_max_delay(Duration::from_millis(50))
        .set_number_of_retries(100_000)
        .set_response_timeout(Some(PATIENCE))
        .set_connection_timeout(Some(PATIENCE));
    client.get_connection_manager_with_config(config).await
}

fn both() -> (Redis, Fusewire) {
    let redis = Redis::start();
    // The timer never ends the open state by itself: the tests say when.
    let proxy = Setup::default().redis("cache", redis.addr(), "recovery-timeout=1h").start();
    (redis, proxy)
}

fn trip(proxy: &Fusewire) {
    proxy.post("/api/v1/circuit-breaker/trip/cache");
}

fn reset(proxy: &Fusewire) {
    proxy.post("/api/v1/circuit-breaker/reset/cache");
}

/// Connections that clients have made to the proxy so far.
fn accepted(proxy: &Fusewire) -> u64 {
    proxy.metric("fusewire_connections_total", &[]) as u64
}

/// Connections that the proxy has tried to make to the server so far.
fn dialled(proxy: &Fusewire) -> u64 {
    proxy.metric("fusewire_upstream_connects_total", &[]) as u64
}

fn rejections(proxy: &Fusewire) -> u64 {
    proxy.metric("circuit_breaker_rejections_total", &[]) as u64
}

#[track_caller]
fn assert_refused(error: &RedisError) {
    assert_eq!(error.code(), Some("CIRCUITOPEN"), "{error:?}");
    assert!(
        !error.is_io_error() && !error.is_connection_dropped() && !error.is_unrecoverable_error(),
        "{error:?}"
    );
    assert!(error.to_string().contains("backend 'cache' is open ("), "{error}");
}

async fn get(connection: &mut impl ConnectionLike, key: &str) -> RedisResult<Option<String>> {
    cmd("GET").arg(key).query_async(connection).await
}

/// What an operation says, an error included.
async fn said<T: std::fmt::Debug>(operation: impl Future<Output = RedisResult<T>>) -> String {
    format!("{:?}", operation.await)
}

/// A bit of everything that an application does; what it was told.
async fn everything<C: ConnectionLike + Clone + Send + Sync + 'static>(
    mut c: C,
) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    macro_rules! tell {
        ($name:literal, $type:ty, $operation:expr) => {
            told.push(($name, said::<$type>($operation).await));
        };
    }
    let big: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    tell!("flush", (), cmd("FLUSHALL").query_async(&mut c));
    tell!("set", (), c.set("k", "v"));
    tell!("get", Option<String>, c.get("k"));
    tell!("nothing", Option<String>, c.get("none"));
    tell!("binary", (), c.set("big", &big[..]));
    let back: RedisResult<Vec<u8>> = c.get("big").await;
    told.push(("binary back", format!("{:?}", back.map(|back| back == big))));
    tell!("hash", (), c.hset_multiple("h", &[("a", 1), ("b", 2)]));
    tell!("hash back", BTreeMap<String, i64>, c.hgetall("h"));
    tell!("raw hash", Value, cmd("HGETALL").arg("h").query_async(&mut c));
    tell!("list", i64, c.rpush("l", &["a", "b", "c"][..]));
    tell!("list back", Vec<String>, c.lrange("l", 0, -1));
    tell!("scores", (), c.zadd_multiple("z", &[(1.5, "a"), (2.0, "b")]));
    tell!("raw scores", Value, cmd("ZRANGE").arg("z").arg(0).arg(-1).arg("WITHSCORES").query_async(&mut c));
    tell!("stream", String, cmd("XADD").arg("x").arg("1-1").arg("f").arg("v").query_async(&mut c));
    tell!("stream back", Value, cmd("XREAD").arg("STREAMS").arg("x").arg("0").query_async(&mut c));
    let script = Script::new("return {KEYS[1], ARGV[1], {1, 2}}");
    tell!("script", Value, script.key("k").arg("a").invoke_async(&mut c));
    tell!("script's error", Value, Script::new("return redis.error_reply('OWN no')").invoke_async(&mut c));
    tell!("wrong type", i64, c.lpush("k", "x"));
    tell!("unknown", Value, cmd("NOSUCH").query_async(&mut c));
    tell!("blocking, full", Value, cmd("BLPOP").arg("l").arg(5).query_async(&mut c));
    tell!("blocking, empty", Value, cmd("BLPOP").arg("empty").arg(0.01).query_async(&mut c));
    let mut batch = pipe();
    for n in 0..300 {
        batch.set(format!("p{n}"), n).ignore().get(format!("p{n}"));
    }
    tell!("pipeline", Vec<i64>, batch.query_async(&mut c));
    tell!("pipeline with an error", Value, pipe().set("k", 1).lpush("k", 1).get("k").query_async(&mut c));
    tell!("transaction", (i64, i64), pipe().atomic().incr("n", 2).incr("n", 3).query_async(&mut c));
    tell!("transaction with an error", Value, pipe().atomic().lpush("k", 1).get("k").query_async(&mut c));
    // Many tasks on one connection.
    let tasks = (0..50).map(|_| {
        let mut c = c.clone();
        async move { c.incr::<_, _, i64>("shared", 1).await }
    });
    let mut counts: Vec<i64> = join_all(tasks).await.into_iter().map(|n| n.expect("INCR")).collect();
    counts.sort_unstable();
    told.push(("shared", format!("{counts:?}")));
    told
}

/// Subscribes, hears, unsubscribes; what it was told.
async fn listened(client: &Client) -> Vec<String> {
    let mut told = Vec::new();
    let mut subscriber = client.get_async_pubsub().await.expect("a subscriber");
    subscriber.subscribe("news").await.expect("SUBSCRIBE");
    subscriber.psubscribe("n*").await.expect("PSUBSCRIBE");
    let mut speaker = multiplexed(client).await.expect("a connection");
    for n in 0..10 {
        told.push(said::<i64>(speaker.publish("news", n)).await);
    }
    let mut messages = subscriber.on_message();
    for _ in 0..20 {
        let message = messages.next().await.expect("a message");
        told.push(format!(
            "{} {:?} {}",
            message.get_channel_name(),
            message.get_pattern::<Option<String>>(),
            message.get_payload::<String>().expect("text")
        ));
    }
    drop(messages);
    subscriber.unsubscribe("news").await.expect("UNSUBSCRIBE");
    subscriber.punsubscribe("n*").await.expect("PUNSUBSCRIBE");
    told.push(said::<i64>(speaker.publish("news", "nobody")).await);
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_the_same_as_without_the_proxy() {
    let (redis, proxy) = both();
    for version in VERSIONS {
        let mut answers = Vec::new();
        for addr in [redis.addr(), proxy.addr("cache")] {
            let client = client(addr, version);
            let connection = multiplexed(&client).await.expect("a connection");
            let first = within("the multiplexed connection", everything(connection)).await;
            let managed = manager(client.clone()).await.expect("a manager");
            let second = within("the manager", everything(managed)).await;
            answers.push((first, second, within("the subscriber", listened(&client)).await));
        }
        assert!(
            answers[0] == answers[1],
            "{version}\n direct: {:#?}\nproxied: {:#?}",
            answers[0],
            answers[1]
        );
        let (first, second, _) = &answers[1];
        assert_eq!(first, second);
        let wrong = first.iter().find(|(name, _)| *name == "wrong type").expect("an answer");
        assert!(wrong.1.contains("WRONGTYPE"), "{wrong:?}");
    }
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    assert_eq!(rejections(&proxy), 0);
    proxy.stop();
}

/// Ten rejected calls and a rejected batch: ordinary errors on a connection that stays.
async fn refused_and_kept<C: ConnectionLike + Clone>(proxy: &Fusewire, mut c: C) {
    cmd("SET").arg("k").arg("v").exec_async(&mut c).await.expect("SET");
    let me: i64 = cmd("CLIENT").arg("ID").query_async(&mut c).await.expect("CLIENT ID");
    let (clients, dials, refusals) = (accepted(proxy), dialled(proxy), rejections(proxy));
    trip(proxy);
    for _ in 0..10 {
        assert_refused(&get(&mut c, "k").await.expect_err("a rejection"));
    }
    let error =
        pipe().set("a", 1).get("a").query_async::<Value>(&mut c).await.expect_err("a rejected pipeline");
    assert!(format!("{error:?}").contains("CIRCUITOPEN"), "{error:?}");
    let error =
        pipe().atomic().set("a", 1).query_async::<Value>(&mut c).await.expect_err("a rejected transaction");
    assert!(format!("{error:?}").contains("CIRCUITOPEN"), "{error:?}");
    assert_eq!((accepted(proxy), dialled(proxy)), (clients, dials), "reconnects");
    assert_eq!(rejections(proxy) - refusals, 10 + 2 + 3, "something was retried");
    reset(proxy);
    assert_eq!(get(&mut c, "k").await.expect("GET").as_deref(), Some("v"));
    assert_eq!(get(&mut c, "a").await.expect("GET"), None, "a write while open");
    let still: i64 = cmd("CLIENT").arg("ID").query_async(&mut c).await.expect("CLIENT ID");
    assert_eq!(still, me, "another connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_an_ordinary_error_and_the_connection_is_kept() {
    let (_redis, proxy) = both();
    for version in VERSIONS {
        let client = client(proxy.addr("cache"), version);
        let connection = multiplexed(&client).await.expect("a connection");
        within("the multiplexed connection", refused_and_kept(&proxy, connection)).await;
        let managed = manager(client).await.expect("a manager");
        within("the manager", refused_and_kept(&proxy, managed)).await;
    }
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_while_open_reads_why_and_makes_no_storm() {
    let (_redis, proxy) = both();
    let addr = proxy.addr("cache");
    trip(&proxy);
    let (clients, dials) = (accepted(&proxy), dialled(&proxy));
    // Its handshake needs nothing of the server: it connects, and each call is rejected on the one connection.
    let mut plain = multiplexed(&client(addr, "")).await.expect("a connection");
    for _ in 0..10 {
        assert_refused(&get(&mut plain, "k").await.expect_err("a rejection"));
    }
    assert_eq!(accepted(&proxy) - clients, 1);
    // HELLO and SELECT are rejected, so there is no connection.
    for more in ["?protocol=resp3", "3"] {
        let error = multiplexed(&client(addr, more)).await.expect_err("a rejection");
        assert!(error.to_string().contains("backend 'cache' is open ("), "{more}: {error}");
    }
    assert_eq!(accepted(&proxy) - clients, 3);
    assert_eq!(dialled(&proxy), dials, "an open breaker dialled");
    reset(&proxy);
    // Its CLIENT SETINFO was rejected and nothing of consequence, but the connection never had a server.
    within("the end of the connection", async {
        while !get(&mut plain, "k").await.is_err_and(|error| error.is_unrecoverable_error()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for more in ["", "?protocol=resp3", "3"] {
        let mut fresh = multiplexed(&client(addr, more)).await.expect("a connection");
        assert_eq!(get(&mut fresh, "k").await, Ok(None));
    }
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_survives_a_crash_by_itself() {
    for (version, most) in [("", 10), ("?protocol=resp3", u64::MAX)] {
        let (mut redis, proxy) = both();
        let mut managed = manager(client(proxy.addr("cache"), version)).await.expect("a manager");
        managed.set::<_, _, ()>("k", "v").await.expect("SET");
        redis.kill();
        // Each call finds a dead connection or none, until there have been enough failures.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while proxy.state("cache") != "open" {
            assert!(tokio::time::Instant::now() < deadline, "{:#}", proxy.status("cache"));
            // With RESP3 it reconnects for as long as it takes, and the call waits for that.
            tokio::time::timeout(Duration::from_millis(200), get(&mut managed, "k")).await.ok();
        }
        let (clients, dials) = (accepted(&proxy), dialled(&proxy));
        if version.is_empty() {
            for _ in 0..10 {
                let error = within("a rejection", get(&mut managed, "k")).await.expect_err("a rejection");
                assert!(format!("{error:?}").contains("CIRCUITOPEN") || error.is_io_error(), "{error:?}");
            }
        }
        assert!(
            accepted(&proxy) - clients <= most,
            "{} connections for ten calls",
            accepted(&proxy) - clients
        );
        assert_eq!(dialled(&proxy), dials, "an open breaker dialled");
        redis.restart();
        // The end of the open state, as its timer would end it.
        proxy.post("/api/v1/circuit-breaker/trip/cache?for=1ms");
        within("a recovery", async {
            while get(&mut managed, "k").await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(proxy.state("cache"), "closed");
        managed.set::<_, _, ()>("k", "v2").await.expect("SET");
        assert_eq!(redis.client().call(&["GET", "k"]), Reply::bulk("v2"));
        proxy.stop();
    }
}

/// The crate's own limit: a manager whose reconnects have all been answered with an error of the server's (and not with
/// a broken connection) gives that error to every later call, for ever. docs/DRIVERS.md says what to do about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_with_few_retries_and_a_handshake_does_not_come_back() {
    let (mut redis, proxy) = both();
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(5))
        .set_response_timeout(Some(PATIENCE))
        .set_connection_timeout(Some(PATIENCE));
    let client = client(proxy.addr("cache"), "?protocol=resp3");
    let mut managed = client.get_connection_manager_with_config(config).await.expect("a manager");
    trip(&proxy);
    redis.kill();
    redis.restart();
    within("the rejection of its handshake", async {
        while !get(&mut managed, "k").await.is_err_and(|error| format!("{error:?}").contains("CIRCUITOPEN")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let refused = get(&mut managed, "k").await.expect_err("a rejection");
    reset(&proxy);
    let still = get(&mut managed, "k").await.expect_err("the rejection that it remembers");
    assert_eq!(still.to_string(), refused.to_string());
    let mut another = manager(client).await.expect("another manager");
    assert_eq!(get(&mut another, "k").await, Ok(None));
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_lands_in_another_database() {
    let (redis, proxy) = both();
    let client = client(proxy.addr("cache"), "3");
    let mut managed = manager(client.clone()).await.expect("a manager");
    let mut written = 0;
    for turn in 0..5 {
        trip(&proxy);
        assert!(managed.set::<_, _, ()>(format!("refused-{turn}"), 1).await.is_err(), "a write while open");
        assert!(multiplexed(&client).await.is_err(), "SELECT while open");
        reset(&proxy);
        managed.set::<_, _, ()>(format!("old-{turn}"), 1).await.expect("SET");
        let mut fresh = multiplexed(&client).await.expect("a connection");
        fresh.set::<_, _, ()>(format!("new-{turn}"), 1).await.expect("SET");
        written += 2;
    }
    let keys = |db: &str| {
        let mut direct = redis.client();
        assert_eq!(direct.call(&["SELECT", db]), Reply::simple("OK"));
        direct.call(&["DBSIZE"])
    };
    assert_eq!((keys("0"), keys("3")), (Reply::int(0), Reply::int(written)));
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_flow_while_open() {
    let (redis, proxy) = both();
    let client = client(proxy.addr("cache"), "");
    let mut subscriber = client.get_async_pubsub().await.expect("a subscriber");
    subscriber.subscribe("news").await.expect("SUBSCRIBE");
    let clients = accepted(&proxy);
    trip(&proxy);
    eventually("a subscriber", || match redis.client().call(&["PUBLISH", "news", "hello"]) {
        reply if reply == Reply::int(1) => Ok(()),
        reply => Err(format!("{reply:?}")),
    });
    let message = within("a message", subscriber.on_message().next()).await.expect("a message");
    assert_eq!(message.get_payload::<String>().expect("text"), "hello");
    assert_refused(&subscriber.subscribe("weather").await.expect_err("a rejection"));
    reset(&proxy);
    subscriber.subscribe("weather").await.expect("SUBSCRIBE");
    assert_eq!(accepted(&proxy), clients, "reconnects");
    proxy.stop();
}
