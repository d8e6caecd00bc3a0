//! Calls that wait because as many are in flight as may be.

use std::time::Duration;

use super::rig::*;
use crate::breaker::{Bulkhead, Policy};
use crate::protocol::Session as _;

const WAIT: Duration = Duration::from_secs(2);

/// A session, and another that has the only call that may be in flight.
fn crowded() -> (Rig, Rig) {
    let mut rig = Rig::new();
    let bulkhead = Bulkhead { connections: None, calls: Some(1), wait: WAIT };
    rig.gate.set_policy(rig.now, Policy { bulkhead, ..Policy::default() });
    let mut other = Rig::on(rig.gate.clone(), rig.settings.clone(), rig.now);
    play(&mut rig, &started(), Cut::Whole);
    play(&mut other, &[started(), vec![Client(q("SELECT 1"))]].concat(), Cut::Whole);
    (rig, other)
}

fn sent(rig: &Rig) -> String {
    rig.outcome().sent()
}

#[test]
fn a_call_waits_for_a_place_and_says_until_when() {
    for request in [q("SELECT 2"), pbes("")] {
        let (mut rig, mut other) = crowded();
        rig.client(&request, true);
        assert_eq!((sent(&rig).as_str(), rig.outcome().told().as_str()), ("", "RSKZ"));
        assert_eq!(rig.session.queued(), Some(rig.now + WAIT));
        other.server(&rows());
        rig.client(b"", true);
        assert!(!sent(&rig).is_empty());
        assert_eq!(rig.session.queued(), None);
        rig.balance();
    }
}

#[test]
fn who_has_waited_long_enough_is_refused_and_all_that_came_with_it() {
    let (mut rig, other) = crowded();
    let begun = rig.now;
    rig.client(&q("SELECT 2").repeat(2), true);
    rig.now = begun + WAIT - Duration::from_nanos(1);
    rig.client(b"", true);
    assert_eq!(rig.outcome().told(), "RSKZ");
    rig.now = begun + WAIT;
    rig.client(b"", true);
    let end = rig.outcome();
    assert_eq!((end.told().as_str(), end.sent().as_str()), ("RSKZEZEZ", ""));
    assert_eq!(end.error(b'M'), "backend 'db' is full (1 call in flight)");
    assert_eq!(rig.session.queued(), None);
    drop(other);
    rig.balance();
}

#[test]
fn what_belongs_to_a_transaction_does_not_wait() {
    let (mut rig, mut other) = crowded();
    other.server(&rows());
    rig.client(&q("BEGIN"), true);
    rig.server(&[complete("BEGIN"), z('T')].concat());
    other.client(&q("SELECT 1"), true);
    rig.client(&q("INSERT"), true);
    assert_eq!(sent(&rig), "QQ");
}
