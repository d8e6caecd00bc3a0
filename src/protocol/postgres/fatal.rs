//! The errors that end a session: what fusewire says last, and why.
//!
//! Each waits for its turn among the replies owed ([`Local::Fatal`]); a message of the server's that is half relayed
//! leaves no place for one.

use std::time::Instant;

use super::local::Local;
use super::reply::{Gravity, Reply};
use super::session::{Session, Stage};
use super::units::{Kind, Queue};
use crate::breaker::{Cause, Fault};
use crate::config::SqlState;
use crate::gate::Rejection;
use crate::metrics::Counter;

const UNKNOWN_OUTCOME: &str = "Whether the statement in flight took effect is unknown.";

impl Session {
    /// Queues the session's last message.
    pub(super) fn end_with(&mut self, fatal: Box<[u8]>) {
        self.queue.reply(Local::Fatal(fatal));
        self.client.is_over = true;
        self.abandon_unfinished();
        if self.queue.flights() == 0 && self.server.at_boundary() {
            self.stage = Stage::Finish;
        }
    }

    /// The client is not listened to any more. A run without its Sync, a COPY without the rest of its data and a login
    /// without its password are never answered, and the last message must not wait for that.
    pub(super) fn abandon_unfinished(&mut self) {
        let unfinished = match self.queue.peek() {
            Some(head) if head.kind == Kind::Startup => self.authentication.client_owes(),
            Some(head) if head.copying && self.client.copying => true,
            _ => self.queue.is_stalled(),
        };
        if unfinished {
            for flight in self.queue.abandon() {
                self.ledger.ignore(flight.account);
            }
        }
    }

    /// Ends the session with the words of a rejection, when all that is owed before has been sent.
    pub(super) fn refuse_session(&mut self, now: Instant, rejection: &Rejection, code: SqlState) {
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: code.as_str(),
            message: &rejection.words,
            detail: &rejection.cause,
            hint: &rejection.hint(now).to_string(),
        };
        let bytes = fatal.bytes();
        self.end_with(bytes);
    }

    /// What a server says whose `pg_hba.conf` has nothing but `hostssl`. libpq's `sslmode=allow` then tries TLS.
    pub(super) fn refuse_plain(&mut self) {
        let message = format!("backend '{}' takes no connection without TLS", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "28000",
            message: &message,
            detail: "",
            hint: "connect with sslmode=require or stricter",
        };
        self.end_with(fatal.bytes());
    }

    /// Ends the session with a protocol error, when all that is owed before has been sent.
    pub(super) fn client_malformed(&mut self, why: &str) {
        self.lane().add(Counter::ClientMalformed, 1);
        let fatal = Reply { gravity: Gravity::Fatal, code: "08P01", message: why, detail: "", hint: "" };
        self.end_with(fatal.bytes());
    }

    /// What the server itself says when its connections are used up.
    pub(super) fn full(&mut self, limit: u32) {
        let detail =
            format!("fusewire gives backend '{}' no more than {limit} connections.", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "53300",
            message: "sorry, too many clients already",
            detail: &detail,
            hint: "try again",
        };
        self.end_with(fatal.bytes());
    }

    /// This machine, not the backend, is out of something.
    pub(super) fn local_fault(&mut self) {
        self.lane().add(Counter::LocalFaults, 1);
        let message = format!("no connection to backend '{}' could be made", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "53300",
            message: &message,
            detail: "The proxy's machine is out of descriptors, ports or memory.",
            hint: "try again",
        };
        self.end_with(fatal.bytes());
    }

    /// The backend cannot be reached.
    pub(super) fn connect_failed(&mut self, fault: Fault) {
        let code = self.settings.reject_connect();
        let message = format!("backend '{}' cannot be reached ({fault})", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: code.as_str(),
            message: &message,
            detail: &fault.to_string(),
            hint: "try again",
        };
        let bytes = fatal.bytes();
        self.end_with(bytes);
    }

    /// The server's own words after its `authentication_timeout`.
    pub(super) fn authentication_timed_out(&mut self) {
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "57014",
            message: "canceling authentication due to timeout",
            detail: "",
            hint: "",
        };
        self.end_with(fatal.bytes());
    }

    /// The server's own words when it is shut down.
    pub(super) fn shut_down(&mut self) {
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "57P01",
            message: "terminating connection due to administrator command",
            detail: "",
            hint: "",
        };
        self.end_with(fatal.bytes());
    }

    /// The backend has failed: one failure for whatever is in flight, and a native error if no message to the
    /// client is half sent.
    pub(super) fn backend_failed(&mut self, now: Instant, cause: Cause) {
        let starting = self.queue.is_starting();
        let refused = self.settings.reject_connect();
        let code = if starting { refused.as_str() } else { "08006" };
        let message = format!("backend '{}' has failed ({cause})", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code,
            message: &message,
            detail: if starting { "The session did not start." } else { UNKNOWN_OUTCOME },
            hint: "connect again",
        };
        let fatal = fatal.bytes();
        self.fail_flights(now, cause);
        if self.server.at_boundary() {
            self.end_with(fatal);
        } else {
            self.stage = Stage::Abort;
        }
    }

    /// Ends a session whose state is no longer what its client believes.
    pub(super) fn end_for(&mut self, message: &str) {
        let code = self.settings.reject_query();
        let hint = "connect again";
        let fatal = Reply { gravity: Gravity::Fatal, code: code.as_str(), message, detail: "", hint };
        self.end_with(fatal.bytes());
    }

    /// The client writes and does not read.
    pub(super) fn too_many(&mut self) {
        let message = format!("more than {} requests are waiting for their replies", Queue::MAX);
        let fatal = Reply { gravity: Gravity::Fatal, code: "54000", message: &message, detail: "", hint: "" };
        self.end_with(fatal.bytes());
    }
}
