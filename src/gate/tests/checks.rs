//! fusewire's own checks, as those who make them see the gate.

use super::*;
use crate::breaker::Remedy;

#[test]
fn the_next_check_is_due_when_the_policy_and_the_state_say_so() {
    let checks = Checks { when: When::WhileOpen, interval: Duration::from_secs(8), may: Remedy::HalfOpen };
    let policy = Policy { checks, probe_timeout: Duration::from_secs(3), ..Policy::default() };
    let (gate, lane, now) = gate(policy);
    assert_eq!(gate.check_due(), None, "it is closed");
    trip(&lane, now);
    let (interval, patience) = (Duration::from_secs(8), Duration::from_secs(3));
    assert_eq!(gate.check_due(), Some(CheckDue { generation: 1, interval, patience }));
}

#[test]
fn a_finding_is_counted_kept_and_told_to_the_breaker() {
    let checks = Checks { when: When::WhileOpen, interval: Duration::from_secs(8), may: Remedy::HalfOpen };
    let (gate, lane, now) = gate(Policy { checks, ..Policy::default() });
    trip(&lane, now);
    let late = now + Duration::from_secs(25);
    let due = gate.check_due().expect("it is open");
    let check = |finding| Checked { at: late, duration: Duration::from_millis(5), finding };
    let failed = check(Finding::Failed(Fault::Refused.into()));
    gate.checked(due, check(Finding::Nothing), Duration::from_secs(2));
    for _ in 0..2 {
        gate.checked(due, failed.clone(), Duration::from_secs(2));
    }
    let snapshot = gate.snapshot(late);
    assert_eq!(snapshot.checks, BTreeMap::from([("failed", 2), ("nothing", 1)]));
    assert_eq!(snapshot.last_check, Some(failed));
    // The longest pause before the next one, ten seconds, and as long as that may last.
    assert_eq!(gate.deadline(), Some(late + Duration::from_secs(12)));
    gate.checked(due, check(Finding::Ready), Duration::ZERO);
    assert_eq!(gate.state(), State::HalfOpen);
}
