//! The circuit breaker: a pure state machine over calls and their verdicts.
//!
//! Nothing in here knows a socket, a clock, a lock or a protocol. Time is an argument, verdicts come from
//! outside, and every effect (a transition to log, a slot that was freed) is returned as data. [`crate::gate`]
//! wraps it for the connections that share it.

mod evidence;
mod machine;
mod policy;
#[cfg(test)]
mod tests;
mod verdict;

pub use evidence::{Condition, Outcome, Trip};
pub use machine::{Breaker, Generation, Refusal, State, Ticket, Transition, Why};
pub use policy::Policy;
pub use verdict::{CallKind, Cause, Code, Fault, Verdict};
