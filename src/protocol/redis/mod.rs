//! Redis: RESP2 and RESP3 (PROTOCOLS.md §2).
//!
//! | file | what it knows |
//! |---|---|
//! | [`session`](Session) | the life of a connection, which the driver talks to |
//! | `downstream` | the client's requests, one after the other |
//! | `asked`, `decide`, `fate` | one request, the decision on it, and what becomes of it |
//! | `upstream` | the server's replies: verdicts, effects |
//! | `fifo`, `owed` | what is owed to the client, in order; one reply of the backend's |
//! | `probe` | the probes that replies on this connection will decide |
//! | `patience` | whose move it is, and how long the server may take |
//! | `ending` | how the calls of a connection end that is over |
//! | `request`, `reply` | where requests and frames begin and end |
//! | `scalar`, `number` | the values in them, and their lengths |
//! | `command`, [`commands`] | the few commands that are special, and all of them |
//! | `named` | what the configuration says of commands |
//! | [`classify`] | the verdict table |
//! | `reject` | the replies that are ours |
//! | [`check`] | how a server is asked whether it works |

mod asked;
pub mod check;
pub mod classify;
mod command;
pub mod commands;
mod decide;
mod downstream;
mod ending;
mod fate;
mod fifo;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod named;
mod number;
mod owed;
mod patience;
mod probe;
mod reject;
mod reply;
mod request;
mod scalar;
mod session;
#[cfg(test)]
mod tests;
mod upstream;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use session::Session;

use arc_swap::ArcSwap;

use super::Limit;
use crate::breaker::Verdict;
use crate::config;
use named::Named;

/// What the sessions of one Redis backend share.
#[derive(Debug)]
pub struct Settings {
    backend: Arc<str>,
    live: ArcSwap<Live>,
    /// Beside `live`, because every turn of every session asks for it.
    response: Limit,
    /// Whether `live` names commands that may take any time: asked for each read, and cheaper to ask.
    names_unbounded: AtomicBool,
    /// The end of a CLIENT PAUSE that went through one of the sessions: until then nobody gets a reply.
    paused: Mutex<Option<Instant>>,
}

/// What a reload changes for the sessions that it finds.
#[derive(Debug)]
struct Live {
    reject_code: Arc<str>,
    /// Pass whatever the breaker says.
    cures: Named,
    /// May take any time.
    unbounded: Named,
    verdicts: Arc<classify::Table>,
    /// Errors of scripts say nothing.
    ignore_script_errors: bool,
    handshake: Duration,
}

impl Live {
    fn new(redis: &config::Redis, timeouts: &config::Timeouts) -> Self {
        Self {
            reject_code: redis.reject_code.clone(),
            cures: Named::new(&redis.cures),
            unbounded: Named::new(&redis.unbounded_commands),
            ignore_script_errors: redis.ignore_script_errors,
            verdicts: Arc::new(classify::Table::new(&redis.verdicts)),
            // A handshake step is a reply like any other, so the nearer of the two deadlines holds.
            handshake: timeouts.response.map_or(timeouts.handshake, |limit| limit.min(timeouts.handshake)),
        }
    }
}

impl Settings {
    /// Compiles the settings of the backend called `backend`.
    pub fn new(backend: Arc<str>, redis: &config::Redis, timeouts: &config::Timeouts) -> Self {
        let live = Live::new(redis, timeouts);
        let names_unbounded = AtomicBool::new(!live.unbounded.is_empty());
        let (live, response) = (ArcSwap::from_pointee(live), Limit::new(timeouts.response));
        Self { backend, live, response, names_unbounded, paused: Mutex::new(None) }
    }

    /// Takes new settings, which the present sessions obey from their next call on.
    pub fn adopt(&self, redis: &config::Redis, timeouts: &config::Timeouts) {
        let live = Arc::new(Live::new(redis, timeouts));
        let names_unbounded = !live.unbounded.is_empty();
        self.live.store(live);
        self.names_unbounded.store(names_unbounded, Ordering::Release);
        self.response.set(timeouts.response);
    }

    /// Whether the settings in force name commands that may take any time.
    fn names_unbounded(&self) -> bool {
        self.names_unbounded.load(Ordering::Acquire)
    }

    /// The verdict table.
    pub fn verdicts(&self) -> Arc<classify::Table> {
        self.live.load().verdicts.clone()
    }

    /// The verdict on an error, given its text without the type byte.
    fn verdict(&self, error: &[u8]) -> Verdict {
        self.live.load().verdicts.verdict(error)
    }

    fn reject_code(&self) -> Arc<str> {
        self.live.load().reject_code.clone()
    }

    fn response(&self) -> Option<Duration> {
        self.response.get()
    }

    fn handshake(&self) -> Duration {
        self.live.load().handshake
    }

    fn paused(&self) -> Option<Instant> {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, until: Option<Instant>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
