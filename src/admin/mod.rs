//! The operators' HTTP API: what the breakers do and why, the levers, and Prometheus' metrics (DESIGN.md §1.6).
//!
//! `server` takes connections, `guard` says who may ask, `routes` maps paths to answers, `view` is the JSON,
//! `settings` what is configured, `events` is the live feed, `control` what the process is asked to do, `dashboard` the page that
//! draws it. The API sees backends through snapshots only; a request never waits for a client or a backend, so it answers
//! when everything else hangs.
//!
//! Absent on purpose: TLS (use a unix socket, or a proxy that has it) and anything that was ever on the wire:
//! no key, no SQL, no credential can appear in an answer.

mod control;
mod dashboard;
mod error;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guard;
mod routes;
mod server;
mod settings;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use control::{Desk, Order, Orders, Reloaded};
pub use guard::{Access, Token, TokenError};
pub use server::{Bound, bind, serve};

use self::control::Reloads;
use self::events::Feed;
use crate::backends::Backends;
use crate::clock::Clock;
use crate::metrics::publish::Configuration;

/// What the admin API works on.
#[derive(Debug)]
pub struct State {
    backends: Arc<Backends>,
    access: Arc<ArcSwap<Access>>,
    clock: Clock,
    feed: Feed,
    readiness: watch::Sender<Readiness>,
    /// None: nobody reads the configuration again.
    desk: Option<Desk>,
    reloads: Reloads,
    runtimes: Vec<Handle>,
}

/// What `/readyz` says. It never depends on a breaker: an orchestrator that took a sidecar out of service because
/// its database is down would only add an outage to the outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not every listener is bound yet: 503.
    Starting,
    /// Clients are welcome: 200.
    Ready,
    /// Shutting down, no new clients please: 503.
    Draining,
}

impl State {
    /// The state of a process that is [`Readiness::Starting`]. `runtimes` are those whose tasks are counted.
    pub fn new(
        backends: Arc<Backends>,
        access: Access,
        desk: Option<Desk>,
        runtimes: Vec<Handle>,
    ) -> Arc<Self> {
        let readiness = watch::Sender::new(Readiness::Starting);
        let access = Arc::new(ArcSwap::from_pointee(access));
        let (clock, feed, reloads) = (Clock::new(), Feed::new(), Reloads::new());
        Arc::new(Self { backends, access, clock, feed, readiness, desk, reloads, runtimes })
    }

    /// Lets in whom another configuration lets in, from the next request on.
    pub fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    /// Counts an attempt to read the configuration again.
    pub fn note_reload(&self, applied: bool) {
        self.reloads.note(applied);
    }

    /// Sets what `/readyz` says from now on.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.readiness.send_replace(readiness);
    }

    fn configuration(&self) -> Configuration {
        let (read_at, last_good) = self.reloads.last();
        let (applied, refused) = (&self.reloads.applied, &self.reloads.refused);
        Configuration { read_at, last_good, applied: applied.load(Relaxed), refused: refused.load(Relaxed) }
    }

    /// How many tasks are alive.
    fn tasks(&self) -> usize {
        self.runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum()
    }

    fn readiness(&self) -> Readiness {
        *self.readiness.borrow()
    }
}
