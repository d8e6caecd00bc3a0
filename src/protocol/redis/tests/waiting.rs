//! Calls that wait because as many are in flight as may be.

use super::*;
use crate::breaker::Bulkhead;

const WAIT: Duration = Duration::from_secs(2);

/// At most one call in flight, and its client.
fn crowded(rig: &mut Rig) -> Rig {
    let bulkhead = Bulkhead { connections: None, calls: Some(1), wait: WAIT };
    rig.gate.set_policy(rig.now, Policy { bulkhead, ..policy() });
    let mut other = rig.another();
    other.client(req("GET other"));
    other
}

/// Rejections by the bulkhead.
fn full(down: &str) -> usize {
    down.matches("-CIRCUITOPEN backend 'cache' is full (1 call in flight)").count()
}

#[test]
fn a_call_waits_for_a_place_and_says_until_when() {
    scenario(|rig| {
        let mut other = crowded(rig);
        rig.client(req("GET b"));
        assert_eq!((rig.up(), rig.down()), (String::new(), String::new()), "it is neither sent nor refused");
        assert_eq!(rig.session().queued(), Some(rig.now + WAIT));
        other.server("$-1\r\n");
        rig.pump();
        assert_eq!(rig.up(), text(&req("GET b")));
        assert_eq!(rig.session().queued(), None);
        rig.server("$-1\r\n");
    });
}

#[test]
fn who_has_waited_long_enough_is_refused_and_all_that_came_with_it() {
    for requests in [reqs(&["GET b", "GET c"]), b"GET b\r\nGET c\r\n".to_vec()] {
        let (mut rig, now) = (Rig::new(Cut::Whole), Instant::now());
        rig.now = now;
        let _other = crowded(&mut rig);
        rig.client(&requests);
        rig.now += WAIT - Duration::from_nanos(1);
        rig.pump();
        assert_eq!(rig.down(), "");
        rig.now = now + WAIT;
        rig.pump();
        assert_eq!((full(&rig.down()), rig.count(Counter::RejectedCalls)), (2, 2));
        assert_eq!((rig.up(), rig.session().queued()), (String::new(), None));
    }
}

#[test]
fn a_call_that_has_waited_says_how_it_stands_behind_those_before_it() {
    scenario(|rig| {
        rig.client(req("GET a"));
        let bulkhead = Bulkhead { connections: None, calls: Some(1), wait: WAIT };
        rig.gate.set_policy(rig.now, Policy { bulkhead, ..policy() });
        rig.client(req("GET b"));
        assert_eq!(rig.up(), text(&req("GET a")));
        rig.server("$1\r\na\r\n");
        assert_eq!(rig.up(), text(&reqs(&["GET a", "GET b"])));
        rig.server("$1\r\nb\r\n");
        assert_eq!(rig.down(), "$1\r\na\r\n$1\r\nb\r\n");
    });
}

#[test]
fn what_belongs_to_a_transaction_does_not_wait() {
    scenario(|rig| {
        rig.passes(req("MULTI"), "+OK\r\n").forget();
        let _other = crowded(rig);
        rig.passes(req("SET k v"), "+QUEUED\r\n");
    });
}

#[test]
fn a_poisoned_connection_rejects_at_once() {
    scenario(|rig| {
        rig.trip().client(req("SELECT 3"));
        rig.gate.reset(rig.now);
        let mut other = crowded(rig);
        assert_eq!(rejections(&rig.forget().refused(req("GET k"))), 1);
        other.vanish();
    });
}

#[test]
fn what_a_probe_covers_does_not_wait() {
    scenario(|rig| {
        let _other = crowded(rig);
        rig.half_open().client(req("GET k"));
        assert_eq!(rig.up(), text(&req("GET k")), "the connection attempt is the probe");
        rig.server("$-1\r\n");
        assert_eq!(rig.state(), State::Closed);
    });
}

#[test]
fn a_call_that_is_no_probe_gets_no_ping_before_it() {
    scenario(|rig| {
        let bulkhead = Bulkhead { connections: None, calls: Some(1), wait: WAIT };
        rig.gate.set_policy(rig.now, Policy { bulkhead, ..policy() });
        rig.passes(req("BLPOP k 5"), "*-1\r\n");
    });
    scenario(|rig| {
        rig.gate.set_mode(rig.now, crate::breaker::Mode::Observe);
        rig.trip().passes(req("BLPOP k 5"), "*-1\r\n");
        assert_eq!((rig.count(Counter::Probes), rig.count(Counter::WouldReject)), (0, 1));
    });
}
