//! Postgres: the frontend/backend protocol, version 3 (PROTOCOLS.md §3).
//!
//! | file | what it knows |
//! |---|---|
//! | [`session`](Session) | the life of a connection, from the first packet to the last error |
//! | `request` | the client's messages: units, admission, rejection |
//! | `response` | the server's messages: verdicts, transaction status |
//! | `units` | what is owed to the client, in order |
//! | `ledger` | that every call ends exactly once |
//! | `message`, `startup`, `report`, `statement` | bytes |
//! | `reply` | the messages that are ours |
//! | [`classify`] | the verdict table |
//! | `cancel` | where cancel requests go |
//! | [`encryption`] | what TLS changes in the above |

mod cancel;
pub mod classify;
pub mod encryption;
mod ledger;
mod message;
mod reply;
mod report;
mod request;
mod response;
mod session;
mod startup;
mod statement;
#[cfg(test)]
mod tests;
mod units;

use std::sync::Arc;
use std::time::Duration;

pub use cancel::Cancels;
pub use report::Severity;
pub use session::Session;

use crate::config;
use encryption::Offer;

/// What all sessions of a backend share.
#[derive(Debug)]
pub struct Settings {
    backend: Arc<str>,
    reject_connect: config::SqlState,
    reject_query: config::SqlState,
    response: Option<Duration>,
    handshake: Duration,
    verdicts: classify::Table,
    cancels: Arc<Cancels>,
    offer: Offer,
    /// Clients without TLS are refused.
    tls_required: bool,
}

impl Settings {
    /// Compiles the settings of one backend.
    pub fn new(backend: Arc<str>, postgres: &config::Postgres, timeouts: &config::Timeouts) -> Self {
        Self::with_cancels(backend, postgres, timeouts, Arc::default())
    }

    /// As [`Settings::new`], with a registry that exists: after a reload the sessions from before it must still
    /// be found by their cancel requests.
    pub fn with_cancels(
        backend: Arc<str>,
        postgres: &config::Postgres,
        timeouts: &config::Timeouts,
        cancels: Arc<Cancels>,
    ) -> Self {
        Self {
            backend,
            reject_connect: postgres.reject_connect_code,
            reject_query: postgres.reject_query_code,
            response: timeouts.response,
            handshake: timeouts.handshake,
            verdicts: classify::Table::new(&postgres.verdicts),
            cancels,
            offer: Offer::default(),
            tls_required: false,
        }
    }

    /// The same with what clients are offered in the way of encryption.
    pub fn with_tls(self, tls: &config::Tls) -> Self {
        Self { offer: Offer::of(tls), tls_required: tls.required, ..self }
    }

    /// Where the sessions' cancel requests go.
    pub fn cancels(&self) -> &Arc<Cancels> {
        &self.cancels
    }

    /// The verdict table.
    pub fn verdicts(&self) -> &classify::Table {
        &self.verdicts
    }
}
