//! The messages that fusewire itself sends to a client.
//!
//! `R` says `fusewire` in each of them: the field is never translated, so a chain of proxies and a client's log
//! can tell whose error it is.

use postgres_protocol::message::backend;

/// Who speaks, in the field `R`.
const ROUTINE: &str = "fusewire";

/// How grave an error of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gravity {
    /// The session stays.
    Error,
    /// The session ends.
    Fatal,
}

/// An error of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply<'a> {
    pub(super) gravity: Gravity,
    /// The SQLSTATE.
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    /// The field `D`; empty: none.
    pub(super) detail: &'a str,
    /// The field `H`; empty: none.
    pub(super) hint: &'a str,
}

impl Reply<'_> {
    /// Appends the ErrorResponse.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let severity = match self.gravity {
            Gravity::Error => "ERROR",
            Gravity::Fatal => "FATAL",
        };
        let fields = [
            (b'S', severity),
            (b'V', severity),
            (b'C', self.code),
            (b'M', self.message),
            (b'D', self.detail),
            (b'H', self.hint),
            (b'R', ROUTINE),
        ];
        let fields = || fields.iter().filter(|(_, text)| !text.is_empty());
        // Five bytes of our own texts and names of backends (at most 64 bytes): far below any length limit.
        let len = 4 + fields().map(|(_, text)| text.len() + 2).sum::<usize>() + 1;
        out.push(backend::ERROR_RESPONSE_TAG);
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        for (name, text) in fields() {
            out.push(*name);
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        out.push(0);
    }

    /// The ErrorResponse by itself.
    pub(super) fn bytes(&self) -> Box<[u8]> {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into_boxed_slice()
    }
}

/// A ReadyForQuery outside any transaction.
pub(super) const READY: &[u8] = &[backend::READY_FOR_QUERY_TAG, 0, 0, 0, 5, b'I'];

/// The CommandComplete of a ROLLBACK.
pub(super) const ROLLBACK: &[u8] = b"C\0\0\0\x0dROLLBACK\0";

/// EmptyQueryResponse.
pub(super) const EMPTY: &[u8] = b"I\0\0\0\x04";
/// ParseComplete.
pub(super) const PARSED: &[u8] = b"1\0\0\0\x04";
/// BindComplete.
pub(super) const BOUND: &[u8] = b"2\0\0\0\x04";
/// NoData: it returns no rows.
pub(super) const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// ParameterDescription of a statement that takes none.
pub(super) const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";

/// The answer to a request for encryption that is not to be had.
pub(super) const NO_ENCRYPTION: u8 = b'N';
/// The answer to a request for TLS that is granted.
pub(super) const ENCRYPTION: u8 = b'S';
