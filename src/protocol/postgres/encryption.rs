//! Encryption as the protocol sees it: what clients are offered, how a server is asked, and the one message that
//! cannot pass from an encrypted leg to a plain one (PROTOCOLS.md §3.1, §3.2).
//!
//! Absent on purpose: TLS itself, which the driver does when [`crate::protocol::Phase::Secure`] asks for it.

use super::startup::REQUEST;
use crate::config::{self, tls::Upstream};

/// What fusewire sends to a server to ask for TLS. The server answers with one byte, see [`Answer`].
pub const SSL_REQUEST: [u8; REQUEST] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The protocol's name in ALPN, without which nobody may begin with a TLS handshake.
pub const ALPN: &[u8] = b"postgresql";

/// A server's answer to [`SSL_REQUEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A TLS handshake is to follow.
    Willing,
    /// None is to be had on this connection, which goes on without.
    Unwilling,
    /// An error, or no answer of this protocol at all: a server that is too old to know the request or cannot
    /// fork. Its text came unencrypted from who knows whom, so it is not read, and the connection is of no use.
    Error,
}

impl Answer {
    /// Reads the one byte.
    pub fn of(byte: u8) -> Self {
        match byte {
            b'S' => Self::Willing,
            b'N' => Self::Unwilling,
            _ => Self::Error,
        }
    }
}

/// What clients that ask for encryption get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Offer {
    /// `N`.
    #[default]
    Nothing,
    /// TLS with fusewire.
    Tls,
    /// TLS with the server itself.
    Passthrough,
}

impl Offer {
    pub(super) fn of(tls: &config::Tls) -> Self {
        match (&tls.downstream, &tls.upstream) {
            (Some(_), _) => Self::Tls,
            (None, Upstream::Passthrough) => Self::Passthrough,
            (None, _) => Self::Nothing,
        }
    }
}

/// Which legs of a session are encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Legs {
    pub(super) client: bool,
    pub(super) server: bool,
}

impl Legs {
    /// Whether the server offers channel binding to an encrypted leg that the client has no part in. libpq takes
    /// such an offer over a plain connection for an attack and gives up.
    pub(super) fn hide_binding(self) -> bool {
        self.server && !self.client
    }
}

/// The most bytes of an AuthenticationSASL that is looked at; today's servers send 43.
pub(super) const SASL_MAX: usize = 1024;
const SASL: [u8; 4] = [0, 0, 0, 10];

/// AuthenticationSASL without the mechanisms that bind to a TLS connection. `body` is what follows the length.
/// None: there are none, or nothing else would be left.
pub(super) fn without_binding(body: &[u8]) -> Option<Vec<u8>> {
    let list = body.strip_prefix(&SASL)?.strip_suffix(&[0])?;
    let (binding, others): (Vec<&[u8]>, Vec<&[u8]>) =
        list.split_inclusive(|&byte| byte == 0).partition(|name| name.ends_with(b"-PLUS\0"));
    if binding.is_empty() || others.is_empty() {
        return None;
    }
    let kept = [&SASL[..], &others.concat(), &[0]].concat();
    let len = u32::try_from(kept.len()).ok()?.checked_add(4)?;
    Some([&b"R"[..], &len.to_be_bytes(), &kept].concat())
}

/// The largest TLS record, its five bytes of header included.
const RECORD_MAX: usize = 5 + (1 << 14) + 256;

/// Whether the first record of a TLS handshake is whole; none if it cannot be one. Only a whole one obliges the
/// server to answer.
pub(super) fn hello(input: &[u8]) -> Option<bool> {
    let Some(&[_, major, _, a, b]) = input.first_chunk::<5>() else { return Some(false) };
    let len = 5 + usize::from(u16::from_be_bytes([a, b]));
    (major == 3 && len <= RECORD_MAX).then_some(input.len() >= len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(names: &[&str]) -> Vec<u8> {
        let list: Vec<u8> = names.iter().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect();
        [&SASL[..], &list, &[0]].concat()
    }

    #[test]
    fn only_mechanisms_with_binding_are_left_out_and_the_length_fits() {
        let stripped = without_binding(&sasl(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER"]));
        let body = sasl(&["SCRAM-SHA-256", "OAUTHBEARER"]);
        let len = (body.len() as u32 + 4).to_be_bytes();
        assert_eq!(stripped, Some([&b"R"[..], &len, &body].concat()));
    }

    #[test]
    fn what_needs_no_change_or_would_leave_nothing_is_left_alone() {
        assert_eq!(without_binding(&sasl(&["SCRAM-SHA-256"])), None);
        assert_eq!(without_binding(&sasl(&["SCRAM-SHA-256-PLUS"])), None);
        assert_eq!(without_binding(&[0, 0, 0, 5, 1, 2, 3, 0]), None);
    }

    #[test]
    fn a_hello_is_whole_at_the_end_of_its_first_record() {
        let record = [&[0x16, 3, 1, 0, 3][..], b"abc"].concat();
        assert_eq!(hello(&record[..4]), Some(false));
        assert_eq!(hello(&record[..7]), Some(false));
        assert_eq!(hello(&record), Some(true));
        assert_eq!(hello(&[0x16, 3, 1, 255, 255]), None);
        assert_eq!(hello(&[0x16, 9, 1, 0, 3]), None);
    }
}
