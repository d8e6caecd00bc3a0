//! Which server a cancel request belongs to.
//!
//! A name may resolve to several servers, and only the one that runs the session can cancel its query. So the
//! session notes its `BackendKeyData` with the address it was dialled at, and a cancel request, which comes on a
//! connection of its own, is sent to the same address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses by pid and key. Shared by all sessions of a backend.
#[derive(Debug, Default)]
pub struct Cancels {
    known: Mutex<HashMap<Box<[u8]>, SocketAddr>>,
}

impl Cancels {
    /// How many sessions are remembered. Above it a cancel request goes to wherever the backend's name leads.
    pub const MAX: usize = 1 << 16;

    /// Where the session with this pid and key runs.
    pub fn find(&self, key: &[u8]) -> Option<SocketAddr> {
        self.lock().get(key).copied()
    }

    /// How many sessions are remembered.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Remembers a session; says whether there was room.
    pub(super) fn enter(&self, key: &[u8], peer: SocketAddr) -> bool {
        let mut known = self.lock();
        let room = known.len() < Self::MAX || known.contains_key(key);
        if room {
            known.insert(key.into(), peer);
        }
        room
    }

    /// Forgets a session, unless its key meanwhile belongs to one on another server.
    pub(super) fn leave(&self, key: &[u8], peer: SocketAddr) {
        let mut known = self.lock();
        if known.get(key) == Some(&peer) {
            known.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, SocketAddr>> {
        // Every change is one insertion or removal, so a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_sessions_are_remembered_and_no_more() {
        let (cancels, peer) = (Cancels::default(), SocketAddr::from(([127, 0, 0, 1], 5432)));
        let key = |n: usize| n.to_be_bytes();
        assert!((0..Cancels::MAX).all(|n| cancels.enter(&key(n), peer)));
        assert!(!cancels.enter(&key(Cancels::MAX), peer));
        assert!(cancels.enter(&key(0), peer), "it is known already");
        assert_eq!((cancels.len(), cancels.find(&key(Cancels::MAX))), (Cancels::MAX, None));
        cancels.leave(&key(1), peer);
        assert!(cancels.enter(&key(Cancels::MAX), peer));
    }
}
