//! Leave to make one call, and the verdict that ends it.
//!
//! Absent on purpose: who may have one. That is for [`Lane`] to ask.

use std::fmt;
use std::time::{Duration, Instant};

use super::Lane;
use super::bulkhead::is_setup;
use crate::breaker::{CallKind, Generation, Outcome, Ticket, Verdict};
use crate::metrics::Counter;

/// Leave to make one call; handed back with [`Permit::record`]. Dropped without a verdict the call counts as
/// ignored, and a probe's slot is free again: a client that vanishes can never wedge the half-open state.
#[must_use]
pub struct Permit {
    lane: Lane,
    ticket: Ticket,
    kind: CallKind,
    start: Instant,
    /// A connect or a startup that was counted as one.
    setup: bool,
    reported: bool,
}

impl Permit {
    /// For a call that was just let through.
    pub(super) fn new(lane: Lane, ticket: Ticket, kind: CallKind, now: Instant) -> Self {
        Self { lane, ticket, kind, start: now, setup: is_setup(kind), reported: false }
    }

    /// For a call that [`Lane::passed`] accounted for.
    pub(super) fn of_passed(lane: Lane, ticket: Ticket, kind: CallKind, start: Instant) -> Self {
        Self { lane, ticket, kind, start, setup: false, reported: false }
    }

    /// Whether the call is a probe.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }

    /// Whether the call would have been rejected if the breaker were not merely observing.
    pub fn is_spared(&self) -> bool {
        self.ticket.is_spared()
    }

    /// When the call was admitted.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The generation that admitted it.
    pub fn generation(&self) -> Generation {
        self.ticket.generation
    }

    /// Whether its verdict would still have an effect: the breaker has not changed its state since, and a probe has its
    /// slot.
    pub fn is_live(&self, now: Instant) -> bool {
        self.lane.gate().with(|inner| inner.breaker.is_live(now, self.ticket))
    }

    /// Says whose move it is: the backend's, or the client's. Without effect on calls that are not probes.
    pub fn set_owed(&self, owed: bool) {
        if self.is_probe() {
            self.lane.gate().with(|inner| inner.breaker.set_owed(self.ticket, owed));
        }
    }

    /// Gives up the guard over a call that is no probe, without ending it: whoever keeps its generation and start
    /// ends it as one that [`Lane::passed`] accounted for.
    pub fn defer(mut self) -> Generation {
        debug_assert!(!self.is_probe(), "a probe is ended by its permit");
        debug_assert!(!self.setup, "a connect is ended by its permit");
        self.reported = true;
        self.ticket.generation
    }

    /// Ends the call.
    pub fn record(mut self, now: Instant, verdict: Verdict) {
        self.reported = true;
        self.end_setup();
        let duration = now.saturating_duration_since(self.start);
        match verdict {
            Verdict::Success => {
                self.lane.add(Counter::Success, 1);
                self.lane.tally().observe(duration, 1);
            }
            Verdict::Failure(_) => {
                self.lane.add(Counter::Failure, 1);
                self.lane.tally().observe(duration, 1);
            }
            Verdict::Ignored => self.lane.add(Counter::Ignored, 1),
        }
        self.lane.settle(self.ticket, Outcome { at: now, kind: self.kind, verdict, duration });
    }

    fn end_setup(&self) {
        if self.setup {
            self.lane.add(Counter::SetupsEnded, 1);
        }
    }

    fn release(&mut self) {
        self.end_setup();
        self.lane.add(Counter::Ignored, 1);
        if self.is_probe() {
            // The breaker only needs to know that the slot is free, so the time of it does not matter: the
            // admission's own is the one that cannot run ahead of the clock.
            let outcome = Outcome {
                at: self.start,
                kind: self.kind,
                verdict: Verdict::Ignored,
                duration: Duration::ZERO,
            };
            self.lane.settle(self.ticket, outcome);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.reported {
            self.release();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("ticket", &self.ticket)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
