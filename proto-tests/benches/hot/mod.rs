//! The hot paths without sockets: what a session does with a batch of calls and their replies, what the gate does with
//! one call, and what a rejection takes. Shared by the two programs that measure them: `criterion`, in time, and
//! `instructions`, in what valgrind counts.

mod postgres;
mod redis;

use std::sync::Arc;
use std::time::Instant;

use fusewire::breaker::{CallKind, Verdict};
use fusewire::config::args::Inputs;
use fusewire::config::{self, Backend, Env};
use fusewire::gate::{Gate, Lane};
use fusewire::protocol::{Phase, Plan, Session};

/// One hot path.
pub(crate) struct Path {
    /// `redis/get-p16`.
    pub(crate) name: &'static str,
    /// Calls in one run of it.
    pub(crate) calls: u64,
    /// Bytes that one run reads, in both directions.
    pub(crate) bytes: u64,
    /// Runs it once.
    pub(crate) run: Box<dyn FnMut()>,
}

/// All of them.
pub(crate) fn paths() -> Vec<Path> {
    let mut paths = redis::paths();
    paths.extend(postgres::paths());
    paths.extend(gate());
    paths
}

/// One call past a closed breaker, in the way of a batch and with a permit of its own.
fn gate() -> Vec<Path> {
    let now = Instant::now();
    let quick = lane(&redis::backend());
    let locked = quick.clone();
    vec![
        Path {
            name: "gate/batch-of-1",
            calls: 1,
            bytes: 0,
            run: Box::new(move || {
                let generation = quick.closed().expect("closed");
                quick.passed(1);
                quick.succeeded(now, generation, CallKind::Command, std::time::Duration::ZERO, 1);
            }),
        },
        Path {
            name: "gate/permit",
            calls: 1,
            bytes: 0,
            run: Box::new(move || {
                let permit = locked.admit(now, CallKind::Command).expect("closed");
                permit.record(now, Verdict::Success);
            }),
        },
    ]
}

/// A configured backend.
fn configured(redis: &[&str], postgres: &[&str]) -> Backend {
    let owned = |specs: &[&str]| specs.iter().map(|spec| (*spec).to_owned()).collect();
    let inputs = Inputs { redis: owned(redis), postgres: owned(postgres), ..Inputs::default() };
    let config = config::load(&inputs, &Env::default()).expect("a configuration");
    config.backends.into_iter().next().expect("a backend")
}

/// A worker's way through a gate of its own.
fn lane(backend: &Backend) -> Lane {
    let gate: Arc<Gate> = Gate::new(backend.name.clone(), backend.breaker.clone(), 1, Instant::now());
    gate.lane(1)
}

/// A session, and what the driver lends it.
struct Rig<S> {
    session: S,
    plan: Plan,
    replies: Vec<u8>,
}

impl<S: Session> Rig<S> {
    fn new(session: S) -> Self {
        Self { session, plan: Plan::default(), replies: Vec::new() }
    }

    /// Shows it what the client has sent, all of which it must take.
    fn client(&mut self, now: Instant, bytes: &[u8]) {
        self.plan.clear();
        self.session.on_client(now, bytes, true, &mut self.plan);
        assert_eq!(self.plan.consumed(), bytes.len());
    }

    /// Shows it what the server has sent, in reads of the size that the driver makes.
    fn server(&mut self, now: Instant, bytes: &[u8]) {
        const READ: usize = 62 * 1024;
        let mut from = 0;
        while from < bytes.len() {
            let read = &bytes[from..bytes.len().min(from + READ)];
            self.plan.clear();
            self.session.on_server(now, read, &mut self.plan);
            assert!(self.plan.consumed() > 0);
            from += self.plan.consumed();
        }
    }

    /// Takes the replies of its own that are due.
    fn answers(&mut self, now: Instant) -> usize {
        let mut total = 0;
        loop {
            self.replies.clear();
            self.session.replies(now, &mut self.replies);
            if self.replies.is_empty() {
                return total;
            }
            total += self.replies.len();
        }
    }

    /// Connects it, as its first bytes ask for.
    fn connect(&mut self, now: Instant, first: &[u8]) {
        self.plan.clear();
        self.session.on_client(now, first, true, &mut self.plan);
        assert!(matches!(self.session.phase(), Phase::Dial(_)));
        self.session.on_connected(now, None);
        let left = first[self.plan.consumed()..].to_vec();
        self.client(now, &left);
    }
}
