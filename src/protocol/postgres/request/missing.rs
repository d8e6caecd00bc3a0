//! Statements that are missing at the server, because their Parse was rejected, and what comes of a Bind or Describe
//! that names one.

use crate::protocol::postgres::message::Message;
use crate::protocol::postgres::names::name_at;
use crate::protocol::postgres::session::Session;

/// How much of a Bind is looked at for its statement's name.
const NAMES_MAX: usize = 1024;
/// A statement name that nobody has prepared. A Bind or Describe that names a rejected statement in the middle of
/// a run that has begun is replaced by one that names this, so that the server itself raises the error in its
/// turn. Were the message forwarded, it could meet an older statement of the same name.
const NOBODY: &[u8] = b"fusewire: its Parse was rejected\0";

impl Session {
    /// Whether a Bind or Describe names a statement whose Parse was rejected; none while its name is not there.
    pub(super) fn names_rejected(&self, message: Message<'_>) -> Option<bool> {
        let Message { tag, body, .. } = message;
        let name = match tag {
            b'B' => memchr::memchr(0, body).and_then(|at| body.get(at + 1..)),
            b'D' if body.first() == Some(&b'S') => body.get(1..),
            b'D' if body.is_empty() => None,
            _ => return Some(false),
        };
        match name.and_then(|name| name_at(name, false)) {
            Some(name) => Some(self.client.names.contains(&name)),
            // A name that does not end is the server's to refuse; a portal's is not waited for.
            None if message.is_whole() => Some(false),
            None if body.len() >= NAMES_MAX => Some(true),
            None => None,
        }
    }
}

/// A Bind or Describe of a statement that does not exist.
pub(super) fn substitute(tag: u8) -> Vec<u8> {
    let mut body = Vec::new();
    if tag == b'D' {
        body.push(b'S');
        body.extend_from_slice(NOBODY);
    } else {
        body.push(0);
        body.extend_from_slice(NOBODY);
        body.extend_from_slice(&[0; 6]);
    }
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![tag];
    message.extend_from_slice(&len.to_be_bytes());
    message.append(&mut body);
    message
}
