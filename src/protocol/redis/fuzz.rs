//! What the fuzzer does to Redis: its scanners beside redis-protocol's, and whole sessions.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use redis_protocol::{resp2, resp3};

use super::reply::{Replies, Seen, Step};
use super::request::{self, Body, Flow, Head, Known};
use super::{Session, Settings};
use crate::config::args::Inputs;
use crate::config::{self, Env, Protocol};
use crate::protocol::fuzz::{Words, play};

/// Longer inputs are cut: the oracle recurses, and so many levels of nesting are within any stack.
const SCANNED_MAX: usize = 4096;

/// What a stream consists of, and what ended it.
#[derive(Debug, PartialEq, Eq)]
struct Scan<T> {
    /// Frames or requests: where each ends, and what of it was seen.
    found: Vec<(usize, T)>,
    /// `Unknown`, `Broken`, or nothing yet.
    stopped: Option<String>,
}

/// A backend's bytes: no cut changes where frames end or what is seen of them, and they end where redis-protocol ends them.
pub(crate) fn replies(data: &[u8]) {
    let data = &data[..data.len().min(SCANNED_MAX)];
    let whole = scan_replies(data, usize::MAX);
    for piece in [1, 2 + data.len() % 5] {
        assert_eq!(scan_replies(data, piece), whole, "pieces of {piece}");
    }
    let mut start = 0;
    for (end, _) in &whole.found {
        let frame = &data[start..*end];
        let theirs = oracle(frame);
        assert!(
            theirs.is_none_or(|len| len == frame.len()),
            "{} is a frame of {} bytes to us and of {theirs:?} to redis-protocol",
            frame.escape_ascii(),
            frame.len()
        );
        start = *end;
    }
}

/// What is shown of a frame.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    /// The last integer directly inside it.
    integer: Option<Vec<u8>>,
    /// The errors in it, and how deep.
    errors: Vec<(usize, Vec<u8>)>,
}

fn scan_replies(data: &[u8], piece: usize) -> Scan<Shown> {
    let (mut scanner, mut found, mut at, mut shown) = (Replies::default(), Vec::new(), 0, 0);
    let mut frame = Shown::default();
    while shown < data.len() {
        shown = shown.saturating_add(piece).min(data.len());
        while at < shown {
            match scanner.step(&data[at..shown]) {
                Step::Hold => break,
                Step::Part { len, done, seen } => {
                    assert!(len > 0 && at + len <= shown, "a part of {len} bytes at {at} of {shown}");
                    at += len;
                    match seen {
                        Seen::Nothing => {}
                        Seen::Integer(text) => frame.integer = Some(text.to_vec()),
                        Seen::Error { depth, text } => frame.errors.push((depth, text.to_vec())),
                    }
                    if done {
                        assert!(scanner.at_boundary());
                        found.push((at, std::mem::take(&mut frame)));
                    }
                }
                step => return Scan { found, stopped: Some(format!("{step:?}")) },
            }
        }
    }
    Scan { found, stopped: None }
}

/// How long redis-protocol takes the frame at the front to be, where it can judge: it knows nothing of pushes within
/// replies, and of attributes it has its own idea.
fn oracle(frame: &[u8]) -> Option<usize> {
    if frame[1..].contains(&b'>') || frame.contains(&b'|') {
        return None;
    }
    match frame.first() {
        Some(b'+' | b'-' | b':' | b'$' | b'*') => Some(resp2::decode::decode(frame).ok()??.1),
        _ => Some(resp3::decode::complete::decode(frame).ok()??.1),
    }
}

/// A client's bytes: no cut changes where requests end or what their heads say, and what redis-protocol can read as one
/// ends where it ends it.
pub(crate) fn requests(data: &[u8]) {
    let data = &data[..data.len().min(SCANNED_MAX)];
    let whole = scan_requests(data, usize::MAX);
    for piece in [1, 2 + data.len() % 5] {
        assert_eq!(scan_requests(data, piece), whole, "pieces of {piece}");
    }
    let mut start = 0;
    for (end, _) in &whole.found {
        let request = &data[start..*end];
        start = *end;
        // Only arrays of bulk strings are requests to both; `*0` and `*-1` are none to us.
        if let (b'*', Ok(Some((resp2::types::OwnedFrame::Array(words), len)))) =
            (request[0], resp2::decode::decode(request))
            && !words.is_empty()
        {
            assert_eq!(len, request.len(), "{}", request.escape_ascii());
        }
    }
}

/// What is said by a head: the name and how many arguments follow.
type Said = (Vec<u8>, u64);

fn scan_requests(data: &[u8], piece: usize) -> Scan<Said> {
    let (mut body, mut found, mut at, mut shown, mut seen) = (None::<Body>, Vec::new(), 0, 0, 0);
    let mut said = Said::default();
    let mut known: Option<(Known<'_>, Said)> = None;
    let stopped = |found, why: String| Scan { found, stopped: Some(why) };
    while shown < data.len() {
        shown = shown.saturating_add(piece).min(data.len());
        loop {
            let rest = &data[at..shown];
            match &mut body {
                None => {
                    // As a session does behind each ordinary request.
                    if let Some((known, said)) = &known
                        && let Some(len) = known.again(rest)
                    {
                        assert!(len > 0 && len <= rest.len());
                        at += len;
                        found.push((at, said.clone()));
                        continue;
                    }
                    match request::head(rest, &mut seen) {
                        Head::Partial => break,
                        Head::Command { name, args, len } => {
                            assert!(len <= rest.len());
                            said = (name.to_vec(), args);
                            known = Known::new(rest, name, args, len).map(|known| (known, said.clone()));
                            body = Some(Body::new(args));
                            at += len;
                        }
                        Head::Nothing(len) | Head::Inline { len, .. } => {
                            assert!(len > 0 && len <= rest.len());
                            at += len;
                            seen = 0;
                            found.push((at, Said::default()));
                        }
                        Head::Broken(breach) => return stopped(found, format!("{breach}")),
                    }
                }
                Some(streaming) => match streaming.advance(rest, None) {
                    Flow::Done(len) => {
                        at += len;
                        found.push((at, std::mem::take(&mut said)));
                        (body, seen) = (None, 0);
                    }
                    Flow::Partial(len) => {
                        assert!(len <= rest.len());
                        at += len;
                        break;
                    }
                    Flow::Broken(breach) => return stopped(found, format!("{breach}")),
                },
            }
        }
    }
    Scan { found, stopped: None }
}

/// Events to whole sessions.
pub(crate) fn sessions(now: Instant, data: &[u8]) {
    static WORDS: LazyLock<Words> = LazyLock::new(words);
    static CONFIG: LazyLock<config::Backend> = LazyLock::new(|| {
        let redis = vec!["name=fuzz,upstream=h:1,response-timeout=30s".to_owned()];
        let inputs = Inputs { redis, ..Inputs::default() };
        config::load(&inputs, &Env::new()).expect("a valid configuration").backends.remove(0)
    });
    let Protocol::Redis(redis) = &CONFIG.protocol else { return };
    play(now, data, &WORDS, |gate| {
        let settings = Settings::new("fuzz".into(), redis, &CONFIG.timeouts);
        Session::new(gate.lane(1), Arc::new(settings))
    });
}

fn words() -> Words {
    let request = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut out = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| out.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        out.into_bytes()
    };
    let mut client: Vec<Vec<u8>> = REQUESTS.iter().map(request).collect();
    client.extend(RAW_REQUESTS.iter().map(|text| text.as_bytes().to_vec()));
    let server = REPLIES.iter().map(|text| text.as_bytes().to_vec()).collect();
    Words { client, server }
}

/// Every kind of command that a session treats by itself.
pub(super) const REQUESTS: &[&str] = &[
    "GET k",
    "SET k v",
    "PING",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH k",
    "UNWATCH",
    "SELECT 1",
    "AUTH p",
    "HELLO 3",
    "HELLO",
    "RESET",
    "QUIT",
    "SUBSCRIBE a b",
    "SUBSCRIBE a",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE a",
    "PSUBSCRIBE p",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE s",
    "SUNSUBSCRIBE",
    "CLIENT REPLY OFF",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY ON",
    "CLIENT TRACKING ON",
    "CLIENT CACHING YES",
    "CLIENT SETNAME n",
    "CLIENT PAUSE 50",
    "CLIENT UNPAUSE",
    "BLPOP k 1",
    "BLPOP k 0",
    "BLMPOP 1 1 k LEFT",
    "XREAD BLOCK 0 STREAMS s 0",
    "XREADGROUP GROUP g c BLOCK 5 STREAMS s >",
    "WAIT 1 100",
    "MIGRATE h 1 k 0 50",
    "EVAL x 0",
    "SHUTDOWN",
    "SCRIPT KILL",
    "FUNCTION LIST",
    "MONITOR",
    "PSYNC ? -1",
    "POST",
    "INFO",
    "READWRITE",
    "ASKING",
];

const RAW_REQUESTS: &[&str] =
    &["GET k\r\n", "multi\n", "\r\n", "*0\r\n", "*-1\r\n", "*1\r\n$4\r\nPINGxx", "*2\r\n$3\r\nSET"];

const REPLIES: &[&str] = &[
    "+OK\r\n",
    "+QUEUED\r\n",
    "+RESET\r\n",
    "+PONG\r\n",
    "$-1\r\n",
    "$3\r\nabc\r\n",
    "$5\r\nab",
    ":1\r\n",
    "-ERR x\r\n",
    "-LOADING x\r\n",
    "-BUSY x\r\n",
    "-READONLY x\r\n",
    "-NOAUTH x\r\n",
    "-EXECABORT x\r\n",
    "-UNBLOCKED x\r\n",
    "-ERR max number of clients reached\r\n",
    "*0\r\n",
    "*-1\r\n",
    "*2\r\n:1\r\n-BUSY x\r\n",
    "*2\r\n+OK\r\n+OK\r\n",
    "*1\r\n",
    "%1\r\n+a\r\n:1\r\n",
    "~1\r\n:1\r\n",
    "_\r\n",
    "#t\r\n",
    ",1.5\r\n",
    "(12345\r\n",
    "=7\r\ntxt:abc\r\n",
    "!3\r\nERR\r\n",
    "|1\r\n+a\r\n:1\r\n",
    "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    "*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n",
    "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
    "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
    "*3\r\n$10\r\npsubscribe\r\n$1\r\np\r\n:1\r\n",
    "*3\r\n$12\r\npunsubscribe\r\n$1\r\np\r\n:0\r\n",
    "*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n",
    "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n",
    "*4\r\n$8\r\npmessage\r\n$1\r\np\r\n$1\r\na\r\n$1\r\nx\r\n",
    ">2\r\n$10\r\ninvalidate\r\n_\r\n",
    ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    ">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
    ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n",
    "*2\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n:1\r\n_\r\n",
    "$?\r\n",
];
