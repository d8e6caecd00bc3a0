//! Why a call was not let through: the words for the client, in any protocol.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Inner;
use crate::breaker::{Refusal, State};

/// Why a call was not let through. One word of memory, because sessions have several places for one, and most never need
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection(Arc<Rejected>);

/// What a [`Rejection`] says. Put into words once: an open breaker says the same to many.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The backend's name.
    pub backend: Arc<str>,
    /// Who said so.
    pub grounds: Grounds,
    /// `backend 'cache' is open (connection refused, 5 consecutive failures)`.
    pub words: Box<str>,
    /// The cause, for a detail line: `connection refused, 5 consecutive failures`, in a slow start with `slow start
    /// after` before it.
    pub cause: Box<str>,
}

/// How long to wait, in words: `retry after 12400 ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint(Option<Duration>);

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
    fn new(backend: Arc<str>, grounds: Grounds) -> Self {
        let state = match &grounds {
            Grounds::Full(_) => "full",
            Grounds::Breaker(refusal) => match refusal.state {
                State::Open => "open",
                State::HalfOpen => "half-open",
                State::Closed => "recovering",
            },
        };
        let cause = grounds.cause().into_boxed_str();
        let words = format!("backend '{backend}' is {state} ({cause})").into_boxed_str();
        Self(Arc::new(Rejected { backend, grounds, words, cause }))
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

    /// The hint.
    pub fn hint(&self, now: Instant) -> Hint {
        Hint(self.retry_after(now))
    }
}

impl Inner {
    /// The rejection on these grounds; the last one, if it was on the same.
    pub(super) fn rejection(&mut self, backend: &Arc<str>, grounds: Grounds) -> Rejection {
        match &self.rejection {
            Some(last) if last.grounds == grounds => last.clone(),
            _ => self.rejection.insert(Rejection::new(backend.clone(), grounds)).clone(),
        }
    }
}

impl Grounds {
    fn cause(&self) -> String {
        let refusal = match self {
            Self::Breaker(refusal) => refusal,
            Self::Full(1) => return "1 call in flight".to_owned(),
            Self::Full(limit) => return format!("{limit} calls in flight"),
        };
        let trip = refusal.trip.as_ref().map(ToString::to_string);
        match (refusal.state, trip) {
            (State::Closed, Some(trip)) => format!("slow start after {trip}"),
            (State::Closed, None) => "slow start".to_owned(),
            (_, Some(trip)) => trip,
            (_, None) => "half-open".to_owned(),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(delay) => write!(f, "retry after {} ms", delay.as_millis()),
            None => f.write_str("retry after an operator has reset it"),
        }
    }
}
