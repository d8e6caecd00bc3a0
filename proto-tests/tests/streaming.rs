//! Values larger than any buffer pass through byte for byte, in memory that does not grow with them.

use std::thread;

use proto_tests::payload::{Checksum, Random, stream};
use proto_tests::pgwire::{message, query};
use proto_tests::{Client, Fusewire, Pg, Postgres, Redis, Setup};

/// What the proxy may hold resident at most.
const RSS_BOUND: u64 = 64 << 20;

#[track_caller]
fn assert_small(proxy: &Fusewire, after: &str) {
    let peak = proxy.peak_rss();
    println!("peak RSS after {after}: {} KiB", peak >> 10);
    assert!(peak < RSS_BOUND, "peak RSS after {after} is {} MiB", peak >> 20);
}

#[test]
fn half_a_gigabyte_through_redis_is_byte_identical() {
    const LENGTH: u64 = 512 << 20;
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let mut client = Client::connect(proxy.addr("cache"));
    let mut sent = Checksum::default();
    client.send(format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${LENGTH}\r\n").as_bytes());
    stream(7, LENGTH, |piece| {
        sent.update(piece);
        client.send(piece);
    });
    client.send(b"\r\n");
    client.expect(b"+OK\r\n");
    assert_small(&proxy, "SET of 512 MiB");
    let mut got = Checksum::default();
    client.send(b"GET big\r\nPING\r\n");
    client.expect(format!("${LENGTH}\r\n").as_bytes());
    client.stream_out(LENGTH, |piece| got.update(piece));
    // What comes right behind it is in step.
    client.expect(b"\r\n+PONG\r\n");
    assert_eq!(got.finish(), sent.finish());
    assert_small(&proxy, "GET of 512 MiB");
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.stop();
}

/// One row: a number, and 8 KiB of text that no other row has.
fn row(n: u64) -> String {
    let mut random = Random::new(n);
    let word: String = (0..4).map(|_| format!("{:016x}", random.draw())).collect();
    format!("{n}\t{}\n", word.repeat(128))
}

#[test]
fn a_gigabyte_of_copy_in_and_out_is_byte_identical() {
    const ROWS: u64 = (1 << 30) / 8192;
    let postgres = Postgres::start();
    postgres.sql("CREATE UNLOGGED TABLE big (n bigint, line text)");
    let proxy = Setup::default().postgres("db", postgres.addr(), "").start();
    let mut pg = Pg::session(proxy.addr("db"));

    let mut sent = Checksum::default();
    pg.send(&query("COPY big FROM STDIN"));
    assert_eq!(pg.receive().map(|message| message.tag), Some(b'G'));
    let mut batch = Vec::new();
    for n in 0..ROWS {
        let row = row(n);
        sent.update(row.as_bytes());
        batch.extend(message(b'd', row.as_bytes()));
        if batch.len() > 1 << 18 || n + 1 == ROWS {
            pg.send(&batch);
            batch.clear();
        }
    }
    pg.send(&message(b'c', b""));
    let done = pg.until_ready();
    assert_eq!(done[0].body, format!("COPY {ROWS}\0").as_bytes(), "{done:?}");
    assert_small(&proxy, "COPY IN of 1 GiB");
    assert_eq!(
        postgres.sql("SELECT count(*), sum(length(line)) FROM big"),
        format!("{ROWS}|{}", ROWS * 8192)
    );

    let mut got = Checksum::default();
    pg.send(&query("COPY big TO STDOUT"));
    assert_eq!(pg.receive().map(|message| message.tag), Some(b'H'));
    loop {
        let message = pg.receive().expect("COPY data");
        match message.tag {
            b'd' => got.update(&message.body),
            b'Z' => break,
            b'E' => panic!("{}", message.error()),
            _ => {}
        }
    }
    assert_eq!(got.finish(), sent.finish());
    assert_small(&proxy, "COPY OUT of 1 GiB");
    assert_eq!(pg.rows("SELECT 1").0, ["1"]);
    assert_eq!(proxy.figure("db", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn one_message_of_a_hundred_megabytes_passes_both_ways() {
    const LENGTH: usize = 100 << 20;
    let postgres = Postgres::start();
    let proxy = Setup::default().postgres("db", postgres.addr(), "").start();
    let mut pg = Pg::session(proxy.addr("db"));
    let text = "z".repeat(LENGTH);
    let rows = pg.rows(&format!("SELECT '{text}'")).0;
    assert!(rows.len() == 1 && rows[0] == text, "the value came back changed");
    assert_small(&proxy, "a Query and a DataRow of 100 MiB");
    proxy.stop();
}

#[test]
fn long_transfers_in_both_directions_at_once_do_not_wait_for_each_other() {
    const LENGTH: usize = 200_000;
    const CALLS: usize = 300;
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let mut reader = Client::connect(proxy.addr("cache"));
    let mut writer = reader.duplicate();
    let text = "e".repeat(LENGTH);
    thread::scope(|scope| {
        scope.spawn(|| (0..CALLS).for_each(|_| writer.command(&["ECHO", &text])));
        for _ in 0..CALLS {
            reader.expect(format!("${LENGTH}\r\n").as_bytes());
            reader.stream_out(LENGTH as u64 + 2, |_| {});
        }
    });
    assert_small(&proxy, "60 MB each way");
    proxy.stop();
}
