//! Sockets of every kind, and clients that are slow, half-closed, silent or gone.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::thread;

use proto_tests::pgwire::{self, status};
use proto_tests::postgres_server::{client, psql};
use proto_tests::tools::{free_port, has_ipv6, output_of, tool};
use proto_tests::wire::{Reply, command};
use proto_tests::{Client, Fake, Fusewire, Pg, Postgres, Redis, Setup, Step, eventually, fusewire};
use tempfile::TempDir;

/// What the proxy may hold resident at most, whatever passes through it.
const RSS_BOUND: u64 = 64 << 20;

#[track_caller]
fn assert_small(proxy: &Fusewire) {
    let peak = proxy.peak_rss();
    assert!(peak < RSS_BOUND, "peak RSS is {} MiB", peak >> 20);
}

#[test]
fn ipv6_on_both_sides() {
    let redis = Redis::start();
    let listen = SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()));
    let settings = format!("listen={listen}");
    if !has_ipv6() {
        // Without IPv6 there is nothing to listen on, and that must be one clear line.
        let output = fusewire::once(&[
            "--redis",
            &format!("upstream=[::1]:{},{settings}", redis.port()),
            "--admin",
            "off",
        ]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(&listen.to_string()), "{output:?}");
        return;
    }
    let proxy = Setup::default().redis("cache", format!("[::1]:{}", redis.port()), &settings).start();
    assert_eq!(Client::connect(listen).call(&["SET", "k", "v"]), Reply::simple("OK"));
    assert_eq!(redis.client().call(&["GET", "k"]), Reply::bulk("v"));
    proxy.stop();
}

#[test]
fn unix_sockets_on_both_sides() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let dir = TempDir::with_prefix("fusewire-").expect("a temporary directory");
    let (cache, db) = (dir.path().join("cache.sock"), dir.path().join(".s.PGSQL.6432"));
    let proxy = Setup::default()
        .redis(
            "cache",
            format!("unix:{}", redis.unix().display()),
            &format!("listen=unix:{}", cache.display()),
        )
        .postgres(
            "db",
            format!("unix:{}", postgres.unix().display()),
            &format!("listen=unix:{}", db.display()),
        )
        .start();
    assert_eq!(Client::unix(&cache).call(&["SET", "k", "v"]), Reply::simple("OK"));
    let said = output_of(Command::new(tool("redis-cli")).arg("-s").arg(&cache).args(["GET", "k"]));
    assert_eq!(said.trim(), "v");
    let mut pg = Pg::unix(&db);
    assert_eq!(pg.startup("postgres", "postgres"), Ok(()));
    assert_eq!(pg.rows("SELECT 1").0, ["1"]);
    let mut through = client("psql", postgres.addr());
    through.args(["-X", "-A", "-t", "-d", "postgres", "-c", "SELECT 2", "-p", "6432", "-h"]).arg(dir.path());
    assert_eq!(output_of(&mut through).trim(), "2");
    drop(pg);
    proxy.stop();
    assert!(!cache.exists() && !db.exists(), "socket files are removed at the end");
}

#[test]
fn a_missing_unix_socket_is_a_failure_like_a_refused_port() {
    let dir = TempDir::with_prefix("fusewire-").expect("a temporary directory");
    let nowhere = format!("unix:{}", dir.path().join("nowhere").display());
    let proxy = Setup::default().redis("cache", nowhere, "failure-threshold=2,recovery-timeout=1h").start();
    for _ in 0..2 {
        assert!(Client::connect(proxy.addr("cache")).call(&["PING"]).error().starts_with("ERR "));
    }
    proxy.await_state("cache", "open");
    assert!(Client::connect(proxy.addr("cache")).call(&["PING"]).error().starts_with("CIRCUITOPEN"));
    proxy.stop();
}

#[test]
fn a_host_with_several_addresses_is_one_connect() {
    // Listens on IPv4 only; `localhost` may name ::1 first.
    let fake = Fake::start(vec![Step::Answer(b"PING\r\n".to_vec(), b"+PONG\r\n".to_vec())]);
    let upstream = format!("localhost:{}", fake.addr().port());
    let proxy = Setup::default().redis("cache", upstream, "failure-threshold=1").start();
    for _ in 0..5 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(b"PING\r\n");
        client.expect(b"+PONG\r\n");
    }
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn a_name_that_does_not_resolve_is_a_failure_with_its_own_reason() {
    let proxy = Setup::default()
        .redis(
            "cache",
            "no-such-host.invalid:6379",
            "failure-threshold=1,recovery-timeout=1h,connect-timeout=20s",
        )
        .start();
    assert!(Client::connect(proxy.addr("cache")).call(&["PING"]).error().starts_with("ERR "));
    proxy.await_state("cache", "open");
    let refusal = Client::connect(proxy.addr("cache")).call(&["PING"]);
    assert!(refusal.error().contains("name not resolved"), "{refusal:?}");
    proxy.stop();
}

#[test]
fn a_half_closed_client_gets_every_answer() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let proxy = Setup::default().redis("cache", redis.addr(), "").postgres("db", postgres.addr(), "").start();
    let mut client = Client::connect(proxy.addr("cache"));
    client.send(&[command(&["SET", "k", "v"]), command(&["GET", "k"]), b"PING\r\n".to_vec()].concat());
    client.half_close();
    client.expect(b"+OK\r\n$1\r\nv\r\n+PONG\r\n");
    client.eof();
    let mut pg = Pg::session(proxy.addr("db"));
    pg.send(&pgwire::query("SELECT pg_sleep(0.3), 'late'"));
    pg.raw.half_close();
    let answer = pg.until_ready();
    assert_eq!(status(&answer), 'I', "{answer:?}");
    pg.raw.eof();
    assert_eq!(proxy.figure("cache", "failed_calls") + proxy.figure("db", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn fifty_idle_connections_that_end_do_not_trip() {
    let mut redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let mut idle: Vec<Client> = (0..50).map(|_| Client::connect(proxy.addr("cache"))).collect();
    for client in &mut idle {
        assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    }
    redis.restart();
    idle.iter_mut().for_each(Client::eof);
    assert_eq!(Client::connect(proxy.addr("cache")).call(&["PING"]), Reply::simple("PONG"));
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

#[test]
fn health_checks_of_load_balancers_are_no_calls() {
    let (redis_port, postgres_port) = (free_port(), free_port());
    // Nobody listens upstream: any call would be a failure.
    let proxy = Setup::default()
        .redis("cache", format!("127.0.0.1:{redis_port}"), "failure-threshold=1")
        .postgres("db", format!("127.0.0.1:{postgres_port}"), "failure-threshold=1")
        .start();
    for name in ["cache", "db"] {
        for round in 0..20 {
            let client = Client::connect(proxy.addr(name));
            if round % 2 == 0 { client.reset() } else { drop(client) }
        }
        let labels = [("backend", name)];
        proxy.await_metric("fusewire_connections_total", &labels, 20.0);
        eventually("their end", || match proxy.metric("fusewire_connections_active", &labels) {
            0.0 => Ok(()),
            open => Err(format!("{open} still open")),
        });
        assert_eq!(proxy.state(name), "closed", "'{name}'");
        assert_eq!(proxy.figure(name, "total_calls"), 0, "'{name}'");
    }
    proxy.stop();
}

#[test]
fn clients_that_leave_in_the_middle_of_a_call_are_no_failures() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "failure-threshold=1")
        .postgres("db", postgres.addr(), "failure-threshold=1")
        .start();
    for round in 0..10 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nonly a part");
        let mut blocked = Client::connect(proxy.addr("cache"));
        blocked.command(&["BLPOP", "nothing", "0"]);
        let mut pg = Pg::session(proxy.addr("db"));
        pg.send(&pgwire::query("SELECT pg_sleep(0.2)"));
        if round % 2 == 0 {
            client.reset();
            blocked.reset();
            pg.raw.reset();
        }
    }
    for name in ["cache", "db"] {
        eventually("their end", || match proxy.metric("fusewire_connections_active", &[("backend", name)]) {
            0.0 => Ok(()),
            open => Err(format!("{open} still open")),
        });
        assert_eq!(proxy.figure(name, "failed_calls"), 0, "'{name}'");
        assert_eq!(proxy.state(name), "closed", "'{name}'");
    }
    proxy.stop();
}

#[test]
fn a_client_that_never_reads_a_long_reply_costs_bounded_memory_and_no_failure() {
    const LENGTH: usize = 128 << 20;
    let redis = Redis::start();
    let proxy = Setup::default().with_defaults().redis("cache", redis.addr(), "failure-threshold=1").start();
    let mut direct = redis.client();
    assert_eq!(direct.call(&["SETRANGE", "big", &(LENGTH - 1).to_string(), "x"]), Reply::int(LENGTH as i64));
    let mut lazy = Client::connect(proxy.addr("cache"));
    lazy.command(&["GET", "big"]);
    eventually("the reply's beginning", || if lazy.readable() { Ok(()) } else { Err("nothing".to_owned()) });
    // Redis takes a while to copy it on a busy machine, which must not look like the silence that is tested.
    proxy.set_defaults("response_timeout = \"1s\"");
    // One more, for the limit to be looked at.
    lazy.command(&["PING"]);
    // A blocking call of the server's is the clock: it outlasts the response timeout three times over.
    assert_eq!(direct.call(&["BLPOP", "nothing", "3"]), Reply::Null);
    assert_small(&proxy);
    assert_eq!(proxy.state("cache"), "closed");
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.set_defaults("");
    // Read at last, it is all there.
    lazy.expect(format!("${LENGTH}\r\n").as_bytes());
    let mut sum = 0;
    lazy.stream_out(LENGTH as u64, |piece| sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    lazy.expect(b"\r\n+PONG\r\n");
    assert_eq!(sum, u64::from(b'x'));
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn a_client_that_writes_its_whole_pipeline_first_is_served() {
    const CALLS: usize = 2_000;
    let value = "v".repeat(50_000);
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["SET", "k", &value]), Reply::simple("OK"));
    client.send(&command(&["GET", "k"]).repeat(CALLS));
    for _ in 0..CALLS {
        assert_eq!(client.reply(), Reply::bulk(&value));
    }
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn a_pipeline_of_transactions_that_is_written_first_is_served() {
    const BLOCKS: usize = 80_000;
    let value = "v".repeat(200);
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let mut client = Client::connect(proxy.addr("cache"));
    assert_eq!(client.call(&["SET", "k", &value]), Reply::simple("OK"));
    let block = [command(&["MULTI"]), command(&["GET", "k"]), command(&["EXEC"])].concat();
    client.send(&block.repeat(BLOCKS));
    let expected = format!("+OK\r\n+QUEUED\r\n*1\r\n$200\r\n{value}\r\n");
    for _ in 0..BLOCKS {
        client.expect(expected.as_bytes());
    }
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn a_million_rejections_for_a_client_that_writes_first_are_a_number_not_a_buffer() {
    const CALLS: usize = 1_000_000;
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "recovery-timeout=1h").start();
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    let mut client = Client::connect(proxy.addr("cache"));
    client.send(&b"PING\r\n".repeat(CALLS));
    for _ in 0..CALLS {
        let line = client.line();
        assert!(line.starts_with("-CIRCUITOPEN "), "{line}");
    }
    assert_eq!(proxy.metric("circuit_breaker_rejections_total", &[("backend", "cache")]), CALLS as f64);
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn a_refusal_is_read_even_by_a_client_with_much_unsent() {
    let redis = Redis::start();
    let postgres = Postgres::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "recovery-timeout=1h")
        .postgres("db", postgres.addr(), "recovery-timeout=1h")
        .start();
    let mut session = Pg::session(proxy.addr("db"));
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    proxy.post("/api/v1/circuit-breaker/trip/db");
    // The body of a refused SET is swallowed, and the answer comes at its end.
    let mut client = Client::connect(proxy.addr("cache"));
    let body = "x".repeat(8 << 20);
    assert!(client.call(&["SET", "k", &body]).error().starts_with("CIRCUITOPEN"));
    assert!(client.call(&["PING"]).error().starts_with("CIRCUITOPEN"));
    // A session that must end still delivers its error, though a megabyte of its query is on the way.
    let sql = format!("SET search_path TO a; SELECT '{}'", "y".repeat(1 << 20));
    session.raw.try_send(&pgwire::query(&sql)).ok();
    let answer = session.until_ready();
    assert_eq!(answer.iter().map(|message| message.tag).next(), Some(b'E'), "{answer:?}");
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn many_clients_at_once_get_their_own_answers() {
    let redis = Redis::start();
    let postgres = Postgres::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").postgres("db", postgres.addr(), "").start();
    thread::scope(|scope| {
        for id in 0..40 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = Client::connect(proxy.addr("cache"));
                for n in 0..200 {
                    let text = format!("{id}:{n}");
                    client.command(&["ECHO", &text]);
                    client.command(&["PING", &text]);
                    assert_eq!(client.reply(), Reply::bulk(&text));
                    assert_eq!(client.reply(), Reply::bulk(&text));
                }
            });
        }
        for id in 0..20 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut pg = Pg::session(proxy.addr("db"));
                for n in 0..50 {
                    assert_eq!(pg.rows(&format!("SELECT '{id}:{n}'")).0, [format!("{id}:{n}")]);
                }
            });
        }
    });
    assert_eq!(proxy.figure("cache", "failed_calls") + proxy.figure("db", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn malformed_clients_are_refused_and_never_count() {
    let redis = Redis::start();
    let postgres = Postgres::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "failure-threshold=1")
        .postgres("db", postgres.addr(), "failure-threshold=1")
        .start();
    for input in [&b"*1\r\n$4\r\nPINGxx"[..], b"*01\r\n", b"*1\r\n:1\r\n", b"*1\r\n$-1\r\n", b"SET \"a\r\n"] {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(input);
        let answer = client.rest();
        assert!(
            answer.starts_with(b"-ERR Protocol error"),
            "{} → {}",
            input.escape_ascii(),
            answer.escape_ascii()
        );
    }
    for input in [&[0xff; 8][..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 4]] {
        let mut client = Client::connect(proxy.addr("db"));
        client.send(input);
        client.rest();
    }
    let mut pg = Pg::session(proxy.addr("db"));
    pg.send(b"Q\0\0\0\x01");
    pg.until_ready();
    for name in ["cache", "db"] {
        assert_eq!(proxy.figure(name, "failed_calls"), 0, "'{name}'");
        assert_eq!(proxy.state(name), "closed", "'{name}'");
    }
    assert_eq!(output_of(&mut psql(proxy.addr("db"), "SELECT 1")).trim(), "1");
    proxy.stop();
}

#[test]
fn connections_leave_no_descriptors_behind() {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let round = || {
        let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(proxy.addr("cache"))).collect();
        for client in &mut clients {
            assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
        }
    };
    let descriptors = || proto_tests::process::descriptors(proxy.pid());
    let before = descriptors();
    (0..5).for_each(|_| round());
    eventually("closed descriptors", || match descriptors() {
        now if now <= before + 5 => Ok(()),
        now => Err(format!("{now} descriptors, {before} before")),
    });
    proxy.stop();
}
