//! Which policy trips when: three of them, and all together, before one real Redis with a fault.
//!
//! `policies [FILE]` prints a table, and puts it between the marks of FILE (docs/POLICIES.md). Absent on purpose: assertions.
//! What must hold is tested in src/breaker/tests; this shows what comes of it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use proto_tests::{Fusewire, Redis, Setup};
use serde_json::Value;

/// Each with what is said of it in a spec.
const POLICIES: [(&str, &str); 5] = [
    ("consecutive", "failure-threshold=5"),
    ("rate", "failure-threshold=off,failure-rate=50%"),
    ("rate-10s", "failure-threshold=off,failure-rate=50%,window=10s"),
    ("slow", "failure-threshold=off,slow-call-rate=80%,slow-call-duration=20ms"),
    ("all", "failure-threshold=5,failure-rate=50%,slow-call-rate=80%,slow-call-duration=20ms"),
];
/// What all have in common.
const COMMON: &str = "recovery-timeout=2s,response-timeout=500ms,connect-timeout=500ms";
/// Clients of each policy, and the pause between two calls of one.
const CLIENTS: u64 = 5;
const PAUSE: Duration = Duration::from_millis(45);
/// How long there is no fault before and after it.
const CALM: Duration = Duration::from_secs(4);

/// A fault of the server.
struct Fault {
    title: &'static str,
    lasting: Duration,
    /// Makes it for so long, and mends it.
    play: fn(&mut Redis, Duration),
}

const FAULTS: [Fault; 5] = [
    Fault { title: "killed", lasting: Duration::from_secs(10), play: killed },
    Fault { title: "stopped (SIGSTOP)", lasting: Duration::from_secs(10), play: stopped },
    Fault { title: "half of the calls fail (OOM)", lasting: Duration::from_secs(10), play: half },
    Fault { title: "all calls slow (up to 200 ms)", lasting: Duration::from_secs(10), play: slow },
    Fault {
        title: "flapping: killed for 5 s, up for 5 s, three times",
        lasting: Duration::from_secs(30),
        play: flapping,
    },
];

fn main() {
    let file = std::env::args().nth(1);
    let mut table = String::from(
        "| fault | policy | first trip | by | calls failed before | slow before | trips | calls rejected | closed again after |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for fault in &FAULTS {
        for row in run(fault) {
            table += &row;
        }
    }
    print!("{table}");
    if let Some(file) = file {
        const BEGIN: &str = "<!-- policies: begin -->\n";
        const END: &str = "<!-- policies: end -->";
        let text = fs::read_to_string(&file).expect("the document");
        let (head, rest) = text.split_once(BEGIN).expect("the beginning of the table");
        let (_, tail) = rest.split_once(END).expect("the end of the table");
        fs::write(&file, format!("{head}{BEGIN}{table}{END}{tail}")).expect("the document");
    }
}

/// What a policy's clients have seen.
#[derive(Default)]
struct Seen {
    /// When each call ended since the beginning, how long it took, and what came of it.
    calls: Vec<(Instant, Duration, Outcome)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Answered,
    Failed,
    Rejected,
}

/// Plays a fault, and says what each policy made of it.
fn run(fault: &Fault) -> Vec<String> {
    let mut redis = Redis::with(&["--enable-debug-command", "yes"]);
    let setup = POLICIES.iter().fold(Setup::default(), |setup, (name, spec)| {
        setup.redis(name, redis.addr(), &format!("{COMMON},{spec}"))
    });
    let proxy = setup.start();
    let over = Arc::new(AtomicBool::new(false));
    let seen: Vec<Arc<Mutex<Seen>>> = POLICIES.iter().map(|_| Arc::default()).collect();
    let clients: Vec<_> = POLICIES
        .iter()
        .zip(&seen)
        .flat_map(|((name, _), seen)| {
            let (addr, over) = (proxy.addr(name), over.clone());
            (0..CLIENTS).map(move |number| {
                let (seen, over) = (seen.clone(), over.clone());
                thread::spawn(move || call(addr, number, &seen, &over))
            })
        })
        .collect();
    thread::sleep(CALM);
    let begin = Instant::now();
    let began = std::time::SystemTime::now();
    (fault.play)(&mut redis, fault.lasting);
    let end = Instant::now();
    thread::sleep(CALM + Duration::from_secs(4));
    over.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    let rows = POLICIES.iter().zip(&seen).map(|((name, _), seen)| {
        let seen = seen.lock().expect("what was seen");
        row(fault, name, &proxy, &seen, (begin, end, began))
    });
    let rows = rows.collect();
    proxy.stop();
    rows
}

fn row(
    fault: &Fault,
    name: &str,
    proxy: &Fusewire,
    seen: &Seen,
    (begin, end, began): (Instant, Instant, std::time::SystemTime),
) -> String {
    let metrics: Value = proxy.get("/api/v1/circuit-breaker/metrics").json();
    let history = metrics["breakers"][name]["history"].as_array().expect("a history").clone();
    let since = |change: &Value| {
        let at = change["at"].as_str().and_then(humantime_of).unwrap_or(began);
        at.duration_since(began).unwrap_or_default()
    };
    let trips: Vec<&Value> = history.iter().filter(|change| change["to"] == "open").collect();
    let mut row = String::new();
    let lasted = end - begin;
    let closed = history.iter().rev().find(|change| change["to"] == "closed").map(since);
    let closed = match (trips.last(), closed) {
        (None, _) => "–".to_owned(),
        (Some(_), Some(at)) if history.last().is_some_and(|last| last["to"] == "closed") => {
            seconds(at.saturating_sub(lasted))
        }
        _ => "not yet".to_owned(),
    };
    let first = trips.first().map(|trip| since(trip));
    let until = first.map_or(end, |first| begin + first);
    let before = |outcome: fn(&(Instant, Duration, Outcome)) -> bool| {
        seen.calls.iter().filter(|call| call.0 >= begin && call.0 <= until && outcome(call)).count()
    };
    let rejected = seen.calls.iter().filter(|call| call.0 >= begin && call.2 == Outcome::Rejected).count();
    let by = trips.first().map_or("–".to_owned(), |trip| {
        let reason = trip["reason"].as_str().unwrap_or_default();
        trip["cause"].as_str().map_or(reason.to_owned(), |cause| format!("{reason} ({cause})"))
    });
    let failed = before(|call| call.2 == Outcome::Failed);
    let slow = before(|call| call.1 > Duration::from_millis(20));
    let _ = writeln!(
        row,
        "| {} | `{name}` | {} | {by} | {failed} | {slow} | {} | {rejected} | {closed} |",
        fault.title,
        first.map_or("never".to_owned(), seconds),
        trips.len(),
    );
    row
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// `2026-01-01T00:00:00.123Z` as a time.
fn humantime_of(text: &str) -> Option<std::time::SystemTime> {
    let (date, time) = text.trim_end_matches('Z').split_once('T')?;
    let numbers: Vec<u64> = date.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year, month, day] = numbers[..] else { return None };
    let mut clock = time.splitn(3, ':');
    let (hour, minute) = (clock.next()?.parse::<u64>().ok()?, clock.next()?.parse::<u64>().ok()?);
    let second: f64 = clock.next()?.parse().ok()?;
    // Howard Hinnant's days from civil.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let whole = days * 86_400 + hour * 3600 + minute * 60;
    Some(std::time::UNIX_EPOCH + Duration::from_secs(whole) + Duration::from_secs_f64(second))
}

/// One client: half of its calls write, half read, in an order that is the same each time.
fn call(addr: SocketAddr, number: u64, seen: &Mutex<Seen>, over: &AtomicBool) {
    let mut random = number * 7_919 + 1;
    let mut stream: Option<BufReader<TcpStream>> = None;
    while !over.load(Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let request: &[u8] = if random >> 63 == 0 { b"SET k v\r\n" } else { b"EXISTS k\r\n" };
        let began = Instant::now();
        let answer = ask(&mut stream, addr, request);
        let outcome = match &answer {
            Some(line) if line.starts_with("-CIRCUITOPEN") => Outcome::Rejected,
            Some(line) if !line.starts_with('-') => Outcome::Answered,
            _ => Outcome::Failed,
        };
        if answer.is_none_or(|line| line.starts_with("-ERR fusewire")) {
            stream = None;
        }
        let now = Instant::now();
        seen.lock().expect("what was seen").calls.push((now, now - began, outcome));
        thread::sleep(PAUSE);
    }
}

fn ask(stream: &mut Option<BufReader<TcpStream>>, addr: SocketAddr, request: &[u8]) -> Option<String> {
    if stream.is_none() {
        let fresh = TcpStream::connect(addr).ok()?;
        fresh.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        *stream = Some(BufReader::new(fresh));
    }
    let stream = stream.as_mut()?;
    stream.get_mut().write_all(request).ok()?;
    let mut line = String::new();
    (stream.read_line(&mut line).ok()? > 0).then_some(line)
}

fn killed(redis: &mut Redis, lasting: Duration) {
    redis.kill();
    thread::sleep(lasting);
    redis.restart();
}

fn stopped(redis: &mut Redis, lasting: Duration) {
    redis.freeze();
    thread::sleep(lasting);
    redis.thaw();
}

/// Without memory Redis refuses what writes.
fn half(redis: &mut Redis, lasting: Duration) {
    let memory = |limit: &str| drop(redis.client().call(&["CONFIG", "SET", "maxmemory", limit]));
    memory("1");
    thread::sleep(lasting);
    memory("0");
}

/// The server does nothing for 200 ms again and again: every call waits for the end of one such pause.
fn slow(redis: &mut Redis, lasting: Duration) {
    let mut client = redis.client();
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        client.call(&["DEBUG", "SLEEP", "0.2"]);
    }
}

fn flapping(redis: &mut Redis, lasting: Duration) {
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        redis.kill();
        thread::sleep(Duration::from_secs(5));
        redis.restart();
        thread::sleep(Duration::from_secs(5));
    }
}
