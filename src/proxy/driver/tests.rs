//! The driver over real sockets and a virtual clock, with a toy protocol: a request is a line, its reply is a line,
//! and a request that begins with `!` is answered by the session itself, in its turn.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinHandle};

use super::*;
use crate::backends::Backend;
use crate::breaker::Policy;
use crate::config::{self, Endpoint, Protocol, Redis, Timeouts};
use crate::gate::Gate;
use crate::proxy::memory::{Dialled, Memory, answer_dials};
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

    fn is_parting(&self) -> bool {
        self.client_over && self.owed.is_empty()
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

/// What a driver is made of but for the client's socket.
struct Parts {
    service: Arc<Service>,
    gate: Arc<Gate>,
    session: Lines,
}

impl Parts {
    fn new(upstream: PathBuf) -> Self {
        let second = Duration::from_secs(1);
        let settings = config::Backend {
            name: "lines".into(),
            protocol: Protocol::Redis(Redis::default()),
            listen: Endpoint::Unix("unused".into()),
            upstream: Endpoint::Unix(upstream),
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
        let session = Lines {
            phase: Phase::Idle,
            owed: VecDeque::new(),
            notes: Arc::default(),
            client_over: false,
            watching: false,
        };
        Self { service, gate, session }
    }

    fn run(self, client: Socket) -> impl Future<Output = ()> {
        Driver::new(self.session, self.gate.lane(1), self.service, client).run()
    }
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backend.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let parts = Parts::new(path);
        let (notes, gate) = (parts.session.notes.clone(), parts.gate.clone());
        let shutdown = parts.service.shutdown().clone();
        let (client, accepted) = UnixStream::pair().unwrap();
        let task = tokio::spawn(parts.run(Socket::Unix(accepted)));
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
async fn a_backend_that_never_lets_go_of_a_client_that_has_left_is_left_too() {
    let mut rig = Rig::new();
    let mut server = rig.connected(b"a\n").await;
    read(&mut server, b"a\n").await;
    server.write_all(b"A\n").await.unwrap();
    read(&mut rig.client, b"A\n").await;
    // However long it had been silent before.
    tokio::time::sleep(2 * PARTING).await;
    let left = present();
    drop(rig.client);
    timeout(10 * PARTING, &mut rig.task).await.expect("both are left").unwrap();
    assert_eq!(*rig.notes.lock().unwrap(), ["client eof"]);
    assert!(present() - left >= PARTING, "virtual time: {:?}", present() - left);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
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
/// Connections that always have more to move.
struct Floods {
    /// How often one of them was moved.
    turns: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
    /// The servers' ends of their connections.
    servers: Rc<RefCell<Vec<Socket>>>,
    _clients: Vec<Socket>,
}

impl Floods {
    const LINE: usize = 16 * 1024;
    /// What each of the clients says.
    const SIZE: usize = 512 * Self::LINE;

    /// `after` is told whose turn each was, and the how manieth.
    async fn start(many: usize, after: impl FnMut(usize, usize) + Send + 'static) -> Self {
        let servers = Rc::<RefCell<Vec<_>>>::default();
        let dialled = servers.clone();
        answer_dials(Some(Rc::new(move || {
            let (ours, server) = Memory::pair(Self::SIZE, usize::MAX);
            dialled.borrow_mut().push(Socket::Memory(server));
            Dialled { delay: Duration::ZERO, result: Ok(ours) }
        })));
        let turns = Arc::<AtomicUsize>::default();
        let after = Arc::new(Mutex::new(after));
        let (mut clients, mut tasks) = (Vec::new(), Vec::new());
        let line = [vec![b'x'; Self::LINE - 1], vec![b'\n']].concat();
        for who in 0..many {
            let (client, ours) = Memory::pair(Self::SIZE, usize::MAX);
            let mut client = Socket::Memory(client);
            client.write_all(&line.repeat(Self::SIZE / Self::LINE)).await.unwrap();
            clients.push(client);
            let mut run = Box::pin(Parts::new("unused".into()).run(Socket::Memory(ours)));
            let (turns, after) = (turns.clone(), after.clone());
            tasks.push(tokio::spawn(poll_fn(move |cx| {
                let ended = run.as_mut().poll(cx);
                (after.lock().unwrap())(who, turns.fetch_add(1, Ordering::Relaxed) + 1);
                ended
            })));
        }
        Self { turns, tasks, servers, _clients: clients }
    }

    /// Awaits the end of what a client says.
    async fn await_end(mut server: Socket) {
        timeout(6 * PATIENCE, server.read_exact(&mut vec![0; Self::SIZE])).await.unwrap().unwrap();
    }
}

impl Drop for Floods {
    fn drop(&mut self) {
        answer_dials(None);
    }
}

#[tokio::test]
async fn who_has_little_to_move_waits_for_one_turn_of_those_that_have_much() {
    const BEGUN: usize = 40;
    let (mut peer, neighbour) = unix::net::UnixStream::pair().unwrap();
    neighbour.set_nonblocking(true).unwrap();
    let neighbour = UnixStream::from_std(neighbour).unwrap();
    let turns = Arc::<AtomicUsize>::default();
    let had = turns.clone();
    let neighbour = tokio::spawn(async move {
        neighbour.readable().await.unwrap();
        had.load(Ordering::Relaxed)
    });
    let floods = Floods::start(8, move |_, turn| {
        turns.store(turn, Ordering::Relaxed);
        if turn == BEGUN {
            peer.write_all(b"x").unwrap();
        }
    })
    .await;
    let had = neighbour.await.unwrap();
    assert!((BEGUN..=BEGUN + 1).contains(&had), "the neighbour's turn came after {had} of the others");
    for server in floods.servers.take() {
        Floods::await_end(server).await;
    }
    assert!(floods.turns.load(Ordering::Relaxed) > 2 * BEGUN, "they had too little to move");
}

#[tokio::test]
async fn those_that_leave_the_line_do_not_stop_it() {
    let others = Arc::<Mutex<Vec<AbortHandle>>>::default();
    let leaving = others.clone();
    // Among them the one whose turn is next.
    let mut floods = Floods::start(8, move |who, turn| {
        if who == 0 && turn >= 40 {
            leaving.lock().unwrap().drain(..).rev().for_each(|task| task.abort());
        }
    })
    .await;
    let left = floods.tasks.split_off(1);
    others.lock().unwrap().extend(left.iter().map(JoinHandle::abort_handle));
    for task in left {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    let turns = floods.turns.load(Ordering::Relaxed);
    Floods::await_end(floods.servers.take().swap_remove(0)).await;
    assert!(floods.turns.load(Ordering::Relaxed) > turns, "it was alone from the start");
}

#[test]
fn a_session_at_rest_is_small() {
    use crate::protocol::{postgres, redis};
    let (redis, postgres) = (size_of::<redis::Session>(), size_of::<postgres::Session>());
    assert!(redis <= 296 && postgres <= 640, "{redis} {postgres}");
}
