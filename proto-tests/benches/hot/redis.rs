//! Redis commands and their replies.

use std::sync::Arc;
use std::time::Instant;

use fusewire::config::{Backend, Protocol};
use fusewire::protocol::redis::{Session, Settings};

use super::{Path, Rig, configured, lane};

pub(crate) fn backend() -> Backend {
    configured(&["name=cache,upstream=127.0.0.1:6379"], &[])
}

pub(crate) fn paths() -> Vec<Path> {
    let get = request(&["GET", "key:000000000042"]);
    let set = request(&["SET", "key:000000000042", &"x".repeat(1024)]);
    let list: String = (0..100).map(|_| "$8\r\nelement1\r\n").collect();
    let list = format!("*100\r\n{list}");
    let big = format!("$1048576\r\n{}\r\n", "x".repeat(1024 * 1024));
    let transaction = [request(&["MULTI"]), request(&["INCR", "a"]), request(&["EXEC"])].concat();
    vec![
        closed("redis/get-p1", 1, &get, "$3\r\nxxx\r\n"),
        closed("redis/get-p16", 16, &get, "$3\r\nxxx\r\n"),
        closed("redis/get-p64", 64, &get, "$3\r\nxxx\r\n"),
        closed("redis/set-1k-p16", 16, &set, "+OK\r\n"),
        closed("redis/lrange-100", 1, &request(&["LRANGE", "l", "0", "99"]), &list),
        closed("redis/get-1m", 1, &get, &big),
        closed(
            "redis/error",
            1,
            &get,
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
        closed("redis/multi", 1, &transaction, "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"),
        open("rejection/redis-p1", 1, &get),
        open("rejection/redis-p64", 64, &get),
    ]
}

fn session() -> (Rig<Session>, fusewire::gate::Lane) {
    let backend = backend();
    let Protocol::Redis(redis) = &backend.protocol else { unreachable!("a Redis backend") };
    let settings = Arc::new(Settings::new(backend.name.clone(), redis, &backend.timeouts));
    let lane = lane(&backend);
    (Rig::new(Session::new(lane.clone(), settings)), lane)
}

/// `n` times the same call and reply, each way in one batch.
fn closed(name: &'static str, n: usize, request: &str, reply: &str) -> Path {
    let now = Instant::now();
    let (mut rig, _) = session();
    let (requests, replies) = (request.repeat(n).into_bytes(), reply.repeat(n).into_bytes());
    rig.connect(now, &requests);
    rig.server(now, &replies);
    Path {
        name,
        calls: n as u64,
        bytes: (requests.len() + replies.len()) as u64,
        run: Box::new(move || {
            rig.client(now, &requests);
            rig.server(now, &replies);
        }),
    }
}

/// The same with the breaker open.
fn open(name: &'static str, n: usize, request: &str) -> Path {
    let now = Instant::now();
    let (mut rig, lane) = session();
    let requests = request.repeat(n).into_bytes();
    rig.connect(now, &requests);
    rig.server(now, "+OK\r\n".repeat(n).as_bytes());
    lane.gate().trip(now, None);
    Path {
        name,
        calls: n as u64,
        bytes: requests.len() as u64,
        run: Box::new(move || {
            rig.client(now, &requests);
            assert!(rig.answers(now) > 0);
        }),
    }
}

fn request(words: &[&str]) -> String {
    let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{words}", words.matches('$').count())
}
