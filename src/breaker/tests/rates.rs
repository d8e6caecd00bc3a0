//! Failure rate and slow-call rate, over both kinds of window.

use super::*;

/// No run, 50 % of the last 10 calls, at least 4 of them.
fn by_count() -> Policy {
    let rates =
        Rates { window: Span::Calls(10), min_calls: 4, failure_rate: Some(percent(50)), ..Rates::default() };
    Policy { failure_threshold: None, rates, ..Policy::default() }
}

/// The same over ten seconds.
fn by_time() -> Policy {
    let policy = by_count();
    Policy { rates: Rates { window: Span::Time(10 * SECOND), ..policy.rates }, ..policy }
}

/// 50 % of the last 10 calls took longer than a second.
fn by_slowness() -> Policy {
    let policy = by_count();
    Policy {
        rates: Rates { failure_rate: None, slow_call_rate: Some(percent(50)), ..policy.rates },
        ..policy
    }
}

/// `s` and `f`: success and failure; `S` and `F`: the same, slowly.
fn play(bench: &mut Bench, script: &str) {
    for (i, step) in script.chars().enumerate() {
        assert_eq!(bench.state(), State::Closed, "before call {i} of {script}");
        let duration = if step.is_uppercase() { 2 * SECOND } else { Duration::from_millis(1) };
        let verdict = match step.to_ascii_lowercase() {
            's' => Verdict::Success,
            'f' => refused(),
            _ => Verdict::Ignored,
        };
        bench.call_taking(duration, verdict);
    }
}

fn closed_after(policy: Policy, script: &str) {
    let mut bench = Bench::new(policy);
    play(&mut bench, script);
    assert_eq!(bench.state(), State::Closed, "{script}");
}

/// Trips on the last call of the script and not before.
fn trips_on_the_last_of(policy: Policy, script: &str) -> Bench {
    let mut bench = Bench::new(policy);
    play(&mut bench, script);
    assert_eq!(bench.state(), State::Open, "{script}");
    bench
}

#[test]
fn a_rate_decides_nothing_below_the_minimum_of_calls() {
    closed_after(by_count(), "fff");
    trips_on_the_last_of(by_count(), "ffff");
    closed_after(by_time(), "fff");
    trips_on_the_last_of(by_time(), "ffff");
}

#[test]
fn reaching_the_rate_is_enough_and_less_is_not() {
    closed_after(by_count(), "sssffssffs");
    let bench = trips_on_the_last_of(by_count(), "sssffssfff");
    assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 5, calls: 10 });
    assert_eq!(bench.last_condition().to_string(), "failure rate 50% of 10 calls");
}

#[test]
fn the_call_that_completes_the_minimum_decides_even_if_it_succeeds() {
    let bench = trips_on_the_last_of(by_count(), "fffs");
    assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 3, calls: 4 });
}

#[test]
fn a_count_window_smaller_than_the_minimum_decides_when_it_is_full() {
    let policy = by_count();
    let rates = Rates { window: Span::Calls(3), min_calls: 100, ..policy.rates };
    trips_on_the_last_of(Policy { rates, ..policy }, "sff");
}

#[test]
fn the_oldest_call_leaves_a_count_window() {
    // 4 of 10 all along: each failure comes as one leaves.
    closed_after(by_count(), "sssfsfsfsfsssfsf");
    // The eleventh call pushes out a success, and makes it 5 of 10.
    trips_on_the_last_of(by_count(), "sssfsfsfsff");
}

#[test]
fn ignored_calls_enter_no_window_and_no_evidence() {
    closed_after(by_count(), "fffii");
    let bench = trips_on_the_last_of(by_count(), "fififif");
    assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 4, calls: 4 });
    assert_eq!(bench.breaker.last_trip().unwrap().evidence.len(), 4);
}

#[test]
fn failures_are_forgotten_when_their_slice_is_ten_slices_old() {
    // Slices of one second. The failures of second 0 are in it until 9.999 and gone at 10.
    for (then, state) in [(9.999, State::Open), (10.0, State::Closed)] {
        let mut bench = Bench::new(by_time());
        bench.at(0.5);
        play(&mut bench, "fff");
        bench.at(then);
        play(&mut bench, "f");
        assert_eq!(bench.state(), state, "{then} s");
    }
}

#[test]
fn slices_keep_to_whole_widths_from_the_beginning() {
    let mut bench = Bench::new(by_time());
    bench.at(0.95);
    play(&mut bench, "sssff");
    // A window that rounded the remainders of these away would have slice 0 end late.
    for then in [1.9, 2.8, 3.7, 4.6, 5.5] {
        bench.at(then);
        play(&mut bench, "s");
    }
    bench.at(10.0);
    play(&mut bench, "ffff");
    assert_eq!(bench.state(), State::Closed, "4 of 9");
    play(&mut bench, "f");
    assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 5, calls: 10 });
}

#[test]
fn a_gap_as_long_as_the_window_clears_it_and_keeps_the_beat() {
    let mut bench = Bench::new(by_time());
    bench.at(0.5);
    play(&mut bench, "fff");
    bench.at(25.5);
    play(&mut bench, "sff");
    // Slices still begin at whole seconds: the calls of 25.5 are gone at 35.0, not at 35.5.
    bench.at(35.0);
    play(&mut bench, "f");
    assert_eq!(bench.state(), State::Closed);
    bench.at(36.0);
    play(&mut bench, "ss");
    play(&mut bench, "f");
    assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 2, calls: 4 });
}

#[test]
fn slow_successes_and_slow_failures_count_alike() {
    let bench = trips_on_the_last_of(by_slowness(), "sSsF");
    assert_eq!(bench.last_condition(), Condition::SlowCallRate { slow: 2, calls: 4 });
    let trip = bench.breaker.last_trip().unwrap();
    assert_eq!((trip.to_string(), &trip.cause), ("slow-call rate 50% of 4 calls".to_owned(), &None));
    closed_after(by_slowness(), "fffff");
    closed_after(by_slowness(), "sSsfsS");
}

#[test]
fn a_call_is_slow_beyond_the_duration_and_not_at_it() {
    let mut bench = Bench::new(by_slowness());
    (0..20).for_each(|_| bench.call_taking(SECOND, Verdict::Success));
    assert_eq!(bench.state(), State::Closed);
    (0..5).for_each(|_| bench.call_taking(SECOND + Duration::from_nanos(1), Verdict::Success));
    assert_eq!(bench.last_condition(), Condition::SlowCallRate { slow: 5, calls: 10 });
}

#[test]
fn a_startup_is_never_slow_because_its_user_may_be() {
    let mut bench = Bench::new(by_slowness());
    for _ in 0..20 {
        let ticket = bench.admit().unwrap();
        let (at, kind) = (bench.now, CallKind::Startup);
        let outcome = Outcome { at, kind, verdict: Verdict::Success, duration: 60 * SECOND };
        bench.breaker.record(ticket, outcome);
    }
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn slowness_is_nothing_while_its_rate_is_off() {
    closed_after(by_count(), "SSSSSSSSSSSS");
}

#[test]
fn a_slow_probe_opens_again() {
    let mut bench = trips_on_the_last_of(by_slowness(), "SSSS");
    bench.at(30.0);
    bench.call_taking(2 * SECOND, Verdict::Success);
    assert_eq!((bench.state(), bench.last_condition()), (State::Open, Condition::ProbeSlow));
    bench.at(60.0);
    bench.call_taking(SECOND, Verdict::Success);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_probe_that_waited_for_its_client_is_not_slow() {
    let mut bench = trips_on_the_last_of(by_slowness(), "SSSS");
    bench.at(30.0);
    let probe = bench.admit().unwrap();
    bench.breaker.set_owed(probe, false);
    bench.at(38.0);
    bench.breaker.set_owed(probe, true);
    bench.record_taking(8 * SECOND, probe, Verdict::Success);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn any_condition_trips_and_the_run_is_named_first() {
    let policy = Policy { failure_threshold: Some(4), ..by_count() };
    let policy =
        Policy { rates: Rates { slow_call_rate: Some(percent(50)), ..policy.rates.clone() }, ..policy };
    let condition = |script| trips_on_the_last_of(policy.clone(), script).last_condition();
    assert_eq!(condition("FFFF"), Condition::ConsecutiveFailures(4));
    assert_eq!(condition("FFsF"), Condition::FailureRate { failed: 3, calls: 4 });
    assert_eq!(condition("SSSf"), Condition::SlowCallRate { slow: 3, calls: 4 });
    assert_eq!(condition("ssssssffff"), Condition::ConsecutiveFailures(4));
}

#[test]
fn with_every_condition_off_only_an_operator_trips() {
    let policy = Policy { failure_threshold: None, ..Policy::default() };
    let mut bench = Bench::new(policy);
    (0..1000).for_each(|_| bench.call(refused()));
    assert_eq!((bench.state(), bench.breaker.consecutive_failures()), (State::Closed, 1000));
    bench.breaker.trip(bench.now, None);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn every_change_of_state_clears_the_window() {
    // Three failures, then open and closed again by each way that there is: one more is the first of four.
    let by_hand: fn(&mut Bench) = |bench| {
        bench.breaker.trip(bench.now, None);
        bench.breaker.reset(bench.now);
    };
    let by_probe: fn(&mut Bench) = |bench| {
        bench.breaker.trip(bench.now, Some(SECOND));
        bench.pass(SECOND);
        bench.call(Verdict::Success);
    };
    let by_reset: fn(&mut Bench) = |bench| bench.breaker.reset(bench.now);
    for way in [by_hand, by_probe, by_reset] {
        for policy in [by_count(), by_time()] {
            let mut bench = Bench::new(policy);
            play(&mut bench, "fff");
            way(&mut bench);
            play(&mut bench, "fff");
            assert_eq!(bench.state(), State::Closed);
            play(&mut bench, "f");
            assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 4, calls: 4 });
        }
    }
}

#[test]
fn evidence_of_a_rate_is_the_last_outcomes_successes_included() {
    let policy = by_count();
    let rates = Rates { window: Span::Calls(100), min_calls: 40, ..policy.rates };
    let script = "sf".repeat(20);
    let bench = trips_on_the_last_of(Policy { rates, ..policy }, &script);
    let trip = bench.breaker.last_trip().unwrap();
    assert_eq!(trip.evidence.len(), Trip::EVIDENCE_MAX);
    let failures = trip.evidence.iter().filter(|outcome| outcome.verdict != Verdict::Success).count();
    assert_eq!(failures, Trip::EVIDENCE_MAX / 2);
    assert_eq!(trip.evidence.last().map(|outcome| outcome.verdict.clone()), Some(refused()));
    assert_eq!(trip.to_string(), "connection refused, failure rate 50% of 40 calls");
}

#[test]
fn evidence_of_a_run_is_the_run_with_a_window_too() {
    let policy = Policy { failure_threshold: Some(3), ..by_count() };
    let bench = trips_on_the_last_of(policy, "sssssssfff");
    assert_eq!(bench.last_condition(), Condition::ConsecutiveFailures(3));
    assert_eq!(bench.breaker.last_trip().unwrap().evidence.len(), 3);
}

#[test]
fn a_batch_counts_as_its_calls_one_by_one() {
    for policy in [by_count(), by_time(), by_slowness()] {
        let mut bench = Bench::new(policy);
        play(&mut bench, "FF");
        let ticket = bench.admit().unwrap();
        let outcome = Outcome {
            at: bench.now,
            kind: CallKind::Command,
            verdict: Verdict::Success,
            duration: Duration::ZERO,
        };
        // With the second of these the minimum is reached, and 2 of 4 trips: the rest comes too late.
        assert_eq!(bench.breaker.record_batch(ticket, outcome, 50), 2);
        assert_eq!(bench.state(), State::Open);
    }
    let mut bench = Bench::new(by_count());
    play(&mut bench, "s");
    let ticket = bench.admit().unwrap();
    let outcome =
        Outcome { at: bench.now, kind: CallKind::Command, verdict: Verdict::Success, duration: SECOND };
    assert_eq!(bench.breaker.record_batch(ticket, outcome, 7), 7);
    play(&mut bench, "ffff");
    assert_eq!(bench.state(), State::Closed, "4 of 10");
    play(&mut bench, "f");
    assert_eq!(bench.last_condition(), Condition::FailureRate { failed: 5, calls: 10 });
}

#[test]
fn percentages_are_rounded_down_and_rates_are_exact() {
    let words = |failed, calls| Condition::FailureRate { failed, calls }.to_string();
    assert_eq!(words(60, 100), "failure rate 60% of 100 calls");
    assert_eq!(words(1, 3), "failure rate 33.3% of 3 calls");
    assert_eq!(words(2_999, 10_000), "failure rate 29.9% of 10000 calls");
    let third = Share::from_millionths(333_333).unwrap();
    assert!(third.is_reached(1, 3));
    let more = Share::from_millionths(333_334).unwrap();
    assert!(!more.is_reached(1, 3));
    assert!(!Share::NONE.is_reached(0, 0));
    assert!(percent(100).is_reached(u32::MAX, u32::MAX));
}
