//! What only Postgres 18 and libpq 18 speak: protocol 3.2 with its long cancel keys, and TLS from the first byte.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::Stdio;

use proto_tests::pgwire::{self, Pg};
use proto_tests::postgres_server::PASSWORD;
use proto_tests::process::Process;
use proto_tests::tools::{output_of, script};
use proto_tests::until::check;
use proto_tests::{Authority, Fusewire, Options, Postgres, Release, Setup, eventually};
use serde_json::{Value, json};

/// 18 with TLS, Debian's without, and the proxy before both.
struct Stage {
    authority: Authority,
    eighteen: Postgres,
    debian: Postgres,
    proxy: Fusewire,
}

fn stage() -> Stage {
    let authority = Authority::new();
    let cert = authority.issue("server");
    let eighteen =
        Postgres::with(Options { release: Release::Eighteen, cert: Some(&cert), ..Options::default() });
    let debian = Postgres::start();
    let front = cert.spec("tls-cert", "tls-key");
    let proxy = Setup::default()
        .postgres("plain", eighteen.addr(), "")
        .postgres(
            "tls",
            eighteen.addr(),
            &format!("{front},upstream-tls=verify-full,upstream-ca={}", authority.path().display()),
        )
        .postgres("pass", eighteen.addr(), "upstream-tls=passthrough")
        .postgres("debian", debian.addr(), "")
        .start();
    Stage { authority, eighteen, debian, proxy }
}

impl Stage {
    fn conninfo(&self, addr: SocketAddr, more: &str) -> String {
        let ca = self.authority.path();
        format!(
            "host=127.0.0.1 port={} dbname=postgres user=scram_user password={PASSWORD} sslrootcert={} {more}",
            addr.port(),
            ca.display()
        )
    }

    /// What becomes of one connection by libpq 18.
    fn libpq(&self, addr: SocketAddr, more: &str) -> Value {
        let said = output_of(script("python/libpq.py").arg(self.conninfo(addr, more)));
        let mut seen: Value = serde_json::from_str(&said).expect("JSON");
        if let Some(seen) = seen.as_object_mut() {
            seen.remove("pid");
        }
        seen
    }

    /// Has libpq 18 cancel a query of its own, after `act`; the SQLSTATE that ends it.
    fn cancelled(&self, addr: SocketAddr, more: &str, act: impl FnOnce()) -> Value {
        let mut command = script("python/libpq.py");
        command.arg(self.conninfo(addr, more)).arg("cancel").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let mut input = process.child().stdin.take().expect("a pipe");
        let mut lines = BufReader::new(process.child().stdout.take().expect("a pipe")).lines();
        let mut line = || -> Value {
            serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
        };
        let begun = line();
        assert_eq!(begun["protocol"], 30_002, "{begun}");
        eventually("a running query", || {
            let sql = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'",
                begun["pid"]
            );
            let running = self.eighteen.sql(&sql);
            check(running == "1", running)
        });
        act();
        writeln!(input, "go").expect("a pipe");
        line()["sqlstate"].clone()
    }
}

#[test]
fn protocol_3_2_is_spoken_where_the_server_speaks_it_and_negotiated_where_it_does_not() {
    let stage = stage();
    let newest = "max_protocol_version=latest sslmode=disable";
    let direct = stage.libpq(stage.eighteen.addr(), newest);
    assert_eq!(direct, json!({"protocol": 30_002, "ssl": false, "server_ssl": false}));
    assert_eq!(stage.libpq(stage.proxy.addr("plain"), newest), direct);
    // Postgres 15 answers with NegotiateProtocolVersion.
    let direct = stage.libpq(stage.debian.addr(), newest);
    assert_eq!(direct, json!({"protocol": 30_000, "ssl": false, "server_ssl": false}));
    assert_eq!(stage.libpq(stage.proxy.addr("debian"), newest), direct);
    let only = "min_protocol_version=3.2 max_protocol_version=3.2 sslmode=disable";
    assert_eq!(stage.libpq(stage.proxy.addr("plain"), only)["protocol"], 30_002);
    let without_port = |value: Value| {
        let text = value["error"].as_str().unwrap_or_else(|| panic!("no error: {value}")).to_owned();
        text.rsplit_once("failed: ").expect("a reason").1.to_owned()
    };
    let direct = without_port(stage.libpq(stage.debian.addr(), only));
    assert!(direct.contains("protocol version"), "{direct}");
    assert_eq!(without_port(stage.libpq(stage.proxy.addr("debian"), only)), direct);
    for name in ["plain", "debian"] {
        assert_eq!(stage.proxy.figure(name, "failed_calls"), 0, "{name}");
    }
    stage.proxy.stop();
}

/// A startup packet for protocol 3.2.
fn startup_3_2() -> Vec<u8> {
    let mut packet = pgwire::startup_packet("postgres", "postgres");
    packet[4..8].copy_from_slice(&196_610_u32.to_be_bytes());
    packet
}

#[test]
fn a_long_cancel_key_reaches_its_session_also_while_the_breaker_is_open() {
    let stage = stage();
    let mut session = Pg::connect(stage.proxy.addr("plain"));
    session.send(&startup_3_2());
    let greeting = session.until_ready();
    let key = &greeting.iter().find(|message| message.tag == b'K').expect("a key").body;
    assert_eq!(key.len(), 4 + 32, "a process id and a key of protocol 3.2");
    session.send(&pgwire::query("SELECT pg_sleep(60)"));
    eventually("a running query", || {
        let running =
            stage.eighteen.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        check(running == "1", running)
    });
    stage.proxy.post("/api/v1/circuit-breaker/trip/plain");
    let mut cancel = Pg::connect(stage.proxy.addr("plain"));
    let length = (8 + key.len() as u32).to_be_bytes();
    cancel.send(&[&length[..], &80_877_102_u32.to_be_bytes(), key].concat());
    cancel.raw.eof();
    let messages = session.until_ready();
    let error = messages.iter().find(|message| message.tag == b'E').expect("an error").error();
    assert_eq!(error.code, "57014");
    stage.proxy.post("/api/v1/circuit-breaker/reset/plain");
    // libpq sends its cancel request over TLS where the session has it.
    for (name, how) in [("plain", "sslmode=disable"), ("tls", DIRECT), ("pass", DIRECT)] {
        let before = stage.proxy.metric("fusewire_cancel_requests_total", &[("backend", name)]);
        let path = format!("/api/v1/circuit-breaker/trip/{name}");
        // A passed-through connection is refused whatever it is for: nothing in it can be read.
        let act = || {
            if name != "pass" {
                drop(stage.proxy.post(&path))
            }
        };
        let how = format!("max_protocol_version=3.2 {how}");
        assert_eq!(stage.cancelled(stage.proxy.addr(name), &how, act), "57014", "{name}");
        let after = stage.proxy.metric("fusewire_cancel_requests_total", &[("backend", name)]);
        assert_eq!(after - before, f64::from(u8::from(name != "pass")), "{name}");
        assert_eq!(stage.proxy.figure(name, "failed_calls"), 0, "{name}");
    }
    stage.proxy.stop();
}

/// TLS without asking first, which needs the protocol's name in the handshake; and proof that nobody is in between
/// who has not the server's certificate.
const DIRECT: &str = "sslmode=verify-full sslnegotiation=direct channel_binding=require";

#[test]
fn direct_tls_works_with_channel_binding_and_is_refused_natively_while_open() {
    let stage = stage();
    let wanted = json!({"protocol": 30_002, "ssl": true, "server_ssl": true});
    let how = format!("{DIRECT} max_protocol_version=3.2");
    assert_eq!(stage.libpq(stage.eighteen.addr(), &how), wanted);
    assert_eq!(stage.libpq(stage.proxy.addr("tls"), &how), wanted);
    assert_eq!(stage.libpq(stage.proxy.addr("pass"), &how), wanted);
    // A leg without TLS closes on the handshake, as a server without TLS does.
    let text =
        |value: Value| value["error"].as_str().unwrap_or_else(|| panic!("no error: {value}")).to_owned();
    for addr in [stage.debian.addr(), stage.proxy.addr("plain")] {
        let error = text(stage.libpq(addr, DIRECT));
        assert!(error.contains("SSL"), "{error}");
    }
    stage.proxy.post("/api/v1/circuit-breaker/trip/tls");
    let error = text(stage.libpq(stage.proxy.addr("tls"), DIRECT));
    assert!(error.contains("FATAL:  backend 'tls' is open (") && error.contains("retry after"), "{error}");
    for name in ["plain", "tls", "pass"] {
        assert_eq!(stage.proxy.figure(name, "failed_calls"), 0, "{name}");
    }
    stage.proxy.stop();
}
