//! The driver over real sockets and a virtual clock, with a toy protocol: a request is a line, its reply is a line,
//! and a request that begins with `!` is answered by the session itself, in its turn.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::backends::Backend;
use crate::breaker::Policy;
use crate::config::{self, Endpoint, Protocol, Redis, Timeouts};
use crate::gate::Gate;
use crate::proxy::service::Route;
use crate::proxy::shutdown::Shutdown;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
enum Owed {
    Server,
    Local,
}

#[derive(Debug)]
struct Lines {
    phase: Phase,
    owed: VecDeque<Owed>,
    notes: Arc<Mutex<Vec<String>>>,
    client_over: bool,
    /// Behind a line that begins with `@`.
    watching: bool,
}

impl Lines {
    fn note(&self, what: impl Into<String>) {
        self.notes.lock().unwrap().push(what.into());
    }
}

impl Session for Lines {
    fn on_client(&mut self, _: Instant, input: &[u8], _: bool, plan: &mut Plan) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Dial(Target::Backend);
            return;
        }
        for line in input.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
            self.watching |= line.starts_with(b"@");
            if line.starts_with(b"!") {
                self.owed.push_back(Owed::Local);
                plan.drop(line.len());
            } else {
                self.owed.push_back(Owed::Server);
                plan.forward(line.len());
            }
        }
    }

    fn on_server(&mut self, _: Instant, input: &[u8], plan: &mut Plan) {
        for line in input.split_inclusive(|&b| b == b'\n') {
            if self.owed.front() == Some(&Owed::Local) {
                return;
            }
            plan.forward(line.len());
            if line.ends_with(b"\n") {
                self.owed.pop_front();
            }
        }
    }

    fn replies(&mut self, _: Instant, out: &mut Vec<u8>) {
        if self.owed.front() == Some(&Owed::Local) {
            self.owed.pop_front();
            out.extend_from_slice(b"local\n");
        }
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn wait(&self) -> Wait {
        match self.owed.front() {
            Some(Owed::Server) => Wait::Backend(PATIENCE),
            _ => Wait::Nothing,
        }
    }

    fn on_connected(&mut self, _: Instant, _: Option<SocketAddr>) {
        self.phase = Phase::Relay;
    }

    fn on_connect_failed(&mut self, _: Instant, fault: Option<Fault>) {
        self.note(format!("connect failed: {fault:?}"));
        self.owed.push_back(Owed::Local);
        self.phase = Phase::Finish;
    }

    fn on_full(&mut self, _: Instant, limit: u32) {
        self.note(format!("full {limit}"));
        self.phase = Phase::Finish;
    }

    fn on_client_eof(&mut self, _: Instant) {
        self.note("client eof");
        self.client_over = true;
    }

    fn may_forward_eof(&self) -> bool {
        self.owed.is_empty()
    }

    fn on_server_eof(&mut self, _: Instant, fault: Fault) {
        self.note(format!("server eof: {fault:?}"));
        self.phase = Phase::Finish;
    }

    fn on_deadline(&mut self, _: Instant) {
        self.note("deadline");
        self.owed.clear();
        self.phase = Phase::Abort;
    }

    fn watches_breaker(&self) -> bool {
        self.watching
    }

    fn on_breaker_change(&mut self, _: Instant) {
        self.note("breaker");
    }

    fn on_drain_over(&mut self, _: Instant) {
        self.note("drain over");
        self.phase = Phase::Finish;
    }

    fn on_drain(&mut self, _: Instant) {
        self.note("drain");
        if self.owed.is_empty() {
            self.phase = Phase::Finish;
        }
    }
}

/// A driver between a client and a listening backend.
struct Rig {
    client: UnixStream,
    backend: UnixListener,
    notes: Arc<Mutex<Vec<String>>>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
    gate: Arc<Gate>,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backend.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let second = Duration::from_secs(1);
        let settings = config::Backend {
            name: "lines".into(),
            protocol: Protocol::Redis(Redis::default()),
            listen: Endpoint::Unix("unused".into()),
            upstream: Endpoint::Unix(path),
            proxy_protocol: config::ProxyProtocol::default(),
            tls: config::Tls::default(),
            breaker: Policy::default(),
            timeouts: Timeouts {
                connect: second,
                response: None,
                handshake: second,
                tcp_user: second,
                keepalive: second,
            },
        };
        let gate = Gate::new("lines", Policy::default(), 1, present());
        let backend = Arc::new(Backend::new(settings.clone(), gate.clone()));
        let service = Arc::new(Service::new(backend, Route::new(settings).unwrap()));
        let notes = Arc::new(Mutex::new(Vec::new()));
        let session = Lines {
            phase: Phase::Idle,
            owed: VecDeque::new(),
            notes: notes.clone(),
            client_over: false,
            watching: false,
        };
        let (client, accepted) = UnixStream::pair().unwrap();
        let shutdown = service.shutdown().clone();
        let driver = Driver::new(session, gate.lane(1), service, Socket::Unix(accepted));
        let task = tokio::spawn(driver.run());
        Self { client, backend: listener, notes, shutdown, task, gate, _folder: folder }
    }

    async fn connected(&mut self, first: &[u8]) -> UnixStream {
        self.client.write_all(first).await.unwrap();
        self.backend.accept().await.unwrap().0
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }
}

async fn read(stream: &mut UnixStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_without_a_word_never_reaches_the_backend() {
    let rig = Rig::new();
    drop(rig.client);
    rig.task.await.unwrap();
    let totals = rig.gate.snapshot(present()).totals;
    assert_eq!((totals.get(Counter::Accepted), totals.get(Counter::Closed)), (1, 1));
    assert_eq!(totals.get(Counter::Connected), 0);
}

#[tokio::test(start_paused = true)]
async fn held_bytes_are_shown_again_with_what_follows() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"par").await;
    rig.client.write_all(b"tial\nne").await.unwrap();
    read(&mut server, b"partial\n").await;
    rig.client.write_all(b"xt\n").await.unwrap();
    read(&mut server, b"next\n").await;
}

#[tokio::test(start_paused = true)]
async fn local_replies_keep_their_place_between_forwarded_ones() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\n!\n!\nb\n!\n").await;
    read(&mut server, b"a\nb\n").await;
    server.write_all(b"A\nB\n").await.unwrap();
    read(&mut rig.client, b"A\nlocal\nlocal\nB\nlocal\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_breaker_before_the_watch_began_is_not_missed() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"@\n").await;
    read(&mut server, b"@\n").await;
    server.write_all(b"A\n").await.unwrap();
    // Virtual time passes only when nothing can move any more.
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(rig.notes(), ["breaker"], "once, for what may have been missed");
    for changes in 2..4 {
        rig.gate.trip(present(), None);
        tokio::time::sleep(PATIENCE).await;
        assert_eq!(rig.notes().len(), changes, "{:?}", rig.notes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_stops_the_backend_and_the_clock() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\n").await;
    read(&mut server, b"a\n").await;
    // Far more than sockets and one backlog hold: the write cannot end while the client does not read.
    let size = 8 * 1024 * 1024;
    let mut flood = vec![b'x'; size];
    flood[size - 1] = b'\n';
    let expected = flood.clone();
    let write = tokio::spawn(async move {
        server.write_all(&flood).await.unwrap();
        server
    });
    // Virtual time passes only when nothing can move any more.
    tokio::time::sleep(PATIENCE * 3).await;
    assert!(!write.is_finished());
    read(&mut rig.client, &expected).await;
    let _server = write.await.unwrap();
    assert!(rig.notes().is_empty(), "{:?}", rig.notes());
}

#[tokio::test(start_paused = true)]
async fn a_silent_backend_meets_its_deadline() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\n").await;
    read(&mut server, b"a\n").await;
    let asked = present();
    rig.task.await.unwrap();
    assert_eq!(*rig.notes.lock().unwrap(), ["deadline"]);
    assert!(present() - asked >= PATIENCE, "virtual time: {:?}", present() - asked);
}

#[tokio::test(start_paused = true)]
async fn pipelining_into_silence_does_not_move_the_deadline() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\n").await;
    read(&mut server, b"a\n").await;
    let asked = present();
    while !rig.task.is_finished() {
        let _ = rig.client.write_all(b"more\n").await;
        tokio::time::sleep(PATIENCE / 10).await;
    }
    assert_eq!(*rig.notes.lock().unwrap(), ["deadline"]);
    assert!(present() - asked < PATIENCE * 2, "virtual time: {:?}", present() - asked);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_client_still_gets_its_replies() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\nb\n").await;
    read(&mut server, b"a\nb\n").await;
    rig.client.shutdown().await.unwrap();
    server.write_all(b"A\n").await.unwrap();
    read(&mut rig.client, b"A\n").await;
    let early = timeout(PATIENCE / 2, server.read(&mut [0; 8])).await;
    assert!(early.is_err(), "the end was passed on while a reply was owed");
    server.write_all(b"B\n").await.unwrap();
    // The end of the client's input reaches the backend once nothing is owed any more.
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    read(&mut rig.client, b"B\n").await;
    drop(server);
    rig.task.await.unwrap();
    assert_eq!(*rig.notes.lock().unwrap(), ["client eof", "server eof: Eof"]);
}

#[tokio::test(start_paused = true)]
async fn everything_the_backend_sent_before_it_closed_is_delivered() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\n!\nb\n").await;
    read(&mut server, b"a\nb\n").await;
    server.write_all(b"A\nB\n").await.unwrap();
    drop(server);
    let mut got = String::new();
    rig.client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "A\nlocal\nB\n");
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_is_told_natively_and_then_closed() {
    let mut rig = Rig::new();
    drop(rig.backend);
    rig.client.write_all(b"a\n").await.unwrap();
    let mut got = String::new();
    rig.client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "local\n");
    assert_eq!(*rig.notes.lock().unwrap(), ["connect failed: Some(Refused)"]);
}

#[tokio::test(start_paused = true)]
async fn the_drain_reaches_an_idle_connection() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\n").await;
    read(&mut server, b"a\n").await;
    server.write_all(b"A\n").await.unwrap();
    read(&mut rig.client, b"A\n").await;
    rig.shutdown.drain();
    assert_eq!(rig.client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(rig.notes(), ["drain"]);
}

/// What an idle client takes is mostly its session, its two sockets and what the runtime has for them (ADR 0013).
#[test]
fn a_session_at_rest_is_small() {
    use crate::protocol::{postgres, redis};
    let (redis, postgres) = (size_of::<redis::Session>(), size_of::<postgres::Session>());
    assert!(redis <= 296 && postgres <= 640, "{redis} {postgres}");
}
