//! Another policy under way: what was known stays known.

use super::*;
use crate::breaker::{Share, Span};

fn with_rate(window: Span) -> Policy {
    let rates =
        Rates { window, min_calls: 4, failure_rate: Share::from_millionths(500_000), ..Rates::default() };
    Policy { failure_threshold: None, rates, ..policy() }
}

#[test]
fn an_open_breaker_stays_open_until_the_time_it_was_told() {
    let mut bench = Bench::new(policy());
    (0..3).for_each(|_| bench.call(refused()));
    let (generation, until) = (bench.breaker.generation(), bench.breaker.deadline());
    bench
        .breaker
        .set_policy(bench.now, Policy { recovery_timeout: SECOND, failure_threshold: Some(50), ..policy() });
    assert_eq!((bench.state(), bench.breaker.generation()), (State::Open, generation));
    assert_eq!(bench.breaker.deadline(), until);
    assert!(bench.breaker.last_trip().is_some());
    bench.at(30.0);
    bench.call(refused());
    assert_eq!(bench.breaker.deadline(), Some(bench.now + SECOND), "the next delay is the new one");
}

#[test]
fn a_lower_threshold_takes_the_failures_that_are_on_record() {
    let mut bench = Bench::new(Policy { failure_threshold: Some(10), ..policy() });
    (0..4).for_each(|_| bench.call(refused()));
    bench.breaker.set_policy(bench.now, Policy { failure_threshold: Some(3), ..policy() });
    assert_eq!((bench.state(), bench.breaker.consecutive_failures()), (State::Closed, 4));
    assert_eq!(bench.breaker.policy().failure_threshold, Some(3));
    bench.call(refused());
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_window_of_the_same_shape_keeps_its_calls() {
    let mut bench = Bench::new(with_rate(Span::Calls(10)));
    (0..3).for_each(|_| bench.call(refused()));
    let mut stricter = with_rate(Span::Calls(10));
    stricter.rates.failure_rate = Share::from_millionths(900_000);
    bench.breaker.set_policy(bench.now, stricter);
    bench.call(refused());
    assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 4, calls: 4 });
}

#[test]
fn a_window_of_another_shape_begins_afresh() {
    let mut bench = Bench::new(with_rate(Span::Calls(10)));
    (0..3).for_each(|_| bench.call(refused()));
    bench.breaker.set_policy(bench.now, with_rate(Span::Calls(20)));
    bench.call(refused());
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn probes_under_way_count_under_the_new_numbers() {
    let mut bench = Bench::new(policy());
    (0..3).for_each(|_| bench.call(refused()));
    bench.at(30.0);
    let first = bench.admit().unwrap();
    bench.admit().unwrap_err();
    bench.breaker.set_policy(bench.now, Policy { probes: 2, success_threshold: 2, ..policy() });
    let second = bench.admit().expect("there is room for another");
    bench.record(first, Verdict::Success);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.record(second, Verdict::Success);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_mode_set_by_hand_survives_unless_the_policy_changes_it() {
    let mut bench = Bench::new(policy());
    bench.breaker.set_mode(bench.now, Mode::Observe);
    bench.breaker.set_policy(bench.now, Policy { failure_threshold: Some(7), ..policy() });
    assert_eq!(bench.breaker.mode(), Mode::Observe);
    bench.breaker.set_policy(bench.now, Policy { mode: Mode::Disabled, ..policy() });
    assert_eq!(bench.breaker.mode(), Mode::Disabled);
}
