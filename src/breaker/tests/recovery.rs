//! How long it stays open, and how it comes back.

use super::*;

/// 10 s, doubled with each trip, at most 70 s.
fn growing() -> Policy {
    Policy {
        recovery_timeout: 10 * SECOND,
        recovery_backoff: Factor::from_hundredths(200).unwrap(),
        recovery_timeout_max: 70 * SECOND,
        ..policy()
    }
}

/// The delay of the present opening, in seconds.
fn delay(bench: &Bench) -> f64 {
    assert_eq!(bench.state(), State::Open);
    (bench.breaker.deadline().unwrap() - bench.now).as_secs_f64()
}

/// Waits for half-open and fails the probe.
fn fail_probe(bench: &mut Bench) {
    bench.pass(bench.breaker.deadline().unwrap() - bench.now);
    bench.call(refused());
}

/// Waits for half-open and closes.
fn recover(bench: &mut Bench) {
    bench.pass(bench.breaker.deadline().unwrap() - bench.now);
    bench.call(Verdict::Success);
    assert_eq!(bench.state(), State::Closed);
}

fn trip(bench: &mut Bench) {
    (0..3).for_each(|_| bench.call(refused()));
}

#[test]
fn the_delay_doubles_with_each_failed_probe_up_to_its_cap() {
    let mut bench = Bench::tripped_with(growing());
    let mut delays = vec![delay(&bench)];
    for _ in 0..5 {
        fail_probe(&mut bench);
        delays.push(delay(&bench));
    }
    assert_eq!(delays, [10.0, 20.0, 40.0, 70.0, 70.0, 70.0]);
}

#[test]
fn without_a_factor_the_delay_never_changes() {
    let mut bench = Bench::tripped();
    for _ in 0..20 {
        assert_eq!((delay(&bench), bench.breaker.backoff_level()), (30.0, 0));
        fail_probe(&mut bench);
    }
}

#[test]
fn the_transition_and_the_refusal_tell_the_grown_delay() {
    let mut bench = Bench::tripped_with(growing());
    fail_probe(&mut bench);
    let last = bench.breaker.take_transitions().pop().unwrap();
    assert_eq!(last.retry_after, Some(20 * SECOND));
    assert_eq!(bench.admit().unwrap_err().retry_at, Some(bench.now + 20 * SECOND));
}

#[test]
fn a_recovery_timeout_of_health_takes_one_step_back() {
    // Healthy for so many seconds after three trips (10, 20, 40 s); the delay of the next one.
    for (healthy, expected) in
        [(0, 70.0), (9, 70.0), (10, 40.0), (19, 40.0), (20, 20.0), (30, 10.0), (300, 10.0)]
    {
        let mut bench = Bench::tripped_with(growing());
        fail_probe(&mut bench);
        fail_probe(&mut bench);
        recover(&mut bench);
        bench.pass(healthy * SECOND);
        trip(&mut bench);
        assert_eq!(delay(&bench), expected, "after {healthy} s of health");
    }
}

#[test]
fn a_flapping_backend_waits_longer_each_time() {
    let mut bench = Bench::tripped_with(growing());
    let mut delays = Vec::new();
    for _ in 0..4 {
        delays.push(delay(&bench));
        recover(&mut bench);
        bench.pass(5 * SECOND);
        trip(&mut bench);
    }
    assert_eq!(delays, [10.0, 20.0, 40.0, 70.0]);
}

#[test]
fn time_spent_open_forgives_nothing() {
    let mut bench = Bench::tripped_with(growing());
    fail_probe(&mut bench);
    // Half-open for an hour, without a call.
    bench.pass(3600 * SECOND);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.call(refused());
    assert_eq!(delay(&bench), 40.0);
}

#[test]
fn a_reset_forgives_everything() {
    let mut bench = Bench::tripped_with(growing());
    fail_probe(&mut bench);
    fail_probe(&mut bench);
    bench.breaker.reset(bench.now);
    trip(&mut bench);
    assert_eq!(delay(&bench), 10.0);
}

#[test]
fn a_manual_trip_keeps_its_own_time_and_costs_no_step() {
    let mut bench = Bench::new(growing());
    bench.breaker.trip(bench.now, Some(3 * SECOND));
    assert_eq!((delay(&bench), bench.breaker.backoff_level()), (3.0, 0));
    fail_probe(&mut bench);
    assert_eq!(delay(&bench), 10.0);
}

#[test]
fn factors_of_less_than_two_grow_too() {
    let policy = Policy { recovery_backoff: Factor::from_hundredths(150).unwrap(), ..growing() };
    let mut bench = Bench::tripped_with(policy);
    let mut delays = vec![delay(&bench)];
    for _ in 0..6 {
        fail_probe(&mut bench);
        delays.push(delay(&bench));
    }
    assert_eq!(delays, [10.0, 15.0, 22.5, 33.75, 50.625, 70.0, 70.0]);
}

#[test]
fn jitter_adds_up_to_its_share_and_never_passes_the_cap() {
    let policy = Policy { recovery_jitter: percent(50), ..growing() };
    let mut seen = Vec::new();
    for seed in 0..200 {
        let now = Instant::now();
        let mut bench = Bench { breaker: Breaker::new(policy.clone(), seed, now), now, began: now };
        trip(&mut bench);
        seen.push(delay(&bench));
        for base in [20.0_f64, 40.0, 70.0, 70.0] {
            fail_probe(&mut bench);
            let range = base..=(1.5 * base).min(70.0);
            assert!(range.contains(&delay(&bench)), "{} not in {range:?}", delay(&bench));
        }
    }
    assert!(seen.iter().all(|delay| (10.0..15.0).contains(delay)), "{seen:?}");
    // Spread evenly: each fifth of the range gets about a fifth of 200.
    for fifth in 0..5 {
        let from = 10.0 + f64::from(fifth);
        let hits = seen.iter().filter(|&&delay| (from..from + 1.0).contains(&delay)).count();
        assert!((20..=60).contains(&hits), "{hits} of 200 from {from}");
    }
}

#[test]
fn the_same_seed_gives_the_same_delays() {
    let policy = Policy { recovery_jitter: percent(50), ..growing() };
    let delays = |seed| {
        let now = Instant::now();
        let mut bench = Bench { breaker: Breaker::new(policy.clone(), seed, now), now, began: now };
        trip(&mut bench);
        let first = delay(&bench);
        fail_probe(&mut bench);
        [first, delay(&bench)]
    };
    assert_eq!(delays(1), delays(1));
    assert_ne!(delays(1), delays(2));
}

fn starting_slowly() -> Bench {
    let mut bench = Bench::tripped_with(Policy { slow_start: Some(10 * SECOND), ..policy() });
    bench.pass(30 * SECOND);
    bench.call(Verdict::Success);
    assert_eq!(bench.state(), State::Closed);
    bench
}

/// How many of 100 calls at this moment pass.
fn passing(bench: &mut Bench) -> usize {
    (0..100).filter(|_| bench.admit().is_ok()).count()
}

#[test]
fn slow_start_lets_a_growing_share_through() {
    let mut bench = starting_slowly();
    assert!(bench.admit().is_ok(), "the first call after the recovery");
    let shares: Vec<usize> = (0..=11)
        .map(|second| {
            bench.at(30.0 + f64::from(second));
            passing(&mut bench)
        })
        .collect();
    assert_eq!(shares, [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100]);
}

#[test]
fn slow_start_ends_by_time_alone() {
    let mut bench = starting_slowly();
    assert!(bench.breaker.is_slow_starting());
    assert_eq!(bench.breaker.deadline(), Some(bench.now + 10 * SECOND));
    bench.pass(10 * SECOND);
    assert!(!bench.breaker.is_slow_starting());
    assert_eq!(bench.breaker.deadline(), None);
}

#[test]
fn slow_start_refuses_as_closed_and_at_once() {
    let mut bench = starting_slowly();
    assert!(bench.admit().is_ok());
    let refusal = bench.admit().unwrap_err();
    assert_eq!((refusal.state, refusal.retry_at), (State::Closed, None));
    assert!(refusal.trip.is_some());
    let refused = bench.breaker.admit_ineligible(bench.now).unwrap_err();
    assert_eq!(refused.state, State::Closed);
}

#[test]
fn failures_trip_in_a_slow_start_too() {
    let mut bench = starting_slowly();
    bench.pass(9 * SECOND);
    for _ in 0..10 {
        if let Ok(ticket) = bench.admit() {
            bench.record(ticket, refused());
        }
    }
    assert_eq!((bench.state(), bench.last_condition()), (State::Open, Condition::ConsecutiveFailures(3)));
}

#[test]
fn there_is_no_slow_start_at_the_beginning_nor_after_a_reset() {
    let policy = Policy { slow_start: Some(10 * SECOND), ..policy() };
    let mut bench = Bench::new(policy.clone());
    assert_eq!(passing(&mut bench), 100);
    let mut bench = Bench::tripped_with(policy);
    bench.breaker.reset(bench.now);
    assert_eq!(passing(&mut bench), 100);
    let mut bench = starting_slowly();
    bench.breaker.reset(bench.now);
    assert_eq!(passing(&mut bench), 100, "a reset ends it");
}
