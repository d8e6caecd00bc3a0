//! What is scarce runs out, or is taken on purpose: descriptors, memory, the log's disk, connections, patience. fusewire
//! stays up, keeps the bounds of docs/SECURITY.md, and serves everybody else.
//!
//! Short by default. `FUSEWIRE_LONG=1` makes the numbers large (20,000 clients, a tenth of them with servers, or as many as the
//! hard limit of descriptors allows), and the tests that measure or need root are commands of their own:
//!
//! ```text
//! FUSEWIRE_LONG=1 cargo test -p proto-tests --test exhaustion -- --include-ignored --test-threads 1 --nocapture
//! ```

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proto_tests::chaos::sample::Sample;
use proto_tests::disk::Disk;
use proto_tests::pgwire::{self, startup_packet};
use proto_tests::process::{self, Process, descriptors};
use proto_tests::until::{PATIENCE, check};
use proto_tests::wire::{Reply, command};
use proto_tests::{Authority, Client, Fake, Fusewire, Pg, Postgres, Redis, Setup, Step, eventually};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

const API: &str = "/api/v1/circuit-breaker";

/// What fusewire may hold resident by itself.
const BASE: u64 = 32 << 20;
/// What one connection may add: a read in each direction, and small change.
const EACH: u64 = 2 * (128 << 10) + (16 << 10);

/// What fusewire has open besides its clients and servers: listeners, pipes, what each thread polls with; and some to spare.
const OWN: usize = 40;

/// The first normally, the second in the long form.
fn scaled(short: usize, long: usize) -> usize {
    if env::var_os("FUSEWIRE_LONG").is_some() { long } else { short }
}

/// Idle clients in another process, which has descriptors of its own. Dropped, they leave.
struct Crowd {
    /// Held for its end.
    _process: Process,
}

impl Crowd {
    /// Connects so many to `addr`, from `127.0.0.SOURCE`; each tenth of them gets an answer.
    fn gather(addr: SocketAddr, source: u8, clients: usize) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crowd"));
        command.args([&addr.to_string(), &format!("127.0.0.{source}"), &clients.to_string(), "10"]);
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut said = String::new();
        let output = process.child().stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut said).expect("a line");
        assert_eq!(said.trim(), clients.to_string(), "a crowd did not gather");
        Self { _process: process }
    }
}

/// A shell that points standard error elsewhere before it becomes fusewire.
fn logging_to(path: &str) -> Setup {
    Setup::default().launched_by(&["sh", "-c", &format!("exec \"$@\" 2>>'{path}'"), "sh"])
}

#[track_caller]
fn assert_serves(proxy: &Fusewire, name: &str) {
    assert_eq!(Client::connect(proxy.addr(name)).call(&["PING"]), Reply::simple("PONG"));
}

#[track_caller]
fn assert_bounded(proxy: &Fusewire, connections: usize) {
    let (peak, bound) = (proxy.peak_rss(), BASE + connections as u64 * EACH);
    assert!(peak < bound, "peak RSS {} KiB is above {} KiB", peak >> 10, bound >> 10);
}

#[test]
fn out_of_descriptors_it_waits_says_so_blames_nobody_and_recovers() {
    let redis = Redis::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "failure-threshold=1")
        .launched_by(&["prlimit", "--nofile=64:64"])
        .start();
    let mut served = Client::connect(proxy.addr("cache"));
    assert_eq!(served.call(&["PING"]), Reply::simple("PONG"));
    // More than it has descriptors for. The kernel takes them; those that are accepted may lack one for the server.
    let mut crowd: Vec<Client> = (0..80).map(|_| Client::connect(proxy.addr("cache"))).collect();
    for client in &mut crowd {
        client.try_send(b"PING\r\n").ok();
    }
    proxy.await_log("Cannot accept clients for the moment");
    assert_eq!(served.call(&["PING"]), Reply::simple("PONG"), "whoever is connected is served");
    drop(crowd);
    eventually("a new client to be served", || {
        let mut client = Client::try_connect(proxy.addr("cache")).map_err(|error| error.to_string())?;
        match client.call(&["PING"]) {
            Reply::Line(b'+', _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(proxy.metric("fusewire_local_faults_total", &[("backend", "cache")]) > 0.0);
    assert_eq!(proxy.state("cache"), "closed");
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    proxy.await_figure("cache", "in_flight", 0);
    proxy.stop();
}

#[test]
fn within_a_memory_limit_it_bears_clients_that_never_read() {
    const VALUE: usize = 8 << 20;
    let clients = scaled(100, 400);
    let redis = Redis::start();
    // Its bare address space is some 70 MiB for each worker's arena, most of it never touched.
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "")
        .arg("--workers=2")
        .launched_by(&["prlimit", "--as=536870912"])
        .start();
    let mut direct = redis.client();
    assert_eq!(direct.call(&["SETRANGE", "big", &(VALUE - 1).to_string(), "x"]), Reply::int(VALUE as i64));
    let lazy: Vec<Client> = (0..clients)
        .map(|_| {
            let mut client = Client::connect(proxy.addr("cache"));
            client.command(&["GET", "big"]);
            client
        })
        .collect();
    let mut lazy = lazy;
    for client in &mut lazy {
        eventually("the beginning of a reply", || check(client.readable(), "nothing"));
    }
    assert_serves(&proxy, "cache");
    assert_bounded(&proxy, clients + 1);
    // One of them reads at last, and nothing is missing.
    let mut late = lazy.pop().expect("a client");
    late.expect(format!("${VALUE}\r\n").as_bytes());
    late.stream_out(VALUE as u64, |_| ());
    late.expect(b"\r\n");
    drop(lazy);
    proxy.stop();
}

#[test]
fn a_full_log_disk_costs_log_lines_and_nothing_else() {
    let redis = Redis::start();
    let dead = format!("127.0.0.1:{}", proto_tests::tools::free_port());
    let proxy = logging_to("/dev/full")
        .redis("cache", redis.addr(), "")
        .redis("dead", dead, "failure-threshold=1,recovery-timeout=20ms")
        .start();
    for _ in 0..20 {
        proxy.post(&format!("{API}/trip/cache"));
        proxy.post(&format!("{API}/reset/cache"));
        assert_serves(&proxy, "cache");
    }
    // Timers log as well: the dead one goes on opening and half-opening.
    eventually("five trips", || {
        Client::connect(proxy.addr("dead")).call(&["PING"]);
        let trips = proxy.metric("circuit_breaker_trips_total", &[("backend", "dead")]);
        check(trips >= 5.0, trips)
    });
    assert!(proxy.log().is_empty());
    proxy.stop();
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_says_what_was_lost() {
    let dir = TempDir::with_prefix("fusewire-log-").expect("a temporary directory");
    let pipe = dir.path().join("log");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    // Open for both, so that fusewire's own opening does not wait for a reader.
    let mut reader = File::options().read(true).write(true).open(&pipe).expect("a pipe");
    let redis = Redis::start();
    let proxy = logging_to(pipe.to_str().expect("a path")).redis("cache", redis.addr(), "").start();
    // Some five hundred bytes each, so a multiple of what the pipe (64 KiB) and the queue (1024 lines) hold.
    for _ in 0..scaled(500, 2000) {
        proxy.post(&format!("{API}/trip/cache"));
        proxy.post(&format!("{API}/reset/cache"));
    }
    assert_serves(&proxy, "cache");
    let reading = thread::spawn(move || {
        let (mut all, mut buffer) = (String::new(), [0; 4096]);
        while !all.contains("were lost") {
            let n = reader.read(&mut buffer).expect("a pipe");
            all += &String::from_utf8_lossy(&buffer[..n]);
        }
    });
    // The line about it takes its place behind those that were waiting.
    eventually("the word about lost lines", || {
        proxy.post(&format!("{API}/reset/cache"));
        check(reading.is_finished(), "not yet")
    });
    reading.join().expect("a reader");
    proxy.signal(proto_tests::process::Signal::KILL);
}

#[test]
fn handshakes_that_are_silent_or_trickle_end_in_time() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let authority = Authority::new();
    let front = authority.issue("front");
    let offers = front.spec("tls-cert", "tls-key");
    let proxy = Setup::default()
        .with_defaults()
        .redis("cache", redis.addr(), &offers)
        .postgres("db", postgres.addr(), "failure-threshold=1")
        .postgres("tls", postgres.addr(), &offers)
        .start();
    // Half-way through the login: it has been asked for a password. The server had all the time that it needs for that.
    let mut asked = Pg::connect(proxy.addr("db"));
    asked.send(&startup_packet("scram_user", "postgres"));
    assert_eq!(asked.receive().map(|message| message.tag), Some(b'R'));
    proxy.set_defaults("handshake_timeout = \"1s\"");
    // A client's hello that never gets long, and a startup packet of 10,000 bytes.
    let hello = [&[0x16, 3, 1, 2, 0][..], &[1; 500]].concat();
    let startup = [&10_000_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), &[b'x'; 9_000]].concat();
    let secure = [&pgwire::SSL_REQUEST[..], &hello].concat();
    let cases: [(&str, &[u8]); 3] = [("cache", &hello), ("db", &startup), ("tls", &secure)];
    thread::scope(|scope| {
        for (name, bytes) in cases {
            let addr = proxy.addr(name);
            scope.spawn(move || Client::connect(addr).rest());
            scope.spawn(move || trickle(addr, bytes));
        }
        // It begins to answer, and says no more.
        scope.spawn(move || {
            asked.send(b"p");
            asked.raw.rest();
        });
    });
    proxy.set_defaults("");
    for name in ["cache", "db", "tls"] {
        assert_eq!(proxy.figure(name, "failed_calls"), 0, "'{name}'");
        eventually("their end", || match proxy.metric("fusewire_connections_active", &[("backend", name)]) {
            0.0 => Ok(()),
            open => Err(format!("{open} still open")),
        });
    }
    assert_eq!(Pg::session(proxy.addr("db")).rows("SELECT 1").0, ["1"]);
    proxy.stop();
}

/// Sends a byte now and then, often enough never to be silent for a second, until the other side ends it.
fn trickle(addr: SocketAddr, bytes: &[u8]) {
    let mut client = Client::connect(addr);
    let deadline = Instant::now() + PATIENCE;
    for byte in bytes {
        if client.try_send(&[*byte]).is_err() {
            return;
        }
        assert!(Instant::now() < deadline, "{addr} has borne a trickle for {PATIENCE:?}");
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{addr} has read all of it");
}

#[test]
fn as_many_connections_as_there_are_descriptors_are_held_in_the_memory_that_is_stated() {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // One descriptor for each client, one for each tenth's server, and fusewire's own.
    let limit = scaled(1_700, 22_050).min(hard as usize);
    let wanted = (limit - OWN) * 10 / 11 / 2 * 2;
    let redis = Redis::with(&["--maxclients", "10000"]);
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "failure-threshold=1")
        .redis("neighbour", redis.addr(), "failure-threshold=1")
        .arg("--workers=2")
        .launched_by(&["prlimit", &format!("--nofile={limit}:{limit}")])
        .start();
    let empty = Sample::take(&proxy);
    let mut neighbour = Client::connect(proxy.addr("neighbour"));
    assert_eq!(neighbour.call(&["PING"]), Reply::simple("PONG"));
    // They stay without a word, as a pool's spare connections do. Each crowd has ports of its own.
    let gather = || [2, 3].map(|source| Crowd::gather(proxy.addr("cache"), source, wanted / 2));
    // What the workers' first connections make them hold for all, and what docs/OPERATING.md says for each.
    let bound = empty.rss.max(8 << 20) + (2 << 20) + 2_048 * wanted as u64;
    let held = || {
        proxy.await_metric("fusewire_connections_active", &[("backend", "cache")], wanted as f64);
        let full = Sample::take(&proxy);
        println!(
            "{wanted} clients and {} servers have {} of {limit} descriptors, {} tasks and {} KiB; before {} KiB",
            full.servers,
            full.descriptors,
            full.tasks,
            full.rss >> 10,
            empty.rss >> 10
        );
        assert!(full.rss < bound, "{} KiB resident is above {} KiB", full.rss >> 10, bound >> 10);
        full
    };
    let gone = || {
        let left = Sample::take(&proxy);
        // The neighbour has a task and two descriptors.
        let gone =
            left.clients == 1 && left.tasks <= empty.tasks + 1 && left.descriptors <= empty.descriptors + 2;
        check(gone, left)
    };
    let crowds = gather();
    let full = held();
    // The rest of the descriptors, and more clients than that. The kernel takes them; nobody serves them.
    let rest = limit - full.descriptors as usize;
    let mut beyond: Vec<Client> = (0..rest + 200).map(|_| Client::connect(proxy.addr("cache"))).collect();
    proxy.await_log("\"pause\":\"1s\"");
    // Those who were let in and ask only now find no descriptor left for a server, at the latest the second of them: the
    // scrape above may have given one back.
    let refused = |client: &mut Client| match client.call(&["PING"]) {
        Reply::Line(b'-', text) => Some(text),
        _ => None,
    };
    let refusal = beyond.iter_mut().take(rest).find_map(refused);
    let why = "ERR fusewire: no connection to backend 'cache': out of local resources";
    assert_eq!(refusal.as_deref(), Some(why));
    let before = process::cpu(proxy.pid());
    const CALLS: usize = 200;
    for _ in 0..CALLS {
        assert_eq!(neighbour.call(&["PING"]), Reply::simple("PONG"), "whoever is connected is served");
    }
    // Each worker doubles its pause up to a second, which is no busy loop. It begins anew when a descriptor was free: that of
    // the scrape above, that of the client that was refused.
    let log = proxy.log();
    let refusals: Vec<&String> = log.iter().filter(|line| line.contains("Cannot accept clients")).collect();
    let begun = refusals.iter().filter(|line| line.contains("\"pause\":\"5ms\"")).count();
    assert!((1..=8).contains(&begun) && refusals.len() < CALLS, "{refusals:#?}");
    println!(
        "{} attempts to accept {} clients too many; {:?} of processor time in {CALLS} calls of a neighbour",
        refusals.len(),
        beyond.len() - rest,
        process::cpu(proxy.pid()) - before
    );
    drop((beyond, crowds));
    eventually("their end", gone);
    // What they took is there for the next ones.
    let crowds = gather();
    held();
    drop(crowds);
    eventually("the end of the second crowds", gone);
    for name in ["cache", "neighbour"] {
        assert_serves(&proxy, name);
        assert_eq!(
            (proxy.state(name).as_str(), proxy.figure(name, "failed_calls")),
            ("closed", 0),
            "'{name}'"
        );
    }
    proxy.stop();
}

#[test]
fn a_storm_of_connections_while_open_reaches_no_server_and_leaves_nothing() {
    let rounds = scaled(300, 5_000);
    let (redis, postgres) = (Fake::start(vec![Step::Silence]), Fake::start(vec![Step::Silence]));
    let proxy = Setup::default().redis("cache", redis.addr(), "").postgres("db", postgres.addr(), "").start();
    for name in ["cache", "db"] {
        proxy.post(&format!("{API}/trip/{name}"));
    }
    let before = descriptors(proxy.pid());
    thread::scope(|scope| {
        for way in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                for round in 0..rounds / 8 {
                    if way % 2 == 0 {
                        let mut client = Client::connect(proxy.addr("cache"));
                        assert!(client.call(&["GET", "k"]).error().starts_with("CIRCUITOPEN"));
                        if round % 3 == 0 {
                            client.reset();
                        }
                    } else {
                        assert_eq!(Pg::refused(proxy.addr("db")).code, "57P03");
                    }
                }
            });
        }
    });
    assert_eq!((redis.connections(), postgres.connections()), (0, 0));
    for name in ["cache", "db"] {
        eventually("their end", || match proxy.metric("fusewire_connections_active", &[("backend", name)]) {
            0.0 => Ok(()),
            open => Err(format!("{open} still open")),
        });
        assert!(proxy.metric("circuit_breaker_rejections_total", &[("backend", name)]) > 0.0);
        proxy.post(&format!("{API}/reset/{name}"));
    }
    eventually("their descriptors", || {
        let now = descriptors(proxy.pid());
        check(now <= before + 4, (before, now))
    });
    assert_bounded(&proxy, 16);
    proxy.stop();
}

#[test]
fn huge_frames_and_deep_nesting_cost_nothing_but_their_own_connection() {
    let megabytes = scaled(64, 512);
    let redis = Redis::start();
    let deep = [b"*1\r\n".repeat(100_000), b":1\r\n".to_vec()].concat();
    let nested = Fake::start(vec![Step::Await(b"PING".to_vec()), Step::Send(deep.clone()), Step::Silence]);
    let postgres = Postgres::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "failure-threshold=1")
        .redis("nested", nested.addr(), "failure-threshold=1")
        .postgres("db", postgres.addr(), "failure-threshold=1,response-timeout=10m")
        .start();
    // An argument that is announced and never ends, one that is too long to announce, more arguments than there are.
    let mut endless = Client::connect(proxy.addr("cache"));
    endless.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 512 << 20).as_bytes());
    let piece = vec![b'x'; 1 << 20];
    (0..megabytes / 2).for_each(|_| endless.send(&piece));
    for input in ["*1\r\n$536870913\r\n", "*2147483648\r\n", "*99999999999999999999\r\n"] {
        let mut client = Client::connect(proxy.addr("cache"));
        client.send(input.as_bytes());
        let answer = client.rest();
        assert!(answer.starts_with(b"-ERR"), "{input:?}: {:?}", String::from_utf8_lossy(&answer));
    }
    // Requests cannot nest; what looks like it is a protocol error.
    let mut client = Client::connect(proxy.addr("cache"));
    client.try_send(&deep).ok();
    assert!(client.rest().starts_with(b"-ERR"));
    // Replies can, and come through byte by byte.
    let mut client = Client::connect(proxy.addr("nested"));
    client.send(b"*1\r\n$4\r\nPING\r\n");
    assert!(client.bytes(deep.len()) == deep, "a deep reply was changed");
    // Postgres: a query of many megabytes, and lengths that no server takes. What takes the server a second takes it minutes
    // on a machine with too much to do, without a word all the while.
    let mut pg = Pg::session(proxy.addr("db"));
    pg.raw.be_patient_for(20 * PATIENCE);
    let sql = format!("SELECT length('{}')", "y".repeat(megabytes << 19));
    assert_eq!(pg.rows(&sql).0, [(megabytes << 19).to_string()]);
    for input in [&b"Q\xff\xff\xff\xff"[..], b"Q\0\0\0\x03", b"S\0\x10\0\0"] {
        let mut pg = Pg::session(proxy.addr("db"));
        pg.send(input);
        assert_eq!(
            pg.receive().map(|message| message.error().severity),
            Some("FATAL".to_owned()),
            "{input:?}"
        );
        pg.raw.rest();
    }
    // Nested parentheses are the server's business: its own error, on a session that lives on.
    let nested_sql = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let code = pg.error(&nested_sql).0.code;
    assert!(matches!(code.as_str(), "42601" | "54001"), "{code}");
    assert_eq!(pg.rows("SELECT 1").0, ["1"]);
    assert_serves(&proxy, "cache");
    for name in ["cache", "nested", "db"] {
        assert_eq!(proxy.state(name), "closed", "'{name}'");
        assert_eq!(proxy.figure(name, "failed_calls"), 0, "'{name}'");
    }
    assert_bounded(&proxy, 16);
    drop((endless, client, pg));
    proxy.stop();
}

/// What a hostile client does to one backend, all the while. It makes no further connection while there are `many`.
fn harass(addr: SocketAddr, over: &AtomicBool, many: impl Fn() -> bool) {
    let pipeline = command(&["GET", "big"]).repeat(1000);
    while !over.load(Ordering::Relaxed) {
        if many() {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let Ok(mut stream) = TcpStream::connect(addr) else { continue };
        stream.set_nonblocking(true).expect("a mode");
        // It writes without end and never reads, then is gone without a word.
        for _ in 0..200 {
            use std::io::Write;
            match stream.write(&pipeline) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1))
                }
                Err(_) => break,
            }
        }
        stream.shutdown(Shutdown::Both).ok();
    }
}

/// Calls of a well-behaved client one after the other, until it has made so many or the time is over.
fn calls(addr: SocketAddr, most: u64, until: Instant) -> u64 {
    let mut client = Client::connect(addr);
    let mut made = 0;
    while made < most && Instant::now() < until {
        assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
        made += 1;
    }
    made
}

#[test]
fn a_hostile_client_of_one_backend_does_not_stop_another() {
    let (victim, good) = (Redis::start(), Redis::start());
    victim.client().call(&["SET", "big", &"v".repeat(2_000)]);
    let proxy = Setup::default().redis("victim", victim.addr(), "").redis("good", good.addr(), "").start();
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    // On a machine with too much to do clients come and go faster than fusewire gets to see. Each may cost what is stated, so
    // there must not be more of them than the bound below is for.
    let many = || {
        let of = |metric| proxy.metric(metric, &[("backend", "victim")]);
        let ended = of("fusewire_connections_total") - of("fusewire_connections_active");
        let going = made.fetch_add(1, Ordering::Relaxed) as f64 - ended >= 48.0;
        if going {
            made.fetch_sub(1, Ordering::Relaxed);
        }
        going
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| harass(proxy.addr("victim"), &over, many));
        }
        // Its progress is what counts: each call has its own patience.
        let made = calls(proxy.addr("good"), 1_000, Instant::now() + 10 * PATIENCE);
        over.store(true, Ordering::Relaxed);
        assert_eq!(made, 1_000);
    });
    assert_eq!(proxy.figure("good", "failed_calls") + proxy.figure("victim", "failed_calls"), 0);
    eventually("the end of the hostile", || {
        match proxy.metric("fusewire_connections_active", &[("backend", "victim")]) {
            0.0 => Ok(()),
            open => Err(format!("{open} still open")),
        }
    });
    assert_bounded(&proxy, 64);
    proxy.stop();
}

/// Puts this thread, and what it starts from now on, on one processor.
fn stay_on(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).expect("a processor");
}

/// Takes what others leave of the processor, with all that it starts.
fn step_back() {
    setpriority_process(None, 19).expect("a priority");
}

/// The share that a neighbour keeps is stated in docs/TESTING.md. fusewire has a processor, and so one worker, for itself. The
/// hostile and their server would have machines of their own; here they take what the neighbour leaves of the other
/// processor. The figure is compared with what the same hostility costs when it goes past fusewire, straight to the server.
#[test]
#[ignore = "a measurement: quiet machine with two processors, --nocapture"]
fn the_share_of_speed_that_a_neighbour_of_a_hostile_client_keeps() {
    const SPAN: Duration = Duration::from_secs(4);
    stay_on(1);
    let start_back = || {
        step_back();
        Redis::start()
    };
    let victim = thread::spawn(start_back).join().expect("a server");
    let good = Redis::start();
    victim.client().call(&["SET", "big", &"v".repeat(2_000)]);
    let proxied = Setup::default().redis("victim", victim.addr(), "").redis("good", good.addr(), "");
    let start_alone = || {
        stay_on(0);
        proxied.start()
    };
    let proxy = thread::spawn(start_alone).join().expect("fusewire");
    let mut speeds = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..3 {
        let targets = [None, Some(victim.addr()), Some(proxy.addr("victim"))];
        for (target, speeds) in targets.into_iter().zip(&mut speeds) {
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                if let Some(target) = target {
                    for _ in 0..2 {
                        let over = &over;
                        scope.spawn(move || {
                            step_back();
                            harass(target, over, || false);
                        });
                    }
                }
                speeds.push(calls(proxy.addr("good"), u64::MAX, Instant::now() + SPAN));
                over.store(true, Ordering::Relaxed);
            });
        }
    }
    let median = |mut speeds: Vec<u64>| {
        speeds.sort_unstable();
        speeds[speeds.len() / 2] as f64 / SPAN.as_secs_f64()
    };
    let [alone, past, through] = speeds.map(median);
    println!(
        "calls a second of a neighbour: {alone:.0} alone, {past:.0} beside a hostile client that goes past fusewire, \
         {through:.0} beside one that goes through it ({:.0}% of that)",
        through / past * 100.0
    );
    assert!(through > past * 0.5, "a hostile client takes more than half of its neighbour's speed");
    proxy.stop();
}

#[test]
#[ignore = "needs root: mounts a small file system"]
fn a_log_file_goes_on_when_its_disk_has_room_again() {
    let disk = Disk::with_room("64k");
    let (log, filler) = (disk.path().join("log"), disk.path().join("filler"));
    let redis = Redis::start();
    let proxy = logging_to(log.to_str().expect("a path")).redis("cache", redis.addr(), "").start();
    let fill = |bytes: usize| fs::write(&filler, vec![b'x'; bytes]);
    assert!(fill(1 << 20).is_err(), "the disk is full");
    for _ in 0..10 {
        proxy.post(&format!("{API}/trip/cache"));
        proxy.post(&format!("{API}/reset/cache"));
        assert_serves(&proxy, "cache");
    }
    fs::remove_file(&filler).expect("room");
    eventually("the word about lost lines", || {
        proxy.post(&format!("{API}/reset/cache"));
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        check(text.contains("were lost"), text)
    });
    proxy.stop();
}

#[test]
fn a_flood_of_unlike_requests_ends_its_own_connection_and_no_other() {
    let deaf = Fake::start(vec![Step::Silence]);
    let proxy = Setup::default().redis("cache", deaf.addr(), "response-timeout=2s").start();
    // Each second one is of another kind, so none can share an entry: above 262,144 the client is one that never reads.
    let pair = [command(&["GET", "k"]), command(&["BLPOP", "k", "1"])].concat();
    let mut client = Client::connect(proxy.addr("cache"));
    let batch = pair.repeat(1000);
    let deadline = Instant::now() + PATIENCE;
    while client.try_send(&batch).is_ok() {
        assert!(Instant::now() < deadline, "a client that never reads is never ended");
    }
    let forwarded = deaf.received(0).len() / (pair.len() / 2);
    // And a read's worth or two.
    assert!(forwarded < 280_000, "{forwarded} requests were forwarded without an answer");
    assert_bounded(&proxy, 256);
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}
