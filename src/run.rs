//! `fusewire run`: binds, starts the workers, the timers and the admin API, reloads, and ends on a signal.

mod reload;
mod service_manager;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::reload::Source;
use crate::admin::{self, Desk, Orders, Readiness};
use crate::backends::{Backend, Backends};
use crate::config::args::Inputs;
use crate::config::{Config, Env, Loaded, Log};
use crate::gate::Gate;
use crate::proxy::listener::Listener;
use crate::proxy::plane::{Plane, Refused};
use crate::telemetry::Level;

/// How long connections may take for their last words when the time to drain is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on, or a certificate, key or authority cannot be used.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The admin API cannot be listened for; the message names the address.
    #[error("{0}")]
    Admin(io::Error),
    /// The token's file cannot be used.
    #[error(transparent)]
    Token(#[from] admin::TokenError),
    /// The system refuses a thread, a descriptor or a signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// What to run, and where to read it again.
#[derive(Debug)]
pub struct Start {
    /// The configuration as it was read.
    pub loaded: Loaded,
    /// What it was read from.
    pub inputs: Inputs,
    /// The environment that it was read from.
    pub env: Env,
    /// What is logged.
    pub level: Level,
}

/// Runs until SIGTERM or SIGINT. A first signal drains, a second one stops at once; both are a clean end.
///
/// # Errors
/// If an address is taken or the system refuses what it takes to start. Backends that are down are no error.
pub fn run(start: Start) -> Result<(), RunError> {
    dump_no_core();
    let sockets = service_manager::sockets()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let plane = runtime.block_on(control(start, sockets))?;
    plane.join();
    Ok(())
}

/// A core would hold passwords, keys and rows that were passing by. `prlimit --core` on the running process undoes it.
fn dump_no_core() {
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "Core dumps cannot be turned off");
    }
}

/// The control plane of a running proxy.
struct Process {
    /// What is in force.
    config: Config,
    log: Log,
    source: Source,
    level: Level,
    backends: Arc<Backends>,
    plane: Plane,
    state: Arc<admin::State>,
    timers: Vec<Timer>,
}

/// A backend's timer.
struct Timer {
    backend: Arc<Backend>,
    task: AbortHandle,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an operator's signal asks for.
struct Signals {
    end: End,
    hangup: Signal,
}

/// The signals that end it.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

/// From the start to the end of the drain.
async fn control(start: Start, sockets: Vec<(String, Listener)>) -> Result<Plane, RunError> {
    // Installed first: a signal during the start must not kill the process half-way.
    let mut signals = Signals::new()?;
    let Start { loaded: Loaded { config, log, .. }, inputs, env, level } = start;
    let access = admin::Access::read(&config.admin_access)?;
    let backends = Arc::new(Backends::new(&config, Instant::now()));
    let mut plane = Plane::new(config.workers)?;
    plane.hand_over(sockets, &config)?;
    let prepared = plane.prepare(&config)?;
    let admin = match &config.admin {
        Some(endpoint) => Some(admin::bind(endpoint).await.map_err(RunError::Admin)?),
        None => None,
    };
    plane.commit(prepared, &backends, config.drain_timeout).await;
    if let Some(bound) = &admin {
        tracing::info!(listen = %bound.endpoint(), "Admin API listening");
    }
    let (desk, orders) = Desk::new();
    let mut runtimes = plane.runtimes();
    runtimes.push(runtime::Handle::current());
    let state = admin::State::new(backends.clone(), access, Some(desk), runtimes);
    let admin_over = CancellationToken::new();
    if let Some(bound) = admin {
        tokio::spawn(admin::serve(bound, state.clone(), admin_over.clone()));
    }
    let source = Source { inputs, env };
    let mut process = Process { config, log, source, level, backends, plane, state, timers: Vec::new() };
    process.keep_time();
    process.state.set_readiness(Readiness::Ready);
    let watchdog = tokio::spawn(service_manager::watch(process.plane.pulse()));
    service_manager::ready();
    let first = process.serve(&mut signals, orders).await;
    service_manager::stopping();
    process.drain(first, &mut signals).await;
    watchdog.abort();
    admin_over.cancel();
    Ok(process.plane)
}

impl Process {
    /// Carries out what is asked for until it is to end; by which signal.
    async fn serve(&mut self, signals: &mut Signals, mut orders: Orders) -> &'static str {
        loop {
            tokio::select! {
                end = signals.end.recv() => return end,
                _ = signals.hangup.recv() => {
                    // What came of it is in the log and in the metrics.
                    let _ = self.reload("SIGHUP").await;
                }
                Some(order) = orders.recv() => {
                    let result = self.reload(&order.peer).await;
                    order.answer(result);
                }
            }
        }
    }

    async fn drain(&mut self, signal: &str, signals: &mut Signals) {
        let (delay, limit) = (self.config.drain_delay, self.config.drain_timeout);
        tracing::info!(signal, ?delay, timeout = ?limit, "Draining");
        self.state.set_readiness(Readiness::Draining);
        let hasty = tokio::select! {
            () = sleep(delay) => false,
            _ = signals.end.recv() => true,
        };
        self.plane.drain();
        let second = hasty
            || tokio::select! {
                () = self.plane.ended() => {
                    tracing::info!("Drained");
                    false
                }
                () = sleep(limit) => {
                    tracing::warn!("Drain timeout: closing what is left");
                    false
                }
                second = signals.end.recv() => {
                    tracing::warn!(signal = second, "Second signal: closing what is left");
                    true
                }
            };
        if !second {
            self.plane.finish();
            tokio::select! {
                _ = timeout(LAST_WORDS, self.plane.ended()) => {}
                _ = signals.end.recv() => {}
            }
        }
        self.plane.stop();
    }

    /// Gives every backend a timer, and no other.
    fn keep_time(&mut self) {
        let all = self.backends.all();
        self.timers.retain(|timer| all.iter().any(|backend| Arc::ptr_eq(backend, &timer.backend)));
        for backend in all.iter() {
            if !self.timers.iter().any(|timer| Arc::ptr_eq(backend, &timer.backend)) {
                let task = tokio::spawn(keep_time(backend.gate.clone())).abort_handle();
                self.timers.push(Timer { backend: backend.clone(), task });
            }
        }
    }
}

impl Signals {
    fn new() -> io::Result<Self> {
        let end =
            End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { end, hangup: signal(SignalKind::hangup())? })
    }
}

impl End {
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A backend's timer: half-open is entered when its time has come, traffic or none.
async fn keep_time(gate: Arc<Gate>) {
    loop {
        match gate.deadline() {
            None => gate.alarm.notified().await,
            Some(deadline) => tokio::select! {
                () = sleep_until(deadline.into()) => gate.tick(Instant::now()),
                () = gate.alarm.notified() => {}
            },
        }
    }
}
