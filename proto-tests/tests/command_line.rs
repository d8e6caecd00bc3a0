//! What an operator sees of the program: clear refusals, a start with dead backends, an orderly end.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use proto_tests::process::Signal;
use proto_tests::tools::free_port;
use proto_tests::wire::Reply;
use proto_tests::{Client, Pg, Postgres, Redis, Setup, eventually, fusewire, pgwire};
use serde_json::Value;
use tempfile::TempDir;

/// A refused command line: a failing exit code and one line about it on standard error.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = fusewire::once(args);
    let text = String::from_utf8_lossy(&stderr).trim_end().to_owned();
    assert!(!status.success(), "{args:?} was accepted: {text}");
    assert!(status.code().is_some(), "{args:?} died of a signal: {text}");
    assert!(stdout.is_empty(), "{args:?} wrote to standard output: {}", String::from_utf8_lossy(&stdout));
    assert_eq!(text.lines().count(), 1, "{args:?} said more than one line:\n{text}");
    text
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(text.contains(word), "no `{word}` in: {text}"));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let spec = "name=cache,upstream=127.0.0.1:6379,failure-treshold=3";
    assert_says(&refused(&["--admin", "off", "--redis", spec]), &["failure-treshold", "failure-threshold"]);
}

#[test]
fn bad_values_are_refused_with_the_key_and_the_reason() {
    for (setting, words) in [
        ("recovery-timeout=30", &["recovery-timeout", "30"][..]),
        ("recovery-timeout=soon", &["recovery-timeout", "soon"]),
        ("failure-threshold=0", &["failure-threshold", "0"]),
        ("failure-threshold=many", &["failure-threshold", "many"]),
        ("listen=127.0.0.1:99999", &["listen", "99999"]),
        ("name=two words", &["name"]),
    ] {
        let spec = format!("upstream=127.0.0.1:6379,{setting}");
        assert_says(&refused(&["--admin", "off", "--redis", &spec]), words);
    }
    assert_says(&refused(&["--admin", "off", "--redis", "name=cache"]), &["upstream"]);
    assert_says(&refused(&["--admin", "off"]), &["backend"]);
}

#[test]
fn two_backends_may_not_share_a_name_or_an_address() {
    let a = "name=cache,listen=127.0.0.1:7001,upstream=127.0.0.1:6379";
    let b = "name=cache,listen=127.0.0.1:7002,upstream=127.0.0.1:6379";
    assert_says(&refused(&["--admin", "off", "--redis", a, "--redis", b]), &["cache"]);
    let c = "name=queue,listen=127.0.0.1:7001,upstream=127.0.0.1:6379";
    assert_says(&refused(&["--admin", "off", "--redis", a, "--redis", c]), &["7001"]);
}

#[test]
fn a_taken_port_is_one_clear_line() {
    let holder = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    let spec = format!("upstream=127.0.0.1:6379,listen={taken}");
    assert_says(&refused(&["--admin", "off", "--redis", &spec]), &[&taken, "in use"]);
    let free = format!("upstream=127.0.0.1:6379,listen=127.0.0.1:{}", free_port());
    assert_says(&refused(&["--admin", &taken, "--redis", &free]), &[&taken, "in use"]);
}

#[test]
fn check_judges_a_file_and_starts_nothing() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("fusewire.toml");
    let path = file.to_str().expect("a path");
    fs::write(&file, "[[backend]]\nprotocol = \"redis\"\nname = \"cache\"\nupstream = \"127.0.0.1:1\"\n")
        .expect("a file");
    let good = fusewire::once(&["check", "--config", path]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    fs::write(&file, "[[backend]]\nprotocol = \"redis\"\nupstream = \"127.0.0.1:1\"\nfailure_treshold = 3\n")
        .expect("a file");
    let bad = fusewire::once(&["check", "--config", path]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let text = String::from_utf8_lossy(&bad.stderr).into_owned() + &String::from_utf8_lossy(&bad.stdout);
    assert_says(&text, &["failure_treshold", "failure_threshold", "fusewire.toml"]);
}

#[test]
fn a_file_an_environment_and_flags_agree_on_who_wins() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("fusewire.toml");
    let dead = free_port();
    let text = format!(
        "[defaults]\nfailure_threshold = 4\n[[backend]]\nprotocol = \"redis\"\nname = \"filed\"\nlisten = \"127.0.0.1:{}\"\nupstream = \"127.0.0.1:{dead}\"\n",
        free_port()
    );
    fs::write(&file, text).expect("a file");
    let proxy = Setup::default()
        .args(&[
            "--config",
            file.to_str().expect("a path"),
            "--failure-threshold",
            "2",
            "--recovery-timeout",
            "1h",
        ])
        .redis("near", format!("127.0.0.1:{dead}"), "failure-threshold=1")
        .redis("far", format!("127.0.0.1:{dead}"), "")
        .start();
    assert_eq!(proxy.state("filed"), "closed");
    for (name, failures) in [("near", 1), ("far", 2)] {
        for n in 0..failures {
            assert_eq!(proxy.state(name), "closed", "'{name}' after {n} failures");
            assert!(Client::connect(proxy.addr(name)).call(&["PING"]).error().starts_with("ERR "));
            proxy.await_figure(name, "failed_calls", n + 1);
        }
        proxy.await_state(name, "open");
    }
    proxy.stop();
}

#[test]
fn help_and_version_answer_on_standard_output() {
    for (args, word) in [
        (&["--help"][..], "--redis"),
        (&["run", "--help"], "--recovery-timeout"),
        (&["--version"], "fusewire"),
    ] {
        let output = fusewire::once(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(word), "{args:?}");
    }
}

#[test]
fn it_starts_with_every_backend_down() {
    let dead = || format!("127.0.0.1:{}", free_port());
    let proxy = Setup::default().redis("cache", dead(), "").postgres("db", dead(), "").start();
    assert_eq!((proxy.state("cache").as_str(), proxy.state("db").as_str()), ("closed", "closed"));
    proxy.stop();
}

#[test]
fn log_lines_are_one_json_object_each() {
    let proxy = Setup::default()
        .redis("cache", format!("127.0.0.1:{}", free_port()), "failure-threshold=1,recovery-timeout=1h")
        .start();
    Client::connect(proxy.addr("cache")).call(&["PING"]);
    let line = proxy
        .await_log("Circuit breaker 'cache' transitioned from CLOSED to OPEN after 1 consecutive failure");
    for line in proxy.log() {
        serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_says(
        &line,
        &[
            "\"backend\":\"cache\"",
            "\"from\":\"closed\"",
            "\"to\":\"open\"",
            "consecutive_failures",
            "connection refused",
            "retry_after",
        ],
    );
    proxy.stop();
}

#[test]
fn log_lines_are_readable_text_by_default() {
    let proxy = Setup::default()
        .redis("cache", format!("127.0.0.1:{}", free_port()), "failure-threshold=1,recovery-timeout=1h")
        .text_log()
        .start();
    let listen = proxy.addr("cache").to_string();
    proxy.await_log(&listen);
    Client::connect(proxy.addr("cache")).call(&["PING"]);
    let line = proxy
        .await_log("Circuit breaker 'cache' transitioned from CLOSED to OPEN after 1 consecutive failure");
    assert!(line.contains("WARN") && !line.contains('\u{1b}'), "no colours into a pipe: {line:?}");
    proxy.stop();
}

#[test]
fn keys_values_and_sql_never_reach_the_log() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "")
        .postgres("db", postgres.addr(), "")
        .args(&["--log-level", "trace"])
        .start();
    let mut client = Client::connect(proxy.addr("cache"));
    client.call(&["SET", "s3cret-key", "s3cret-value"]);
    client.call(&["LPUSH", "s3cret-key", "s3cret-value"]);
    let mut pg = Pg::session(proxy.addr("db"));
    pg.error("SELECT s3cret_column FROM s3cret_table");
    let everything = [
        proxy.log().join("\n"),
        proxy.get("/metrics").body,
        proxy.get("/api/v1/circuit-breaker/metrics").body,
    ];
    assert!(everything.iter().all(|text| !text.contains("s3cret")));
    drop((client, pg));
    proxy.stop();
}

#[test]
fn both_polite_signals_drain_and_exit_with_zero() {
    let redis = Redis::start();
    for signal in [Signal::TERM, Signal::INT] {
        let mut proxy = Setup::default().redis("cache", redis.addr(), "").start();
        let mut idle = Client::connect(proxy.addr("cache"));
        assert_eq!(idle.call(&["PING"]), Reply::simple("PONG"));
        let mut busy = Client::connect(proxy.addr("cache"));
        busy.command(&["BLPOP", "list", "20"]);
        let mut direct = redis.client();
        eventually("a blocked client", || match direct.call(&["INFO", "clients"]) {
            Reply::Bulk(info) if String::from_utf8_lossy(&info).contains("blocked_clients:1") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        proxy.signal(signal);
        // Nobody new, the idle one ends, the one with a call in flight gets its answer first.
        idle.eof();
        eventually("a closed port", || match Client::try_connect(proxy.addr("cache")) {
            Err(_) => Ok(()),
            Ok(_) => Err("still accepting".to_owned()),
        });
        direct.call(&["RPUSH", "list", "last"]);
        assert_eq!(busy.reply(), Reply::Many(b'*', vec![Reply::bulk("list"), Reply::bulk("last")]));
        busy.eof();
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

#[test]
fn draining_lets_a_transaction_end_and_closes_idle_sessions_natively() {
    let postgres = Postgres::start();
    postgres.sql("CREATE TABLE t (x int)");
    let mut proxy = Setup::default().postgres("db", postgres.addr(), "").start();
    let mut idle = Pg::session(proxy.addr("db"));
    let mut busy = Pg::session(proxy.addr("db"));
    assert_eq!(busy.rows("BEGIN; INSERT INTO t VALUES (1)").1, 'T');
    proxy.signal(Signal::TERM);
    let goodbye = idle.receive().expect("a last message").error();
    assert_eq!((goodbye.severity.as_str(), goodbye.code.as_str()), ("FATAL", "57P01"));
    idle.raw.eof();
    assert_eq!(busy.rows("INSERT INTO t VALUES (2)").1, 'T');
    busy.send(&pgwire::query("COMMIT"));
    let answer = busy.until_ready();
    assert_eq!(pgwire::tags(&answer), "CZ", "{answer:?}");
    busy.raw.rest();
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(postgres.sql("SELECT count(*) FROM t"), "2");
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let postgres = Postgres::start();
    let mut proxy =
        Setup::default().postgres("db", postgres.addr(), "").args(&["--drain-timeout", "1h"]).start();
    let mut busy = Pg::session(proxy.addr("db"));
    assert_eq!(busy.rows("BEGIN").1, 'T');
    proxy.signal(Signal::TERM);
    eventually("a closed port", || match Client::try_connect(proxy.addr("db")) {
        Err(_) => Ok(()),
        Ok(_) => Err("still accepting".to_owned()),
    });
    proxy.signal(Signal::TERM);
    proxy.wait();
    busy.raw.rest();
}

#[test]
fn the_drain_timeout_bounds_the_drain() {
    let postgres = Postgres::start();
    let mut proxy =
        Setup::default().postgres("db", postgres.addr(), "").args(&["--drain-timeout", "300ms"]).start();
    let mut busy = Pg::session(proxy.addr("db"));
    assert_eq!(busy.rows("BEGIN").1, 'T');
    let mut running = Pg::session(proxy.addr("db"));
    running.send(&pgwire::query("SELECT pg_sleep(3600)"));
    eventually("the query to run", || {
        match postgres
            .sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
            .as_str()
        {
            "1" => Ok(()),
            n => Err(n.to_owned()),
        }
    });
    proxy.signal(Signal::TERM);
    for session in [&mut busy, &mut running] {
        let goodbye = session.receive().expect("last words").error();
        assert_eq!((goodbye.severity.as_str(), goodbye.code.as_str()), ("FATAL", "57P01"));
        session.raw.eof();
    }
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_subscription_ends_between_two_messages_when_the_drain_is_over() {
    let redis = Redis::start();
    let mut proxy =
        Setup::default().redis("cache", redis.addr(), "").args(&["--drain-timeout", "300ms"]).start();
    let mut subscriber = Client::connect(proxy.addr("cache"));
    subscriber.call(&["SUBSCRIBE", "news"]);
    proxy.signal(Signal::TERM);
    subscriber.eof();
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn the_drain_delay_goes_on_accepting_while_the_load_balancer_is_told() {
    let redis = Redis::start();
    let mut proxy = Setup::default().redis("cache", redis.addr(), "").args(&["--drain-delay", "1h"]).start();
    proxy.signal(Signal::TERM);
    eventually("readiness to go", || match proxy.request("GET", "/readyz").status {
        503 => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!(Client::connect(proxy.addr("cache")).call(&["PING"]), Reply::simple("PONG"));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn an_admin_api_for_other_machines_asks_for_its_token() {
    let dir = TempDir::with_prefix("fusewire-token-").expect("a temporary directory");
    let file = dir.path().join("token");
    let path = file.to_string_lossy().into_owned();
    let spec = format!("upstream=127.0.0.1:1,listen=127.0.0.1:{}", free_port());
    let admin = format!("0.0.0.0:{}", free_port());
    assert_says(&refused(&["--redis", &spec, "--admin", &admin]), &["admin", "admin_token_file"]);
    let with_token = ["--redis", &spec, "--admin", "127.0.0.1:0", "--admin-token-file", &path];
    assert_says(&refused(&with_token), &["admin_token_file", &path]);
    fs::write(&file, "s3cret\n").expect("a token");
    let proxy =
        Setup::default().redis("cache", "127.0.0.1:1", "").args(&["--admin-token-file", &path]).start();
    let ask = |headers: &[(&str, &str)]| {
        let answer =
            proto_tests::http::request(proxy.admin(), "GET", "/metrics", headers, "").expect("an answer");
        answer.status
    };
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&[("Authorization", "Bearer s3cre")]), 401);
    assert_eq!(ask(&[("Authorization", "Bearer s3cret")]), 200);
    // Another token after a reload, and the log has neither.
    fs::write(&file, "other").expect("a token");
    proxy.signal(Signal::HUP);
    proxy.await_log("Configuration reloaded");
    assert_eq!(ask(&[("Authorization", "Bearer s3cret")]), 401);
    assert_eq!(ask(&[("Authorization", "Bearer other")]), 200);
    assert!(!proxy.log().join("\n").contains("s3cret"));
    proxy.stop();
}
