//! TLS on either leg, with real servers and real clients.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use proto_tests::fusewire;
use proto_tests::payload::{Checksum, stream};
use proto_tests::postgres_server::{PASSWORD, psql};
use proto_tests::tls::{Cert, handshake};
use proto_tests::tools::{free_port, output_of, run, run_with_input, script, tool};
use proto_tests::wire::command;
use proto_tests::{Authority, Client, Fusewire, Pg, Postgres, Redis, Setup, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The settings of a client leg with this certificate.
fn offers(cert: &Cert) -> String {
    cert.spec("tls-cert", "tls-key")
}

fn verifies(authority: &Authority) -> String {
    format!("upstream-tls=verify-full,upstream-ca={}", authority.path().display())
}

/// A Redis that speaks TLS on a second port.
fn redis_with_tls(authority: &Authority, auth_clients: &str) -> (Redis, SocketAddr) {
    let (cert, port) = (authority.issue("redis"), free_port());
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let (cert, key, ca) = (path(&cert.cert), path(&cert.key), path(&authority.path()));
    let redis = Redis::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        auth_clients,
    ]);
    (redis, ([127, 0, 0, 1], port).into())
}

fn redis_cli(addr: SocketAddr, tls: Option<&Authority>, args: &[&str]) -> Command {
    let mut command = Command::new(tool("redis-cli"));
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string()]);
    if let Some(authority) = tls {
        command.arg("--tls").arg("--cacert").arg(authority.path());
    }
    command.args(args);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn redis_cli_works_over_every_pair_of_legs() {
    let authority = Authority::new();
    let (redis, secure) = redis_with_tls(&authority, "yes");
    let (front, own) = (authority.issue("front"), authority.issue("fusewire"));
    let shows = own.spec("upstream-cert", "upstream-key");
    let asks = format!("{},tls-client-ca={}", offers(&front), authority.path().display());
    let proxy = Setup::default()
        .redis("tls-plain", redis.addr(), &offers(&front))
        .redis("plain-tls", secure, &format!("{},{shows}", verifies(&authority)))
        .redis("tls-tls", secure, &format!("{},{},{shows}", offers(&front), verifies(&authority)))
        .redis("mutual", redis.addr(), &asks)
        .start();
    for (name, tls) in [("tls-plain", true), ("plain-tls", false), ("tls-tls", true)] {
        let tls = tls.then_some(&authority);
        let cli = |args: &[&str]| output_of(&mut redis_cli(proxy.addr(name), tls, args));
        assert_eq!(cli(&["SET", name, "value"]).trim(), "OK");
        assert_eq!(cli(&["-3", "GET", name]).trim(), "value");
        assert_eq!(redis.client().call(&["GET", name]), proto_tests::wire::Reply::bulk("value"));
        assert_eq!(proxy.figure(name, "failed_calls"), 0);
    }
    let mut with = redis_cli(proxy.addr("mutual"), Some(&authority), &[]);
    with.arg("--cert").arg(&own.cert).arg("--key").arg(&own.key).arg("PING");
    assert_eq!(output_of(&mut with).trim(), "PONG");
    let without = run(&mut redis_cli(proxy.addr("mutual"), Some(&authority), &["PING"]));
    assert!(!String::from_utf8_lossy(&without.stdout).contains("PONG"), "{without:?}");
    proxy.await_metric("fusewire_client_tls_failures_total", &[("backend", "mutual")], 1.0);
    assert_eq!(proxy.figure("mutual", "failed_calls"), 0);
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_pass_unchanged_both_ways() {
    const SIZE: u64 = 100 << 20;
    let authority = Authority::new();
    let (_redis, secure) = redis_with_tls(&authority, "no");
    let settings = format!("{},{}", offers(&authority.issue("front")), verifies(&authority));
    let proxy = Setup::default().redis("cache", secure, &settings).start();
    let mut client = within("a handshake", authority.connect(proxy.addr("cache"))).await.expect("TLS");
    let mut value = Vec::new();
    stream(7, SIZE, |piece| value.extend_from_slice(piece));
    client.write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${SIZE}\r\n").as_bytes()).await.expect("sent");
    client.write_all(&value).await.expect("sent");
    client.write_all(b"\r\n").await.expect("sent");
    let mut ok = [0; 5];
    within("OK", client.read_exact(&mut ok)).await.expect("an answer");
    assert_eq!(&ok, b"+OK\r\n");

    client.write_all(&command(&["GET", "k"])).await.expect("sent");
    let mut head = vec![0; format!("${SIZE}\r\n").len()];
    within("a head", client.read_exact(&mut head)).await.expect("an answer");
    let (mut got, mut left, mut buffer) = (Checksum::default(), SIZE, vec![0; 1 << 16]);
    while left > 0 {
        let room = buffer.len().min(left as usize);
        let n = within("more", client.read(&mut buffer[..room])).await.expect("a piece");
        assert!(n > 0, "{left} bytes are missing");
        got.update(&buffer[..n]);
        left -= n as u64;
    }
    let mut sent = Checksum::default();
    sent.update(&value);
    assert_eq!(got.finish(), sent.finish());
    assert!(proxy.peak_rss() < 64 << 20, "peak RSS is {} MiB", proxy.peak_rss() >> 20);
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_client_gets_its_answers_and_a_cut_off_one_is_no_orderly_end() {
    let authority = Authority::new();
    let (redis, secure) = redis_with_tls(&authority, "no");
    let settings = format!("{},{}", offers(&authority.issue("front")), verifies(&authority));
    let proxy = Setup::default().redis("cache", secure, &settings).start();
    let mut client = within("a handshake", authority.connect(proxy.addr("cache"))).await.expect("TLS");
    let many: Vec<u8> = (0..5000).flat_map(|n| command(&["ECHO", &format!("{n:04}")])).collect();
    client.write_all(&many).await.expect("sent");
    client.shutdown().await.expect("close_notify");
    let mut text = Vec::new();
    // An end without close_notify would be an error here.
    within("all answers", client.read_to_end(&mut text)).await.expect("an orderly end");
    let expected: String = (0..5000).map(|n| format!("$4\r\n{n:04}\r\n")).collect();
    assert!(text == expected.as_bytes(), "{} of {} bytes", text.len(), expected.len());

    // Without close_notify: what was whole is done, nothing hangs, nothing counts.
    let mut client = within("a handshake", authority.connect(proxy.addr("cache"))).await.expect("TLS");
    client
        .write_all(&[command(&["SET", "k", "v"]), b"*2\r\n$3\r\nGET".to_vec()].concat())
        .await
        .expect("sent");
    let mut ok = [0; 5];
    within("OK", client.read_exact(&mut ok)).await.expect("an answer");
    drop(client);
    proto_tests::eventually("the connection's end", || {
        let active = proxy.metric("fusewire_upstream_connections_active", &[("backend", "cache")]);
        proto_tests::until::check(active == 0.0, active)
    });
    assert_eq!(redis.client().call(&["GET", "k"]), proto_tests::wire::Reply::bulk("v"));
    assert_eq!((proxy.figure("cache", "failed_calls"), proxy.state("cache").as_str()), (0, "closed"));
    proxy.stop();
}

#[test]
fn a_server_that_cannot_be_verified_trips_the_breaker_and_clients_read_why_over_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (redis, secure) = redis_with_tls(&authority, "no");
    let settings = format!("{},{},failure-threshold=3", offers(&authority.issue("front")), verifies(&other));
    let proxy = Setup::default()
        .redis("cache", secure, &settings)
        // A Redis without TLS takes the hello for the beginning of a request and waits for the rest of it.
        .redis("plain", redis.addr(), "upstream-tls=require,failure-threshold=1,connect-timeout=300ms")
        .start();
    for _ in 0..3 {
        let output = run(&mut redis_cli(proxy.addr("cache"), Some(&authority), &["PING"]));
        assert!(String::from_utf8_lossy(&output.stdout).contains("TLS handshake failed"), "{output:?}");
    }
    assert_eq!(proxy.state("cache"), "open");
    let output = run(&mut redis_cli(proxy.addr("cache"), Some(&authority), &["PING"]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("CIRCUITOPEN"), "{output:?}");
    let failures = [("backend", "cache"), ("reason", "tls")];
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &failures), 3.0);
    proxy.await_log("TLS handshake with the server failed");
    let output = run(&mut redis_cli(proxy.addr("plain"), None, &["PING"]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("connect timeout"), "{output:?}");
    assert_eq!(proxy.state("plain"), "open");
    proxy.stop();
}

#[test]
fn a_redis_with_no_room_for_clients_hangs_up_on_its_tls_port_and_that_counts() {
    let authority = Authority::new();
    let (redis, secure) = redis_with_tls(&authority, "no");
    let settings = format!("{},failure-threshold=3,recovery-timeout=1h", verifies(&authority));
    let proxy = Setup::default().redis("cache", secure, &settings).start();
    let mut operator = redis.client();
    let ok = proto_tests::wire::Reply::simple("OK");
    assert_eq!(operator.call(&["CONFIG", "SET", "maxclients", "1"]), ok);
    // There is no word in the clear on that port: it ends before the handshake, and the client reads what fusewire saw.
    for n in 1..=3 {
        let output = run(&mut redis_cli(proxy.addr("cache"), None, &["PING"]));
        assert!(String::from_utf8_lossy(&output.stdout).contains("cannot be reached"), "{output:?}");
        proxy.await_figure("cache", "failed_calls", n);
    }
    assert_eq!(proxy.state("cache"), "open");
    assert_eq!(operator.call(&["CONFIG", "SET", "maxclients", "1000"]), ok);
    proxy.post("/api/v1/circuit-breaker/trip/cache?for=1ms");
    proxy.await_state("cache", "half_open");
    assert_eq!(output_of(&mut redis_cli(proxy.addr("cache"), None, &["PING"])).trim(), "PONG");
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_nonsensical_clients_say_nothing_about_the_backend() {
    let authority = Authority::new();
    let redis = Redis::start();
    let settings = format!("{},handshake-timeout=300ms", offers(&authority.issue("front")));
    let proxy = Setup::default().redis("cache", redis.addr(), &settings).start();
    let failures = || proxy.metric("fusewire_client_tls_failures_total", &[]);
    // A load balancer's health check.
    drop(Client::connect(proxy.addr("cache")));
    // A client without TLS.
    let mut plain = Client::connect(proxy.addr("cache"));
    plain.command(&["PING"]);
    plain.rest();
    proxy.await_metric("fusewire_client_tls_failures_total", &[], 1.0);
    // A client that stops in the middle of its hello.
    let mut slow = Client::connect(proxy.addr("cache"));
    slow.send(&[0x16, 3, 1, 0, 200, 1, 0]);
    slow.eof();
    proxy.await_metric("fusewire_client_tls_failures_total", &[], 2.0);
    // A client that trusts somebody else.
    within("an answer", Authority::new().connect(proxy.addr("cache"))).await.expect_err("another authority");
    proxy.await_metric("fusewire_client_tls_failures_total", &[], 3.0);
    assert_eq!(failures(), 3.0);
    assert_eq!(proxy.figure("cache", "total_calls"), 0);
    proxy.stop();
}

#[test]
fn files_are_checked_before_anything_starts() {
    let authority = Authority::new();
    let (good, other) = (authority.issue("good"), authority.issue("other"));
    let mixed = Cert { cert: good.cert.clone(), key: other.key };
    for (files, why) in [
        (offers(&mixed), "tls_cert: "),
        ("tls-cert=/nonexistent,tls-key=/nonexistent".to_owned(), "tls_cert: /nonexistent: "),
    ] {
        for word in ["check", "run"] {
            let spec = format!("upstream=127.0.0.1:1,listen=127.0.0.1:0,{files}");
            let output = fusewire::once(&[word, "--admin", "off", "--redis", &spec]);
            let text = stderr(&output);
            assert!(!output.status.success() && text.contains(why), "{word}: {text}");
        }
    }
}

/// Everything that PROTOCOLS.md §3.2 tells apart.
struct Matrix {
    authority: Authority,
    _plain: Postgres,
    secure: Postgres,
    proxy: Fusewire,
}

fn matrix() -> Matrix {
    let authority = Authority::new();
    let (server, other) = (authority.issue("server"), authority.issue("other"));
    let (plain, secure) = (Postgres::start(), Postgres::with_tls(&server, None));
    let (same, tls) = (offers(&server), verifies(&authority));
    let proxy = Setup::default()
        .postgres("plain-plain", plain.addr(), "upstream-tls=prefer")
        .postgres("tls-plain", plain.addr(), &format!("{same},upstream-tls=prefer"))
        .postgres("plain-tls", secure.addr(), &tls)
        .postgres("same", secure.addr(), &format!("{same},{tls}"))
        .postgres("other", secure.addr(), &format!("{},{tls}", offers(&other)))
        .postgres("pass", secure.addr(), "upstream-tls=passthrough")
        .postgres("required", secure.addr(), &format!("{same},{tls},tls-required=true"))
        .start();
    Matrix { authority, _plain: plain, secure, proxy }
}

impl Matrix {
    /// psql as a user whose password is asked for by SCRAM.
    fn psql(&self, backend: &str, sslmode: &str, binding: &str) -> Output {
        self.psql_as("scram_user", backend, sslmode, binding)
    }

    fn psql_as(&self, user: &str, backend: &str, sslmode: &str, binding: &str) -> Output {
        let sql = "SELECT 'in', ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let mut command = psql(self.proxy.addr(backend), sql);
        command.args(["-U", user]).env("PGPASSWORD", PASSWORD).env("PGSSLMODE", sslmode);
        command.env("PGSSLROOTCERT", self.authority.path()).env("PGCHANNELBINDING", binding);
        run(&mut command)
    }

    /// What a driver's script says to each line: whether the server's leg had TLS, or an error.
    fn driver(&self, name: &str, lines: &[String]) -> Vec<String> {
        let output = run_with_input(&mut script(name), lines.join("\n").as_bytes());
        let said = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>();
        assert!(output.status.success() && said.len() == lines.len(), "{name}: {output:?}");
        said
    }

    fn line(&self, backend: &str, user: &str, tls: &str) -> String {
        let port = self.proxy.addr(backend).port();
        format!("{port} {user} {PASSWORD} {tls} {}", self.authority.path().display())
    }

    /// What `pg_stat_ssl` says of the server's leg.
    #[track_caller]
    fn works(&self, backend: &str, sslmode: &str, binding: &str, server_leg: &str) {
        let output = self.psql(backend, sslmode, binding);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), format!("in|{server_leg}"), "{backend} {sslmode} {binding}: {output:?}");
    }

    #[track_caller]
    fn fails(&self, backend: &str, sslmode: &str, binding: &str, why: &str) {
        let output = self.psql(backend, sslmode, binding);
        assert!(stderr(&output).contains(why), "{backend} {sslmode} {binding}: {output:?}");
    }
}

#[test]
fn psql_logs_in_over_every_pair_of_legs_that_can_work() {
    let matrix = matrix();
    matrix.works("plain-plain", "disable", "prefer", "f");
    matrix.works("plain-plain", "prefer", "prefer", "f");
    matrix.fails("plain-plain", "require", "prefer", "server does not support SSL");
    matrix.fails("plain-plain", "disable", "require", "channel binding");
    for sslmode in ["disable", "prefer", "require", "verify-full"] {
        matrix.works("tls-plain", sslmode, "prefer", "f");
        matrix.works("same", sslmode, "prefer", "t");
        matrix.works("pass", sslmode, "prefer", if sslmode == "disable" { "f" } else { "t" });
    }
    matrix.fails("tls-plain", "require", "require", "channel binding");
    matrix.works("plain-tls", "disable", "prefer", "t");
    matrix.works("plain-tls", "prefer", "prefer", "t");
    matrix.fails("plain-tls", "disable", "require", "channel binding");
    matrix.works("same", "verify-full", "require", "t");
    matrix.works("pass", "verify-full", "require", "t");
    matrix.fails("other", "require", "prefer", "channel binding");
    matrix.works("other", "verify-full", "disable", "t");
    // `prefer` hides it: the second attempt is without TLS.
    matrix.works("other", "prefer", "prefer", "t");
    matrix.fails("required", "disable", "prefer", "takes no connection without TLS");
    matrix.works("required", "verify-full", "require", "t");
    // `allow` tries without TLS first and learns from the refusal.
    matrix.works("required", "allow", "prefer", "t");
    matrix.proxy.await_log("not the server's own certificate");
    let warnings: Vec<String> = matrix
        .proxy
        .log()
        .into_iter()
        .filter(|line| line.contains("not the server's own certificate"))
        .collect();
    assert!(warnings.len() == 1 && warnings[0].contains("\"other\""), "{warnings:#?}");
    for name in ["plain-plain", "tls-plain", "plain-tls", "same", "other", "pass", "required"] {
        assert_eq!(matrix.proxy.figure(name, "failed_calls"), 0, "{name}");
    }
    assert!(!matrix.secure.log().contains("unexpected eof"), "{}", matrix.secure.log());
    matrix.proxy.stop();
}

/// Every pair of legs over which a client can log in that does not bind channels, and whether the client's leg has TLS
/// and then the server's.
const PAIRS: [(&str, bool, bool); 11] = [
    ("plain-plain", false, false),
    ("tls-plain", false, false),
    ("tls-plain", true, false),
    ("plain-tls", false, true),
    ("same", false, true),
    ("same", true, true),
    ("other", false, true),
    ("other", true, true),
    ("pass", false, false),
    ("pass", true, true),
    ("required", true, true),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_drivers_log_in_by_three_methods_over_every_pair_of_legs() {
    let matrix = matrix();
    let users = ["clear_user", "md5_user", "scram_user"];
    let cases = || PAIRS.iter().flat_map(|pair| users.map(|user| (*pair, user)));
    let wanted: Vec<&str> = cases().map(|((_, _, server), _)| if server { "t" } else { "f" }).collect();
    let lines: Vec<String> = cases()
        .map(|((name, tls, _), user)| matrix.line(name, user, if tls { "ask" } else { "no" }))
        .collect();
    assert_eq!(matrix.driver("python/asyncpg_tls.py", &lines), wanted);
    assert_eq!(matrix.driver("node/pg_tls.js", &lines), wanted);
    for (((name, tls, _), user), wanted) in cases().zip(wanted) {
        // libpq and tokio-postgres bind where they can; between two certificates they must be told not to.
        let (binding, channel_binding) = match (name, tls) {
            ("other", true) => ("disable", ChannelBinding::Disable),
            _ => ("prefer", ChannelBinding::Prefer),
        };
        let output = matrix.psql_as(user, name, if tls { "verify-full" } else { "disable" }, binding);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            format!("in|{wanted}"),
            "{name} {user}: {output:?}"
        );
        let mode = if tls { SslMode::Require } else { SslMode::Disable };
        let client = log_in(&matrix, user, name, mode, channel_binding).await;
        let client = client.unwrap_or_else(|error| panic!("{name} {user}: {error:?}"));
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let row = within("a row", client.query_one(sql, &[])).await.expect("a row");
        assert_eq!(row.get::<_, bool>(0), wanted == "t", "{name} {user}");
    }
    // Channel binding, and TLS without asking, by drivers that are not made of libpq.
    let lines = ["tls-plain", "same", "pass", "other"].map(|name| matrix.line(name, "scram_user", "bind"));
    let said = matrix.driver("node/pg_tls.js", &lines);
    assert_eq!(said[..3], ["f", "t", "t"]);
    assert!(said[3].contains("channel binding") || said[3].contains("SCRAM"), "{said:?}");
    let lines =
        ["tls-plain", "same", "other", "required"].map(|name| matrix.line(name, "scram_user", "direct"));
    assert_eq!(matrix.driver("python/asyncpg_tls.py", &lines), ["f", "t", "t", "t"]);
    matrix.proxy.stop();
}

/// A session of tokio-postgres over TLS.
async fn tokio_postgres(
    matrix: &Matrix,
    backend: &str,
    binding: ChannelBinding,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    log_in(matrix, "scram_user", backend, SslMode::Require, binding).await
}

async fn log_in(
    matrix: &Matrix,
    user: &str,
    backend: &str,
    mode: SslMode,
    binding: ChannelBinding,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(matrix.proxy.addr(backend).port()).dbname("postgres");
    config.user(user).password(PASSWORD).ssl_mode(mode).channel_binding(binding);
    let connector = MakeRustlsConnect::new(matrix.authority.client(None));
    let (client, connection) = within("a session", config.connect(connector)).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_binds_moves_megabytes_and_cancels_over_tls() {
    let matrix = matrix();
    for (backend, binding, works) in [
        ("tls-plain", ChannelBinding::Prefer, true),
        ("tls-plain", ChannelBinding::Require, false),
        ("same", ChannelBinding::Require, true),
        ("pass", ChannelBinding::Require, true),
        ("other", ChannelBinding::Prefer, false),
        ("other", ChannelBinding::Disable, true),
    ] {
        let session = tokio_postgres(&matrix, backend, binding).await;
        assert_eq!(session.is_ok(), works, "{backend} {binding:?}");
    }
    let client = tokio_postgres(&matrix, "same", ChannelBinding::Require).await.expect("a session");
    let text: String = (0..20_000_000u32).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let row = within("a row", client.query_one("SELECT $1::text", &[&text])).await.expect("a row");
    assert!(row.get::<_, String>(0) == text);

    let token = client.cancel_token();
    let sleep = client.simple_query("SELECT pg_sleep(60)");
    let cancel = async {
        proto_tests::eventually("the query", || {
            let running = matrix.secure.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' AND usename = 'scram_user'");
            proto_tests::until::check(running == "1", running)
        });
        let connector = MakeRustlsConnect::new(matrix.authority.client(None));
        token.cancel_query(connector).await.expect("a cancel request");
    };
    let (slept, ()) = within("the cancellation", async { tokio::join!(sleep, cancel) }).await;
    assert_eq!(slept.expect_err("cancelled").code().map(|code| code.code()), Some("57014"));
    assert_eq!(matrix.proxy.metric("fusewire_cancel_requests_total", &[("backend", "same")]), 1.0);
}

#[test]
fn a_refused_session_reads_the_native_error_over_tls() {
    let matrix = matrix();
    for name in ["same", "pass", "required"] {
        matrix.proxy.post(&format!("/api/v1/circuit-breaker/trip/{name}"));
    }
    for sslmode in ["require", "verify-full"] {
        let output = matrix.psql("same", sslmode, "prefer");
        let text = stderr(&output);
        assert!(text.contains("FATAL:") && text.contains("retry"), "{text}");
    }
    let text = stderr(&matrix.psql("pass", "require", "prefer"));
    assert!(text.contains("server closed the connection unexpectedly"), "{text}");
    // Refused for its lack of TLS before the breaker is asked.
    matrix.fails("required", "disable", "prefer", "takes no connection without TLS");
    matrix.proxy.stop();
}

#[test]
fn a_postgres_server_that_cannot_be_verified_or_has_no_tls_is_a_failure() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (secure, plain) = (Postgres::with_tls(&authority.issue("server"), None), Postgres::start());
    let proxy = Setup::default()
        .postgres("wrong", secure.addr(), &format!("{},failure-threshold=2", verifies(&other)))
        .postgres("none", plain.addr(), "upstream-tls=require,failure-threshold=2")
        .start();
    for name in ["wrong", "none"] {
        for _ in 0..2 {
            let text = stderr(&run(&mut psql(proxy.addr(name), "SELECT 1")));
            assert!(text.contains("FATAL:") && text.contains("TLS handshake failed"), "{text}");
        }
        assert_eq!(proxy.state(name), "open");
        let failures = [("backend", name), ("reason", "tls")];
        assert_eq!(proxy.metric("circuit_breaker_failures_total", &failures), 2.0);
    }
    proxy.stop();
}

#[test]
fn client_certificates_are_shown_to_postgres_and_asked_of_clients() {
    let authority = Authority::new();
    let (server, own) = (authority.issue("server"), authority.issue("own"));
    let postgres = Postgres::with_tls(&server, Some(&authority.path()));
    let settings = format!(
        "{},tls-client-ca={},{},{}",
        offers(&server),
        authority.path().display(),
        verifies(&authority),
        own.spec("upstream-cert", "upstream-key")
    );
    let proxy = Setup::default().postgres("db", postgres.addr(), &settings).start();
    let sql = "SELECT client_serial IS NOT NULL FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut with = psql(proxy.addr("db"), sql);
    let key = own.key.with_extension("private");
    std::fs::copy(&own.key, &key).expect("a file");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    with.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", authority.path());
    with.env("PGSSLCERT", &own.cert).env("PGSSLKEY", &key);
    assert_eq!(output_of(&mut with).trim(), "t");
    let mut without = psql(proxy.addr("db"), sql);
    without.env("PGSSLMODE", "require");
    assert!(!run(&mut without).status.success());
    proxy.await_metric("fusewire_client_tls_failures_total", &[], 1.0);
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_tls_needs_alpn_and_injected_bytes_end_the_connection() {
    let authority = Authority::new();
    let postgres = Postgres::start();
    let proxy = Setup::default().postgres("db", postgres.addr(), &offers(&authority.issue("front"))).start();
    let startup = {
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let mut packet = (8 + parameters.len() as u32).to_be_bytes().to_vec();
        packet.extend_from_slice(&196_608u32.to_be_bytes());
        packet.extend_from_slice(parameters);
        packet
    };
    for alpn in [true, false] {
        let mut config = authority.client(None);
        if alpn {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let stream = TcpStream::connect(proxy.addr("db")).await.expect("a connection");
        let mut client = within("a handshake", handshake(stream, config)).await.expect("TLS");
        let sent = client.write_all(&startup).await;
        let mut first = [0; 1];
        let got = within("an answer", client.read(&mut first)).await;
        match got {
            Ok(1) => assert!(alpn && sent.is_ok() && first == *b"R"),
            Ok(_) => assert!(!alpn),
            Err(error) => assert!(!alpn && error.kind() != ErrorKind::TimedOut, "{error}"),
        }
    }
    let mut raw = Client::connect(proxy.addr("db"));
    raw.send(&[&[0, 0, 0, 8, 4, 210, 22, 47][..], &startup].concat());
    assert_eq!(raw.rest(), b"");
    // A plain session is still welcome.
    Pg::session(proxy.addr("db"));
    proxy.stop();
}
