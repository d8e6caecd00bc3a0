//! The dial of the backend: what it is for, and what comes of it.

use std::net::SocketAddr;
use std::time::Instant;

use super::ledger::Account;
use super::session::{Session, Stage};
use super::units::{Flight, Kind};
use crate::breaker::{CallKind, Fault, Verdict};
use crate::gate::Permit;
use crate::metrics::Counter;
use crate::protocol::Target;

/// What a dial is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A session, whose startup packet has this length.
    Startup { len: usize, permit: Box<Permit> },
    /// A client's TLS handshake with the server, or the request for one.
    Passthrough { permit: Box<Permit> },
    /// A cancel request of this length.
    Cancel { len: usize, target: Target },
}

impl Purpose {
    /// Where to.
    pub(super) fn target(&self) -> Target {
        match self {
            Self::Startup { .. } | Self::Passthrough { .. } => Target::Backend,
            Self::Cancel { target, .. } => *target,
        }
    }
}

impl Session {
    /// Asks the gate for a session, whose startup packet has this length.
    pub(super) fn start(&mut self, now: Instant, len: usize) {
        let lane = self.ledger.lane();
        let answer = if self.replication {
            lane.admit_ineligible(now, CallKind::Startup)
        } else {
            lane.admit(now, CallKind::Startup)
        };
        match answer {
            Ok(permit) => {
                let permit = Box::new(permit);
                self.stage = Stage::Dialling(Purpose::Startup { len, permit });
            }
            Err(rejection) => self.refuse_session(now, &rejection, self.settings.reject_connect()),
        }
    }

    /// Lets the client speak TLS with the server itself. While open there is nothing to say to it: an error to a
    /// request for encryption is not read, and behind it only the server could be understood.
    pub(super) fn pass(&mut self, now: Instant) {
        self.stage = match self.ledger.lane().admit(now, CallKind::Connect) {
            Ok(permit) => Stage::Dialling(Purpose::Passthrough { permit: Box::new(permit) }),
            Err(_) => Stage::Finish,
        };
    }

    /// The backend has accepted.
    pub(super) fn dial_succeeded(&mut self, now: Instant, peer: Option<SocketAddr>) {
        self.peer = peer;
        match std::mem::replace(&mut self.stage, Stage::Relay) {
            Stage::Dialling(Purpose::Startup { len, permit }) => {
                self.client.expect_startup(len, permit.generation());
                let start = permit.start();
                let mut flight = Flight::new(Kind::Startup, Account::Permit(permit), start, false);
                flight.whole = true;
                self.queue.launch(flight);
            }
            Stage::Dialling(Purpose::Passthrough { permit }) => self.stage = Stage::Passing(permit),
            Stage::Dialling(Purpose::Cancel { len, .. }) => {
                self.lane().add(Counter::Cancels, 1);
                self.stage = Stage::Cancelling(len);
            }
            other => self.stage = other,
        }
        self.ledger.flush(now);
    }

    /// There is no connection; without a fault of the backend, because this machine is out of something.
    pub(super) fn dial_failed(&mut self, now: Instant, fault: Option<Fault>) {
        match std::mem::replace(&mut self.stage, Stage::Finish) {
            Stage::Dialling(Purpose::Startup { permit, .. }) => match fault {
                Some(fault) => {
                    permit.record(now, Verdict::Failure(fault.into()));
                    self.connect_failed(fault);
                }
                None => {
                    permit.record(now, Verdict::Ignored);
                    self.local_fault();
                }
            },
            Stage::Dialling(Purpose::Passthrough { permit }) => {
                if fault.is_none() {
                    self.lane().add(Counter::LocalFaults, 1);
                }
                permit.record(now, fault.map_or(Verdict::Ignored, |fault| Verdict::Failure(fault.into())));
            }
            // A server that cannot be reached closes a cancel request without an answer, too.
            Stage::Dialling(Purpose::Cancel { .. }) => {
                if fault.is_none() {
                    self.lane().add(Counter::LocalFaults, 1);
                }
            }
            other => self.stage = other,
        }
    }

    /// Others are being dialled first, or no longer.
    pub(super) fn dial_queued(&mut self, queued: bool) {
        if let Stage::Dialling(Purpose::Startup { permit, .. } | Purpose::Passthrough { permit }) =
            &self.stage
        {
            permit.set_owed(!queued);
        }
    }

    /// The backend has as many connections as the configuration allows.
    pub(super) fn dial_refused(&mut self, now: Instant, limit: u32) {
        match std::mem::replace(&mut self.stage, Stage::Finish) {
            Stage::Dialling(Purpose::Startup { permit, .. }) => {
                permit.record(now, Verdict::Ignored);
                self.full(limit);
            }
            // There is nothing to say to a client that talks to the server's own TLS.
            Stage::Dialling(Purpose::Passthrough { permit }) => permit.record(now, Verdict::Ignored),
            other => self.stage = other,
        }
    }
}
