//! The machine, step by step; under random interleavings in `model`.

mod checks;
mod model;
mod modes;
mod policies;
mod rates;
mod recovery;
mod reload;
mod words;

use std::time::{Duration, Instant};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy { failure_threshold: Some(3), ..Policy::default() }
}

fn refused() -> Verdict {
    Verdict::Failure(Fault::Refused.into())
}

/// `n` percent.
fn percent(n: u32) -> Share {
    Share::from_millionths(n * Share::WHOLE / 100).unwrap()
}

/// A breaker with a clock that the test moves.
struct Bench {
    breaker: Breaker,
    now: Instant,
    began: Instant,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let now = Instant::now();
        Self { breaker: Breaker::new(policy, 7, now), now, began: now }
    }

    fn admit(&mut self) -> Result<Ticket, Refusal> {
        self.breaker.admit(self.now, CallKind::Command)
    }

    fn record(&mut self, ticket: Ticket, verdict: Verdict) -> bool {
        self.record_taking(SECOND, ticket, verdict)
    }

    fn record_taking(&mut self, duration: Duration, ticket: Ticket, verdict: Verdict) -> bool {
        let outcome = Outcome { at: self.now, kind: CallKind::Command, verdict, duration };
        self.breaker.record(ticket, outcome)
    }

    fn call(&mut self, verdict: Verdict) {
        self.call_taking(SECOND, verdict);
    }

    fn call_taking(&mut self, duration: Duration, verdict: Verdict) {
        let ticket = self.admit().expect("admitted");
        self.record_taking(duration, ticket, verdict);
    }

    /// To so many seconds after the beginning.
    fn at(&mut self, seconds: f64) {
        let then = self.began + Duration::from_secs_f64(seconds);
        assert!(then >= self.now, "time does not run backwards");
        self.now = then;
        self.breaker.tick(then);
    }

    fn state(&self) -> State {
        self.breaker.state()
    }

    fn last_condition(&self) -> Condition {
        self.breaker.last_trip().expect("it has tripped").condition.clone()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.breaker.tick(self.now);
    }

    fn tripped() -> Self {
        Self::tripped_with(policy())
    }

    fn tripped_with(policy: Policy) -> Self {
        let mut bench = Self::new(policy);
        for _ in 0..3 {
            bench.call(refused());
        }
        assert_eq!(bench.breaker.state(), State::Open);
        bench
    }
}

#[test]
fn trips_at_the_threshold_and_not_before() {
    let mut bench = Bench::new(policy());
    bench.call(refused());
    bench.call(refused());
    assert_eq!(bench.breaker.state(), State::Closed);
    bench.call(refused());
    assert_eq!(bench.breaker.state(), State::Open);
    assert!(bench.admit().is_err());
}

#[test]
fn success_ends_the_run_of_failures() {
    let mut bench = Bench::new(policy());
    bench.call(refused());
    bench.call(refused());
    bench.call(Verdict::Success);
    bench.call(refused());
    bench.call(refused());
    assert_eq!(bench.breaker.state(), State::Closed);
    assert_eq!(bench.breaker.consecutive_failures(), 2);
}

#[test]
fn ignored_neither_lengthens_nor_ends_the_run() {
    let mut bench = Bench::new(policy());
    bench.call(refused());
    bench.call(refused());
    bench.call(Verdict::Ignored);
    assert_eq!(bench.breaker.consecutive_failures(), 2);
    bench.call(refused());
    assert_eq!(bench.breaker.state(), State::Open);
}

#[test]
fn half_open_is_entered_by_time_alone() {
    let mut bench = Bench::tripped();
    assert_eq!(bench.breaker.deadline(), Some(bench.now + 30 * SECOND));
    bench.pass(30 * SECOND - Duration::from_millis(1));
    assert_eq!(bench.breaker.state(), State::Open);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.breaker.state(), State::HalfOpen);
}

#[test]
fn one_probe_at_a_time_and_its_success_closes() {
    let mut bench = Bench::tripped();
    bench.pass(30 * SECOND);
    assert_eq!(bench.breaker.probes_in_flight(), 0);
    let probe = bench.admit().expect("a free slot");
    assert!(probe.is_probe());
    assert_eq!(bench.breaker.probes_in_flight(), 1);
    assert_eq!(bench.admit().unwrap_err().state, State::HalfOpen);
    assert!(bench.record(probe, Verdict::Success));
    assert_eq!(bench.breaker.state(), State::Closed);
}

#[test]
fn a_failed_probe_opens_again_for_a_whole_recovery_timeout() {
    let mut bench = Bench::tripped();
    bench.pass(30 * SECOND);
    let probe = bench.admit().expect("a free slot");
    bench.pass(2 * SECOND);
    bench.record(probe, refused());
    assert_eq!(bench.breaker.state(), State::Open);
    assert_eq!(bench.breaker.deadline(), Some(bench.now + 30 * SECOND));
    assert_eq!(bench.breaker.last_trip().unwrap().condition, Condition::ProbeFailed);
}

#[test]
fn an_ignored_probe_frees_its_slot_and_decides_nothing() {
    let mut bench = Bench::tripped();
    bench.pass(30 * SECOND);
    let probe = bench.admit().expect("a free slot");
    bench.record(probe, Verdict::Ignored);
    assert_eq!(bench.breaker.state(), State::HalfOpen);
    assert!(bench.admit().is_ok());
}

#[test]
fn a_silent_probe_opens_again_at_its_deadline() {
    let mut bench = Bench::tripped();
    bench.pass(30 * SECOND);
    let _probe = bench.admit().expect("a free slot");
    assert_eq!(bench.breaker.deadline(), Some(bench.now + 10 * SECOND));
    bench.pass(10 * SECOND);
    assert_eq!(bench.breaker.state(), State::Open);
    assert_eq!(bench.breaker.last_trip().unwrap().cause, Some(Fault::ProbeSilent.into()));
}

#[test]
fn a_probe_whose_client_is_the_silent_one_only_loses_its_slot() {
    let mut bench = Bench::tripped();
    bench.pass(30 * SECOND);
    let probe = bench.admit().expect("a free slot");
    bench.breaker.set_owed(probe, false);
    bench.pass(10 * SECOND);
    assert_eq!(bench.breaker.state(), State::HalfOpen);
    assert!(bench.admit().is_ok());
    assert!(!bench.record(probe, Verdict::Success), "it reported too late");
    assert_eq!(bench.breaker.state(), State::HalfOpen);
}

#[test]
fn late_success_from_before_the_trip_does_not_close() {
    let mut bench = Bench::new(policy());
    let early = bench.admit().unwrap();
    (0..3).for_each(|_| bench.call(refused()));
    assert!(!bench.record(early, Verdict::Success));
    assert_eq!(bench.breaker.state(), State::Open);
    bench.pass(30 * SECOND);
    assert!(!bench.record(early, Verdict::Success));
    assert_eq!(bench.breaker.state(), State::HalfOpen);
}

#[test]
fn late_failure_from_before_the_trip_neither_reopens_nor_prolongs() {
    let mut bench = Bench::new(policy());
    let early = [(); 3].map(|()| bench.admit().unwrap());
    (0..3).for_each(|_| bench.call(refused()));
    let deadline = bench.breaker.deadline();
    bench.pass(SECOND);
    assert!(!bench.record(early[0], refused()));
    assert_eq!(bench.breaker.deadline(), deadline);
    bench.pass(29 * SECOND);
    assert!(!bench.record(early[1], refused()));
    assert_eq!(bench.breaker.state(), State::HalfOpen);
    bench.call(Verdict::Success);
    assert!(!bench.record(early[2], refused()));
    assert_eq!(bench.breaker.consecutive_failures(), 0);
}

#[test]
fn several_successes_are_needed_when_asked_for() {
    let mut bench = Bench::tripped_with(Policy { success_threshold: 2, probes: 2, ..policy() });
    bench.pass(30 * SECOND);
    let probes = [(); 2].map(|()| bench.admit().expect("a free slot"));
    assert!(bench.admit().is_err());
    bench.record(probes[0], Verdict::Success);
    assert_eq!(bench.breaker.state(), State::HalfOpen);
    bench.record(probes[1], Verdict::Success);
    assert_eq!(bench.breaker.state(), State::Closed);
}

#[test]
fn a_call_that_may_take_long_is_never_a_probe() {
    let mut bench = Bench::tripped();
    bench.pass(30 * SECOND);
    assert!(bench.breaker.admit_ineligible(bench.now).is_err());
    assert!(bench.admit().is_ok());
}

#[test]
fn the_trip_keeps_its_evidence_after_recovery() {
    let mut bench = Bench::tripped();
    let trip = bench.breaker.last_trip().unwrap().clone();
    assert_eq!(trip.condition, Condition::ConsecutiveFailures(3));
    assert_eq!(trip.evidence.len(), 3);
    assert_eq!(trip.to_string(), "connection refused, 3 consecutive failures");
    bench.pass(30 * SECOND);
    bench.call(Verdict::Success);
    assert_eq!(bench.breaker.last_trip(), Some(&trip));
}

#[test]
fn a_manual_trip_without_a_time_holds_until_it_is_reset() {
    let mut bench = Bench::new(policy());
    bench.breaker.trip(bench.now, None);
    bench.pass(3600 * SECOND);
    let refusal = bench.admit().unwrap_err();
    assert_eq!((refusal.state, refusal.retry_at), (State::Open, None));
    bench.breaker.reset(bench.now);
    assert!(bench.admit().is_ok());
}

#[test]
fn a_manual_trip_with_a_time_ends_in_probes() {
    let mut bench = Bench::new(policy());
    bench.breaker.trip(bench.now, Some(5 * SECOND));
    bench.pass(5 * SECOND);
    assert_eq!(bench.breaker.state(), State::HalfOpen);
}

#[test]
fn reset_forgets_the_run_of_a_closed_breaker() {
    let mut bench = Bench::new(policy());
    bench.call(refused());
    bench.breaker.reset(bench.now);
    assert_eq!(bench.breaker.consecutive_failures(), 0);
    assert!(bench.breaker.take_transitions().is_empty(), "closed stays closed");
}

#[test]
fn every_change_is_reported_once_with_its_reason() {
    let mut bench = Bench::tripped();
    bench.pass(30 * SECOND);
    bench.call(Verdict::Success);
    let steps: Vec<_> = bench.breaker.take_transitions().into_iter().map(|t| (t.from, t.to)).collect();
    let expected =
        [(State::Closed, State::Open), (State::Open, State::HalfOpen), (State::HalfOpen, State::Closed)];
    assert_eq!(steps, expected);
    assert!(bench.breaker.take_transitions().is_empty());
}
