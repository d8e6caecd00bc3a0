//! The machine, step by step and under random interleavings.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy {
        failure_threshold: 3,
        recovery_timeout: 30 * SECOND,
        success_threshold: 1,
        probes: 1,
        probe_timeout: 10 * SECOND,
    }
}

fn refused() -> Verdict {
    Verdict::Failure(Fault::Refused.into())
}

/// A breaker with a clock that the test moves.
struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let now = Instant::now();
        Self { breaker: Breaker::new(policy, now), now }
    }

    fn admit(&mut self) -> Result<Ticket, Refusal> {
        self.breaker.admit(self.now, CallKind::Command)
    }

    fn record(&mut self, ticket: Ticket, verdict: Verdict) -> bool {
        let outcome = Outcome { at: self.now, kind: CallKind::Command, verdict, duration: SECOND };
        self.breaker.record(ticket, outcome)
    }

    fn call(&mut self, verdict: Verdict) {
        let ticket = self.admit().expect("admitted");
        self.record(ticket, verdict);
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
        for _ in 0..bench.breaker_threshold() {
            bench.call(refused());
        }
        assert_eq!(bench.breaker.state(), State::Open);
        bench
    }

    fn breaker_threshold(&self) -> u32 {
        policy().failure_threshold
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
    let probe = bench.admit().expect("a free slot");
    assert!(probe.is_probe());
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

#[derive(Debug, Clone)]
enum Step {
    Admit,
    AdmitIneligible,
    Report { pick: prop::sample::Index, verdict: Verdict },
    Forget { pick: prop::sample::Index },
    Owed { pick: prop::sample::Index, owed: bool },
    Pass(Duration),
    Reset,
    Trip(Option<Duration>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let verdict = prop_oneof![
        3 => Just(Verdict::Failure(Fault::Refused.into())),
        3 => Just(Verdict::Success),
        1 => Just(Verdict::Ignored),
    ];
    let step = prop_oneof![
        8 => Just(Step::Admit),
        1 => Just(Step::AdmitIneligible),
        8 => (index(), verdict).prop_map(|(pick, verdict)| Step::Report { pick, verdict }),
        1 => index().prop_map(|pick| Step::Forget { pick }),
        1 => (index(), any::<bool>()).prop_map(|(pick, owed)| Step::Owed { pick, owed }),
        4 => (0_u64..40_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        1 => Just(Step::Reset),
        1 => prop::option::of((1_u64..40).prop_map(Duration::from_secs)).prop_map(Step::Trip),
    ];
    prop::collection::vec(step, 1..200)
}

/// What a report may change.
fn fingerprint(breaker: &Breaker) -> (State, Generation, u32, Option<Instant>, usize, u64) {
    let deadline = breaker.deadline();
    let (run, probes) = (breaker.consecutive_failures(), breaker.probes_in_flight());
    (breaker.state(), breaker.generation(), run, deadline, probes, breaker.trips())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn holds_its_invariants_under_any_interleaving(
        steps in steps(),
        failure_threshold in 1_u32..5,
        success_threshold in 1_u32..4,
        probes in 1_u32..4,
    ) {
        let policy = Policy { failure_threshold, success_threshold, probes, ..policy() };
        let mut bench = Bench::new(policy.clone());
        // Tickets that have not reported; the second field: forgotten clients never will.
        let mut tickets: Vec<Ticket> = Vec::new();
        let mut run = 0;
        for step in steps {
            let before = fingerprint(&bench.breaker);
            match step {
                Step::Admit => match bench.admit() {
                    Ok(ticket) => {
                        prop_assert_eq!(ticket.is_probe(), bench.breaker.state() == State::HalfOpen);
                        prop_assert_ne!(bench.breaker.state(), State::Open);
                        tickets.push(ticket);
                    }
                    Err(refusal) => {
                        prop_assert_ne!(refusal.state, State::Closed);
                        if refusal.state == State::HalfOpen {
                            prop_assert_eq!(bench.breaker.probes_in_flight(), probes as usize);
                        }
                    }
                },
                Step::AdmitIneligible => {
                    let admitted = bench.breaker.admit_ineligible(bench.now);
                    prop_assert_eq!(admitted.is_ok(), bench.breaker.state() == State::Closed);
                    prop_assert!(admitted.map_or(true, |ticket| !ticket.is_probe()));
                }
                Step::Report { pick, verdict } if !tickets.is_empty() => {
                    let ticket = tickets.swap_remove(pick.index(tickets.len()));
                    let stale = ticket.generation != bench.breaker.generation();
                    let closed = before.0 == State::Closed;
                    let effect = bench.record(ticket, verdict.clone());
                    if stale {
                        prop_assert!(!effect);
                        prop_assert_eq!(fingerprint(&bench.breaker), before, "a stale verdict changed something");
                    } else if closed {
                        match verdict {
                            Verdict::Failure(_) => run += 1,
                            Verdict::Success => run = 0,
                            Verdict::Ignored => {}
                        }
                        prop_assert_eq!(bench.breaker.state() == State::Open, run >= failure_threshold);
                    }
                }
                Step::Forget { pick } if !tickets.is_empty() => {
                    let _forgotten = tickets.swap_remove(pick.index(tickets.len()));
                }
                Step::Owed { pick, owed } if !tickets.is_empty() => {
                    bench.breaker.set_owed(tickets[pick.index(tickets.len())], owed);
                    prop_assert_eq!(fingerprint(&bench.breaker), before);
                }
                Step::Pass(time) => bench.pass(time),
                Step::Reset => {
                    bench.breaker.reset(bench.now);
                    prop_assert_eq!(bench.breaker.state(), State::Closed);
                    run = 0;
                }
                Step::Trip(hold) => {
                    bench.breaker.trip(bench.now, hold);
                    prop_assert_eq!(bench.breaker.state(), State::Open);
                }
                Step::Report { .. } | Step::Forget { .. } | Step::Owed { .. } => {}
            }
            if bench.breaker.state() != State::Closed {
                run = 0;
            }
            prop_assert_eq!(bench.breaker.consecutive_failures(), run);
            prop_assert!(bench.breaker.probes_in_flight() <= probes as usize);
            let changes = bench.breaker.take_transitions().len() as u64;
            prop_assert_eq!(bench.breaker.generation(), before.1 + changes, "each change begins a generation");
        }

        // Never wedged: with every client gone for good, time alone leads to a free probe slot, and successes
        // from there close the breaker (unless an operator holds it open).
        drop(tickets);
        if bench.breaker.state() == State::Open && bench.breaker.deadline().is_none() {
            return Ok(());
        }
        let mut patience = 0;
        while bench.breaker.state() != State::Closed {
            patience += 1;
            prop_assert!(patience < 20, "wedged in {:?}", bench.breaker);
            match bench.admit() {
                Ok(ticket) => { bench.record(ticket, Verdict::Success); }
                Err(_) => bench.pass(policy.recovery_timeout.max(policy.probe_timeout)),
            }
        }
    }
}
