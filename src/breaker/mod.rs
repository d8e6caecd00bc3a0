//! The circuit breaker: a pure state machine over calls and their verdicts.
//!
//! Nothing in here knows a socket, a clock, a lock or a protocol. Time is an argument, verdicts and the seed of the
//! jitter come from outside, and every effect (a transition to log, a slot that was freed) is returned as data.
//! [`crate::gate`] wraps it for the connections that share it.
//!
//! | file | what it is |
//! |---|---|
//! | `machine` | the states and the ways between them |
//! | `ticket` | what a call is told: leave, or why not |
//! | `closed` | what a closed breaker remembers, and when it trips |
//! | `window` | the calls that a rate is taken of |
//! | `ramp` | slow start: the share of calls that passes after a recovery |
//! | `backoff` | how long an open breaker waits |
//! | `check` | what fusewire's own tests of the backend may do, and when they are made |
//! | `policy` | the numbers of all that |
//! | `verdict`, `evidence`, `transition` | what a call says, what a trip was decided on, what changed |

mod backoff;
mod check;
mod closed;
mod evidence;
mod machine;
mod policy;
mod ramp;
mod random;
#[cfg(test)]
mod tests;
mod ticket;
mod transition;
mod verdict;
mod window;

pub use check::{Checks, Finding, Pace, Remedy, When};
pub use evidence::{Condition, Outcome, Trip};
pub use machine::Breaker;
pub use policy::{Bulkhead, Factor, Mode, Policy, Rates, Share, Span};
pub use ticket::{Refusal, Ticket};
pub use transition::{Generation, State, Transition, Why};
pub use verdict::{CallKind, Cause, Code, Fault, Verdict};
