//! A breaker's answer to a call: leave to make it, or why not.
//!
//! Absent on purpose: which of them a call gets, which is the machine's to say.

use std::sync::Arc;
use std::time::Instant;

use super::evidence::Trip;
#[cfg(doc)]
use super::policy::Mode;
use super::transition::{Generation, State};

/// Leave to make one call, and what to hand back with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    /// The generation that admitted the call.
    pub generation: Generation,
    pub(super) leave: Leave,
}

/// What a call was let through as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// One of many.
    Ordinary,
    /// The probe of this number.
    Probe(u64),
    /// A call that would have been refused if the breaker were not merely observing.
    Spared,
}

impl Ticket {
    /// A ticket of a closed breaker, for callers that know the generation to be closed.
    pub(crate) fn ordinary(generation: Generation) -> Self {
        Self { generation, leave: Leave::Ordinary }
    }

    /// Whether the call is a probe and so holds a slot until it reports.
    pub fn is_probe(&self) -> bool {
        matches!(self.leave, Leave::Probe(_))
    }

    /// Whether the call would have been refused in [`Mode::Enforce`].
    pub fn is_spared(&self) -> bool {
        self.leave == Leave::Spared
    }

    pub(super) fn probe(&self) -> Option<u64> {
        if let Leave::Probe(probe) = self.leave { Some(probe) } else { None }
    }
}

/// Why a call is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `Open`, `HalfOpen` with every probe slot taken, or `Closed` in a slow start that has no room yet.
    pub state: State,
    /// The trip that began this outage.
    pub trip: Option<Arc<Trip>>,
    /// When trying again may help. None while open: when an operator closes the breaker; otherwise: at any moment.
    pub retry_at: Option<Instant>,
}
