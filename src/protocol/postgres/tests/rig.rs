//! A driver without sockets, scripts for it, and messages to put into them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::breaker::{Cause, Fault, Policy, State};
use crate::config::{Overrides, Postgres, SqlState, Timeouts, Tls};
use crate::gate::{Gate, Snapshot};
use crate::metrics::Counter;
use crate::protocol::postgres::{Session, Settings};
use crate::protocol::{HOLD_MAX, Phase, Plan, Session as _, Target, Wait};

/// What happens to a session, in order.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The client sends this, and then nothing more can be read.
    Client(Vec<u8>),
    /// The server sends this.
    Server(Vec<u8>),
    /// The dial that is asked for succeeds.
    Connect,
    /// The dial that is asked for fails.
    Refuse(Option<Fault>),
    ServerEof(Fault),
    ClientEof,
    /// The deadline of [`Wait`] passes.
    Deadline,
    Drain,
    /// The breaker is opened by hand until it is reset.
    Trip,
    /// The breaker is opened and its delay passes: half-open.
    HalfOpen,
    /// The breaker is closed by hand.
    Reset,
    /// This must be what the session waits for.
    Waits(Wait),
    /// This must be what has left for the client in all, as tags.
    Told(&'static str),
    /// This must be the breaker's state.
    Is(State),
}

pub(super) use Step::{
    Client, ClientEof, Connect, Deadline, Drain, HalfOpen, Is, Refuse, Reset, Server, ServerEof, Told, Trip,
    Waits,
};

/// How a script's bytes are cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    Whole,
    Bytes(usize),
    /// The n-th byte of the script's begins a new piece.
    At(usize),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) to_client: Vec<u8>,
    pub(super) to_server: Vec<u8>,
    pub(super) phase: Phase,
    pub(super) wait: Wait,
    pub(super) counts: Vec<(Counter, u64)>,
    pub(super) failures: Vec<(Cause, u64)>,
    pub(super) state: State,
    pub(super) run: u32,
    pub(super) probes: usize,
    /// Calls with a duration, and the sum of those.
    pub(super) timed: (u64, Duration),
}

impl Outcome {
    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.counts.iter().find(|(c, _)| *c == counter).map_or(0, |(_, n)| *n)
    }

    /// Without how often the gate was told too late: successes that end together are one entry there, so that
    /// depends on how they were read.
    pub(super) fn settled(mut self) -> Self {
        self.counts.retain(|(counter, _)| *counter != Counter::Stale);
        self
    }

    /// Calls that succeeded, failed and were ignored.
    pub(super) fn verdicts(&self) -> (u64, u64, u64) {
        (self.count(Counter::Success), self.count(Counter::Failure), self.count(Counter::Ignored))
    }

    pub(super) fn failed(&self) -> Vec<&str> {
        self.failures.iter().map(|(cause, _)| cause.label()).collect()
    }

    /// The tags of what the client got.
    pub(super) fn told(&self) -> String {
        tags(&self.to_client)
    }

    /// The tags of what the server got after the startup packet of the scripts.
    pub(super) fn sent(&self) -> String {
        let startup = startup();
        tags(self.to_server.strip_prefix(startup.as_slice()).unwrap_or(&self.to_server))
    }

    /// A field of the last error that the client got.
    pub(super) fn error(&self, field: u8) -> String {
        let mut errors = messages(&self.to_client).into_iter().filter(|(tag, _)| *tag == b'E');
        let body = errors.next_back().expect("an error").1;
        field_of(&body, field)
    }
}

pub(super) fn field_of(body: &[u8], field: u8) -> String {
    let mut fields = body.split(|b| *b == 0);
    let found = fields.find(|text| text.first() == Some(&field)).unwrap_or_default();
    String::from_utf8(found.get(1..).unwrap_or_default().to_vec()).unwrap()
}

/// Cuts a stream into messages. `N` that answers a request for encryption is told from a notice by what follows.
pub(super) fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        let bare = tag == b'N' && rest.first().is_none_or(|b| *b != 0);
        if bare {
            found.push((tag, Vec::new()));
            bytes = rest;
            continue;
        }
        let Some(len) = rest.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize) else {
            found.push((b'?', rest.to_vec()));
            break;
        };
        let end = (len + 1).min(bytes.len());
        found.push((tag, bytes[5..end].to_vec()));
        bytes = &bytes[end..];
    }
    found
}

pub(super) fn tags(bytes: &[u8]) -> String {
    messages(bytes).iter().map(|(tag, _)| *tag as char).collect()
}

pub(super) const RESPONSE: Duration = Duration::from_secs(7);
pub(super) const HANDSHAKE: Duration = Duration::from_secs(11);
pub(super) const PEER: &str = "10.1.2.3:5432";

pub(super) fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(3),
        response: Some(RESPONSE),
        handshake: HANDSHAKE,
        tcp_user: Duration::from_secs(30),
        keepalive: Duration::from_secs(30),
    }
}

pub(super) fn settings(verdicts: Overrides) -> Arc<Settings> {
    settings_with(verdicts, &Tls::default())
}

pub(super) fn settings_with(verdicts: Overrides, tls: &Tls) -> Arc<Settings> {
    Arc::new(Settings::new("db".into(), &postgres(verdicts), &timeouts(), tls))
}

pub(super) fn postgres(verdicts: Overrides) -> Postgres {
    Postgres {
        reject_connect_code: SqlState::CANNOT_CONNECT_NOW,
        reject_query_code: SqlState::OPERATOR_INTERVENTION,
        check_user: "fusewire_check".into(),
        answer_empty_queries: false,
        verdicts,
    }
}

/// A session and everything a driver has.
pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) settings: Arc<Settings>,
    pub(super) gate: Arc<Gate>,
    pub(super) now: Instant,
    pub(super) to_client: Vec<u8>,
    pub(super) to_server: Vec<u8>,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    over: bool,
}

impl Rig {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self::on(Gate::new("db", Policy::default(), 1, now), settings(Overrides::default()), now)
    }

    /// One whose empty queries are answered while others are refused.
    pub(super) fn answering() -> Self {
        let now = Instant::now();
        let postgres = Postgres { answer_empty_queries: true, ..postgres(Overrides::default()) };
        let settings = Settings::new("db".into(), &postgres, &timeouts(), &Tls::default());
        Self::on(Gate::new("db", Policy::default(), 1, now), Arc::new(settings), now)
    }

    /// One more session on a gate.
    pub(super) fn on(gate: Arc<Gate>, settings: Arc<Settings>, now: Instant) -> Self {
        Self {
            session: Session::new(gate.lane(1), settings.clone()),
            settings,
            gate,
            now,
            to_client: Vec::new(),
            to_server: Vec::new(),
            from_client: Vec::new(),
            from_server: Vec::new(),
            over: false,
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.gate.snapshot(self.now)
    }

    pub(super) fn client(&mut self, bytes: &[u8], drained: bool) {
        self.from_client.extend_from_slice(bytes);
        self.pump(drained);
    }

    pub(super) fn server(&mut self, bytes: &[u8]) {
        self.from_server.extend_from_slice(bytes);
        self.pump(true);
    }

    /// Does what a driver does until nothing moves.
    fn pump(&mut self, drained: bool) {
        loop {
            let before = (self.from_client.len(), self.from_server.len(), self.to_client.len());
            let phase = self.session.phase();
            if matches!(phase, Phase::Idle | Phase::Relay) && !self.from_client.is_empty() {
                let mut plan = Plan::default();
                self.session.on_client(self.now, &self.from_client, drained, &mut plan);
                self.to_server.extend(plan.output(&self.from_client));
                self.from_client.drain(..plan.consumed());
            }
            self.replies();
            if self.session.phase() == Phase::Relay && !self.from_server.is_empty() {
                let mut plan = Plan::default();
                self.session.on_server(self.now, &self.from_server, &mut plan);
                self.to_client.extend(plan.output(&self.from_server));
                self.from_server.drain(..plan.consumed());
            }
            self.replies();
            if self.session.phase() != Phase::Relay || self.session.may_forward_eof() {
                self.over |= matches!(self.session.phase(), Phase::Finish | Phase::Abort);
            }
            if before == (self.from_client.len(), self.from_server.len(), self.to_client.len()) {
                break;
            }
        }
        if matches!(self.session.phase(), Phase::Idle | Phase::Relay) {
            assert!(self.from_client.len() <= HOLD_MAX, "too much is held of the client's");
            assert!(self.from_server.len() <= HOLD_MAX, "too much is held of the server's");
        }
    }

    fn replies(&mut self) {
        loop {
            let before = self.to_client.len();
            self.session.replies(self.now, &mut self.to_client);
            if self.to_client.len() == before {
                break;
            }
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Client(bytes) => self.client(bytes, true),
            Server(bytes) => self.server(bytes),
            Connect => {
                assert!(matches!(self.session.phase(), Phase::Dial(_)), "no dial is wanted");
                self.session.on_connected(self.now, PEER.parse::<SocketAddr>().ok());
                self.pump(true);
            }
            Refuse(fault) => {
                assert!(matches!(self.session.phase(), Phase::Dial(_)), "no dial is wanted");
                self.session.on_connect_failed(self.now, *fault);
                self.pump(true);
            }
            ServerEof(fault) => {
                self.session.on_server_eof(self.now, *fault);
                self.pump(true);
            }
            ClientEof => {
                self.session.on_client_eof(self.now);
                self.pump(true);
            }
            Deadline => {
                assert_ne!(self.session.wait(), Wait::Nothing, "nothing to wait for");
                self.session.on_deadline(self.now);
                self.pump(true);
            }
            Drain => {
                self.session.on_drain(self.now);
                self.pump(true);
            }
            Trip => self.gate.trip(self.now, None),
            HalfOpen => {
                self.gate.trip(self.now, Some(Duration::from_secs(1)));
                self.now += Duration::from_secs(2);
                self.gate.tick(self.now);
            }
            Reset => self.gate.reset(self.now),
            Waits(wait) => assert_eq!(self.session.wait(), *wait),
            Told(expected) => assert_eq!(tags(&self.to_client), *expected),
            Is(state) => assert_eq!(self.snapshot().state, *state),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        const COUNTERS: [Counter; 13] = [
            Counter::Admitted,
            Counter::Success,
            Counter::Failure,
            Counter::Ignored,
            Counter::Stale,
            Counter::RejectedOpen,
            Counter::RejectedHalfOpen,
            Counter::RejectedSession,
            Counter::Probes,
            Counter::Opaque,
            Counter::ClientMalformed,
            Counter::Cancels,
            Counter::LocalFaults,
        ];
        let snapshot = self.snapshot();
        let totals = &snapshot.totals;
        let durations = Duration::from_nanos(totals.latency_nanos.iter().sum());
        let timed = (totals.latency_counts.iter().sum(), durations);
        Outcome {
            to_client: self.to_client.clone(),
            to_server: self.to_server.clone(),
            phase: self.session.phase(),
            wait: self.session.wait(),
            counts: COUNTERS.map(|c| (c, snapshot.totals.get(c))).to_vec(),
            failures: snapshot.failures.into_iter().collect(),
            state: snapshot.state,
            run: snapshot.consecutive_failures,
            probes: snapshot.probes_in_flight,
            timed,
        }
    }

    /// Ends the session; what was admitted must have been settled, and no probe may be left.
    pub(super) fn balance(self) {
        let Self { session, gate, now, .. } = self;
        drop(session);
        let snapshot = gate.snapshot(now);
        assert_eq!(snapshot.totals.in_flight(), 0, "{:?}", snapshot.totals);
        assert_eq!(snapshot.totals.get(Counter::Admitted), snapshot.totals.calls());
        assert_eq!(snapshot.probes_in_flight, 0);
    }
}

/// Plays a script, cut in one way.
pub(super) fn play(rig: &mut Rig, steps: &[Step], cut: Cut) {
    let mut at = 0;
    for step in steps {
        let bytes = match step {
            Client(bytes) | Server(bytes) => bytes.clone(),
            other => {
                rig.step(other);
                continue;
            }
        };
        let pieces: Vec<&[u8]> = match cut {
            Cut::Whole => vec![&bytes],
            Cut::Bytes(n) => bytes.chunks(n).collect(),
            Cut::At(place) if (at + 1..at + bytes.len()).contains(&place) => {
                let (a, b) = bytes.split_at(place - at);
                vec![a, b]
            }
            Cut::At(_) => vec![&bytes],
        };
        at += bytes.len();
        let count = pieces.len();
        for (n, piece) in pieces.into_iter().enumerate() {
            match step {
                Client(_) => rig.client(piece, n + 1 == count),
                _ => rig.server(piece),
            }
        }
    }
}

/// Plays a script in every way; all must agree.
pub(super) fn run(steps: &[Step]) -> Outcome {
    run_on(Rig::new, steps)
}

fn run_on(rig: fn() -> Rig, steps: &[Step]) -> Outcome {
    let once = |cut| {
        let mut rig = rig();
        play(&mut rig, steps, cut);
        let outcome = rig.outcome();
        rig.balance();
        outcome
    };
    let whole = once(Cut::Whole);
    let len: usize = steps.iter().map(|s| if let Client(b) | Server(b) = s { b.len() } else { 0 }).sum();
    let cuts = (1..8).map(Cut::Bytes).chain((1..len).map(Cut::At));
    for cut in cuts {
        assert_eq!(once(cut).settled(), whole.clone().settled(), "{cut:?}");
    }
    whole
}

/// As [`run`], after a startup that has succeeded. The startup's messages are not in the outcome's answers.
pub(super) fn session(steps: &[Step]) -> Outcome {
    session_on(Rig::new, steps)
}

/// As [`session`], on other settings.
pub(super) fn session_on(rig: fn() -> Rig, steps: &[Step]) -> Outcome {
    let mut all = started();
    all.extend_from_slice(steps);
    let mut outcome = run_on(rig, &all);
    let greeting = greeting();
    outcome.to_client = outcome.to_client.split_off(greeting.len().min(outcome.to_client.len()));
    outcome
}

/// A startup that succeeds.
pub(super) fn started() -> Vec<Step> {
    vec![Client(startup()), Connect, Server(greeting())]
}

pub(super) fn greeting() -> Vec<u8> {
    [auth(0), param("server_version", "15.1"), key(7, &[1, 2, 3, 4]), z('I')].concat()
}

// The client's messages, made by the oracle.

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.to_vec()
}

pub(super) fn startup() -> Vec<u8> {
    startup_with(&[("user", "u"), ("database", "d")])
}

pub(super) fn startup_with(parameters: &[(&str, &str)]) -> Vec<u8> {
    encoded(|out| frontend::startup_message(parameters.iter().copied(), out).unwrap())
}

pub(super) fn ssl_request() -> Vec<u8> {
    encoded(frontend::ssl_request)
}

pub(super) fn gss_request() -> Vec<u8> {
    [8u32.to_be_bytes(), 80_877_104u32.to_be_bytes()].concat()
}

pub(super) fn cancel(pid: u32, key: &[u8]) -> Vec<u8> {
    let len = 12 + key.len() as u32;
    [&len.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &pid.to_be_bytes(), key].concat()
}

pub(super) fn password() -> Vec<u8> {
    encoded(|out| frontend::password_message(b"secret", out).unwrap())
}

pub(super) fn q(sql: &str) -> Vec<u8> {
    encoded(|out| frontend::query(sql, out).unwrap())
}

pub(super) fn parse(name: &str, sql: &str) -> Vec<u8> {
    encoded(|out| frontend::parse(name, sql, [], out).unwrap())
}

pub(super) fn bind(name: &str) -> Vec<u8> {
    encoded(|out| {
        let none = |(), _: &mut BytesMut| Ok(postgres_protocol::IsNull::Yes);
        let done = frontend::bind("", name, [], [], none, [1], out);
        assert!(done.is_ok());
    })
}

pub(super) fn describe(name: &str) -> Vec<u8> {
    encoded(|out| frontend::describe(b'S', name, out).unwrap())
}

pub(super) fn execute() -> Vec<u8> {
    encoded(|out| frontend::execute("", 0, out).unwrap())
}

pub(super) fn close(name: &str) -> Vec<u8> {
    encoded(|out| frontend::close(b'S', name, out).unwrap())
}

pub(super) fn sync() -> Vec<u8> {
    encoded(frontend::sync)
}

pub(super) fn flush() -> Vec<u8> {
    encoded(frontend::flush)
}

pub(super) fn terminate() -> Vec<u8> {
    encoded(frontend::terminate)
}

pub(super) fn function() -> Vec<u8> {
    m(b'F', &[0; 10])
}

pub(super) fn copy_data(data: &[u8]) -> Vec<u8> {
    m(b'd', data)
}

pub(super) fn copy_done() -> Vec<u8> {
    encoded(frontend::copy_done)
}

pub(super) fn copy_fail() -> Vec<u8> {
    encoded(|out| frontend::copy_fail("no", out).unwrap())
}

/// One extended run: Parse, Bind, Execute, Sync.
pub(super) fn pbes(name: &str) -> Vec<u8> {
    [parse(name, "SELECT 1"), bind(name), execute(), sync()].concat()
}

// The server's messages.

pub(super) fn m(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

pub(super) fn z(status: char) -> Vec<u8> {
    m(b'Z', &[status as u8])
}

pub(super) fn auth(kind: u32) -> Vec<u8> {
    let more: &[u8] = match kind {
        5 => b"salt",
        10 => b"SCRAM-SHA-256\0\0",
        11 | 12 => b"r=x",
        _ => b"",
    };
    m(b'R', &[&kind.to_be_bytes()[..], more].concat())
}

pub(super) fn param(name: &str, value: &str) -> Vec<u8> {
    m(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub(super) fn key(pid: u32, key: &[u8]) -> Vec<u8> {
    m(b'K', &[&pid.to_be_bytes()[..], key].concat())
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    m(b'C', format!("{tag}\0").as_bytes())
}

pub(super) fn row() -> Vec<u8> {
    m(b'D', &[0, 1, 0, 0, 0, 1, b'1'])
}

/// An ErrorResponse as a server since 9.6 writes it, in German, so that only `V` can be trusted.
pub(super) fn error(severity: &str, code: &str) -> Vec<u8> {
    error_with(severity, code, "nein", "somewhere")
}

pub(super) fn error_with(severity: &str, code: &str, message: &str, routine: &str) -> Vec<u8> {
    m(b'E', &report(severity, code, message, routine))
}

pub(super) fn notice(severity: &str, code: &str) -> Vec<u8> {
    m(b'N', &report(severity, code, "aha", "quickdie"))
}

fn report(severity: &str, code: &str, message: &str, routine: &str) -> Vec<u8> {
    format!("SFEHLER\0V{severity}\0C{code}\0M{message}\0Fx.c\0L1\0R{routine}\0\0").into_bytes()
}

/// The answer to a simple SELECT.
pub(super) fn rows() -> Vec<u8> {
    [m(b'T', &[0, 0]), row(), complete("SELECT 1"), z('I')].concat()
}

/// The answer to [`pbes`].
pub(super) fn extended_rows() -> Vec<u8> {
    [m(b'1', b""), m(b'2', b""), row(), complete("SELECT 1"), z('I')].concat()
}

pub(super) fn target() -> Target {
    Target::Exactly(PEER.parse().unwrap())
}
