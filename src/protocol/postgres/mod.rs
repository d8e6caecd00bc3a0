//! Postgres: the frontend/backend protocol, version 3 (PROTOCOLS.md §3).
//!
//! | file | what it knows |
//! |---|---|
//! | [`session`](Session) | the life of a connection: its stages |
//! | `greeting`, `startup` | the client's first packets |
//! | `dial` | what the backend is dialled for, and what comes of it |
//! | `authentication` | whose move it is while a session starts |
//! | `request` | the client's messages: units |
//! | `request::admission` | whether a unit passes |
//! | `request::simple`, `request::extended` | the two kinds of unit |
//! | `request::doom`, `request::missing` | what a rejected BEGIN and a rejected Parse leave behind |
//! | `response` | the server's messages: verdicts, transaction status |
//! | `units` | what is owed to the client, in order |
//! | `ledger` | that every call ends exactly once |
//! | `local`, `fatal`, `reply` | what fusewire says itself: in its turn, at the end, as bytes |
//! | `message`, `report` | the bytes of messages and of errors |
//! | `statement`, `names`, `lost` | the little that is known of SQL, of names of statements, of what was rejected |
//! | `empty` | empty queries that are answered here |
//! | [`classify`] | the verdict table |
//! | `cancel` | where cancel requests go |
//! | [`check`] | how a server is asked whether it works |
//! | [`encryption`] | what TLS changes in the above |

mod authentication;
mod cancel;
pub mod check;
pub mod classify;
mod dial;
mod empty;
pub mod encryption;
mod fatal;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod greeting;
mod ledger;
mod local;
mod lost;
mod message;
mod names;
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

use arc_swap::ArcSwap;

use super::Limit;
use crate::config;
use encryption::Offer;

/// What all sessions of a backend share.
#[derive(Debug)]
pub struct Settings {
    backend: Arc<str>,
    live: ArcSwap<Live>,
    /// Beside `live`, because every turn of every session asks for it.
    response: Limit,
    handshake: Limit,
    cancels: Arc<Cancels>,
}

/// What a reload changes for the sessions that it finds.
#[derive(Debug)]
struct Live {
    reject_connect: config::SqlState,
    reject_query: config::SqlState,
    answers_empty: bool,
    verdicts: Arc<classify::Table>,
    offer: Offer,
    /// Clients without TLS are refused.
    tls_required: bool,
}

impl Live {
    fn new(postgres: &config::Postgres, tls: &config::Tls) -> Self {
        Self {
            reject_connect: postgres.reject_connect_code,
            reject_query: postgres.reject_query_code,
            answers_empty: postgres.answer_empty_queries,
            verdicts: Arc::new(classify::Table::new(&postgres.verdicts)),
            offer: Offer::of(tls),
            tls_required: tls.required,
        }
    }
}

impl Settings {
    /// Compiles the settings of the backend called `backend`.
    pub fn new(
        backend: Arc<str>,
        postgres: &config::Postgres,
        timeouts: &config::Timeouts,
        tls: &config::Tls,
    ) -> Self {
        let live = ArcSwap::from_pointee(Live::new(postgres, tls));
        let (response, handshake) = (Limit::new(timeouts.response), Limit::new(Some(timeouts.handshake)));
        Self { backend, live, response, handshake, cancels: Arc::default() }
    }

    /// Takes new settings, which the present sessions obey from their next call on. Cancel requests go on finding
    /// them.
    pub fn adopt(&self, postgres: &config::Postgres, timeouts: &config::Timeouts, tls: &config::Tls) {
        self.live.store(Arc::new(Live::new(postgres, tls)));
        self.response.set(timeouts.response);
        self.handshake.set(Some(timeouts.handshake));
    }

    /// Where the sessions' cancel requests go.
    pub fn cancels(&self) -> &Arc<Cancels> {
        &self.cancels
    }

    /// The verdict table.
    pub fn verdicts(&self) -> Arc<classify::Table> {
        self.live.load().verdicts.clone()
    }

    fn reject_connect(&self) -> config::SqlState {
        self.live.load().reject_connect
    }

    fn reject_query(&self) -> config::SqlState {
        self.live.load().reject_query
    }

    fn answers_empty(&self) -> bool {
        self.live.load().answers_empty
    }

    fn response(&self) -> Option<Duration> {
        self.response.get()
    }

    fn handshake(&self) -> Duration {
        self.handshake.get().unwrap_or(Duration::MAX)
    }

    fn offer(&self) -> Offer {
        self.live.load().offer
    }

    fn tls_required(&self) -> bool {
        self.live.load().tls_required
    }
}
