//! What fusewire's own checks may do, and what they may not.

use super::*;

fn with(when: When, may: Remedy) -> Policy {
    Policy { checks: Checks { when, interval: 5 * SECOND, may }, ..policy() }
}

fn failed() -> Finding {
    Finding::Failed(Fault::Refused.into())
}

/// How long a failed check stands for, in these tests.
const NEXT: Duration = Duration::from_secs(10);

impl Bench {
    fn check(&mut self, finding: Finding) {
        self.check_of(self.breaker.generation(), finding, NEXT);
    }

    /// A check of that generation has ended; the next one ends within `next`.
    pub(super) fn check_of(&mut self, generation: Generation, finding: Finding, next: Duration) {
        let verdict = match &finding {
            Finding::Ready => Verdict::Success,
            Finding::Failed(cause) => Verdict::Failure(cause.clone()),
            Finding::Alive | Finding::Nothing => Verdict::Ignored,
        };
        let outcome = Outcome { at: self.now, kind: CallKind::Check, verdict, duration: SECOND };
        self.breaker.check(generation, finding, next, outcome);
    }

    fn whys(&mut self) -> Vec<&'static str> {
        self.breaker.take_transitions().iter().map(|transition| transition.why.label()).collect()
    }
}

#[test]
fn a_good_check_ends_the_recovery_timeout_early_and_a_probe_decides() {
    let mut bench = Bench::tripped_with(with(When::WhileOpen, Remedy::HalfOpen));
    bench.at(4.0);
    bench.check(Finding::Ready);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.call(Verdict::Success);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.whys(), ["consecutive_failures", "check_succeeded", "probe_succeeded"]);
}

#[test]
fn a_good_check_that_may_close_counts_as_a_probe() {
    let mut bench = Bench::tripped_with(with(When::WhileOpen, Remedy::Close));
    bench.at(4.0);
    bench.check(Finding::Ready);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.whys(), ["consecutive_failures", "check_succeeded", "check_succeeded"]);

    let policy = Policy { success_threshold: 3, ..with(When::WhileOpen, Remedy::Close) };
    let mut bench = Bench::tripped_with(policy);
    bench.at(4.0);
    bench.check(Finding::Ready);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.call(Verdict::Success);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.check(Finding::Ready);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_failed_check_keeps_it_open_and_so_no_users_call_finds_out_the_same() {
    let mut bench = Bench::tripped_with(with(When::WhileOpen, Remedy::HalfOpen));
    bench.at(10.0);
    bench.check(failed());
    bench.at(28.0);
    bench.check(failed());
    bench.at(37.9);
    assert_eq!(bench.state(), State::Open);
    assert_eq!(bench.admit().unwrap_err().retry_at, Some(bench.began + 38 * SECOND));
    // No more checks are made: it is not open for ever.
    bench.at(38.0);
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn a_failed_check_opens_a_half_open_breaker_again() {
    let mut bench = Bench::tripped_with(with(When::WhileOpen, Remedy::HalfOpen));
    bench.at(30.0);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.check(failed());
    assert_eq!(bench.state(), State::Open);
    assert_eq!(bench.last_condition(), Condition::FailedChecks(1));
    assert_eq!(bench.breaker.last_trip().unwrap().to_string(), "connection refused, a failed check");
}

#[test]
fn a_server_that_merely_lives_is_tried_only_if_it_did_not_live() {
    let mut bench = Bench::tripped_with(with(When::WhileOpen, Remedy::Close));
    bench.check(Finding::Alive);
    assert_eq!(bench.state(), State::HalfOpen, "it was refused, and is not any more");

    let mut bench = Bench::new(with(When::WhileOpen, Remedy::Close));
    (0..3).for_each(|_| bench.call(Verdict::Failure(Code::new("LOADING").into())));
    bench.check(Finding::Alive);
    assert_eq!(bench.state(), State::Open, "it may well be loading still");
    bench.at(30.0);
    bench.check(Finding::Alive);
    assert_eq!(bench.state(), State::HalfOpen, "nor is it proof of the contrary");
}

#[test]
fn a_check_that_was_wrong_is_not_believed_again_until_one_has_failed() {
    for may in [Remedy::HalfOpen, Remedy::Close] {
        let mut bench = Bench::tripped_with(with(When::WhileOpen, may));
        bench.check(Finding::Ready);
        if bench.state() == State::HalfOpen {
            bench.call(refused());
        } else {
            (0..3).for_each(|_| bench.call(refused()));
        }
        assert_eq!(bench.state(), State::Open);
        bench.at(5.0);
        bench.check(Finding::Ready);
        assert_eq!(bench.state(), State::Open, "{may:?}");
        bench.at(31.0);
        assert_eq!(bench.state(), State::HalfOpen);
        bench.check(Finding::Ready);
        assert_eq!(bench.state(), State::HalfOpen, "a probe decides");
        bench.call(refused());
        bench.at(40.0);
        bench.check(failed());
        bench.check(Finding::Ready);
        assert_ne!(bench.state(), State::Open, "now it is news");
    }
}

#[test]
fn another_outage_is_another_matter() {
    let mut bench = Bench::tripped_with(with(When::WhileOpen, Remedy::Close));
    bench.check(Finding::Ready);
    assert_eq!(bench.state(), State::Closed);
    bench.at(30.0);
    (0..3).for_each(|_| bench.call(refused()));
    bench.at(35.0);
    bench.check(Finding::Ready);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn failed_checks_trip_a_closed_breaker_that_nobody_calls() {
    let mut bench = Bench::new(with(When::Always, Remedy::HalfOpen));
    bench.check(failed());
    bench.check(failed());
    assert_eq!((bench.state(), bench.breaker.consecutive_failures()), (State::Closed, 0));
    bench.check(failed());
    assert_eq!(bench.last_condition(), Condition::FailedChecks(3));
    let trip = bench.breaker.last_trip().unwrap();
    assert!(trip.evidence.len() == 3 && trip.evidence.iter().all(|outcome| outcome.kind == CallKind::Check));
}

#[test]
fn failed_calls_and_failed_checks_are_runs_of_their_own() {
    let mut bench = Bench::new(with(When::Always, Remedy::HalfOpen));
    for _ in 0..2 {
        bench.call(refused());
        bench.check(failed());
    }
    assert_eq!(bench.state(), State::Closed);
    // PING works while every command hangs: that must not hide it.
    bench.check(Finding::Ready);
    bench.call(refused());
    assert_eq!(bench.last_condition(), Condition::ConsecutiveFailures(3));

    let mut bench = Bench::new(with(When::Always, Remedy::HalfOpen));
    bench.check(failed());
    bench.check(failed());
    assert!(bench.breaker.wants_success());
    bench.call(Verdict::Success);
    assert!(!bench.breaker.wants_success());
    bench.check(failed());
    assert_eq!(bench.state(), State::Closed, "a call that succeeds ends both runs");
}

#[test]
fn a_check_from_before_a_change_changes_nothing() {
    let mut bench = Bench::new(with(When::Always, Remedy::Close));
    (0..3).for_each(|_| bench.call(refused()));
    bench.check_of(0, Finding::Ready, NEXT);
    assert_eq!(bench.state(), State::Open);
    bench.at(30.0);
    bench.check_of(1, failed(), NEXT);
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn an_operators_word_goes_before_that_of_a_check() {
    for hold in [None, Some(60 * SECOND)] {
        let mut bench = Bench::new(with(When::Always, Remedy::Close));
        bench.breaker.trip(bench.now, hold);
        assert!(!bench.breaker.wants_checks());
        bench.check(Finding::Ready);
        assert_eq!(bench.state(), State::Open);
    }
    let mut bench = Bench::new(with(When::Always, Remedy::Close));
    bench.breaker.set_mode(bench.now, Mode::Disabled);
    assert!(!bench.breaker.wants_checks());
    (0..9).for_each(|_| bench.check(failed()));
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn checks_are_made_when_the_policy_says_so() {
    for (when, closed, open) in
        [(When::Off, false, false), (When::WhileOpen, false, true), (When::Always, true, true)]
    {
        let mut bench = Bench::new(with(when, Remedy::HalfOpen));
        assert_eq!(bench.breaker.wants_checks(), closed);
        (0..3).for_each(|_| bench.call(refused()));
        assert_eq!(bench.breaker.wants_checks(), open);
        bench.at(30.0);
        assert_eq!((bench.state(), bench.breaker.wants_checks()), (State::HalfOpen, open));
    }
}

#[test]
fn a_fault_of_our_own_machine_says_nothing() {
    let mut bench = Bench::new(with(When::Always, Remedy::Close));
    (0..9).for_each(|_| bench.check(Finding::Nothing));
    (0..3).for_each(|_| bench.call(refused()));
    bench.check(Finding::Nothing);
    bench.at(29.9);
    assert_eq!(bench.state(), State::Open);
    bench.at(30.0);
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn a_fleet_spreads_its_checks_over_half_an_interval() {
    let firsts: Vec<Duration> = (0..1000).map(|seed| Pace::new(seed).next(8 * SECOND)).collect();
    let (least, most) = (firsts.iter().min().unwrap(), firsts.iter().max().unwrap());
    assert_eq!(Pace::longest(8 * SECOND), 10 * SECOND);
    assert!(*least >= 6 * SECOND && *most <= Pace::longest(8 * SECOND));
    assert!(*most - *least > 3 * SECOND, "{least:?} {most:?}");
    let early = firsts.iter().filter(|first| **first < 8 * SECOND).count();
    assert!((400..600).contains(&early), "{early}");
}

#[test]
fn the_words_for_checks_are_those_of_the_documentation() {
    assert_eq!(When::ALL.map(When::label), ["off", "while_open", "always"]);
    assert_eq!(Remedy::ALL.map(Remedy::label), ["half_open", "close"]);
    let findings = [Finding::Ready, Finding::Alive, failed(), Finding::Nothing];
    assert_eq!(findings.each_ref().map(Finding::label), ["ready", "alive", "failed", "nothing"]);
    assert_eq!(findings.each_ref().map(Finding::label), Finding::LABELS);
    assert_eq!(findings.each_ref().map(Finding::cause), [None, None, Some(&Fault::Refused.into()), None]);
}
