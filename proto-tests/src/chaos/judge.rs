//! What the checkers have seen: figures, and every promise that was found broken.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// No more are kept: the first ones say what is wrong.
const VIOLATIONS_MAX: usize = 1000;

/// Shared by all checkers.
#[derive(Debug, Default)]
pub struct Judge {
    over: AtomicBool,
    violations: Mutex<Vec<String>>,
    figures: [AtomicU64; Figure::COUNT],
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Redis replies that were checked.
    RedisReplies,
    /// Writes to Redis that were acknowledged.
    RedisWrites,
    /// Redis errors that belong to an outage or a rejection.
    RedisErrors,
    /// Connections of Redis clients that ended, or could not be made.
    RedisBreaks,
    /// Postgres transactions that were acknowledged.
    PostgresCommits,
    /// Postgres results that were checked.
    PostgresReads,
    /// Postgres errors that belong to an outage, a rejection or a conflict.
    PostgresErrors,
    /// Postgres writes that a standby refused.
    PostgresReadOnly,
    /// Postgres sessions that ended, or could not be had.
    PostgresBreaks,
    /// Values and rows that were compared with what their writers had been told.
    Audited,
}

impl Figure {
    const COUNT: usize = Self::Audited as usize + 1;
}

impl Judge {
    /// Counts.
    pub fn count(&self, figure: Figure, n: u64) {
        self.figures[figure as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// So far.
    pub fn figure(&self, figure: Figure) -> u64 {
        self.figures[figure as usize].load(Ordering::Relaxed)
    }

    /// A promise was broken.
    pub fn violation(&self, what: impl Into<String>) {
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        if violations.len() < VIOLATIONS_MAX {
            let what = what.into();
            violations.push(what);
        }
    }

    /// The broken promises.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the checkers to end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether they are to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |figure| self.figure(figure);
        write!(
            f,
            "Redis: {} replies checked, {} writes acknowledged, {} errors, {} broken connections; Postgres: {} commits, \
             {} reads, {} errors, {} of them of a standby, {} broken sessions; {} values and rows audited; {} promises broken",
            of(Figure::RedisReplies),
            of(Figure::RedisWrites),
            of(Figure::RedisErrors),
            of(Figure::RedisBreaks),
            of(Figure::PostgresCommits),
            of(Figure::PostgresReads),
            of(Figure::PostgresErrors),
            of(Figure::PostgresReadOnly),
            of(Figure::PostgresBreaks),
            of(Figure::Audited),
            self.violations().len()
        )
    }
}
