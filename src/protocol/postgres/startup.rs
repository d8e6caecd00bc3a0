//! What a client says first: packets without a tag (PROTOCOLS.md §3.1).
//!
//! Absent on purpose: any answer, and any memory of what came before. [`read`] is a function of the bytes.

/// The largest startup packet, its length word included: the server's own `MAX_STARTUP_PACKET_LENGTH` does not
/// count that word.
pub(super) const STARTUP_MAX: usize = 10_004;
/// A cancel request's bytes before pid and key.
const CANCEL_HEAD: usize = 8;
/// Pid and key in a cancel request: the key has 4 bytes in protocol 3.0 and up to 256 in 3.2.
const CANCEL_KEY: std::ops::RangeInclusive<usize> = 8..=260;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// The first byte of a TLS record with a handshake in it.
const TLS_HANDSHAKE: u8 = 0x16;

/// The first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// More bytes are needed to tell.
    Partial,
    /// Eight bytes that ask for TLS.
    Ssl,
    /// Eight bytes that ask for GSSAPI encryption.
    Gss,
    /// A TLS handshake without asking first.
    DirectTls,
    /// A request to cancel the query of the session with this pid and key.
    Cancel {
        /// The packet's length.
        len: usize,
        /// Pid and key.
        key: &'a [u8],
    },
    /// A startup message, whole.
    Startup {
        /// The packet's length.
        len: usize,
        /// Its major version is 3.
        native: bool,
        /// It asks for a replication session.
        replication: bool,
    },
    /// No packet of this protocol.
    Malformed(&'static str),
}

/// Bytes of a request for encryption.
pub(super) const REQUEST: usize = 8;

/// Reads the packet at the beginning of `input`.
pub(super) fn read(input: &[u8]) -> Packet<'_> {
    if input.first() == Some(&TLS_HANDSHAKE) {
        return Packet::DirectTls;
    }
    let Some(len) = word(input, 0).map(|len| len as usize) else {
        return Packet::Partial;
    };
    // Decided by the length alone, so that the text of another protocol ("GET /") is not waited on.
    if !(REQUEST..=STARTUP_MAX).contains(&len) {
        return Packet::Malformed("invalid length of startup packet");
    }
    let Some(code) = word(input, 4) else {
        return Packet::Partial;
    };
    match code {
        SSL_REQUEST if len == REQUEST => Packet::Ssl,
        GSSENC_REQUEST if len == REQUEST => Packet::Gss,
        CANCEL_REQUEST if !CANCEL_KEY.contains(&(len - CANCEL_HEAD)) => {
            Packet::Malformed("invalid length of cancel request")
        }
        _ => match input.get(..len) {
            None => Packet::Partial,
            Some(packet) if code == CANCEL_REQUEST => {
                Packet::Cancel { len, key: packet.get(CANCEL_HEAD..).unwrap_or_default() }
            }
            Some(packet) => {
                let parameters = packet.get(REQUEST..).unwrap_or_default();
                Packet::Startup { len, native: code >> 16 == 3, replication: replication(parameters) }
            }
        },
    }
}

fn word(input: &[u8], at: usize) -> Option<u32> {
    let bytes = input.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Whether the parameters (names and values by turns, each ended by a zero) ask for replication. The last value
/// counts, as in the server.
fn replication(parameters: &[u8]) -> bool {
    let mut fields = parameters.split(|&byte| byte == 0);
    let mut asked = false;
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if name.is_empty() {
            break;
        }
        if name == b"replication" {
            asked = !is_false(value);
        }
    }
    asked
}

/// The server's `parse_bool`: any unambiguous beginning of a word will do.
fn is_false(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    match value.as_slice() {
        b"" => false,
        b"0" => true,
        v => b"false".starts_with(v) || b"no".starts_with(v) || (v.len() > 1 && b"off".starts_with(v)),
    }
}
