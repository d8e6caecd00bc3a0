//! Enforce, observe, disabled, and forced open.

use super::*;

fn in_mode(mode: Mode) -> Bench {
    Bench::new(Policy { mode, ..policy() })
}

#[test]
fn observing_it_trips_and_rejects_nothing() {
    let mut bench = in_mode(Mode::Observe);
    (0..3).for_each(|_| bench.call(refused()));
    assert_eq!(bench.state(), State::Open);
    let spared = bench.admit().expect("nothing is rejected");
    assert!(spared.is_spared() && !spared.is_probe());
    let long = bench.breaker.admit_ineligible(bench.now).expect("nothing is rejected");
    assert!(long.is_spared());
    assert_eq!(bench.breaker.take_transitions()[0].mode, Mode::Observe);
}

#[test]
fn observing_only_probes_decide() {
    let mut bench = in_mode(Mode::Observe);
    (0..3).for_each(|_| bench.call(refused()));
    // What would have been rejected teaches nothing, good or bad.
    let spared = bench.admit().unwrap();
    assert!(bench.record(spared, Verdict::Success), "it is not late");
    let spared = bench.admit().unwrap();
    bench.record(spared, refused());
    assert_eq!(bench.breaker.deadline(), Some(bench.now + 30 * SECOND));
    bench.at(30.0);
    let probe = bench.admit().unwrap();
    assert!(probe.is_probe());
    let spared = bench.admit().expect("half-open lets everything through");
    assert!(spared.is_spared());
    bench.record(spared, refused());
    assert_eq!(bench.state(), State::HalfOpen);
    bench.record(probe, Verdict::Success);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn observing_a_failed_or_silent_probe_opens_again() {
    let mut bench = in_mode(Mode::Observe);
    (0..3).for_each(|_| bench.call(refused()));
    bench.at(30.0);
    bench.call(refused());
    assert_eq!(bench.last_condition(), Condition::ProbeFailed);
    bench.at(60.0);
    let _silent = bench.admit().unwrap();
    bench.at(70.0);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn observing_a_slow_start_lets_everything_through() {
    let mut bench = Bench::new(Policy { mode: Mode::Observe, slow_start: Some(10 * SECOND), ..policy() });
    (0..3).for_each(|_| bench.call(refused()));
    bench.at(30.0);
    bench.call(Verdict::Success);
    bench.at(35.0);
    let tickets: Vec<Ticket> = (0..100).map(|_| bench.admit().unwrap()).collect();
    assert_eq!(tickets.iter().filter(|ticket| ticket.is_spared()).count(), 49);
}

#[test]
fn disabled_it_never_moves() {
    let mut bench = in_mode(Mode::Disabled);
    (0..1000).for_each(|_| bench.call(refused()));
    bench.breaker.trip(bench.now, None);
    assert_eq!((bench.state(), bench.breaker.consecutive_failures()), (State::Closed, 0));
    assert!(bench.breaker.take_transitions().is_empty());
    assert!(!bench.breaker.wants_success());
}

#[test]
fn to_disable_an_open_breaker_is_to_close_it() {
    let mut bench = Bench::tripped();
    bench.breaker.take_transitions();
    bench.breaker.set_mode(bench.now, Mode::Disabled);
    assert!(bench.admit().is_ok());
    let change = bench.breaker.take_transitions().pop().unwrap();
    assert_eq!((change.from, change.to, change.why), (State::Open, State::Closed, Why::Disabled));
    assert_eq!(change.mode, Mode::Disabled);
}

#[test]
fn what_happened_while_disabled_is_not_held_against_it() {
    let mut bench = Bench::new(policy());
    bench.call(refused());
    bench.call(refused());
    bench.breaker.set_mode(bench.now, Mode::Disabled);
    (0..10).for_each(|_| bench.call(refused()));
    bench.breaker.set_mode(bench.now, Mode::Enforce);
    bench.call(refused());
    bench.call(refused());
    assert_eq!(bench.state(), State::Closed);
    bench.call(refused());
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn what_was_observed_holds_at_once_when_it_is_enforced() {
    let mut bench = in_mode(Mode::Observe);
    (0..3).for_each(|_| bench.call(refused()));
    bench.breaker.set_mode(bench.now, Mode::Enforce);
    assert_eq!(bench.admit().unwrap_err().state, State::Open);
    bench.breaker.set_mode(bench.now, Mode::Observe);
    assert!(bench.admit().is_ok());
    assert_eq!(bench.breaker.generation(), 1, "the mode is no state");
}

#[test]
fn a_reset_returns_from_forced_open_and_leaves_the_mode() {
    for mode in [Mode::Enforce, Mode::Observe] {
        let mut bench = in_mode(mode);
        bench.breaker.trip(bench.now, None);
        assert_eq!(bench.state(), State::Open);
        assert_eq!(bench.admit().is_ok(), mode == Mode::Observe);
        bench.breaker.reset(bench.now);
        assert_eq!((bench.state(), bench.breaker.mode()), (State::Closed, mode));
    }
}
