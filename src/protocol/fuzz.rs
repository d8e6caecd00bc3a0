//! Sessions under whatever comes: the fuzzer's bytes are read as events, and the events are played to one session whole,
//! in pieces and byte by byte.
//!
//! Judged are the promises of [`Session`] itself (nothing held beyond the bound, no phase left that cannot be left), the
//! books (every call ends once, no probe is left), and that no cut changes what either side gets. Absent on purpose: what
//! a request means, which the tests of each protocol know.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{HOLD_MAX, Phase, Plan, Session, Wait};
use crate::breaker::{Fault, Mode, Policy};
use crate::gate::Gate;
use crate::metrics::Counter;

/// Something that happens to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Client(Vec<u8>),
    Server(Vec<u8>),
    /// The next dial fails; none: for want of this machine's own resources.
    DialFails(Option<Fault>),
    Trip,
    HalfOpen,
    Close,
    Observe,
    Deadline,
    ClientEnds,
    ServerEnds(Fault),
    Drain,
    DrainOver,
    Time(Duration),
    /// What was said before and after it is not read together.
    Pause,
}

/// Whole requests and replies that an event may name, so that the fuzzer need not find their spelling.
pub(crate) struct Words {
    /// What clients say.
    pub(crate) client: Vec<Vec<u8>>,
    /// What servers say.
    pub(crate) server: Vec<Vec<u8>>,
}

/// How long a trip by hand holds.
const HOLD: Duration = Duration::from_secs(10);

/// Reads events. A byte below 100 is one of the client's words, below 200 one of the server's, then come bytes as they
/// are behind their number, and everything else.
fn events(mut data: &[u8], words: &Words) -> Vec<Event> {
    let mut found: Vec<Event> = Vec::new();
    while let Some((&op, rest)) = data.split_first() {
        data = rest;
        let mut raw = || {
            let (&len, rest) = data.split_first().unwrap_or((&0, &[]));
            let (bytes, rest) = rest.split_at(usize::from(len).min(rest.len()));
            data = rest;
            bytes.to_vec()
        };
        let word = |list: &[Vec<u8>], at: u8| list[usize::from(at) % list.len()].clone();
        let event = match op {
            0..100 => Event::Client(word(&words.client, op)),
            100..200 => Event::Server(word(&words.server, op - 100)),
            200..216 => Event::Client(raw()),
            216..232 => Event::Server(raw()),
            232 => Event::DialFails(Some(Fault::Refused)),
            233 => Event::DialFails(None),
            234 | 235 => Event::Trip,
            236 | 237 => Event::HalfOpen,
            238 | 239 => Event::Close,
            240 => Event::Observe,
            241 | 242 => Event::Deadline,
            243 => Event::ClientEnds,
            244 => Event::ServerEnds(Fault::Eof),
            245 => Event::ServerEnds(Fault::Reset),
            246 => Event::Drain,
            247 => Event::DrainOver,
            248 => Event::Time(Duration::from_millis(10)),
            249 => Event::Time(Duration::from_secs(4)),
            250 => Event::Time(Duration::from_secs(60)),
            _ => Event::Pause,
        };
        match (found.last_mut(), event) {
            (Some(Event::Client(said)), Event::Client(more))
            | (Some(Event::Server(said)), Event::Server(more)) => {
                said.extend(more);
            }
            (_, event) => found.push(event),
        }
    }
    found
}

/// What must not depend on how bytes are cut.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    phase: Phase,
    wait: Wait,
    counts: Vec<(Counter, u64)>,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

impl Outcome {
    fn count(&self, counter: Counter) -> u64 {
        self.counts.iter().find(|(known, _)| *known == counter).map_or(0, |(_, n)| *n)
    }
}

/// A session with its gate, and a driver without sockets.
struct Bench<S> {
    session: S,
    gate: Arc<Gate>,
    now: Instant,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    dial_fails: Option<Option<Fault>>,
    client_ended: bool,
    server_ended: bool,
    /// A TLS handshake came: what is read with the request for it and what after it is told apart.
    secured: bool,
    ended: Option<Phase>,
}

impl<S: Session> Bench<S> {
    /// Moves whatever can move. `drained`: the client's last bytes so far are among what there is.
    fn pump(&mut self, drained: bool) {
        loop {
            let mut moved = false;
            match self.session.phase() {
                Phase::Dial(_) => {
                    match self.dial_fails.take() {
                        Some(fault) => self.session.on_connect_failed(self.now, fault),
                        None => self.session.on_connected(self.now, None),
                    }
                    assert!(!matches!(self.session.phase(), Phase::Dial(_)), "a dial that never ends");
                    moved = true;
                }
                Phase::Secure => {
                    self.answer();
                    self.secured = true;
                    self.from_client.clear();
                    self.session.on_secured(self.now, Some(b"postgresql"));
                    assert_ne!(self.session.phase(), Phase::Secure, "a handshake that never ends");
                    moved = true;
                }
                Phase::Idle | Phase::Relay if !self.from_client.is_empty() => {
                    moved |= self.hear_client(drained)
                }
                _ => {}
            }
            if self.session.phase() == Phase::Relay && !self.from_server.is_empty() {
                moved |= self.hear_server();
            }
            moved |= self.answer();
            if !moved {
                break;
            }
        }
        let phase = self.session.phase();
        if matches!(phase, Phase::Idle | Phase::Relay) {
            assert!(
                self.from_client.len() <= HOLD_MAX,
                "{} bytes of the client's are held",
                self.from_client.len()
            );
            assert!(
                self.from_server.len() <= HOLD_MAX,
                "{} bytes of the server's are held",
                self.from_server.len()
            );
        }
        if let Some(ended) = self.ended {
            assert!(matches!(phase, Phase::Finish | Phase::Abort), "{phase:?} after {ended:?}");
        }
        if matches!(phase, Phase::Finish | Phase::Abort) {
            self.ended = Some(phase);
        }
    }

    fn hear_client(&mut self, drained: bool) -> bool {
        let mut plan = Plan::default();
        let input = std::mem::take(&mut self.from_client);
        let before = self.session.phase();
        self.session.on_client(self.now, &input, drained, &mut plan);
        assert!(plan.consumed() <= input.len(), "more is consumed than was there");
        self.to_server.extend(plan.output(&input));
        self.from_client = input[plan.consumed()..].to_vec();
        plan.consumed() > 0 || self.session.phase() != before
    }

    fn hear_server(&mut self) -> bool {
        let mut plan = Plan::default();
        let input = std::mem::take(&mut self.from_server);
        let before = self.session.phase();
        self.session.on_server(self.now, &input, &mut plan);
        assert!(plan.consumed() <= input.len(), "more is consumed than was there");
        self.to_client.extend(plan.output(&input));
        self.from_server = input[plan.consumed()..].to_vec();
        plan.consumed() > 0 || self.session.phase() != before
    }

    fn answer(&mut self) -> bool {
        let before = self.to_client.len();
        loop {
            let so_far = self.to_client.len();
            self.session.replies(self.now, &mut self.to_client);
            if self.to_client.len() == so_far {
                return so_far > before;
            }
        }
    }

    fn play(&mut self, event: &Event, piece: usize) {
        match event {
            Event::Client(bytes) if !self.client_ended => {
                let pieces = bytes.chunks(piece);
                let last = pieces.len();
                for (at, piece) in pieces.enumerate() {
                    self.from_client.extend_from_slice(piece);
                    self.pump(at + 1 == last);
                }
            }
            Event::Server(bytes) if !self.server_ended && self.session.phase() == Phase::Relay => {
                for piece in bytes.chunks(piece) {
                    self.from_server.extend_from_slice(piece);
                    self.pump(true);
                }
            }
            Event::DialFails(fault) => self.dial_fails = Some(*fault),
            Event::Trip => self.gate.trip(self.now, Some(HOLD)),
            Event::HalfOpen => {
                self.gate.trip(self.now, Some(HOLD));
                self.pass(HOLD);
            }
            Event::Close => self.gate.reset(self.now),
            Event::Observe => {
                let mode = if self.gate.mode() == Mode::Observe { Mode::Enforce } else { Mode::Observe };
                self.gate.set_mode(self.now, mode);
            }
            Event::Deadline => {
                if let Wait::Backend(limit) | Wait::Client(limit) = self.session.wait() {
                    self.pass(limit);
                    self.session.on_deadline(self.now);
                }
            }
            Event::ClientEnds if !self.client_ended => {
                self.client_ended = true;
                self.session.on_client_eof(self.now);
            }
            Event::ServerEnds(fault) if !self.server_ended && self.session.phase() == Phase::Relay => {
                self.server_ended = true;
                self.session.on_server_eof(self.now, *fault);
            }
            Event::Drain => self.session.on_drain(self.now),
            Event::DrainOver => {
                self.session.on_drain_over(self.now);
                self.answer();
                let phase = self.session.phase();
                assert!(matches!(phase, Phase::Finish | Phase::Abort), "{phase:?} after the drain");
            }
            Event::Time(time) => self.pass(*time),
            Event::Client(_) | Event::Server(_) | Event::ClientEnds | Event::ServerEnds(_) | Event::Pause => {
            }
        }
        if self.session.watches_breaker() {
            self.session.on_breaker_change(self.now);
        }
        self.pump(true);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.gate.tick(self.now);
    }

    fn end(self) -> (Outcome, bool) {
        use Counter as C;
        // Not how often the gate was told too late: successes that end together are one entry there, and what ends
        // together depends on how it was read.
        const COUNTERS: [Counter; 14] = [
            C::Admitted,
            C::Success,
            C::Failure,
            C::Ignored,
            C::RejectedOpen,
            C::RejectedHalfOpen,
            C::RejectedSlowStart,
            C::RejectedSession,
            C::WouldReject,
            C::Probes,
            C::Opaque,
            C::ClientMalformed,
            C::Cancels,
            C::LocalFaults,
        ];
        let Self { session, gate, now, to_client, to_server, secured, .. } = self;
        let (phase, wait) = (session.phase(), session.wait());
        drop(session);
        let snapshot = gate.snapshot(now);
        let totals = &snapshot.totals;
        assert_eq!(totals.get(C::Admitted), totals.calls(), "calls begun and calls ended");
        assert_eq!(snapshot.probes_in_flight, 0, "probes without an end");
        let counts = COUNTERS.map(|counter| (counter, totals.get(counter))).to_vec();
        (Outcome { phase, wait, counts, to_client, to_server }, secured)
    }
}

/// Plays what `data` says to sessions that `make` makes.
pub(crate) fn play<S: Session>(now: Instant, data: &[u8], words: &Words, make: impl Fn(&Arc<Gate>) -> S) {
    let events = events(data, words);
    let once = |events: &[Event], piece: usize| {
        let policy = Policy { failure_threshold: Some(3), ..Policy::default() };
        let gate = Gate::new("fuzz", policy, 1, now);
        let mut bench = Bench {
            session: make(&gate),
            gate,
            now,
            from_client: Vec::new(),
            from_server: Vec::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
            dial_fails: None,
            client_ended: false,
            server_ended: false,
            secured: false,
            ended: None,
        };
        events.iter().for_each(|event| bench.play(event, piece));
        bench.end()
    };
    let pieces = [1, 2 + data.len() % 7];
    // A session that drains ends between two requests if it has the choice, and what was read at once is one.
    let drain = events.iter().position(|event| matches!(event, Event::Drain | Event::DrainOver));
    if drain.is_some() {
        once(&events, usize::MAX);
        once(&events, 1);
    }
    let events = &events[..drain.unwrap_or(events.len())];
    let (whole, secured) = once(events, usize::MAX);
    for piece in pieces {
        let (cut, secured_too) = once(events, piece);
        let unknown = |one: &Outcome, other: &Outcome| {
            one.count(Counter::ClientMalformed) > 0 && other.count(Counter::Opaque) > 0
        };
        // What no protocol knows makes a plain relay if nothing of ours is owed, and a breach if something is.
        if !secured && !secured_too && !unknown(&whole, &cut) && !unknown(&cut, &whole) {
            agree(&whole, &cut, piece);
        }
    }
}

/// Both runs have given both sides the same, except for the beginning of what was broken off: of a message that turns
/// out to be broken, more or less may have passed.
fn agree(whole: &Outcome, cut: &Outcome, piece: usize) {
    let aborted = whole.phase == Phase::Abort;
    let breached = whole.count(Counter::ClientMalformed) > 0;
    let same = |one: &[u8], other: &[u8], broken: bool| {
        one == other || broken && (one.starts_with(other) || other.starts_with(one))
    };
    // What the client has sent and nobody has looked at yet is a call or not when a plain relay begins, depending on what
    // was read at once.
    if whole.count(Counter::Opaque) == 0 || cut.count(Counter::Opaque) == 0 {
        assert_eq!(
            (&whole.phase, &whole.wait, &whole.counts),
            (&cut.phase, &cut.wait, &cut.counts),
            "pieces of {piece}"
        );
    }
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert!(
        same(&whole.to_client, &cut.to_client, aborted),
        "pieces of {piece}: the client got\n{}\nand\n{}",
        shown(&whole.to_client),
        shown(&cut.to_client)
    );
    assert!(
        same(&whole.to_server, &cut.to_server, aborted || breached),
        "pieces of {piece}: the server got\n{}\nand\n{}",
        shown(&whole.to_server),
        shown(&cut.to_server)
    );
}
