//! Clients and servers that mean harm: whatever they send, one connection costs the proxy a bounded piece of memory, and
//! a client's misconduct is never held against the server. docs/OPERATING.md states the bounds.

use proto_tests::wire::{Reply, command};
use proto_tests::{Client, Fake, Fusewire, Redis, Setup, Step, eventually};

/// Far below the 64 MiB that each of these tests sends, far above what the process needs by itself.
const RSS_BOUND: u64 = 48 << 20;
const FLOOD: usize = 64 << 20;
/// Requests that are never answered would otherwise be waited for at the end.
const AT_ONCE: [&str; 2] = ["--drain-timeout", "0s"];

#[track_caller]
fn assert_small(proxy: &Fusewire) {
    let peak = proxy.peak_rss();
    assert!(peak < RSS_BOUND, "peak RSS is {} MiB", peak >> 20);
}

/// Writes `piece` until so many bytes have gone or the other side hangs up; how many went.
fn flood(client: &mut Client, piece: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most && client.try_send(piece).is_ok() {
        sent += piece.len();
    }
    sent
}

/// A server that takes everything and never answers, and does not keep it.
fn sink() -> Fake {
    Fake::start(vec![Step::Devour])
}

#[test]
fn lines_that_never_end_are_cut_off() {
    let redis = Redis::start();
    let proxy = Setup::default().args(&AT_ONCE).redis("cache", redis.addr(), "failure-threshold=1").start();
    for start in [&b"GET "[..], b"\"", b"*1", b"*1\r\n$1", b"*2\r\n$3\r\nGET\r\n$9"] {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(start);
        let sent = flood(&mut client, &[b'1'; 64 * 1024], FLOOD);
        assert!(sent < FLOOD, "{} went on for {sent} bytes", start.escape_ascii());
    }
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn a_request_of_any_size_streams() {
    let fake = sink();
    let proxy = Setup::default().args(&AT_ONCE).redis("cache", fake.addr(), "failure-threshold=1").start();
    let mut arguments = Client::connect(proxy.addr("cache"));
    arguments.send(b"*2147483647\r\n$3\r\nDEL\r\n");
    assert!(flood(&mut arguments, &b"$1\r\na\r\n".repeat(8192), FLOOD) >= FLOOD);
    let mut value = Client::connect(proxy.addr("cache"));
    value.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n");
    assert_eq!(flood(&mut value, &[b'x'; 64 * 1024], FLOOD), FLOOD);
    for too_long in [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n"[..], b"*2147483648\r\n"] {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(too_long);
        assert!(client.rest().starts_with(b"-ERR Protocol error: invalid"), "{}", too_long.escape_ascii());
    }
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn a_rejected_request_of_any_size_is_discarded() {
    let redis = Redis::start();
    let proxy = Setup::default().args(&AT_ONCE).redis("cache", redis.addr(), "recovery-timeout=1h").start();
    proxy.post("/api/v1/circuit-breaker/trip/cache");
    let mut client = Client::connect(proxy.addr("cache"));
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${FLOOD}\r\n").as_bytes());
    assert_eq!(flood(&mut client, &[b'x'; 64 * 1024], FLOOD), FLOOD);
    client.send(b"\r\n");
    assert!(client.line().starts_with("-CIRCUITOPEN"));
    // Rejections that nobody reads are a number.
    assert!(flood(&mut client, &command(&["GET", "k"]).repeat(4096), FLOOD / 4) >= FLOOD / 4);
    assert_small(&proxy);
    proxy.stop();
}

#[test]
fn a_client_that_asks_for_ever_of_a_server_that_never_answers_costs_a_bounded_queue() {
    let fake = sink();
    let proxy = Setup::default()
        .args(&AT_ONCE)
        .redis("cache", fake.addr(), "failure-threshold=1,response-timeout=1h")
        .start();
    // One kind of request is one number, however many there are.
    let mut alike = Client::connect(proxy.addr("cache"));
    assert!(flood(&mut alike, &command(&["GET", "k"]).repeat(4096), FLOOD) >= FLOOD);
    assert_small(&proxy);
    // Requests that differ are entries in a queue that has an end, behind which nothing is looked at.
    let block = [command(&["MULTI"]), command(&["GET", "k"]), command(&["EXEC"])].concat().repeat(1024);
    let mut unlike = Client::connect(proxy.addr("cache"));
    flood(&mut unlike, &block, FLOOD);
    assert_eq!((proxy.state("cache"), proxy.figure("cache", "failed_calls")), ("closed".to_owned(), 0));
    let peak = proxy.peak_rss();
    assert!(peak < RSS_BOUND + (48 << 20), "peak RSS is {} MiB", peak >> 20);
    proxy.stop();
}

#[test]
fn replies_of_any_shape_stream() {
    let pieces: [(&str, &[u8], &[u8]); 7] = [
        ("a line without an end", b"+", &[b'a'; 64 * 1024]),
        ("an error without an end", b"-ERR ", &[b'a'; 64 * 1024]),
        ("an array without an end", b"*9000000000\r\n", b":1\r\n"),
        ("a nest without an end", b"", b"*1\r\n"),
        ("attributes without an end", b"", b"|1\r\n+a\r\n+b\r\n"),
        ("pushes without an end", b"", b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n"),
        ("a bulk without an end", b"$900000000000\r\n", &[b'x'; 64 * 1024]),
    ];
    for (name, start, piece) in pieces {
        let flood = [start, &piece.repeat(FLOOD / 4 / piece.len())].concat();
        let length = flood.len() as u64;
        let fake = Fake::start(vec![Step::Await(b"GET".to_vec()), Step::Send(flood), Step::Silence]);
        let proxy = Setup::default().args(&AT_ONCE).redis("cache", fake.addr(), "").start();
        let mut client = Client::connect(proxy.addr("cache"));
        client.command(&["GET", "k"]);
        client.stream_out(length - 256, |_| ());
        let peak = proxy.peak_rss();
        assert!(peak < 28 << 20, "{name}: peak RSS is {} MiB", peak >> 20);
        drop(client);
        proxy.stop();
    }
}

#[test]
fn hundreds_of_half_requests_cost_what_they_hold() {
    let redis = Redis::start();
    let proxy = Setup::default().args(&AT_ONCE).redis("cache", redis.addr(), "failure-threshold=1").start();
    let half = [b"GET ".to_vec(), vec![b'x'; 60_000]].concat();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(proxy.addr("cache"))).collect();
    for client in &mut clients {
        client.send(&half);
    }
    // The proxy is there for others meanwhile.
    eventually("an answer", || match Client::connect(proxy.addr("cache")).call(&["PING"]) {
        reply if reply == Reply::simple("PONG") => Ok(()),
        reply => Err(format!("{reply:?}")),
    });
    assert_small(&proxy);
    for client in &mut clients {
        client.send(b"\r\n");
        assert_eq!(client.reply(), Reply::Null);
    }
    assert_small(&proxy);
    proxy.stop();
}
