//! The limits on how much a backend is asked at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

#[test]
fn calls_beyond_the_limit_are_rejected_and_no_failure() {
    let (gate, lane, now) = gate(limited(None, Some(3)));
    let other = gate.lane(2);
    assert_eq!(lane.closed(), None, "each call asks");
    let first = lane.admit(now, CallKind::Command).expect("room");
    let _second = other.admit(now, CallKind::Query).expect("room");
    let _third = other.admit_ineligible(now, CallKind::Command).expect("room");
    for _ in 0..9 {
        let rejection = lane.admit(now, CallKind::Command).unwrap_err();
        assert_eq!(&*rejection.words, "backend 'cache' is full (3 calls in flight)");
        assert_eq!(rejection.hint(now).to_string(), "retry after 0 ms");
        assert!(other.admit_ineligible(now, CallKind::Query).is_err());
    }
    // What is no call of a client's own is no matter of this limit.
    drop(lane.admit_uncounted(now, CallKind::Connect).expect("a connection"));
    drop(lane.admit(now, CallKind::Startup).expect("a session"));
    first.record(now, Verdict::Success);
    drop(other.admit(now, CallKind::Command).expect("a place that has been freed"));
    let snapshot = gate.snapshot(now);
    assert_eq!((snapshot.state, snapshot.consecutive_failures), (State::Closed, 0));
    assert_eq!(snapshot.totals.get(Counter::RejectedCalls), 18);
    assert_eq!((snapshot.totals.rejections(), snapshot.totals.in_flight()), (18, 2));
}

#[test]
fn the_last_place_is_taken_once_however_many_ask_for_it() {
    const LIMIT: u32 = 7;
    let now = Instant::now();
    let gate = Gate::new("cache", limited(None, Some(LIMIT)), 4, now);
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 1..=4 {
            let (lane, most, gate) = (gate.lane(worker), &most, &gate);
            scope.spawn(move || {
                let mut held = Vec::new();
                for turn in 0..4000_u32 {
                    if let Ok(permit) = lane.admit(now, CallKind::Command) {
                        held.push(permit);
                        most.fetch_max(gate.snapshot(now).totals.in_flight(), Ordering::Relaxed);
                    }
                    if turn % 3 == 0
                        && let Some(permit) = held.pop()
                    {
                        permit.record(now, Verdict::Success);
                    }
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::Relaxed), u64::from(LIMIT));
    assert_eq!(gate.snapshot(now).totals.in_flight(), 0);
}

#[test]
fn an_open_breaker_speaks_before_the_bulkhead_and_a_full_one_uses_up_no_probe() {
    let (gate, lane, now) = gate(limited(None, Some(1)));
    let held = lane.admit(now, CallKind::Command).expect("room");
    gate.trip(now, Some(Duration::from_secs(1)));
    assert!(lane.admit(now, CallKind::Command).unwrap_err().is_open());
    let later = now + Duration::from_secs(1);
    assert_eq!(lane.admit(later, CallKind::Command).unwrap_err().grounds, Grounds::Full(1));
    assert_eq!((gate.state(), gate.snapshot(later).probes_in_flight), (State::HalfOpen, 0));
    held.record(later, Verdict::Success);
    assert!(lane.admit(later, CallKind::Command).expect("a slot").is_probe());
}

#[test]
fn a_mode_that_rejects_nothing_has_no_bulkhead_that_does() {
    let (gate, lane, now) = gate(Policy { mode: Mode::Observe, ..limited(Some(1), Some(1)) });
    let _places = [lane.take_place().expect("observing"), lane.take_place().expect("observing")];
    let _calls = [0, 1, 2].map(|_| lane.admit(now, CallKind::Command).expect("observing"));
    assert_eq!(gate.snapshot(now).totals.get(Counter::WouldReject), 3);
    gate.set_mode(now, Mode::Disabled);
    assert!(lane.closed().is_some(), "no call asks");
    drop(lane.take_place().expect("disabled"));
    assert_eq!(gate.snapshot(now).totals.get(Counter::WouldReject), 3);
    gate.set_mode(now, Mode::Enforce);
    assert_eq!(lane.take_place().unwrap_err(), Full { limit: 1, wait: Duration::ZERO });
    assert!(lane.admit(now, CallKind::Command).is_err());
}

#[test]
fn places_are_counted_with_and_without_a_limit_and_freed_when_they_are_dropped() {
    let (gate, lane, now) = gate(Policy::default());
    let places = [0, 1, 2].map(|_| lane.take_place().expect("no limit"));
    gate.set_policy(now, limited(Some(3), None));
    assert!(lane.closed().is_some(), "a limit on connections costs no call anything");
    assert!(lane.take_place().is_err(), "those from before count");
    assert_eq!(gate.snapshot(now).connections, 3);
    drop(places);
    assert_eq!(gate.snapshot(now).connections, 0);
    drop(lane.take_place().expect("a place"));
}

#[test]
fn the_end_of_a_slow_start_is_told_with_a_limit_on_calls_too() {
    let policy = Policy { slow_start: Some(Duration::from_secs(10)), ..limited(None, Some(9)) };
    let (gate, lane, now) = gate(policy);
    (0..5).for_each(|_| lane.admit(now, CallKind::Command).expect("closed").record(now, refused()));
    let later = now + Duration::from_secs(30);
    lane.admit(later, CallKind::Command).expect("a probe").record(later, Verdict::Success);
    assert!(gate.snapshot(later).slow_start);
    let mut states = gate.watch();
    states.mark_unchanged();
    gate.tick(later + Duration::from_secs(10));
    assert!(states.has_changed().unwrap());
}

#[test]
fn a_connect_that_waits_for_its_place_holds_up_no_call() {
    let (gate, lane, now) = gate(limited(None, Some(1)));
    let connects = [CallKind::Connect, CallKind::Startup].map(|kind| lane.admit(now, kind).expect("no call"));
    let call = lane.admit(now, CallKind::Command).expect("room");
    assert!(lane.admit(now, CallKind::Command).is_err());
    let [dropped, recorded] = connects;
    drop(dropped);
    recorded.record(now, Verdict::Success);
    assert!(lane.admit(now, CallKind::Command).is_err(), "their end makes no room either");
    call.record(now, Verdict::Success);
    drop(lane.admit(now, CallKind::Command).expect("room"));
    assert_eq!(gate.snapshot(now).totals.commands_in_flight(), 0);
}
