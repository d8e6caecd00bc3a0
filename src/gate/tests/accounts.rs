//! What is booked for a call that ends in one way or another, and under which generation.

use super::*;

#[test]
fn calls_without_a_latency_or_a_verdict_are_booked_too() {
    let (gate, lane, now) = gate(Policy::default());
    lane.admit(now, CallKind::Command).expect("closed").record(now, refused());
    let generation = lane.closed().expect("closed");
    lane.passed(4);
    lane.ignored(3);
    assert_eq!(gate.snapshot(now).consecutive_failures, 1, "nothing was said about the backend");
    lane.succeeded_untimed(now, generation, CallKind::Command);
    let snapshot = gate.snapshot(now);
    assert_eq!(snapshot.consecutive_failures, 0);
    assert_eq!(snapshot.totals.get(Counter::Ignored), 3);
    assert_eq!(snapshot.totals.get(Counter::Success), 1);
    assert_eq!(snapshot.totals.in_flight(), 0);
}

#[test]
fn failures_and_trips_are_counted_by_their_causes() {
    let (gate, lane, now) = gate(Policy::default());
    for _ in 0..2 {
        trip(&lane, now);
        gate.reset(now);
    }
    gate.trip(now, None);
    let snapshot = gate.snapshot(now);
    assert_eq!(snapshot.failures, BTreeMap::from([(Fault::Refused.into(), 10)]));
    assert_eq!(snapshot.trips_by_condition, BTreeMap::from([("consecutive_failures", 2), ("manual", 1)]));
}

#[test]
fn only_a_verdict_can_come_too_late() {
    let (gate, lane, now) = gate(Policy::default());
    let [ignored, failed] = [(); 2].map(|()| lane.admit(now, CallKind::Command).expect("closed"));
    gate.trip(now, None);
    ignored.record(now, Verdict::Ignored);
    assert_eq!(gate.snapshot(now).totals.get(Counter::Stale), 0);
    failed.record(now, refused());
    assert_eq!(gate.snapshot(now).totals.get(Counter::Stale), 1);
}

#[test]
fn a_permit_says_what_it_is_and_which_generation_gave_it() {
    let (gate, lane, now) = gate(Policy { mode: Mode::Observe, ..Policy::default() });
    gate.trip(now, None);
    gate.reset(now);
    let permit = lane.admit(now, CallKind::Command).expect("closed");
    assert_eq!((permit.is_probe(), permit.is_spared(), permit.generation()), (false, false, 2));
    assert_eq!(permit.defer(), 2);
    assert_eq!(gate.snapshot(now).totals.in_flight(), 1, "whoever defers it ends the call");
    gate.trip(now, None);
    let permit = lane.admit(now, CallKind::Command).expect("observing");
    assert_eq!((permit.is_probe(), permit.is_spared(), permit.generation()), (false, true, 3));
}

#[test]
fn the_timer_hears_of_a_trip() {
    let (gate, lane, now) = gate(Policy::default());
    let heard = || gate.alarm.notified().now_or_never().is_some();
    while heard() {}
    gate.tick(now);
    assert!(!heard(), "nothing has changed");
    trip(&lane, now);
    assert!(heard(), "a timer that sleeps for ever");
}

#[test]
fn a_client_that_gets_no_place_is_counted() {
    let (gate, lane, now) = gate(limited(Some(1), None));
    lane.turned_away();
    assert_eq!(gate.snapshot(now).totals.get(Counter::RejectedConnections), 1);
}

#[test]
fn a_call_had_better_wait_only_where_it_would_be_refused_for_want_of_a_place() {
    let wait = Duration::from_secs(2);
    let bulkhead = Bulkhead { connections: None, calls: Some(1), wait };
    let (gate, lane, now) = gate(Policy { bulkhead, ..Policy::default() });
    assert_eq!(lane.crowded(now, CallKind::Command), Duration::ZERO, "there is room");
    let _call = lane.admit(now, CallKind::Command).expect("room");
    assert_eq!(lane.crowded(now, CallKind::Command), wait);
    gate.set_mode(now, Mode::Observe);
    assert_eq!(lane.crowded(now, CallKind::Command), Duration::ZERO, "nothing is refused");
}

#[test]
fn a_rejection_knows_whether_it_is_open_and_is_put_into_words_once() {
    let policy = Policy::default();
    let later = policy.recovery_timeout;
    let (_gate, lane, now) = gate(policy);
    trip(&lane, now);
    let [first, second] = [(); 2].map(|()| lane.admit(now, CallKind::Command).expect_err("open"));
    assert!(first.is_open() && std::ptr::eq::<Rejected>(&*first, &*second));
    let _probe = lane.admit(now + later, CallKind::Command).expect("a free slot");
    let rejection = lane.admit(now + later, CallKind::Command).expect_err("the slot is taken");
    assert!(!rejection.is_open());
}
