//! The PROXY protocol on both legs: who the client is comes through, before TLS and everything else, and only from those who
//! are trusted with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use proto_tests::postgres_server::psql;
use proto_tests::tools::output_of;
use proto_tests::wire::Reply;
use proto_tests::{Authority, Client, Pg, Postgres, Redis, Setup};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A server that answers its first connection's PING, and says what came before it.
fn server() -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    let heard = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut input = Vec::new();
        while !input.ends_with(PING) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a PING");
            input.push(byte[0]);
        }
        stream.write_all(b"+PONG\r\n").expect("sent");
        input.truncate(input.len() - PING.len());
        input
    });
    (addr, heard)
}

fn v2(source: &str, destination: &str) -> Vec<u8> {
    let [source, destination] =
        [source, destination].map(|end| end.parse::<SocketAddr>().expect("an address"));
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    for end in [source, destination] {
        let SocketAddr::V4(end) = end else { panic!("not IPv4") };
        header.extend_from_slice(&end.ip().octets());
    }
    [source, destination].iter().for_each(|end| header.extend_from_slice(&end.port().to_be_bytes()));
    header
}

#[test]
fn the_server_is_told_who_has_connected() {
    for version in ["v1", "v2"] {
        let (addr, heard) = server();
        let proxy = Setup::default().redis("cache", addr, &format!("proxy-protocol-to={version}")).start();
        let listen = proxy.addr("cache");
        let mut client = Client::connect(listen);
        let own = client.local_addr().expect("an address");
        assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
        let expected = match version {
            "v1" => {
                format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), listen.port()).into_bytes()
            }
            _ => v2(&own.to_string(), &listen.to_string()),
        };
        assert_eq!(heard.join().expect("a server"), expected, "{version}");
        proxy.stop();
    }
}

#[test]
fn a_trusted_word_is_passed_on_in_the_other_version_and_the_requests_behind_it_are_kept() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 6379\r\n".to_vec();
    let binary = v2("192.0.2.1:56324", "198.51.100.7:6379");
    for (said, version, passed) in [(&line, "v2", &binary), (&binary, "v1", &line), (&binary, "v2", &binary)]
    {
        // In one piece with a request, byte by byte, and with the request to come.
        for pieces in [vec![[said, PING].concat()], [said, PING].concat().iter().map(|b| vec![*b]).collect()]
        {
            let (addr, heard) = server();
            let more = format!("proxy-protocol-from=10.0.0.0/8+127.0.0.1,proxy-protocol-to={version}");
            let proxy = Setup::default().redis("cache", addr, &more).start();
            let mut client = Client::connect(proxy.addr("cache"));
            pieces.iter().for_each(|piece| client.send(piece));
            assert_eq!(client.reply(), Reply::simple("PONG"));
            assert_eq!(heard.join().expect("a server"), *passed);
            proxy.stop();
        }
    }
}

#[test]
fn whoever_speaks_for_itself_is_the_client() {
    for word in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let (addr, heard) = server();
        let more = "proxy-protocol-from=127.0.0.0/8,proxy-protocol-to=v1";
        let proxy = Setup::default().redis("cache", addr, more).start();
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(word);
        let own = client.local_addr().expect("an address");
        assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
        let listen = proxy.addr("cache");
        let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), listen.port());
        assert_eq!(heard.join().expect("a server"), expected.as_bytes());
        proxy.stop();
    }
}

#[test]
fn without_the_header_that_must_come_nothing_reaches_the_server() {
    let redis = Redis::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "proxy-protocol-from=127.0.0.1,handshake-timeout=300ms")
        .redis("far", redis.addr(), "proxy-protocol-from=10.0.0.0/8")
        .start();
    for bad in [PING, b"PROXY TCP4 192.0.2.1\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\0\0\0", &[b'P'; 5000]] {
        let mut client = Client::connect(proxy.addr("cache"));
        let _ = client.try_send(bad);
        assert_eq!(client.rest(), b"", "closed without a word");
    }
    let malformed = |name| proxy.metric("fusewire_client_protocol_errors_total", &[("backend", name)]);
    assert_eq!(malformed("cache"), 4.0);
    // One that begins and does not go on, and a balancer that only looks.
    let mut slow = Client::connect(proxy.addr("cache"));
    slow.send(b"PROXY ");
    slow.eof();
    drop(Client::connect(proxy.addr("cache")));
    proxy.await_metric("fusewire_client_protocol_errors_total", &[("backend", "cache")], 5.0);
    assert_eq!(proxy.metric("fusewire_upstream_connects_total", &[("backend", "cache")]), 0.0);
    assert_eq!(proxy.figure("cache", "total_calls"), 0);
    // Nobody else's word is looked for.
    let mut other = Client::connect(proxy.addr("far"));
    assert_eq!(other.call(&["PING"]), Reply::simple("PONG"));
    let mut liar = Client::connect(proxy.addr("far"));
    assert!(liar.call(&["PROXY", "TCP4"]).error().starts_with("ERR unknown command"));
    proxy.stop();
}

#[test]
fn a_chain_of_two_tells_it_before_tls_and_so_do_cancels_and_checks() {
    let authority = Authority::new();
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let cert = authority.issue("inner").spec("tls-cert", "tls-key");
    let trusts = "proxy-protocol-from=127.0.0.0/8";
    let inner = Setup::default()
        .redis("cache", redis.addr(), &format!("{trusts},{cert}"))
        .postgres("db", postgres.addr(), &format!("{trusts},{cert},tls-required=true"))
        .start();
    let tells = "proxy-protocol-to=v2,check=always,check-interval=50ms,check-user=scram_user";
    let secure = format!("{tells},upstream-tls=verify-full,upstream-ca={}", authority.path().display());
    let redis_only = secure.replace(",check-user=scram_user", "");
    let outer = Setup::default()
        .redis("cache", inner.addr("cache"), &redis_only)
        .postgres("db", inner.addr("db"), &secure)
        .start();
    assert_eq!(Client::connect(outer.addr("cache")).call(&["PING"]), Reply::simple("PONG"));
    assert_eq!(output_of(&mut psql(outer.addr("db"), "SELECT 7")).trim(), "7");
    let mut session = Pg::session(outer.addr("db"));
    assert_eq!(session.rows("SELECT 8").0, ["8"]);
    for name in ["cache", "db"] {
        outer.await_metric("circuit_breaker_checks_total", &[("backend", name), ("result", "ready")], 2.0);
    }
    let mut slow = psql(outer.addr("db"), "SELECT pg_sleep(600)").spawn().expect("psql");
    proto_tests::eventually("the query", || {
        let busy = postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'");
        proto_tests::until::check(busy == "1", busy)
    });
    // psql turns an interrupt into a cancel request.
    proto_tests::process::send(slow.id(), proto_tests::process::Signal::INT);
    assert!(!slow.wait().expect("an end").success());
    proto_tests::eventually("the end of the query", || {
        let busy = postgres.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'",
        );
        proto_tests::until::check(busy == "0", busy)
    });
    for proxy in [&inner, &outer] {
        assert_eq!(proxy.metric("fusewire_client_protocol_errors_total", &[]), 0.0);
        assert_eq!(proxy.metric("fusewire_client_tls_failures_total", &[]), 0.0);
    }
    outer.stop();
    inner.stop();
}

#[test]
fn over_a_unix_socket_a_header_is_expected_if_that_is_trusted() {
    let dir = tempfile::TempDir::with_prefix("fusewire-proxy-protocol-").expect("a temporary directory");
    let path = dir.path().join("cache.sock");
    let (addr, heard) = server();
    let more = format!("listen=unix:{},proxy-protocol-from=unix,proxy-protocol-to=v1", path.display());
    let proxy = Setup::default().redis("cache", addr, &more).start();
    let mut client = UnixStream::connect(&path).expect("a connection");
    client.write_all(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n").expect("sent");
    client.write_all(PING).expect("sent");
    let mut answer = [0; 7];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
    assert_eq!(heard.join().expect("a server"), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
    proxy.stop();
}
