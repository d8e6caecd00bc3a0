//! What the API has the process do: read its configuration again.
//!
//! The API only asks. Whoever runs the process reads, compares, carries out and answers, for a signal in the same way.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait. Each takes milliseconds.
const WAITING_MAX: usize = 16;

/// A request to read the configuration again.
#[derive(Debug)]
pub struct Order {
    /// Who asks, for the log.
    pub peer: String,
    reply: oneshot::Sender<Result<Reloaded, Vec<String>>>,
}

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Backends that are new.
    pub added: Vec<String>,
    /// Backends that are no more; their connections are being drained.
    pub removed: Vec<String>,
    /// Backends with other settings.
    pub changed: Vec<String>,
    /// Settings of the process that have changed and are in force.
    pub settings: Vec<&'static str>,
    /// Settings that have changed and take a restart.
    pub needs_restart: Vec<&'static str>,
    /// What is suspicious but no mistake, one line each.
    pub warnings: Vec<String>,
}

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Desk(mpsc::Sender<Order>);

/// The place where requests arrive.
pub type Orders = mpsc::Receiver<Order>;

impl Desk {
    /// Both ends.
    pub fn new() -> (Self, Orders) {
        let (sender, orders) = mpsc::channel(WAITING_MAX);
        (Self(sender), orders)
    }

    /// Has the configuration read again. None: nobody is there to do it, or it is too busy.
    pub(super) async fn reload(&self, peer: String) -> Option<Result<Reloaded, Vec<String>>> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Order { peer, reply }).ok()?;
        answer.await.ok()
    }
}

impl Order {
    /// Answers: what has changed, or all that is wrong, a line each, and nothing has changed.
    pub fn answer(self, result: Result<Reloaded, Vec<String>>) {
        // Whoever asked may have gone; what was done is done.
        let _ = self.reply.send(result);
    }
}

/// How reloads have gone, for the metrics.
#[derive(Debug)]
pub(super) struct Reloads {
    pub(super) applied: AtomicU64,
    pub(super) refused: AtomicU64,
    /// When the configuration that is in force was read, and whether the last attempt led to it.
    last: Mutex<(SystemTime, bool)>,
}

impl Reloads {
    pub(super) fn new() -> Self {
        let last = Mutex::new((SystemTime::now(), true));
        Self { applied: AtomicU64::new(0), refused: AtomicU64::new(0), last }
    }

    pub(super) fn note(&self, applied: bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.1 = applied;
        if applied {
            last.0 = SystemTime::now();
            self.applied.fetch_add(1, Relaxed);
        } else {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    /// Unix time of the configuration in force, and whether the last attempt led to it.
    pub(super) fn last(&self) -> (f64, bool) {
        let (at, good) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()), good)
    }
}
