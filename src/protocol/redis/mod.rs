//! Redis: RESP2 and RESP3 (PROTOCOLS.md §2).
//!
//! [`Session`] is what the driver talks to. `request` and `reply` find where requests and frames begin and end,
//! `command` knows the few commands that are special, `downstream` and `upstream` are the
//! session's two directions, `decide` its decision on one request, `fifo` keeps what is owed to the client, [`classify`] turns
//! errors into verdicts, `reject` words fusewire's own replies.

pub mod classify;
mod command;
mod decide;
mod downstream;
mod fifo;
mod reject;
mod reply;
mod request;
mod session;
#[cfg(test)]
mod tests;
mod upstream;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use session::Session;

use crate::config;

/// What the sessions of one Redis backend share.
#[derive(Debug)]
pub struct Settings {
    backend: Arc<str>,
    reject_code: Arc<str>,
    verdicts: classify::Table,
    response: Option<Duration>,
    handshake: Duration,
    /// The end of a CLIENT PAUSE that went through one of the sessions: until then nobody gets a reply.
    paused: Mutex<Option<Instant>>,
}

impl Settings {
    /// Compiles the settings of the backend called `backend`.
    pub fn new(backend: Arc<str>, redis: &config::Redis, timeouts: &config::Timeouts) -> Self {
        Self {
            backend,
            reject_code: redis.reject_code.clone(),
            verdicts: classify::Table::new(&redis.verdicts),
            response: timeouts.response,
            // A handshake step is a reply like any other, so the nearer of the two deadlines holds.
            handshake: timeouts.response.map_or(timeouts.handshake, |limit| limit.min(timeouts.handshake)),
            paused: Mutex::new(None),
        }
    }

    /// The verdict table.
    pub fn verdicts(&self) -> &classify::Table {
        &self.verdicts
    }

    fn paused(&self) -> Option<Instant> {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, until: Option<Instant>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
