//! The machine under random interleavings, beside a model that recomputes everything from a plain list of calls.

mod shadow;

use proptest::prelude::*;

use super::*;
use shadow::{Effect, Model};

#[derive(Debug, Clone)]
enum Step {
    Admit,
    AdmitIneligible,
    Report { pick: prop::sample::Index, verdict: Verdict, slow: bool, n: u64 },
    Forget { pick: prop::sample::Index },
    Owed { pick: prop::sample::Index, owed: bool },
    Check { finding: Finding, stale: bool, next: Duration },
    Pass(Duration),
    Reset,
    Trip(Option<Duration>),
    SetMode(Mode),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let verdict = prop_oneof![
        2 => Just(refused()),
        1 => Just(Verdict::Failure(Code::new("LOADING").into())),
        3 => Just(Verdict::Success),
        1 => Just(Verdict::Ignored),
    ];
    let report = (index(), verdict, prop::bool::weighted(0.3), prop_oneof![4 => Just(1_u64), 1 => 2_u64..6]);
    let finding = prop_oneof![
        3 => Just(Finding::Ready),
        2 => Just(Finding::Alive),
        3 => Just(Finding::Failed(Fault::Refused.into())),
        1 => Just(Finding::Nothing),
    ];
    let check = (finding, prop::bool::weighted(0.1), 0_u32..20);
    let mode = prop_oneof![2 => Just(Mode::Enforce), 2 => Just(Mode::Observe), 1 => Just(Mode::Disabled)];
    let step = prop_oneof![
        80 => Just(Step::Admit),
        10 => Just(Step::AdmitIneligible),
        80 => report.prop_map(|(pick, verdict, slow, n)| Step::Report { pick, verdict, slow, n }),
        10 => index().prop_map(|pick| Step::Forget { pick }),
        10 => (index(), any::<bool>()).prop_map(|(pick, owed)| Step::Owed { pick, owed }),
        25 => check.prop_map(|(finding, stale, next)| Step::Check { finding, stale, next: SECOND * next }),
        30 => (0_u64..3_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        20 => (0_u64..40_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        5 => Just(Step::Reset),
        5 => prop::option::of((1_u64..40).prop_map(Duration::from_secs)).prop_map(Step::Trip),
        6 => mode.prop_map(Step::SetMode),
    ];
    prop::collection::vec(step, 1..250)
}

fn policies() -> impl Strategy<Value = Policy> {
    let rate = || prop::option::weighted(0.6, (20_u32..=100).prop_map(percent));
    let window = prop_oneof![
        (1_u32..12).prop_map(Span::Calls),
        (1_u64..20).prop_map(|seconds| Span::Time(Duration::from_secs(seconds))),
    ];
    let rates =
        (window, 1_u32..8, rate(), rate()).prop_map(|(window, min_calls, failure_rate, slow_call_rate)| {
            Rates { window, min_calls, failure_rate, slow_call_rate, slow_call_duration: SECOND }
        });
    let counts = (prop::option::weighted(0.7, 1_u32..5), 1_u32..4, 1_u32..4);
    let recovery = (100_u32..400, 30_u64..200, 0_u32..=100);
    let slow_start = prop::option::weighted(0.3, (1_u64..30).prop_map(Duration::from_secs));
    let checks = (prop::sample::select(&When::ALL[..]), prop::sample::select(&Remedy::ALL[..]));
    let all = (rates, counts, recovery, slow_start, checks);
    all.prop_map(|(rates, counts, recovery, slow_start, (when, may))| Policy {
        rates,
        failure_threshold: counts.0,
        success_threshold: counts.1,
        probes: counts.2,
        recovery_timeout: 30 * SECOND,
        recovery_backoff: Factor::from_hundredths(recovery.0).unwrap(),
        recovery_timeout_max: Duration::from_secs(recovery.1),
        recovery_jitter: percent(recovery.2),
        slow_start,
        checks: Checks { when, may, ..Checks::default() },
        ..Policy::default()
    })
}

/// What a report may change.
fn fingerprint(breaker: &Breaker) -> impl PartialEq + std::fmt::Debug + use<> {
    let deadline = breaker.deadline();
    let (run, probes) = (breaker.consecutive_failures(), breaker.probes_in_flight());
    let (state, generation) = (breaker.state(), breaker.generation());
    (state, generation, run, deadline, probes, breaker.trips(), breaker.mode(), breaker.backoff_level())
}

/// A call that is under way.
struct Open {
    ticket: Ticket,
    /// Its client has not had a move of its own.
    timed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn holds_its_invariants_under_any_interleaving(steps in steps(), policy in policies(), seed in any::<u64>()) {
        let now = Instant::now();
        let mut bench = Bench { breaker: Breaker::new(policy.clone(), seed, now), now, began: now };
        let mut model = Model::new(policy.clone(), now);
        // Calls that have not reported; forgotten ones never will.
        let mut open: Vec<Open> = Vec::new();
        for step in steps {
            let before = fingerprint(&bench.breaker);
            let (state, generation, mode) =
                (bench.state(), bench.breaker.generation(), bench.breaker.mode());
            let slow_starting = bench.breaker.is_slow_starting();
            match step {
                Step::Admit => match bench.admit() {
                    Ok(ticket) => {
                        let enforced_open = bench.state() == State::Open && mode != Mode::Observe;
                        prop_assert!(!enforced_open);
                        prop_assert!(!ticket.is_probe() || bench.state() == State::HalfOpen);
                        prop_assert!(!ticket.is_spared() || mode == Mode::Observe);
                        let free = bench.state() == State::Closed && !slow_starting;
                        prop_assert!(!free || !ticket.is_spared());
                        open.push(Open { ticket, timed: true });
                    }
                    Err(refusal) => {
                        prop_assert_eq!(mode, Mode::Enforce, "only enforcing rejects");
                        prop_assert_eq!(refusal.state, bench.state());
                        match refusal.state {
                            State::Closed => prop_assert!(slow_starting),
                            State::HalfOpen => {
                                prop_assert_eq!(bench.breaker.probes_in_flight(), policy.probes as usize);
                            }
                            State::Open => {}
                        }
                    }
                },
                Step::AdmitIneligible => {
                    let admitted = bench.breaker.admit_ineligible(bench.now);
                    prop_assert!(mode == Mode::Enforce || admitted.is_ok());
                    if mode == Mode::Enforce && !slow_starting {
                        prop_assert_eq!(admitted.is_ok(), state == State::Closed);
                    }
                    prop_assert!(admitted.map_or(true, |ticket| !ticket.is_probe()));
                }
                Step::Report { pick, verdict, slow, n } if !open.is_empty() => {
                    let Open { ticket, timed } = open.swap_remove(pick.index(open.len()));
                    let n = if ticket.is_probe() { 1 } else { n };
                    let duration = if slow { 2 * SECOND } else { Duration::from_millis(1) };
                    let (at, kind) = (bench.now, CallKind::Command);
                    let outcome = Outcome { at, kind, verdict: verdict.clone(), duration };
                    let live = bench.breaker.is_live(at, ticket);
                    let in_time = bench.breaker.record_batch(ticket, outcome, n);
                    prop_assert_eq!(live, in_time > 0);
                    if ticket.generation != generation {
                        prop_assert_eq!(in_time, 0);
                        prop_assert_eq!(fingerprint(&bench.breaker), before, "a stale verdict changed something");
                    } else if state == State::Closed && mode != Mode::Disabled && verdict != Verdict::Ignored {
                        let failed = verdict != Verdict::Success;
                        let taken = (1..=n).find_map(|i| Some((i, model.take(at, failed, slow)?)));
                        match taken {
                            None => prop_assert_eq!((bench.state(), in_time), (State::Closed, n)),
                            Some((i, condition)) => {
                                prop_assert_eq!((bench.state(), in_time), (State::Open, i));
                                prop_assert_eq!(bench.last_condition(), condition);
                            }
                        }
                    } else if state == State::HalfOpen && ticket.is_probe() && in_time == 1 {
                        let is_slow = slow && timed && policy.rates.slow_call_rate.is_some();
                        let expected = match verdict {
                            Verdict::Failure(_) => Some(Condition::ProbeFailed),
                            Verdict::Success if is_slow => Some(Condition::ProbeSlow),
                            _ => None,
                        };
                        let closes = verdict == Verdict::Success && !is_slow && model.probe_succeeded();
                        let state = match &expected {
                            Some(_) => State::Open,
                            None if closes => State::Closed,
                            None => State::HalfOpen,
                        };
                        prop_assert_eq!(bench.state(), state);
                        prop_assert!(expected.is_none_or(|expected| expected == bench.last_condition()));
                    } else {
                        prop_assert_eq!(fingerprint(&bench.breaker), before, "it had nothing to say");
                    }
                }
                Step::Forget { pick } if !open.is_empty() => {
                    let _forgotten = open.swap_remove(pick.index(open.len()));
                }
                Step::Owed { pick, owed } if !open.is_empty() => {
                    let at = pick.index(open.len());
                    bench.breaker.set_owed(open[at].ticket, owed);
                    open[at].timed &= owed;
                    prop_assert_eq!(fingerprint(&bench.breaker), before);
                }
                Step::Check { finding, stale, next } => {
                    let forced = state == State::Open && model.forced;
                    let effect = match stale || mode == Mode::Disabled || forced {
                        true => Effect::Nothing,
                        false => model.check(state, &finding),
                    };
                    let until = bench.breaker.deadline();
                    let of = if stale { generation.wrapping_sub(1) } else { generation };
                    bench.check_of(of, finding, next);
                    match effect {
                        Effect::Nothing => prop_assert_eq!(fingerprint(&bench.breaker), before),
                        Effect::Prolongs => {
                            let until = until.map(|until| until.max(bench.now + next));
                            prop_assert_eq!((bench.state(), bench.breaker.deadline()), (state, until));
                        }
                        Effect::HalfOpens => prop_assert_eq!(bench.state(), State::HalfOpen),
                        Effect::Closes => prop_assert_eq!(bench.state(), State::Closed),
                        Effect::Trips(condition) => {
                            prop_assert_eq!((bench.state(), bench.last_condition()), (State::Open, condition));
                        }
                    }
                }
                Step::Pass(time) => bench.pass(time),
                Step::Reset => {
                    bench.breaker.reset(bench.now);
                    prop_assert_eq!((bench.state(), bench.breaker.mode()), (State::Closed, mode));
                    model.reset(bench.now);
                }
                Step::Trip(hold) => {
                    bench.breaker.trip(bench.now, hold);
                    prop_assert_eq!(bench.state() == State::Open, mode != Mode::Disabled);
                }
                Step::SetMode(mode_now) => {
                    bench.breaker.set_mode(bench.now, mode_now);
                    prop_assert_eq!(bench.breaker.mode(), mode_now);
                    if mode != mode_now && [mode, mode_now].contains(&Mode::Disabled) {
                        model.reset(bench.now);
                    } else {
                        prop_assert_eq!(bench.state(), state);
                    }
                }
                Step::Report { .. } | Step::Forget { .. } | Step::Owed { .. } => {}
            }
            let transitions = bench.breaker.take_transitions();
            for transition in &transitions {
                model.follow(transition)?;
            }
            if bench.breaker.mode() == Mode::Disabled {
                prop_assert_eq!(bench.state(), State::Closed);
                prop_assert!(mode != Mode::Disabled || transitions.is_empty(), "disabled never transitions");
            }
            if bench.state() != State::Closed {
                model.run = 0;
            }
            prop_assert_eq!(bench.breaker.consecutive_failures(), model.run);
            prop_assert_eq!(bench.breaker.backoff_level(), model.level);
            prop_assert_eq!(bench.breaker.trips(), model.trips);
            prop_assert!(bench.breaker.probes_in_flight() <= policy.probes as usize);
            let learns = bench.state() == State::Closed && bench.breaker.mode() != Mode::Disabled;
            prop_assert_eq!(bench.breaker.wants_success(), learns && model.wants_success());
            let checked = match policy.checks.when {
                When::Off => false,
                When::WhileOpen => bench.state() != State::Closed,
                When::Always => true,
            };
            let forced = bench.state() == State::Open && model.forced;
            let idle = bench.breaker.mode() == Mode::Disabled || forced;
            prop_assert_eq!(bench.breaker.wants_checks(), checked && !idle);
            let generations = bench.breaker.generation() - generation;
            prop_assert_eq!(generations, transitions.len() as u64, "each change begins a generation");
        }

        // Never wedged: with every client gone for good, time alone leads to a free probe slot, and successes
        // from there close the breaker (unless an operator holds it open).
        drop(open);
        if bench.state() == State::Open && bench.breaker.deadline().is_none() {
            return Ok(());
        }
        let mut patience = 0;
        while bench.state() != State::Closed || bench.breaker.is_slow_starting() {
            patience += 1;
            prop_assert!(patience < 20, "wedged in {:?}", bench.breaker);
            match bench.admit() {
                Ok(ticket) if ticket.is_probe() => {
                    bench.record_taking(Duration::ZERO, ticket, Verdict::Success);
                }
                _ => bench.pass(policy.recovery_timeout_max.max(policy.recovery_timeout)),
            }
        }
    }
}
