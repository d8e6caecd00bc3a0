//! Replies of our own, which take their places among the backend's.

use std::time::Instant;

use super::reply::{self, Gravity, Reply};
use crate::gate::Rejection;

/// A reply of our own.
#[derive(Debug)]
pub(super) enum Local {
    /// No encryption is to be had.
    NoEncryption,
    /// The handshake may begin.
    Encryption,
    /// So many rejected units, an error and a ReadyForQuery each: a count, because a client that writes its whole
    /// pipeline before it reads must not make us store a reply for each.
    Refused(Box<Rejection>, u64),
    /// The error of a rejected extended run; its ReadyForQuery comes with the Sync.
    Refusal(Box<Rejection>),
    /// The error of an extended run that uses a statement whose Parse was rejected.
    Missing,
    /// The error of a COMMIT whose BEGIN was rejected.
    Undone,
    /// The answer to a ROLLBACK whose BEGIN was rejected.
    RolledBack,
    /// This answer and a ReadyForQuery, so many times.
    Empty(Vec<u8>, u64),
    /// So many ReadyForQuery by themselves.
    Ready(u64),
    /// An error that ends the session.
    Fatal(Box<[u8]>),
}

impl Local {
    /// Appends it with `code` as the SQLSTATE of a refused query, or one of what it counts. Whether that was all.
    pub(super) fn write(&mut self, now: Instant, code: &str, out: &mut Vec<u8>) -> bool {
        match self {
            Self::NoEncryption => out.push(reply::NO_ENCRYPTION),
            Self::Encryption => out.push(reply::ENCRYPTION),
            Self::Refusal(rejection) => refuse(now, rejection, code, out),
            Self::Missing => MISSING.write(out),
            Self::Undone => Reply { code, ..UNDONE }.write(out),
            Self::RolledBack => out.extend_from_slice(reply::ROLLBACK),
            Self::Ready(n) => {
                out.extend_from_slice(reply::READY);
                *n -= 1;
                return *n == 0;
            }
            Self::Empty(answer, n) => {
                out.extend_from_slice(answer);
                out.extend_from_slice(reply::READY);
                *n -= 1;
                return *n == 0;
            }
            Self::Refused(rejection, n) => {
                refuse(now, rejection, code, out);
                out.extend_from_slice(reply::READY);
                *n -= 1;
                return *n == 0;
            }
            Self::Fatal(bytes) => out.extend_from_slice(bytes),
        }
        true
    }
}

const MISSING: Reply<'_> = Reply {
    gravity: Gravity::Error,
    code: "26000",
    message: "prepared statement does not exist",
    detail: "Its Parse was rejected while the backend was open.",
    hint: "prepare it again",
};

const UNDONE: Reply<'_> = Reply {
    gravity: Gravity::Error,
    code: "57000",
    message: "there is nothing to commit",
    detail: "The transaction's BEGIN was rejected while the backend was open.",
    hint: "begin the transaction again",
};

fn refuse(now: Instant, rejection: &Rejection, code: &str, out: &mut Vec<u8>) {
    let error = Reply {
        gravity: Gravity::Error,
        code,
        message: &rejection.words,
        detail: &rejection.cause,
        hint: &rejection.hint(now).to_string(),
    };
    error.write(out);
}
