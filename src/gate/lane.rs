//! The gate as one worker sees it: where calls are let through, counted, and end.
//!
//! Sessions that keep a call's generation and start themselves account for it here without a guard ([`Lane::passed`],
//! [`Lane::succeeded`]); all others get a [`Permit`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bulkhead::is_setup;
use super::{Gate, Grounds, Permit, Rejection};
use crate::breaker::{Breaker, CallKind, Generation, Mode, Outcome, Refusal, State, Ticket, Verdict};
use crate::metrics::{Counter, Tally};

/// The gate as one worker sees it: the same breaker, a tally of its own.
#[derive(Debug, Clone)]
pub struct Lane {
    gate: Arc<Gate>,
    worker: usize,
}

impl Lane {
    pub(super) fn new(gate: Arc<Gate>, worker: usize) -> Self {
        Self { gate, worker }
    }

    /// The gate behind it.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Counts into this worker's tally.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        self.tally().add(counter, n);
    }

    /// The generation, if the breaker is closed: a whole batch of calls may pass on it, each accounted with
    /// [`Lane::passed`] and [`Lane::succeeded`] or [`Lane::permit_of`]. One atomic load.
    #[inline]
    pub fn closed(&self) -> Option<Generation> {
        self.gate.word.closed()
    }

    /// Accounts for `n` calls let through on [`Lane::closed`].
    #[inline]
    pub fn passed(&self, n: u64) {
        self.tally().add(Counter::Admitted, n);
    }

    /// Ends `n` calls that [`Lane::passed`] accounted for with success: no lock while nothing has failed and no
    /// window is on, otherwise one for all of them.
    #[inline]
    pub fn succeeded(
        &self,
        now: Instant,
        generation: Generation,
        kind: CallKind,
        duration: Duration,
        n: u64,
    ) {
        let tally = self.tally();
        tally.add(Counter::Success, n);
        tally.observe(duration, n);
        if !self.gate.word.is_idle(generation) {
            let outcome = Outcome { at: now, kind, verdict: Verdict::Success, duration };
            self.settle_all(Ticket::ordinary(generation), outcome, n);
        }
    }

    /// Ends one call that [`Lane::passed`] accounted for with success, without a latency sample: a blocking
    /// command that waited for a minute says nothing about the backend's speed.
    pub fn succeeded_untimed(&self, now: Instant, generation: Generation, kind: CallKind) {
        self.add(Counter::Success, 1);
        let outcome = Outcome { at: now, kind, verdict: Verdict::Success, duration: Duration::ZERO };
        self.settle(Ticket::ordinary(generation), outcome);
    }

    /// Ends `n` calls that [`Lane::passed`] accounted for without a verdict on the backend.
    #[inline]
    pub fn ignored(&self, n: u64) {
        self.tally().add(Counter::Ignored, n);
    }

    /// The permit of one call that [`Lane::passed`] accounted for, to end it with any verdict.
    pub fn permit_of(&self, generation: Generation, kind: CallKind, start: Instant) -> Permit {
        Permit::of_passed(self.clone(), Ticket::ordinary(generation), kind, start)
    }

    /// Asks to make one call.
    ///
    /// # Errors
    /// A [`Rejection`], already counted, unless the breaker is closed (in a slow start: for this one), a probe slot is
    /// free, or it is merely observing.
    pub fn admit(&self, now: Instant, kind: CallKind) -> Result<Permit, Rejection> {
        self.counted(self.admit_uncounted(now, kind))
    }

    /// As [`Lane::admit`], for a step that is not a call of the client's own: a connection that is not let through
    /// shows in the figures as the commands that are rejected over it.
    ///
    /// # Errors
    /// A [`Rejection`], not counted, unless the breaker is closed or a probe slot is free.
    pub fn admit_uncounted(&self, now: Instant, kind: CallKind) -> Result<Permit, Rejection> {
        let answer = self.ask(now, kind, |breaker| breaker.admit(now, kind));
        if answer.as_ref().is_ok_and(Ticket::is_probe) {
            self.add(Counter::Probes, 1);
            self.gate.alarm.notify_one();
        }
        self.answer(now, kind, answer)
    }

    /// Asks to make a call that must not be a probe because it may rightly take long: a blocking command, a
    /// subscription, a COPY, replication.
    ///
    /// # Errors
    /// A [`Rejection`], already counted, unless the breaker is closed (in a slow start: for this one) or merely
    /// observing.
    pub fn admit_ineligible(&self, now: Instant, kind: CallKind) -> Result<Permit, Rejection> {
        let answer = self.ask(now, kind, |breaker| breaker.admit_ineligible(now));
        self.counted(self.answer(now, kind, answer))
    }

    /// Counts `n` more calls that met the same rejection as the one that was asked for: the rest of a batch.
    pub fn rejected(&self, rejection: &Rejection, n: u64) {
        let counter = match &rejection.grounds {
            Grounds::Full(_) => Counter::RejectedCalls,
            Grounds::Breaker(refusal) => match refusal.state {
                State::Open => Counter::RejectedOpen,
                State::HalfOpen => Counter::RejectedHalfOpen,
                State::Closed => Counter::RejectedSlowStart,
            },
        };
        self.add(counter, n);
    }

    /// Counts a rejection, and one that would have been.
    fn counted(&self, answer: Result<Permit, Rejection>) -> Result<Permit, Rejection> {
        match &answer {
            Err(rejection) => self.rejected(rejection, 1),
            Ok(permit) if permit.is_spared() => self.add(Counter::WouldReject, 1),
            Ok(_) => {}
        }
        answer
    }

    /// Asks the bulkhead, then the breaker. What passes is counted before the next one asks, or two would take the last
    /// place.
    fn ask(
        &self,
        now: Instant,
        kind: CallKind,
        admit: impl FnOnce(&mut Breaker) -> Result<Ticket, Refusal>,
    ) -> Result<Ticket, Rejection> {
        self.gate.with(|inner| {
            let full = inner.full(now, kind, &self.gate.tallies);
            let answer = match (full, inner.breaker.mode()) {
                (Some(limit), Mode::Enforce) => Err(Grounds::Full(limit)),
                _ => admit(&mut inner.breaker).map_err(Grounds::Breaker),
            };
            let ticket = answer.map_err(|grounds| inner.rejection(&self.gate.name, grounds))?;
            self.passed(1);
            if is_setup(kind) {
                self.add(Counter::SetupsBegun, 1);
            }
            if full.is_some() && !ticket.is_spared() {
                self.add(Counter::WouldReject, 1);
            }
            Ok(ticket)
        })
    }

    fn answer(
        &self,
        now: Instant,
        kind: CallKind,
        answer: Result<Ticket, Rejection>,
    ) -> Result<Permit, Rejection> {
        answer.map(|ticket| Permit::new(self.clone(), ticket, kind, now))
    }

    pub(super) fn settle(&self, ticket: Ticket, outcome: Outcome) {
        self.settle_all(ticket, outcome, 1);
    }

    /// Hands the breaker the same verdict of `n` calls at once.
    fn settle_all(&self, ticket: Ticket, outcome: Outcome, n: u64) {
        let counts = outcome.verdict != Verdict::Ignored;
        let in_time = self.gate.with(|inner| {
            if let Verdict::Failure(cause) = &outcome.verdict {
                *inner.failures.entry(cause.clone()).or_default() += n;
            }
            inner.breaker.record_batch(ticket, outcome, n)
        });
        if counts && in_time < n {
            self.add(Counter::Stale, n - in_time);
        }
    }

    #[inline]
    pub(super) fn tally(&self) -> &Tally {
        &self.gate.tallies[self.worker]
    }
}
