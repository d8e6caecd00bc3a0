//! The gate: what connections that share a breaker may rely on.

mod accounts;
mod bulkhead;
mod checks;
mod log;

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::*;
use crate::breaker::{Bulkhead, CallKind, Checks, Finding, Generation, Rates, Share, Span, Verdict, When};
use crate::metrics::Counter;

fn gate(policy: Policy) -> (Arc<Gate>, Lane, Instant) {
    let now = Instant::now();
    let gate = Gate::new("cache", policy, 2, now);
    let lane = gate.lane(1);
    (gate, lane, now)
}

fn limited(connections: Option<u32>, calls: Option<u32>) -> Policy {
    Policy { bulkhead: Bulkhead { connections, calls, wait: Duration::ZERO }, ..Policy::default() }
}

fn refused() -> Verdict {
    Verdict::Failure(Fault::Refused.into())
}

fn trip(lane: &Lane, now: Instant) {
    while lane.closed().is_some() {
        lane.admit(now, CallKind::Command).expect("closed").record(now, refused());
    }
}

#[test]
fn a_permit_lives_as_long_as_its_slot_and_its_generation() {
    let now = Instant::now();
    let gate = Gate::new("cache", Policy::default(), 1, now);
    let lane = gate.lane(1);
    let ordinary = lane.admit(now, CallKind::Command).unwrap();
    assert!(ordinary.is_live(now));
    gate.trip(now, Some(Duration::from_secs(1)));
    assert!(!ordinary.is_live(now), "its generation is over");
    let later = now + Duration::from_secs(1);
    let probe = lane.admit(later, CallKind::Command).unwrap();
    assert!(probe.is_probe() && probe.is_live(later));
    probe.set_owed(false);
    assert!(!probe.is_live(later + Policy::default().probe_timeout), "time has taken its slot");
    assert_eq!(gate.state(), State::HalfOpen);
}

#[test]
fn the_fast_path_follows_the_state() {
    let (gate, lane, now) = gate(Policy::default());
    assert_eq!(lane.closed(), Some(0));
    trip(&lane, now);
    assert_eq!(lane.closed(), None);
    assert_eq!(gate.state(), State::Open);
    gate.reset(now);
    assert_eq!(lane.closed(), Some(2));
}

#[test]
fn a_batch_of_successes_ends_the_run() {
    let (gate, lane, now) = gate(Policy::default());
    for _ in 0..4 {
        lane.admit(now, CallKind::Command).expect("closed").record(now, refused());
    }
    assert_eq!(gate.snapshot(now).consecutive_failures, 4);
    let generation = lane.closed().expect("closed");
    lane.passed(10);
    lane.succeeded(now, generation, CallKind::Command, Duration::from_micros(80), 10);
    let snapshot = gate.snapshot(now);
    assert_eq!(snapshot.consecutive_failures, 0);
    assert_eq!(snapshot.totals.get(Counter::Success), 10);
    assert_eq!(snapshot.totals.in_flight(), 0);
}

#[test]
fn successes_of_an_older_generation_are_counted_and_change_nothing() {
    let (gate, lane, now) = gate(Policy::default());
    let generation = lane.closed().expect("closed");
    lane.passed(1);
    trip(&lane, now);
    lane.succeeded(now, generation, CallKind::Command, Duration::ZERO, 1);
    let snapshot = gate.snapshot(now);
    assert_eq!(snapshot.state, State::Open);
    assert_eq!(snapshot.totals.get(Counter::Stale), 1);
}

#[test]
fn a_dropped_permit_frees_its_probe_slot() {
    let policy = Policy::default();
    let later = policy.recovery_timeout;
    let (gate, lane, now) = gate(policy);
    trip(&lane, now);
    let now = now + later;
    let probe = lane.admit(now, CallKind::Command).expect("a free slot");
    assert!(probe.is_probe());
    let rejection = lane.admit(now, CallKind::Command).unwrap_err();
    assert!(matches!(&rejection.grounds, Grounds::Breaker(refusal) if refusal.state == State::HalfOpen));
    drop(probe);
    assert!(lane.admit(now, CallKind::Command).expect("free again").is_probe());
    assert_eq!(gate.snapshot(now).totals.get(Counter::Probes), 2);
    assert_eq!(gate.snapshot(now).totals.in_flight(), 0);
}

#[test]
fn rejections_are_counted_but_are_no_calls() {
    let (gate, lane, now) = gate(Policy::default());
    trip(&lane, now);
    let calls = gate.snapshot(now).totals.calls();
    let rejection = lane.admit(now, CallKind::Command).unwrap_err();
    lane.rejected(&rejection, 9);
    let snapshot = gate.snapshot(now);
    assert_eq!(snapshot.totals.calls(), calls);
    assert_eq!(snapshot.totals.get(Counter::RejectedOpen), 10);
    assert_eq!(snapshot.state, State::Open);
}

#[test]
fn a_rejection_says_who_why_and_when() {
    let (gate, lane, now) = gate(Policy::default());
    trip(&lane, now);
    let now = now + Duration::from_millis(17_600);
    let rejection = lane.admit(now, CallKind::Command).unwrap_err();
    let text = format!("{}; {}", rejection.words, rejection.hint(now));
    let expected =
        "backend 'cache' is open (connection refused, 5 consecutive failures); retry after 12400 ms";
    assert_eq!(text, expected);
    gate.trip(now, None);
    let rejection = lane.admit(now, CallKind::Command).unwrap_err();
    let text = format!("{}; {}", rejection.words, rejection.hint(now));
    assert_eq!(text, "backend 'cache' is open (a manual trip); retry after an operator has reset it");
}

#[test]
fn the_timer_hears_of_a_probe_that_brings_its_deadline_nearer() {
    let policy = Policy::default();
    let (later, silence) = (policy.recovery_timeout, policy.probe_timeout);
    let (gate, lane, now) = gate(policy);
    trip(&lane, now);
    gate.tick(now + later);
    assert_eq!(gate.deadline(), None);
    let heard = || gate.alarm.notified().now_or_never().is_some();
    while heard() {}
    let probe = lane.admit(now + later, CallKind::Command).expect("a free slot");
    assert!(heard(), "a timer that sleeps until a later deadline, or for ever");
    assert_eq!(gate.deadline(), Some(now + later + silence));
    gate.tick(now + later + silence);
    assert_eq!(gate.state(), State::Open, "the backend was silent");
    drop(probe);
    assert_eq!(gate.state(), State::Open);
}

#[test]
fn watchers_see_each_state() {
    let (gate, lane, now) = gate(Policy::default());
    let mut states = gate.watch();
    trip(&lane, now);
    assert!(states.has_changed().expect("the gate lives"));
    assert_eq!(*states.borrow_and_update(), State::Open);
    gate.reset(now);
    assert_eq!(*states.borrow_and_update(), State::Closed);
}

#[test]
fn concurrent_callers_trip_it_once_and_the_figures_balance() {
    let (gate, _, now) = gate(Policy::default());
    std::thread::scope(|scope| {
        for worker in 1..=2 {
            let lane = gate.lane(worker);
            scope.spawn(move || {
                for call in 0..10_000 {
                    match lane.admit(now, CallKind::Command) {
                        Ok(permit) if call % 3 == 0 => permit.record(now, Verdict::Success),
                        Ok(permit) => permit.record(now, refused()),
                        Err(_) => {}
                    }
                }
            });
        }
    });
    let snapshot = gate.snapshot(now);
    assert_eq!(snapshot.totals.in_flight(), 0);
    assert_eq!(snapshot.totals.calls() + snapshot.totals.rejections(), 20_000);
    assert_eq!(snapshot.trips, u64::from(snapshot.state == State::Open));
}

fn by_rate() -> Policy {
    let rates = Rates {
        window: Span::Calls(10),
        min_calls: 4,
        failure_rate: Share::from_millionths(500_000),
        ..Rates::default()
    };
    Policy { failure_threshold: None, rates, ..Policy::default() }
}

#[test]
fn with_a_window_on_a_batch_of_successes_counts_as_so_many() {
    let (gate, lane, now) = gate(by_rate());
    let generation = lane.closed().expect("closed");
    lane.passed(7);
    lane.succeeded(now, generation, CallKind::Command, Duration::ZERO, 7);
    (0..4).for_each(|_| lane.admit(now, CallKind::Command).expect("closed").record(now, refused()));
    assert_eq!(gate.state(), State::Closed, "4 of the last 10");
    lane.admit(now, CallKind::Command).expect("closed").record(now, refused());
    let trip = gate.snapshot(now).last_trip.expect("5 of the last 10");
    assert_eq!(trip.to_string(), "connection refused, failure rate 50% of 10 calls");
}

#[test]
fn what_is_left_of_a_batch_after_a_trip_is_stale() {
    let (gate, lane, now) = gate(by_rate());
    let generation = lane.closed().expect("closed");
    (0..3).for_each(|_| lane.admit(now, CallKind::Command).expect("closed").record(now, refused()));
    lane.passed(5);
    lane.succeeded(now, generation, CallKind::Command, Duration::ZERO, 5);
    let snapshot = gate.snapshot(now);
    assert_eq!((snapshot.state, snapshot.totals.get(Counter::Stale)), (State::Open, 4));
    assert_eq!(snapshot.totals.in_flight(), 0);
}

#[test]
fn without_a_window_successes_do_not_wait_for_the_lock() {
    let (gate, lane, now) = gate(Policy::default());
    passes_while_locked(&gate, lane.clone(), now, 0);
    trip(&lane, now);
    gate.reset(now);
    passes_while_locked(&gate, lane, now, 2);
    // Closed, but not for every call.
    let (gate, lane, now) = self::gate(limited(None, Some(9)));
    passes_while_locked(&gate, lane, now, 0);
}

fn passes_while_locked(gate: &Gate, lane: Lane, now: Instant, generation: Generation) {
    let held = gate.lock();
    let (done, passed) = std::sync::mpsc::channel();
    let caller = std::thread::spawn(move || {
        lane.passed(3);
        lane.succeeded(now, generation, CallKind::Command, Duration::ZERO, 3);
        done.send(()).expect("somebody waits");
    });
    let passed = passed.recv_timeout(Duration::from_secs(10));
    drop(held);
    assert!(passed.is_ok(), "it waits for the lock");
    caller.join().expect("it does not panic");
}

#[test]
fn observing_rejects_nothing_and_counts_what_it_would_have() {
    let (gate, lane, now) = gate(Policy { mode: Mode::Observe, ..Policy::default() });
    trip(&lane, now);
    assert_eq!((gate.state(), lane.closed()), (State::Open, None));
    for _ in 0..3 {
        lane.admit(now, CallKind::Command).expect("observing").record(now, Verdict::Success);
    }
    lane.admit_ineligible(now, CallKind::Command).expect("observing").record(now, refused());
    let later = now + Policy::default().recovery_timeout;
    let probe = lane.admit(later, CallKind::Command).expect("a free slot");
    assert!(probe.is_probe());
    drop(lane.admit(later, CallKind::Command).expect("observing"));
    probe.record(later, Verdict::Success);
    let snapshot = gate.snapshot(later);
    assert_eq!(snapshot.state, State::Closed);
    assert_eq!(snapshot.totals.get(Counter::WouldReject), 5);
    assert_eq!(snapshot.totals.rejections(), 0);
    assert_eq!(snapshot.totals.get(Counter::Stale), 0);
    assert_eq!(snapshot.totals.in_flight(), 0);
    assert_eq!(snapshot.trips, 1);
}

#[test]
fn disabled_it_passes_and_counts() {
    let (gate, lane, now) = gate(Policy::default());
    trip(&lane, now);
    gate.set_mode(now, Mode::Disabled);
    assert!(lane.closed().is_some());
    (0..10).for_each(|_| lane.admit(now, CallKind::Command).expect("disabled").record(now, refused()));
    let snapshot = gate.snapshot(now);
    assert_eq!((snapshot.state, snapshot.mode), (State::Closed, Mode::Disabled));
    assert_eq!(snapshot.totals.get(Counter::Failure), 15);
    assert_eq!(snapshot.trips, 1);
}

/// Closed again at the returned time, in a slow start of ten seconds.
fn starting_slowly() -> (Arc<Gate>, Lane, Instant) {
    let policy = Policy { slow_start: Some(Duration::from_secs(10)), ..Policy::default() };
    let later = policy.recovery_timeout;
    let (gate, lane, now) = gate(policy);
    trip(&lane, now);
    let now = now + later;
    lane.admit(now, CallKind::Command).expect("a free slot").record(now, Verdict::Success);
    assert_eq!(gate.state(), State::Closed);
    (gate, lane, now)
}

#[test]
fn a_slow_start_is_no_fast_path_and_says_so() {
    let (gate, lane, now) = starting_slowly();
    assert_eq!(lane.closed(), None);
    lane.admit(now, CallKind::Command).expect("the first call").record(now, Verdict::Success);
    let rejection = lane.admit(now, CallKind::Command).unwrap_err();
    let text = format!("{}; {}", rejection.words, rejection.hint(now));
    assert_eq!(
        text,
        "backend 'cache' is recovering (slow start after connection refused, 5 consecutive failures); retry after 0 ms"
    );
    lane.rejected(&rejection, 2);
    let snapshot = gate.snapshot(now);
    assert!(snapshot.slow_start);
    assert_eq!(snapshot.totals.get(Counter::RejectedSlowStart), 3);
    assert_eq!(snapshot.totals.rejections(), 3);
    assert_eq!(snapshot.totals.get(Counter::RejectedOpen), 0);
}

#[test]
fn the_end_of_a_slow_start_wakes_whoever_was_turned_away() {
    let (gate, lane, now) = starting_slowly();
    let mut states = gate.watch();
    gate.tick(now + Duration::from_secs(9));
    assert!(!states.has_changed().expect("the gate lives"));
    gate.tick(now + Duration::from_secs(10));
    assert!(states.has_changed().expect("the gate lives"));
    assert_eq!(*states.borrow_and_update(), State::Closed);
    assert!(lane.closed().is_some());
}

#[test]
fn the_history_is_bounded_and_tells_what_happened() {
    let (gate, lane, now) = gate(Policy::default());
    trip(&lane, now);
    gate.reset(now);
    let steps: Vec<_> = gate.history().iter().map(|t| (t.from, t.to, t.why.label())).collect();
    let expected =
        [(State::Closed, State::Open, "consecutive_failures"), (State::Open, State::Closed, "reset")];
    assert_eq!(steps, expected);
    assert_eq!(gate.history()[0].why.cause(), Some(&Fault::Refused.into()));
    for _ in 0..Gate::HISTORY_MAX {
        gate.trip(now, None);
        gate.reset(now);
    }
    let history = gate.history();
    assert_eq!(history.len(), Gate::HISTORY_MAX);
    assert_eq!(history.last().map(|last| last.generation), Some(2 + 2 * Gate::HISTORY_MAX as u64));
}

#[test]
fn a_change_of_mode_wakes_whoever_waits_for_the_state() {
    let (gate, lane, now) = gate(Policy::default());
    trip(&lane, now);
    assert!(gate.rejects_all());
    let mut states = gate.watch();
    gate.set_mode(now, Mode::Observe);
    assert!(states.has_changed().expect("the gate lives"));
    assert_eq!(*states.borrow_and_update(), State::Open);
    assert!(!gate.rejects_all());
}

#[test]
fn a_spared_connection_shows_as_the_calls_over_it() {
    let (gate, lane, now) = gate(Policy { mode: Mode::Observe, ..Policy::default() });
    trip(&lane, now);
    drop(lane.admit_uncounted(now, CallKind::Connect).expect("observing"));
    assert_eq!(gate.snapshot(now).totals.get(Counter::WouldReject), 0);
}

#[test]
fn a_silent_probe_is_counted_among_the_failures_by_its_cause() {
    let (gate, lane, now) = gate(Policy::default());
    trip(&lane, now);
    let later = now + Duration::from_secs(30);
    let _probe = lane.admit(later, CallKind::Command).expect("a free slot");
    let silent = Cause::Fault(Fault::ProbeSilent);
    assert_eq!(gate.snapshot(later).failures.get(&silent), None);
    let snapshot = gate.snapshot(later + Duration::from_secs(10));
    assert_eq!(snapshot.state, State::Open);
    assert_eq!(snapshot.failures.get(&silent), Some(&1));
}
