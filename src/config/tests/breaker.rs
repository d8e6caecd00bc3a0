//! The policy of a breaker.

use std::time::Duration;

use super::*;
use crate::breaker::{Factor, Mode, Rates, Share, Span};

#[test]
fn a_breaker_can_be_given_every_policy() {
    let spec = "upstream=h:1,mode=observe,failure-threshold=off,failure-rate=50%,slow-call-rate=0.333333,\
                slow-call-duration=250ms,window=10s,min-calls=7,recovery-timeout=1s,recovery-backoff=1.5,\
                recovery-timeout-max=1m,recovery-jitter=12.5%,slow-start=30s";
    let seconds = Duration::from_secs;
    let expected = Policy {
        mode: Mode::Observe,
        failure_threshold: None,
        rates: Rates {
            window: Span::Time(seconds(10)),
            min_calls: 7,
            failure_rate: Share::from_millionths(500_000),
            slow_call_rate: Share::from_millionths(333_333),
            slow_call_duration: Duration::from_millis(250),
        },
        recovery_timeout: seconds(1),
        recovery_backoff: Factor::from_hundredths(150).unwrap(),
        recovery_timeout_max: seconds(60),
        recovery_jitter: Share::from_millionths(125_000).unwrap(),
        slow_start: Some(seconds(30)),
        ..Policy::default()
    };
    assert_eq!(loaded(&["--redis", spec]).backends[0].breaker, expected);
    let file = "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\n[backend.breaker]\nmode = 'observe'\n\
                failure_threshold = 'off'\nfailure_rate = 0.5\nslow_call_rate = '33.3333%'\n\
                slow_call_duration = '250ms'\nwindow = '10s'\nmin_calls = 7\nrecovery_timeout = '1s'\n\
                recovery_backoff = 1.50\nrecovery_timeout_max = '1m'\nrecovery_jitter = 0.125\n\
                slow_start = '30s'";
    let from_file = load_from(&[], &[], Some(file)).unwrap();
    assert_eq!(from_file.config.backends[0].breaker, expected);
    assert_eq!(from_file.warnings, [""; 0]);
}

#[test]
fn a_rate_alone_takes_the_default_window() {
    let config = loaded(&["--redis", "upstream=h:1,failure-rate=1,recovery-backoff=10"]);
    let breaker = &config.backends[0].breaker;
    assert_eq!((breaker.rates.window, breaker.rates.min_calls), (Span::Calls(100), 20));
    assert_eq!(breaker.rates.failure_rate, Share::from_millionths(Share::WHOLE));
    assert_eq!(breaker.failure_threshold, Some(5));
    let config = loaded(&["--redis", "upstream=h:1,window=1call", "--failure-rate", "100%"]);
    assert_eq!(config.backends[0].breaker.rates.window, Span::Calls(1));
}

#[test]
fn the_longest_recovery_timeout_follows_a_longer_recovery_timeout_unless_it_was_given() {
    let config = loaded(&["--redis", "upstream=h:1,recovery-timeout=10m"]);
    assert_eq!(config.backends[0].breaker.recovery_timeout_max, Duration::from_secs(600));
}

#[test]
fn settings_of_a_rate_that_is_off_are_warned_of() {
    let warnings = |args: &[&str]| load_from(args, &[], None).unwrap().warnings;
    assert_eq!(
        warnings(&["--redis", "upstream=h:1,window=10s,min-calls=3,slow-call-duration=1s"]),
        [
            "backend 'redis': window has no effect without failure_rate or slow_call_rate",
            "backend 'redis': min_calls has no effect without failure_rate or slow_call_rate",
            "backend 'redis': slow_call_duration has no effect without slow_call_rate",
        ]
    );
    assert_eq!(
        warnings(&["--redis", "upstream=h:1,failure-threshold=off"]),
        ["backend 'redis': every trip condition is off"]
    );
    assert_eq!(warnings(&["--redis", "upstream=h:1,window=10s,failure-rate=50%"]), [""; 0]);
    assert_eq!(warnings(&["--redis", "upstream=h:1,failure-threshold=off,mode=disabled"]), [""; 0]);
}
