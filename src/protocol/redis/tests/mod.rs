//! A small driver without sockets, and what the session must do with it.
//!
//! [`scenario`] runs a script with every byte string whole, cut at each point, and byte by byte: the client, the
//! backend and the figures must not see a difference.

mod breaker;
mod figures;
mod framing;
mod life;
mod properties;
mod reload;
mod rows;
mod scanners;
mod state;
mod subscribers;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Session, Settings};
use crate::breaker::{Cause, Policy, State};
use crate::config::{Overrides, Redis, Timeouts};
use crate::gate::Gate;
use crate::metrics::{Counter, Totals};
use crate::protocol::{HOLD_MAX, Phase, Plan, Session as _, Wait};

/// How long `Rig::trip` keeps the breaker open.
const HOLD: Duration = Duration::from_secs(10);
const RESPONSE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Whole,
    At(usize),
    Bytes,
}

/// A session with its gate, and a driver that connects at once.
struct Rig {
    gate: Arc<Gate>,
    settings: Arc<Settings>,
    session: Option<Session>,
    now: Instant,
    cut: Cut,
    longest: usize,
    /// What the backend got and the client got.
    up: Vec<u8>,
    down: Vec<u8>,
    client_buf: Vec<u8>,
    server_buf: Vec<u8>,
    /// Leaves [`Phase::Dial`] to the test.
    hold_dial: bool,
    dials: usize,
    /// Whether the script ended in [`Phase::Abort`].
    aborted: Option<bool>,
}

fn policy() -> Policy {
    Policy { failure_threshold: Some(3), ..Policy::default() }
}

fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(3),
        response: Some(RESPONSE),
        handshake: Duration::from_secs(5),
        tcp_user: Duration::from_secs(30),
        keepalive: Duration::from_secs(30),
    }
}

impl Rig {
    fn new(cut: Cut) -> Self {
        Self::with(cut, &Redis::default())
    }

    /// With settings of its own.
    fn with(cut: Cut, redis: &Redis) -> Self {
        let now = Instant::now();
        let gate = Gate::new("cache", policy(), 1, now);
        let settings = Arc::new(Settings::new("cache".into(), redis, &timeouts()));
        let session = Session::new(gate.lane(1), settings.clone());
        Self {
            gate,
            settings,
            session: Some(session),
            now,
            cut,
            longest: 0,
            up: Vec::new(),
            down: Vec::new(),
            client_buf: Vec::new(),
            server_buf: Vec::new(),
            hold_dial: false,
            dials: 0,
            aborted: None,
        }
    }

    /// The same backend, another client.
    fn another(&self) -> Self {
        let session = Session::new(self.gate.lane(1), self.settings.clone());
        Self {
            gate: self.gate.clone(),
            settings: self.settings.clone(),
            session: Some(session),
            ..Self::new(self.cut).at(self.now)
        }
    }

    fn at(mut self, now: Instant) -> Self {
        self.now = now;
        self
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("the client has not vanished")
    }

    fn pieces(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.longest = self.longest.max(bytes.len());
        match self.cut {
            Cut::Whole => vec![bytes.to_vec()],
            Cut::At(at) if at < bytes.len() => vec![bytes[..at].to_vec(), bytes[at..].to_vec()],
            Cut::At(_) => vec![bytes.to_vec()],
            Cut::Bytes => bytes.iter().map(|byte| vec![*byte]).collect(),
        }
    }

    fn client(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        for piece in self.pieces(bytes.as_ref()) {
            self.client_buf.extend(piece);
            self.pump();
        }
        self
    }

    fn server(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        for piece in self.pieces(bytes.as_ref()) {
            self.server_buf.extend(piece);
            self.pump();
        }
        self
    }

    /// A request and its reply, both expected to pass untouched.
    fn passes(&mut self, request: impl AsRef<[u8]>, reply: impl AsRef<[u8]>) -> &mut Self {
        let (up, down) = (self.up.len(), self.down.len());
        self.client(request.as_ref());
        assert_eq!(text(&self.up[up..]), text(request.as_ref()));
        self.server(reply.as_ref());
        assert_eq!(text(&self.down[down..]), text(reply.as_ref()));
        self
    }

    /// What the client gets for `request`, of which nothing may reach the backend.
    fn refused(&mut self, request: impl AsRef<[u8]>) -> String {
        let (up, down) = (self.up.len(), self.down.len());
        self.client(request.as_ref());
        assert_eq!(text(&self.up[up..]), "", "reached the backend");
        text(&self.down[down..])
    }

    fn pump(&mut self) {
        let now = self.now;
        loop {
            let mut moved = false;
            if matches!(self.phase(), Phase::Dial(_)) && !self.hold_dial {
                self.dials += 1;
                self.session().on_connected(now, None);
                moved = true;
            }
            if matches!(self.phase(), Phase::Idle | Phase::Relay) && !self.client_buf.is_empty() {
                let mut plan = Plan::default();
                let input = std::mem::take(&mut self.client_buf);
                self.session().on_client(now, &input, true, &mut plan);
                self.up.extend(plan.output(&input));
                self.client_buf = input[plan.consumed()..].to_vec();
                assert!(self.client_buf.len() <= HOLD_MAX || plan.consumed() > 0 || self.dialing());
                moved |= plan.consumed() > 0 || self.dialing() && !self.hold_dial;
            }
            if self.phase() == Phase::Relay && !self.server_buf.is_empty() {
                let mut plan = Plan::default();
                let input = std::mem::take(&mut self.server_buf);
                self.session().on_server(now, &input, &mut plan);
                self.down.extend(plan.output(&input));
                self.server_buf = input[plan.consumed()..].to_vec();
                moved |= plan.consumed() > 0;
            }
            loop {
                let mut out = Vec::new();
                self.session().replies(now, &mut out);
                if out.is_empty() {
                    break;
                }
                moved = true;
                self.down.extend(out);
            }
            if !moved {
                return;
            }
        }
    }

    fn dialing(&self) -> bool {
        matches!(self.phase(), Phase::Dial(_))
    }

    fn phase(&self) -> Phase {
        self.session.as_ref().map_or(Phase::Finish, |session| session.phase())
    }

    fn wait(&self) -> Wait {
        self.session.as_ref().map_or(Wait::Nothing, |session| session.wait())
    }

    fn server_eof(&mut self) -> Phase {
        self.server_lost(crate::breaker::Fault::Eof)
    }

    fn server_lost(&mut self, fault: crate::breaker::Fault) -> Phase {
        let now = self.now;
        if matches!(self.phase(), Phase::Relay) {
            self.session().on_server_eof(now, fault);
        }
        self.pump();
        self.phase()
    }

    fn pass_time(&mut self, by: Duration) {
        self.now += by;
        self.gate.tick(self.now);
        self.tell();
    }

    fn tell(&mut self) {
        let now = self.now;
        if let Some(session) = &mut self.session
            && session.watches_breaker()
        {
            session.on_breaker_change(now);
        }
        if self.session.is_some() {
            self.pump();
        }
    }

    fn trip(&mut self) -> &mut Self {
        self.gate.trip(self.now, Some(HOLD));
        self.tell();
        self
    }

    fn half_open(&mut self) -> &mut Self {
        self.trip();
        self.pass_time(HOLD);
        assert_eq!(self.state(), State::HalfOpen);
        self
    }

    fn close(&mut self) -> &mut Self {
        self.gate.reset(self.now);
        self.tell();
        self
    }

    fn state(&self) -> State {
        self.gate.snapshot(self.now).state
    }

    fn totals(&self) -> Totals {
        self.gate.snapshot(self.now).totals
    }

    fn count(&self, counter: Counter) -> u64 {
        self.totals().get(counter)
    }

    /// Failures in a row that the breaker sees.
    fn run(&self) -> u32 {
        self.gate.snapshot(self.now).consecutive_failures
    }

    fn vanish(&mut self) {
        self.session = None;
    }

    fn down(&self) -> String {
        text(&self.down)
    }

    fn up(&self) -> String {
        text(&self.up)
    }

    /// Forgets what both sides got.
    fn forget(&mut self) -> &mut Self {
        self.up.clear();
        self.down.clear();
        self
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A multibulk request of the words in `line`.
fn req(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let mut out = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| out.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    out.into_bytes()
}

/// Several requests.
fn reqs(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| req(line)).collect()
}

/// The rejection that a tripped rig gives; the delay depends on the state.
fn rejections(down: &str) -> usize {
    down.matches("-CIRCUITOPEN backend 'cache' is ").count()
}

/// Everything that must not depend on how bytes are cut: counts and durations, failures by their causes, the breaker's state
/// and what its run of failures has come to.
fn figures(rig: &Rig) -> (Vec<u64>, Vec<(Cause, u64)>, State, u32) {
    use Counter::*;
    let totals = rig.totals();
    let snapshot = rig.gate.snapshot(rig.now);
    let counts = [
        Admitted,
        Success,
        Failure,
        Ignored,
        RejectedOpen,
        RejectedHalfOpen,
        RejectedSession,
        Probes,
        Opaque,
        ClientMalformed,
        LocalFaults,
        Stale,
        WouldReject,
        RejectedCalls,
    ]
    .map(|counter| totals.get(counter));
    let counts = counts.into_iter().chain(totals.latency_counts).chain(totals.latency_nanos);
    let failures = snapshot.failures.into_iter().collect();
    (counts.collect(), failures, snapshot.state, snapshot.consecutive_failures)
}

/// Runs `script` with its bytes whole, cut once at every point, and in single bytes.
fn scenario(script: impl Fn(&mut Rig)) {
    scenario_of(true, &Redis::default(), script);
}

/// The same under settings of its own.
fn scenario_under(redis: &Redis, script: impl Fn(&mut Rig)) {
    scenario_of(true, redis, script);
}

/// Like [`scenario`]; a request that is broken in its middle may have reached the backend in part or not at all,
/// and so may a broken reply the client.
fn broken_scenario(script: impl Fn(&mut Rig)) {
    scenario_of(false, &Redis::default(), script);
}

fn scenario_of(same_upstream: bool, redis: &Redis, script: impl Fn(&mut Rig)) {
    let run = |cut| {
        let mut rig = Rig::with(cut, redis);
        script(&mut rig);
        rig.aborted = Some(rig.phase() == Phase::Abort);
        rig.vanish();
        assert_eq!(rig.totals().in_flight(), 0, "calls without an end, cut {cut:?}");
        assert_eq!(rig.totals().calls(), rig.count(Counter::Admitted), "ends without a call, cut {cut:?}");
        assert_eq!(rig.gate.snapshot(rig.now).probes_in_flight, 0, "a probe without an end, cut {cut:?}");
        rig
    };
    let whole = run(Cut::Whole);
    let cuts = (1..whole.longest.min(400)).map(Cut::At).chain([Cut::Bytes]);
    for cut in cuts {
        let rig = run(cut);
        if same_upstream || whole.aborted != Some(true) {
            assert_eq!(rig.down(), whole.down(), "to the client, cut {cut:?}");
        }
        if same_upstream {
            assert_eq!(rig.up(), whole.up(), "to the backend, cut {cut:?}");
        }
        assert_eq!(figures(&rig), figures(&whole), "figures, cut {cut:?}");
    }
}
