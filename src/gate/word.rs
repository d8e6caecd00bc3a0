//! What a call must know of the breaker to pass without its lock, in one word: generation, state, and whether a success
//! would change anything.
//!
//! It is written under the lock and read without. Who reads an old one only passes a moment earlier than it could have: its
//! verdict then comes from an older generation, and has no effect.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::breaker::{Breaker, Generation, Mode, State};

const CODE_MASK: u64 = 0b11;
/// In the place of a state: closed, but not for every call (a slow start, a limit on calls in flight). It must not look
/// closed to [`Word::closed`].
const GUARDED_CODE: u64 = 0b11;
/// A success matters: there is a run of failures for it to end, or a window for it to go into.
const RUN_FLAG: u64 = 0b100;
const GENERATION_SHIFT: u32 = 3;

/// The word of one breaker.
#[derive(Debug)]
pub(super) struct Word(AtomicU64);

impl Word {
    pub(super) fn new(breaker: &Breaker) -> Self {
        Self(AtomicU64::new(word_of(breaker)))
    }

    /// Says what the breaker is now.
    pub(super) fn publish(&self, breaker: &Breaker) {
        self.0.store(word_of(breaker), Ordering::Release);
    }

    /// The generation, if the breaker is closed and all calls may pass.
    #[inline]
    pub(super) fn closed(&self) -> Option<Generation> {
        let word = self.0.load(Ordering::Acquire);
        (word & CODE_MASK == u64::from(State::Closed.gauge())).then_some(word >> GENERATION_SHIFT)
    }

    /// Whether a success of a call of this generation would change nothing: it is closed, and remembers nothing that a
    /// success would end or add to.
    #[inline]
    pub(super) fn is_idle(&self, generation: Generation) -> bool {
        let word = self.0.load(Ordering::Acquire);
        let closed = (generation << GENERATION_SHIFT) | u64::from(State::Closed.gauge());
        word == closed || word == closed | GUARDED_CODE
    }
}

fn word_of(breaker: &Breaker) -> u64 {
    let run = if breaker.wants_success() { RUN_FLAG } else { 0 };
    let limited = breaker.policy().bulkhead.calls.is_some() && breaker.mode() != Mode::Disabled;
    let code = match breaker.state() {
        State::Closed if limited || breaker.is_slow_starting() => GUARDED_CODE,
        state => u64::from(state.gauge()),
    };
    (breaker.generation() << GENERATION_SHIFT) | run | code
}
