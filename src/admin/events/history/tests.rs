use std::time::Duration;

use super::*;
use crate::breaker::{CallKind, Fault, Policy, Verdict};
use crate::clock::Clock;
use crate::gate::Gate;

/// A gate, a history that has seen it once, and a way to the seconds after.
struct Watched {
    gate: Arc<Gate>,
    history: History,
    start: Moment,
}

impl Watched {
    fn new() -> Self {
        let start = Clock::new().read();
        let gate = Gate::new("cache", Policy::default(), 1, start.now);
        let mut watched = Self { gate, history: History::default(), start };
        watched.sample(0);
        watched
    }

    fn at(&self, seconds: u64) -> Moment {
        let mut moment = self.start;
        moment.now += Duration::from_secs(seconds);
        moment
    }

    fn sample(&mut self, seconds: u64) {
        let moment = self.at(seconds);
        self.history.add(&self.gate.snapshot(moment.now), &moment);
    }

    fn call(&self, seconds: u64, duration: Duration, verdict: Verdict) {
        let at = self.at(seconds).now;
        self.gate.lane(1).admit(at, CallKind::Command).unwrap().record(at + duration, verdict);
    }

    fn samples(&self) -> &VecDeque<Sample> {
        &self.history.backends["cache"].samples
    }
}

#[test]
fn a_sample_says_what_happened_since_the_one_before() {
    let mut watched = Watched::new();
    (0..10).for_each(|_| watched.call(0, Duration::from_micros(75), Verdict::Success));
    watched.sample(1);
    watched.call(1, Duration::from_millis(40), Verdict::Failure(Fault::Timeout.into()));
    (0..3).for_each(|_| watched.call(1, Duration::from_millis(40), Verdict::Success));
    watched.sample(3);
    watched.sample(4);
    let [first, second, idle] = [0, 1, 2].map(|index| watched.samples()[index].clone());
    assert_eq!((first.calls, first.failures), (10.0, 0.0));
    assert_eq!((second.calls, second.failures), (2.0, 0.5), "per second, over two of them");
    assert!(second.p50_ms.unwrap() > 25.0, "the fast calls of the second before are not in it: {second:?}");
    assert_eq!((idle.calls, idle.p50_ms), (0.0, None));
}

#[test]
fn only_the_last_minutes_are_kept() {
    let mut watched = Watched::new();
    (1..=SAMPLES_MAX as u64 + 50).for_each(|second| watched.sample(second));
    assert_eq!(watched.samples().len(), SAMPLES_MAX);
    let last = watched.at(SAMPLES_MAX as u64 + 50);
    assert_eq!(watched.samples().back().unwrap().at, last.unix_seconds(last.now));
}

#[test]
fn a_state_is_entered_once_and_only_the_last_are_kept() {
    let mut watched = Watched::new();
    for second in 1..=STATES_MAX as u64 {
        let moment = watched.at(second);
        watched.gate.trip(moment.now, None);
        assert_eq!(watched.history.enter(&watched.gate.snapshot(moment.now), &moment), Some("closed"));
        assert_eq!(watched.history.enter(&watched.gate.snapshot(moment.now), &moment), None);
        watched.gate.reset(moment.now);
        assert_eq!(watched.history.enter(&watched.gate.snapshot(moment.now), &moment), Some("open"));
    }
    assert_eq!(watched.history.backends["cache"].states.len(), STATES_MAX);
}
