//! A real Redis in each state in which it refuses to work, and each state that only looks so: what counts, what opens,
//! and what mends.

use proto_tests::tools::free_port;
use proto_tests::wire::{Reply, command};
use proto_tests::{Client, Fake, Fusewire, Redis, Setup, Step, eventually};

fn proxy_for(redis: &Redis, settings: &str) -> Fusewire {
    let comma = if settings.is_empty() { "" } else { "," };
    Setup::default().redis("cache", redis.addr(), &format!("recovery-timeout=1h{comma}{settings}")).start()
}

/// Sends a command over and over on one connection until the breaker is open; what the server said.
fn until_open(proxy: &Fusewire, args: &[&str]) -> String {
    let mut client = Client::connect(proxy.addr("cache"));
    let mut said = String::new();
    for _ in 0..5 {
        assert_eq!(proxy.state("cache"), "closed", "too early, after: {said}");
        said = client.call(args).error().to_owned();
    }
    proxy.await_state("cache", "open");
    assert!(client.call(args).error().starts_with("CIRCUITOPEN "), "the connection is kept");
    said
}

/// Ends the open state as its timer would: half-open, and the next call decides.
fn let_a_probe_through(proxy: &Fusewire) {
    proxy.post("/api/v1/circuit-breaker/trip/cache?for=1ms");
    proxy.await_state("cache", "half_open");
}

fn reasons(proxy: &Fusewire, reason: &str) -> u64 {
    proxy.metric("circuit_breaker_failures_total", &[("reason", reason)]) as u64
}

fn config(redis: &Redis, name: &str, value: &str) {
    assert_eq!(redis.client().call(&["CONFIG", "SET", name, value]), Reply::simple("OK"));
}

#[test]
fn refused_writes_open_and_a_write_that_works_closes() {
    let redis = Redis::start();
    for (setting, bad, good, code) in
        [("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")]
    {
        let proxy = proxy_for(&redis, "");
        config(&redis, setting, bad);
        let said = until_open(&proxy, &["SET", "k", "v"]);
        assert!(said.starts_with(code), "{said}");
        assert_eq!(reasons(&proxy, code), 5);
        config(&redis, setting, good);
        let_a_probe_through(&proxy);
        assert_eq!(Client::connect(proxy.addr("cache")).call(&["SET", "k", "v"]), Reply::simple("OK"));
        assert_eq!(proxy.state("cache"), "closed");
        proxy.stop();
        // Whoever lives with a full cache says so.
        let proxy = proxy_for(&redis, &format!("success-errors={code}"));
        config(&redis, setting, bad);
        let mut client = Client::connect(proxy.addr("cache"));
        (0..10).for_each(|_| assert!(client.call(&["SET", "k", "v"]).error().starts_with(code)));
        assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
        config(&redis, setting, good);
        proxy.stop();
    }
}

#[test]
fn a_server_that_cannot_save_refuses_pings_too() {
    let redis = Redis::with(&["--enable-protected-configs", "yes"]);
    config(&redis, "save", "900 1");
    let gone = tempfile::tempdir().expect("a directory");
    config(&redis, "dir", gone.path().to_str().expect("a path"));
    gone.close().expect("no directory");
    redis.client().call(&["BGSAVE"]);
    let proxy = proxy_for(&redis, "");
    eventually("a failed save", || match redis.client().call(&["SET", "k", "v"]) {
        Reply::Line(b'-', text) if text.starts_with("MISCONF") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(until_open(&proxy, &["PING"]).starts_with("MISCONF"));
    proxy.stop();
}

#[test]
fn a_replica_without_its_master_fails_though_its_handshake_succeeds() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "");
    config(&redis, "replica-serve-stale-data", "no");
    redis.client().call(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    for _ in 0..5 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.call(&["HELLO", "3"]);
        assert_eq!(client.call(&["SELECT", "1"]), Reply::simple("OK"));
        assert_eq!(client.call(&["CLIENT", "SETNAME", "x"]), Reply::simple("OK"));
        assert!(client.call(&["GET", "k"]).error().starts_with("MASTERDOWN"));
    }
    proxy.await_state("cache", "open");
    assert_eq!(reasons(&proxy, "MASTERDOWN"), 5);
    // Half-open: the handshake succeeds and closes nothing, the first call of consequence opens again.
    let_a_probe_through(&proxy);
    let mut client = Client::connect(proxy.addr("cache"));
    client.call(&["HELLO", "3"]);
    assert_eq!(client.call(&["SELECT", "1"]), Reply::simple("OK"));
    assert_eq!(proxy.state("cache"), "half_open");
    assert!(client.call(&["GET", "k"]).error().starts_with("MASTERDOWN"));
    assert_eq!(proxy.state("cache"), "open");
    // A worker that only waits for jobs has a PING of fusewire's own decide, and reads what the server tells it.
    let_a_probe_through(&proxy);
    assert!(
        Client::connect(proxy.addr("cache")).call(&["BLPOP", "jobs", "0"]).error().starts_with("READONLY")
    );
    assert_eq!(proxy.state("cache"), "open");
    redis.client().call(&["REPLICAOF", "NO", "ONE"]);
    let_a_probe_through(&proxy);
    let mut worker = Client::connect(proxy.addr("cache"));
    worker.command(&["BLPOP", "jobs", "0"]);
    proxy.await_state("cache", "closed");
    assert_eq!(redis.client().call(&["RPUSH", "jobs", "one"]), Reply::int(1));
    assert_eq!(worker.reply(), Reply::Many(b'*', vec![Reply::bulk("jobs"), Reply::bulk("one")]));
    proxy.stop();
}

#[test]
fn a_write_to_a_replica_is_the_clients_view_of_the_topology() {
    let redis = Redis::start();
    redis.client().call(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    for (settings, state) in [("", "closed"), ("failure-errors=READONLY", "open")] {
        let proxy = proxy_for(&redis, settings);
        let mut client = Client::connect(proxy.addr("cache"));
        (0..5).for_each(|_| assert!(client.call(&["SET", "k", "v"]).error().starts_with("READONLY")));
        assert_eq!(proxy.state("cache"), state);
        proxy.stop();
    }
}

#[test]
fn a_cluster_that_has_lost_its_slots_fails() {
    // By itself its bus listens ten thousand above its port, where anybody's connection may have its end.
    let bus = free_port().to_string();
    let redis = Redis::with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let proxy = proxy_for(&redis, "");
    assert!(until_open(&proxy, &["GET", "k"]).starts_with("CLUSTERDOWN"));
    assert_eq!(redis.client().call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), Reply::simple("OK"));
    eventually("a cluster", || match redis.client().call(&["GET", "k"]) {
        Reply::Null => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let_a_probe_through(&proxy);
    let mut client = Client::connect(proxy.addr("cache"));
    assert!(client.call(&["MGET", "a", "b"]).error().starts_with("CROSSSLOT"), "the client's own error");
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

#[test]
fn a_script_that_never_ends_opens_and_is_cured_through_the_open_breaker() {
    let redis = Redis::with(&["--busy-reply-threshold", "50"]);
    let proxy = proxy_for(&redis, "");
    let mut operator = Client::connect(proxy.addr("cache"));
    assert_eq!(operator.call(&["PING"]), Reply::simple("PONG"));
    let mut culprit = redis.client();
    culprit.command(&["EVAL", "while true do end", "0"]);
    eventually("a busy server", || match redis.client().call(&["PING"]) {
        Reply::Line(b'-', text) if text.starts_with("BUSY") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(until_open(&proxy, &["GET", "k"]).starts_with("BUSY"));
    assert!(operator.call(&["SCRIPT", "EXISTS", "x"]).error().starts_with("CIRCUITOPEN"));
    assert_eq!(operator.call(&["SCRIPT", "KILL"]), Reply::simple("OK"));
    assert!(culprit.reply().error().contains("killed"));
    assert_eq!(proxy.state("cache"), "open", "a cure decides nothing");
    let_a_probe_through(&proxy);
    assert_eq!(operator.call(&["GET", "k"]), Reply::Null);
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

#[test]
fn a_setting_lets_other_cures_pass() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "cures=config|set");
    let mut operator = Client::connect(proxy.addr("cache"));
    assert_eq!(operator.call(&["PING"]), Reply::simple("PONG"));
    config(&redis, "maxmemory", "1");
    assert!(until_open(&proxy, &["SET", "k", "v"]).starts_with("OOM"));
    assert!(operator.call(&["CONFIG", "GET", "maxmemory"]).error().starts_with("CIRCUITOPEN"));
    assert!(operator.call(&["SCRIPT", "KILL"]).error().starts_with("CIRCUITOPEN"));
    assert_eq!(operator.call(&["CONFIG", "SET", "maxmemory", "0"]), Reply::simple("OK"));
    let_a_probe_through(&proxy);
    assert_eq!(operator.call(&["SET", "k", "v"]), Reply::simple("OK"));
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

#[test]
fn errors_that_scripts_make_up_count_unless_a_setting_says_otherwise() {
    let redis = Redis::start();
    let forged = ["EVAL", "return redis.error_reply('LOADING not really')", "0"];
    let proxy = proxy_for(&redis, "");
    assert!(until_open(&proxy, &forged).starts_with("LOADING not really"));
    proxy.stop();
    let proxy = proxy_for(&redis, "ignore-script-errors=true");
    let mut client = Client::connect(proxy.addr("cache"));
    for _ in 0..10 {
        assert_eq!(client.call(&forged).error(), "LOADING not really");
        assert_eq!(client.call(&["MULTI"]), Reply::simple("OK"));
        assert_eq!(client.call(&forged), Reply::simple("QUEUED"));
        let Reply::Many(_, replies) = client.call(&["EXEC"]) else { panic!("no array") };
        assert_eq!(replies[0].error(), "LOADING not really");
    }
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    config(&redis, "maxmemory", "1");
    assert!(until_open(&proxy, &["SET", "k", "v"]).starts_with("OOM"), "other commands count");
    proxy.stop();
}

#[test]
fn a_server_with_no_room_for_clients_fails_and_recovers() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "");
    let mut operator = redis.client();
    assert_eq!(operator.call(&["CONFIG", "SET", "maxclients", "1"]), Reply::simple("OK"));
    for _ in 0..5 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.command(&["GET", "k"]);
        let text = String::from_utf8_lossy(&client.rest()).into_owned();
        assert_eq!(text, "-ERR max number of clients reached\r\n");
    }
    proxy.await_state("cache", "open");
    assert_eq!(reasons(&proxy, "ERR max number of clients"), 5, "one for each connection");
    assert_eq!(operator.call(&["CONFIG", "SET", "maxclients", "1000"]), Reply::simple("OK"));
    let_a_probe_through(&proxy);
    assert_eq!(Client::connect(proxy.addr("cache")).call(&["GET", "k"]), Reply::Null);
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

#[test]
fn a_protected_server_that_denies_everybody_is_a_failure_of_one_a_connection() {
    // A real one denies only clients of another machine.
    let denied = "-DENIED Redis is running in protected mode because protected mode is enabled\r\n";
    let fake = Fake::start(vec![Step::Send(denied.into()), Step::Close]);
    let proxy = Setup::default().redis("cache", fake.addr(), "recovery-timeout=1h").start();
    for n in 1..=5 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.command(&["PING"]);
        client.rest();
        proxy.await_figure("cache", "failed_calls", n);
    }
    proxy.await_state("cache", "open");
    proxy.stop();
}

#[test]
fn a_limited_user_is_no_failure_and_can_close_a_breaker() {
    let redis = Redis::start();
    redis.client().call(&["ACL", "SETUSER", "worker", "on", ">secret", "~jobs*", "-@all", "+blpop", "+get"]);
    let proxy = proxy_for(&redis, "failure-threshold=1");
    let mut client = Client::connect(proxy.addr("cache"));
    assert!(client.call(&["AUTH", "worker", "wrong"]).error().starts_with("WRONGPASS"));
    assert_eq!(client.call(&["AUTH", "worker", "secret"]), Reply::simple("OK"));
    for args in [
        &["SET", "jobs", "x"][..],
        &["GET", "other"],
        &["PING"],
        &["SUBSCRIBE", "c"],
        &["EVAL", "return 1", "0"],
    ] {
        assert!(client.call(args).error().starts_with("NOPERM"), "{args:?}");
    }
    assert_eq!(client.call(&["GET", "jobs"]), Reply::Null);
    assert_eq!(proxy.state("cache"), "closed");
    // This user may not PING; that it is told so shows the server working.
    let_a_probe_through(&proxy);
    client.command(&["BLPOP", "jobs", "0"]);
    proxy.await_state("cache", "closed");
    redis.client().call(&["RPUSH", "jobs", "one"]);
    assert_eq!(client.reply(), Reply::Many(b'*', vec![Reply::bulk("jobs"), Reply::bulk("one")]));
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    assert!(proxy.log().iter().all(|line| !line.contains("secret")));
    proxy.stop();
}

#[test]
fn unauthenticated_requests_are_limited_by_the_server_and_say_nothing() {
    let redis = Redis::with(&["--requirepass", "hunter2"]);
    let proxy = proxy_for(&redis, "failure-threshold=1");
    for input in [command(&["DEL"; 12]), command(&["SET", "k", &"x".repeat(20_000)])] {
        let [wanted, got] = [redis.addr(), proxy.addr("cache")].map(|addr| {
            let mut client = Client::connect(addr);
            client.send(&input);
            String::from_utf8_lossy(&client.rest()).into_owned()
        });
        assert!(got.starts_with("-ERR Protocol error: unauthenticated"), "{got}");
        assert_eq!(got, wanted);
    }
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    proxy.stop();
}

#[test]
fn a_pause_of_clients_is_no_hang() {
    let (redis, deaf) = (Redis::start(), Fake::start(vec![Step::Silence]));
    let settings = "recovery-timeout=1h,failure-threshold=1";
    let proxy = Setup::default()
        .with_defaults()
        .redis("cache", redis.addr(), settings)
        .redis("clock", deaf.addr(), "")
        .start();
    let mut waiting = Client::connect(proxy.addr("cache"));
    assert_eq!(waiting.call(&["PING"]), Reply::simple("PONG"));
    let mut operator = Client::connect(proxy.addr("cache"));
    // Only a pause of writes can be ended before its time.
    assert_eq!(operator.call(&["CLIENT", "PAUSE", "600000", "WRITE"]), Reply::simple("OK"));
    proxy.set_defaults("response_timeout = \"300ms\"");
    waiting.command(&["SET", "k", "v"]);
    // Two calls of a server that really is silent, one after the other, have met that limit meanwhile.
    for _ in 0..2 {
        let silent = Client::connect(proxy.addr("clock")).call(&["GET", "k"]);
        assert!(silent.error().contains("sent no reply within"), "{silent:?}");
    }
    assert_eq!(redis.client().call(&["CLIENT", "UNPAUSE"]), Reply::simple("OK"));
    assert_eq!(waiting.reply(), Reply::simple("OK"));
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    proxy.stop();
}

#[test]
fn errors_about_other_servers_and_other_clients_say_nothing() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "failure-threshold=1");
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["SET", "k", "v"]), Reply::simple("OK"));
    let nobody = free_port().to_string();
    let told = client.call(&["MIGRATE", "127.0.0.1", &nobody, "k", "0", "100"]);
    assert!(told.error().starts_with("IOERR"), "{told:?}");
    assert!(client.call(&["SCRIPT", "KILL"]).error().starts_with("NOTBUSY"));
    let Reply::Line(b':', id) = client.call(&["CLIENT", "ID"]) else { panic!("no id") };
    client.command(&["BLPOP", "nothing", "0"]);
    eventually("a blocked client", || match redis.client().call(&["CLIENT", "UNBLOCK", &id, "ERROR"]) {
        reply if reply == Reply::int(1) => Ok(()),
        reply => Err(format!("{reply:?}")),
    });
    assert!(client.reply().error().starts_with("UNBLOCKED"));
    assert_eq!(client.call(&["GET", "k"]), Reply::bulk("v"));
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    proxy.stop();
}

#[test]
fn framing_that_no_server_uses_makes_a_plain_relay() {
    let strange = b"$?\r\n;4\r\nPART\r\n;0\r\n";
    let fake = Fake::start(vec![
        Step::Await(b"GET".to_vec()),
        Step::Send(strange.to_vec()),
        Step::Answer(b"PING".to_vec(), b"whatever it likes".to_vec()),
    ]);
    let proxy = Setup::default().redis("cache", fake.addr(), "failure-threshold=1").start();
    let mut client = Client::connect(proxy.addr("cache"));
    client.command(&["GET", "k"]);
    client.expect(strange);
    client.command(&["PING"]);
    client.expect(b"whatever it likes");
    assert_eq!(proxy.metric("fusewire_opaque_connections_total", &[]), 1.0);
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    proxy.stop();
}

#[test]
fn a_subscriber_alone_closes_a_half_open_breaker() {
    let redis = Redis::start();
    let proxy = proxy_for(&redis, "");
    for version in ["2", "3"] {
        let mut kept = Client::connect(proxy.addr("cache"));
        kept.call(&["HELLO", version]);
        kept.command(&["SUBSCRIBE", "news"]);
        kept.reply();
        // On a connection that was there before, and as the first command of a new one.
        for new in [false, true] {
            let_a_probe_through(&proxy);
            let mut fresh = Client::connect(proxy.addr("cache"));
            let client = if new { &mut fresh } else { &mut kept };
            client.command(&["SUBSCRIBE", "weather"]);
            proxy.await_state("cache", "closed");
            let Reply::Many(_, confirmation) = client.reply() else { panic!("no confirmation") };
            assert_eq!(confirmation[1], Reply::bulk("weather"));
            redis.client().call(&["PUBLISH", "weather", "rain"]);
            let Reply::Many(_, message) = client.reply() else { panic!("no message") };
            assert_eq!(message[2], Reply::bulk("rain"));
        }
    }
    proxy.stop();
}
