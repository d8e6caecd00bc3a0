//! A time limit that every turn of every connection asks for, and that a reload may change meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A time limit, or none. Asking costs one relaxed load.
#[derive(Debug)]
pub(crate) struct Limit(AtomicU64);

/// Stands for no limit; as a number of nanoseconds it would be 584 years.
const NONE: u64 = u64::MAX;

impl Limit {
    /// A limit to begin with.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self(AtomicU64::new(nanos(limit)))
    }

    /// The limit as it is now.
    #[inline]
    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Changes it.
    pub(crate) fn set(&self, limit: Option<Duration>) {
        self.0.store(nanos(limit), Ordering::Relaxed);
    }
}

fn nanos(limit: Option<Duration>) -> u64 {
    limit.map_or(NONE, |limit| u64::try_from(limit.as_nanos()).unwrap_or(NONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_it_was_set_to() {
        let limits =
            [None, Some(Duration::ZERO), Some(Duration::from_nanos(1)), Some(Duration::from_secs(86_400))];
        for before in limits {
            let limit = Limit::new(before);
            assert_eq!(limit.get(), before);
            for after in limits {
                limit.set(after);
                assert_eq!(limit.get(), after);
            }
        }
        assert_eq!(Limit::new(Some(Duration::MAX)).get(), None);
    }
}
