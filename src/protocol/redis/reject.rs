//! The words that fusewire puts into a Redis client's reply stream (PROTOCOLS §2.6).
//!
//! Drivers look for "unknown command", "NOPROTO", "no password is set" and "max number of clients reached" in
//! errors and then retry, reconnect or fall back in silence; none of these may occur here, but for the last, where it is
//! meant. Errors have one line.

use std::io::Write;
use std::time::{Duration, Instant};

use super::request::Breach;
use crate::breaker::Fault;
use crate::gate::Rejection;
use crate::protocol::REPLY_CHUNK;

/// A reply of fusewire's own, in its place among the backend's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Local {
    /// So many rejections.
    Rejected(u64, Rejection),
    /// EXEC of a transaction that was rejected, as a whole.
    Aborted(Rejection),
    /// Fixed bytes.
    Text(Text),
    /// Nothing more: the connection ends here.
    End,
}

/// A reply that depends on nothing but itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// `+OK`.
    Ok,
    /// A MULTI inside a rejected transaction.
    NestedMulti,
    /// An error line.
    Error(String),
}

impl Local {
    /// An error line: one line, whatever is in `text`.
    pub(super) fn error(text: &str) -> Self {
        Self::Text(Text::Error(text.replace(['\r', '\n'], " ")))
    }

    /// The client broke the protocol.
    pub(super) fn breach(breach: Breach) -> Self {
        Self::error(&format!("ERR Protocol error: {breach}"))
    }

    /// No connection to the backend could be had; no fault: for want of this machine's own resources.
    pub(super) fn unreachable(backend: &str, fault: Option<Fault>) -> Self {
        Self::error(&match fault {
            Some(fault) => format!("ERR fusewire: backend '{backend}' cannot be reached: {fault}"),
            None => format!("ERR fusewire: no connection to backend '{backend}': out of local resources"),
        })
    }

    /// The backend has as many connections as it may have: what Redis itself says then, before it hangs up.
    pub(super) fn full() -> Self {
        Self::error("ERR max number of clients reached")
    }

    /// The backend stayed silent.
    pub(super) fn silent(backend: &str, limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        Self::error(&format!(
            "ERR fusewire: backend '{backend}' sent no reply within {limit}; the outcome of the command is unknown"
        ))
    }

    /// Appends the reply, of many about [`REPLY_CHUNK`] bytes. What is left of it is returned.
    pub(super) fn render(self, code: &str, now: Instant, out: &mut Vec<u8>) -> Option<Self> {
        match self {
            Self::Rejected(n, rejection) => {
                let start = out.len();
                put_error(out, &["-", code, " "], &rejection, now);
                let line = start..out.len();
                let fits = u64::try_from(REPLY_CHUNK / line.len()).unwrap_or(1).max(1).min(n);
                (1..fits).for_each(|_| out.extend_from_within(line.clone()));
                (n > fits).then(|| Self::Rejected(n - fits, rejection))
            }
            Self::Aborted(rejection) => {
                let head = ["-EXECABORT Transaction discarded because of: ", code, " "];
                put_error(out, &head, &rejection, now);
                None
            }
            Self::Text(Text::Ok) => {
                out.extend_from_slice(b"+OK\r\n");
                None
            }
            Self::Text(Text::NestedMulti) => {
                out.extend_from_slice(b"-ERR MULTI calls can not be nested\r\n");
                None
            }
            Self::Text(Text::Error(text)) => {
                out.push(b'-');
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
                None
            }
            Self::End => Some(Self::End),
        }
    }
}

/// An error line that begins so and ends with the words of a rejection.
fn put_error(out: &mut Vec<u8>, head: &[&str], rejection: &Rejection, now: Instant) {
    head.iter().for_each(|word| out.extend_from_slice(word.as_bytes()));
    out.extend_from_slice(rejection.words.as_bytes());
    // A vector takes whatever it is given.
    let _ = write!(out, "; {}\r\n", rejection.hint(now));
}
