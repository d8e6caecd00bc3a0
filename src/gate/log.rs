//! The line in the log that each transition is: the first thing that anyone reads of an outage.

use crate::breaker::{Mode, State, Transition};

/// Writes it. The gate is unlocked by then: a reader of the log who dawdles holds up no call.
pub(super) fn log(name: &str, transition: &Transition) {
    let (from, to) = (transition.from.label(), transition.to.label());
    let (shout_from, shout_to) = (from.to_uppercase(), to.to_uppercase());
    let (why, mode) = (&transition.why, transition.mode.label());
    let retry_after = transition.retry_after.map(|delay| humantime::format_duration(delay).to_string());
    // Whoever reads `OPEN` in the log must not look for rejections that never were.
    let observing = if transition.mode == Mode::Observe { " (observing: nothing is rejected)" } else { "" };
    if transition.to == State::Open {
        tracing::warn!(
            backend = name,
            from,
            to,
            mode,
            reason = why.label(),
            last_error = why.cause().map(tracing::field::display),
            retry_after = retry_after.as_deref().unwrap_or("reset"),
            "Circuit breaker '{name}' transitioned from {shout_from} to {shout_to} after {why}{observing}"
        );
    } else {
        tracing::info!(
            backend = name,
            from,
            to,
            mode,
            reason = why.label(),
            "Circuit breaker '{name}' transitioned from {shout_from} to {shout_to} after {why}{observing}"
        );
    }
}
