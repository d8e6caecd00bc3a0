//! Postgres queries and what they return.

use std::sync::Arc;
use std::time::Instant;

use fusewire::config::Protocol;
use fusewire::protocol::postgres::{Session, Settings};

use super::{Path, Rig, configured, lane};

pub(crate) fn paths() -> Vec<Path> {
    let query = message(b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 42;\0");
    let parse = message(b'P', b"\0SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0\0\0");
    let bind = message(b'B', b"\0P0_1\0\0\0\0\x01\0\0\0\x0242\0\0");
    let (describe, execute, sync) = (message(b'D', b"P\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b""));
    let columns = message(b'T', b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    let (row, complete) = (message(b'D', b"\0\x01\0\0\0\x010"), message(b'C', b"SELECT 1\0"));
    let ready = message(b'Z', b"I");
    let (parsed, bound) = (message(b'1', b""), message(b'2', b""));
    let rows = row.repeat(1000);
    let copied = message(b'd', &[b'x'; 1019]).repeat(1024);
    vec![
        closed("postgres/simple", &[&query], &[&columns, &row, &complete, &ready]),
        closed(
            "postgres/extended",
            &[&parse, &bind, &describe, &execute, &sync],
            &[&parsed, &bound, &columns, &row, &complete, &ready],
        ),
        closed(
            "postgres/prepared",
            &[&bind, &describe, &execute, &sync],
            &[&bound, &columns, &row, &complete, &ready],
        ),
        closed("postgres/rows-1000", &[&query], &[&columns, &rows, &complete, &ready]),
        closed(
            "postgres/copy-1m",
            &[&query],
            &[
                &message(b'H', b"\0\0\0"),
                &copied,
                &message(b'c', b""),
                &message(b'C', b"COPY 1024\0"),
                &ready,
            ],
        ),
        open("rejection/postgres-simple", &query),
    ]
}

fn session(now: Instant) -> (Rig<Session>, fusewire::gate::Lane) {
    let backend = configured(&[], &["name=db,upstream=127.0.0.1:5432"]);
    let Protocol::Postgres(postgres) = &backend.protocol else { unreachable!("a Postgres backend") };
    let settings = Settings::new(backend.name.clone(), postgres, &backend.timeouts, &backend.tls);
    let lane = lane(&backend);
    let mut rig = Rig::new(Session::new(lane.clone(), Arc::new(settings)));
    let parameters = b"\0\x03\0\0user\0u\0database\0d\0\0";
    let startup = [&(parameters.len() as u32 + 4).to_be_bytes()[..], parameters].concat();
    rig.connect(now, &startup);
    rig.server(now, &[message(b'R', &[0; 4]), message(b'K', &[1; 8]), message(b'Z', b"I")].concat());
    (rig, lane)
}

/// One call, and all that the server sends for it.
fn closed(name: &'static str, requests: &[&[u8]], replies: &[&[u8]]) -> Path {
    let now = Instant::now();
    let (mut rig, _) = session(now);
    let (requests, replies) = (requests.concat(), replies.concat());
    Path {
        name,
        calls: 1,
        bytes: (requests.len() + replies.len()) as u64,
        run: Box::new(move || {
            rig.client(now, &requests);
            rig.server(now, &replies);
        }),
    }
}

/// One call with the breaker open.
fn open(name: &'static str, query: &[u8]) -> Path {
    let now = Instant::now();
    let (mut rig, lane) = session(now);
    lane.gate().trip(now, None);
    let query = query.to_vec();
    Path {
        name,
        calls: 1,
        bytes: query.len() as u64,
        run: Box::new(move || {
            rig.client(now, &query);
            assert!(rig.answers(now) > 0);
        }),
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}
