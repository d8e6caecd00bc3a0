//! The names of prepared statements, as the server compares them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

/// A statement name as the server compares it: the first 63 bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(Vec<u8>);

impl Name {
    /// How many bytes of a name the server compares.
    const MAX: usize = 63;

    /// The name in these bytes, without its closing zero.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.get(..Self::MAX).unwrap_or(bytes).to_vec())
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        std::hash::Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    /// Adds what comes next of it.
    pub(super) fn push(&mut self, more: &[u8]) {
        let room = Self::MAX.saturating_sub(self.0.len());
        self.0.extend_from_slice(more.get(..room).unwrap_or(more));
    }
}

/// Names of prepared statements whose Parse was rejected.
///
/// A driver that numbers its statements (asyncpg, tokio-postgres) adds a name with every rejected query, so hashes
/// are kept instead of names. Two names with one hash would make a statement missing that is not: an error, never
/// a wrong statement.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeSet<u64>,
}

impl Names {
    /// How many rejected names a session may collect before it is ended instead: about a megabyte.
    const MAX: usize = 1 << 16;

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn contains(&self, name: &Name) -> bool {
        self.known.contains(&name.hash())
    }

    /// Adds a name; says whether there was room.
    pub(super) fn insert(&mut self, name: &Name) -> bool {
        self.known.insert(name.hash());
        self.known.len() <= Self::MAX
    }

    pub(super) fn remove(&mut self, name: &Name) {
        self.known.remove(&name.hash());
    }
}

/// The name at the beginning of a body; none while its end is missing and matters. `whole`: no more of the body is to
/// come, so that all of it is the name of one that ends without a zero.
pub(super) fn name_at(body: &[u8], whole: bool) -> Option<Name> {
    match memchr::memchr(0, body) {
        Some(at) => body.get(..at).map(Name::new),
        None if whole || body.len() >= Name::MAX => Some(Name::new(body)),
        None => None,
    }
}
