//! The machine under random interleavings, beside a model that recomputes everything from a plain list of calls.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Admit,
    AdmitIneligible,
    Report { pick: prop::sample::Index, verdict: Verdict, slow: bool, n: u64 },
    Forget { pick: prop::sample::Index },
    Owed { pick: prop::sample::Index, owed: bool },
    Pass(Duration),
    Reset,
    Trip(Option<Duration>),
    SetMode(Mode),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let verdict = prop_oneof![
        3 => Just(Verdict::Failure(Fault::Refused.into())),
        3 => Just(Verdict::Success),
        1 => Just(Verdict::Ignored),
    ];
    let report = (index(), verdict, prop::bool::weighted(0.3), prop_oneof![4 => Just(1_u64), 1 => 2_u64..6]);
    let mode = prop_oneof![2 => Just(Mode::Enforce), 2 => Just(Mode::Observe), 1 => Just(Mode::Disabled)];
    let step = prop_oneof![
        80 => Just(Step::Admit),
        10 => Just(Step::AdmitIneligible),
        80 => report.prop_map(|(pick, verdict, slow, n)| Step::Report { pick, verdict, slow, n }),
        10 => index().prop_map(|pick| Step::Forget { pick }),
        10 => (index(), any::<bool>()).prop_map(|(pick, owed)| Step::Owed { pick, owed }),
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
    (rates, counts, recovery, slow_start).prop_map(|(rates, counts, recovery, slow_start)| Policy {
        rates,
        failure_threshold: counts.0,
        success_threshold: counts.1,
        probes: counts.2,
        recovery_timeout: 30 * SECOND,
        recovery_backoff: Factor::from_hundredths(recovery.0).unwrap(),
        recovery_timeout_max: Duration::from_secs(recovery.1),
        recovery_jitter: percent(recovery.2),
        slow_start,
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

/// Everything that a closed breaker may know, as a list.
struct Model {
    policy: Policy,
    began: Instant,
    calls: Vec<(Instant, bool, bool)>,
    run: u32,
    level: u32,
    closed_since: Instant,
}

impl Model {
    fn forget(&mut self, now: Instant) {
        (self.began, self.run) = (now, 0);
        self.calls.clear();
    }

    /// The condition that a call at `now` fulfils.
    fn take(&mut self, now: Instant, failed: bool, slow: bool) -> Option<Condition> {
        let rates = &self.policy.rates;
        let slow = slow && rates.slow_call_rate.is_some();
        self.calls.push((now, failed, slow));
        self.run = if failed { self.run + 1 } else { 0 };
        if self.policy.failure_threshold.is_some_and(|threshold| self.run >= threshold) {
            return Some(Condition::ConsecutiveFailures(self.run));
        }
        let (inside, least): (Vec<_>, u32) = match rates.window {
            Span::Calls(n) => (self.calls.iter().rev().take(n as usize).collect(), rates.min_calls.min(n)),
            Span::Time(length) => {
                let slice = |at: Instant| (at - self.began).as_nanos() / (length / 10).as_nanos();
                let inside = self.calls.iter().filter(|call| slice(call.0) + 10 > slice(now)).collect();
                (inside, rates.min_calls)
            }
        };
        let calls = u32::try_from(inside.len()).unwrap();
        let failed = u32::try_from(inside.iter().filter(|call| call.1).count()).unwrap();
        let slow = u32::try_from(inside.iter().filter(|call| call.2).count()).unwrap();
        let reached = |rate: Option<Share>, part: u32| {
            rate.is_some_and(|rate| {
                f64::from(part) / f64::from(calls) >= f64::from(rate.millionths()) / 1e6 - 1e-9
            })
        };
        if calls < least {
            None
        } else if reached(rates.failure_rate, failed) {
            Some(Condition::FailureRate { failed, calls })
        } else {
            reached(rates.slow_call_rate, slow).then_some(Condition::SlowCallRate { slow, calls })
        }
    }

    /// The shortest and the longest delay of a trip, by PEERS' formulas; moves the level on.
    fn delay(&mut self) -> (f64, f64) {
        let policy = &self.policy;
        let max = policy.recovery_timeout_max.as_secs_f64();
        let factor = if policy.recovery_backoff.of(SECOND) > SECOND {
            policy.recovery_backoff.of(SECOND).as_secs_f64()
        } else {
            1.0
        };
        let grown = policy.recovery_timeout.as_secs_f64() * factor.powi(self.level as i32);
        let base = grown.min(max);
        if factor > 1.0 && grown < max {
            self.level += 1;
        }
        let jitter = f64::from(policy.recovery_jitter.millionths()) / 1e6;
        (base, (base + base * jitter).min(max))
    }

    fn follow(&mut self, transition: &Transition) -> Result<(), TestCaseError> {
        if transition.from == State::Closed {
            let healthy = (transition.at - self.closed_since).as_nanos();
            let steps = healthy / self.policy.recovery_timeout.as_nanos();
            self.level = self.level.saturating_sub(u32::try_from(steps).unwrap());
        }
        match &transition.why {
            Why::Tripped(trip) if trip.condition != Condition::Manual => {
                let (least, most) = self.delay();
                let delay = transition.retry_after.unwrap().as_secs_f64();
                prop_assert!(
                    (least - 1e-6..=most + 1e-6).contains(&delay),
                    "{delay} not in {least}..={most}"
                );
            }
            Why::Reset | Why::Disabled => self.level = 0,
            _ => {}
        }
        if transition.to == State::Closed {
            self.closed_since = transition.at;
            self.forget(transition.at);
        }
        prop_assert_eq!(transition.to == State::Open, transition.why.label() == self.label_of(transition));
        Ok(())
    }

    fn label_of(&self, transition: &Transition) -> &'static str {
        if let Why::Tripped(trip) = &transition.why { trip.condition.label() } else { "" }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn holds_its_invariants_under_any_interleaving(steps in steps(), policy in policies(), seed in any::<u64>()) {
        let now = Instant::now();
        let mut bench = Bench { breaker: Breaker::new(policy.clone(), seed, now), now, began: now };
        let mut model =
            Model { policy: policy.clone(), began: now, calls: Vec::new(), run: 0, level: 0, closed_since: now };
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
                    let in_time = bench.breaker.record_batch(ticket, outcome, n);
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
                        prop_assert_eq!(bench.state() == State::Open, expected.is_some());
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
                Step::Pass(time) => bench.pass(time),
                Step::Reset => {
                    bench.breaker.reset(bench.now);
                    prop_assert_eq!((bench.state(), bench.breaker.mode()), (State::Closed, mode));
                    model.forget(bench.now);
                    model.level = 0;
                }
                Step::Trip(hold) => {
                    bench.breaker.trip(bench.now, hold);
                    prop_assert_eq!(bench.state() == State::Open, mode != Mode::Disabled);
                }
                Step::SetMode(mode_now) => {
                    bench.breaker.set_mode(bench.now, mode_now);
                    prop_assert_eq!(bench.breaker.mode(), mode_now);
                    if mode != mode_now && [mode, mode_now].contains(&Mode::Disabled) {
                        model.forget(bench.now);
                        model.level = 0;
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
            prop_assert!(bench.breaker.probes_in_flight() <= policy.probes as usize);
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
