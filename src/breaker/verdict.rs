//! What a call says about its backend.
//!
//! The tables that turn Redis errors and SQLSTATEs into verdicts live with their protocols; this file only names
//! the possible answers.

use std::fmt;
use std::sync::Arc;

/// How one call ended, as far as the breaker cares (DESIGN.md §1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend answered. The client's own errors are successes too: a failed UNIQUE check is the client's
    /// doing, and counting 23505 would let one bad query trip the backend.
    Success,
    /// The backend failed.
    Failure(Cause),
    /// The call says nothing about the backend: its client went away, its user cancelled it, or it was answered
    /// by a handshake reply that even a loading backend gives.
    Ignored,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The transport failed.
    Fault(Fault),
    /// The backend replied with an error that the verdict table counts as its own failure.
    Reply(Code),
}

impl Cause {
    /// The metric label: a small closed set, never text that a client or a server sent.
    pub fn label(&self) -> &str {
        match self {
            Self::Fault(fault) => fault.label(),
            Self::Reply(code) => code.as_str(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Reply(code) => code.fmt(f),
        }
    }
}

impl From<Fault> for Cause {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The row of a verdict table that a reply matched (`LOADING`, `57P03`): text from our tables or from the
/// configuration, never from the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(Arc<str>);

impl Code {
    /// A code named by a table row.
    pub fn new(row: impl Into<Arc<str>>) -> Self {
        Self(row.into())
    }

    /// The row's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Code> for Cause {
    fn from(code: Code) -> Self {
        Self::Reply(code)
    }
}

/// A transport failure between fusewire and a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Nobody listens at the address.
    Refused,
    /// No route to the host or network, or a unix socket that does not exist.
    Unreachable,
    /// The name did not resolve.
    Dns,
    /// No address accepted within the connect timeout.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The connection was reset with a call in flight.
    Reset,
    /// The connection was closed with a call in flight.
    Eof,
    /// A reply did not come before its deadline.
    Timeout,
    /// The reply broke the protocol.
    Malformed,
    /// A probe's deadline passed and the backend had stayed silent.
    ProbeSilent,
}

impl Fault {
    /// Every fault, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::Unreachable,
        Self::Dns,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Reset,
        Self::Eof,
        Self::Timeout,
        Self::Malformed,
        Self::ProbeSilent,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Eof => "eof",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::ProbeSilent => "probe_silent",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "host unreachable",
            Self::Dns => "name not resolved",
            Self::ConnectTimeout => "connect timeout",
            Self::Tls => "TLS handshake failed",
            Self::Reset => "connection reset",
            Self::Eof => "connection closed",
            Self::Timeout => "no reply in time",
            Self::Malformed => "malformed reply",
            Self::ProbeSilent => "probe got no reply in time",
        })
    }
}

/// What kind of call an outcome belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Establishing an upstream connection.
    Connect,
    /// One Redis command.
    Command,
    /// A Postgres startup, up to the first ReadyForQuery.
    Startup,
    /// A Postgres query cycle.
    Query,
    /// One of fusewire's own tests of the backend.
    Check,
}

impl CallKind {
    /// The word for logs and the API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Command => "command",
            Self::Startup => "startup",
            Self::Query => "query",
            Self::Check => "check",
        }
    }
}
