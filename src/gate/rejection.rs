//! Why a call was not let through: the words for the client, in any protocol.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::{Refusal, State};

/// Why a call was not let through. One word of memory, because sessions have several places for one, and most never need
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection(Arc<Rejected>);

/// What a [`Rejection`] says.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The backend's name.
    pub backend: Arc<str>,
    /// Who said so.
    pub grounds: Grounds,
}

impl Deref for Rejection {
    type Target = Rejected;

    fn deref(&self) -> &Rejected {
        &self.0
    }
}

/// Who does not let a call through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grounds {
    /// The breaker.
    Breaker(Refusal),
    /// The bulkhead: so many calls are in flight, which is the limit.
    Full(u32),
}

impl Rejection {
    pub(super) fn new(backend: Arc<str>, grounds: Grounds) -> Self {
        Self(Arc::new(Rejected { backend, grounds }))
    }

    /// Whether the breaker said it while open.
    pub fn is_open(&self) -> bool {
        matches!(&self.grounds, Grounds::Breaker(refusal) if refusal.state == State::Open)
    }

    /// How long the client had better wait; zero when the next call may pass, none when only an operator can
    /// settle it.
    pub fn retry_after(&self, now: Instant) -> Option<Duration> {
        let Grounds::Breaker(refusal) = &self.grounds else { return Some(Duration::ZERO) };
        match (refusal.state, refusal.retry_at) {
            (State::HalfOpen | State::Closed, None) => Some(Duration::ZERO),
            (_, retry_at) => retry_at.map(|at| at.saturating_duration_since(now)),
        }
    }

    /// The cause, for a detail line: `connection refused, 5 consecutive failures`, in a slow start with `slow start
    /// after` before it.
    pub fn cause(&self) -> String {
        let refusal = match &self.grounds {
            Grounds::Breaker(refusal) => refusal,
            Grounds::Full(1) => return "1 call in flight".to_owned(),
            Grounds::Full(limit) => return format!("{limit} calls in flight"),
        };
        let trip = refusal.trip.as_ref().map(ToString::to_string);
        match (refusal.state, trip) {
            (State::Closed, Some(trip)) => format!("slow start after {trip}"),
            (State::Closed, None) => "slow start".to_owned(),
            (_, Some(trip)) => trip,
            (_, None) => "half-open".to_owned(),
        }
    }

    /// The hint: `retry after 12400 ms`.
    pub fn hint(&self, now: Instant) -> String {
        match self.retry_after(now) {
            Some(delay) => format!("retry after {} ms", delay.as_millis()),
            None => "retry after an operator has reset it".to_owned(),
        }
    }
}

impl fmt::Display for Rejection {
    /// `backend 'cache' is open (connection refused, 5 consecutive failures)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.grounds {
            Grounds::Full(_) => "full",
            Grounds::Breaker(refusal) => match refusal.state {
                State::Open => "open",
                State::HalfOpen => "half-open",
                State::Closed => "recovering",
            },
        };
        write!(f, "backend '{}' is {state} ({})", self.backend, self.cause())
    }
}
