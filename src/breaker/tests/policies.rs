//! Every policy second by second: scripted outcomes in, the state at the end of each second out.
//!
//! A word of a script is a second, a letter of it a call, evenly spaced: `s` and `f` succeed and fail at once, `S` and `F`
//! after two seconds, `-` is no call. Of the answer `C`, `O` and `H` are the states, `c` is closed in a slow start.

use super::*;

fn timeline(policy: Policy, script: &str) -> String {
    let mut bench = Bench::new(policy);
    let mut states = String::new();
    for (second, word) in script.split_whitespace().enumerate() {
        for (i, letter) in word.chars().enumerate() {
            bench.at(second as f64 + i as f64 / word.len() as f64);
            let verdict = match letter {
                's' | 'S' => Verdict::Success,
                'f' | 'F' => refused(),
                _ => continue,
            };
            let duration = if letter.is_uppercase() { 2 * SECOND } else { Duration::ZERO };
            if let Ok(ticket) = bench.admit() {
                bench.record_taking(duration, ticket, verdict);
            }
        }
        bench.at(second as f64 + 0.999);
        states.push(match bench.state() {
            State::Closed if bench.breaker.is_slow_starting() => 'c',
            State::Closed => 'C',
            State::HalfOpen => 'H',
            State::Open => 'O',
        });
    }
    states
}

/// Open for two seconds.
fn brief() -> Policy {
    Policy { recovery_timeout: 2 * SECOND, ..Policy::default() }
}

fn rate(window: Span, min_calls: u32) -> Policy {
    let rates = Rates { window, min_calls, failure_rate: Some(percent(50)), ..Rates::default() };
    Policy { failure_threshold: None, rates, ..brief() }
}

#[test]
fn consecutive_failures() {
    let policy = || Policy { failure_threshold: Some(3), ..brief() };
    // The third failure in a row at 2.0; a probe at 4.0.
    assert_eq!(timeline(policy(), "ss ff fs ss ss ss"), "CCOOCC");
    // One success in three keeps it closed for ever: half of the calls fail and it does not see it.
    assert_eq!(timeline(policy(), "ff sf fs ff sf fs"), "CCCCCC");
    // Down for good: tried at 4.0, 6.0 and 8.0.
    assert_eq!(timeline(policy(), "ss ff ff ff ff ff ff ff ff"), "CCOOOOOOO");
    // Nobody calls: half-open by time alone, and then for as long as nobody does.
    assert_eq!(timeline(policy(), "ss ff f- - - - - ss"), "CCOOHHHC");
}

#[test]
fn failure_rate_over_the_last_calls() {
    let policy = || rate(Span::Calls(10), 4);
    // 2 of 4 at 1.5: the minimum is reached and so is the rate.
    assert_eq!(timeline(policy(), "ss ff ss ss ss"), "COOCC");
    // 4 of 10, over and over.
    assert_eq!(timeline(policy(), "sssss sffff sssss sffff sssss"), "CCCCC");
    // 5 of 10 with the last call of second 1.
    assert_eq!(timeline(policy(), "sssss fffff sssss sssss sssss"), "COOCC");
}

#[test]
fn failure_rate_over_the_last_while() {
    let policy = || rate(Span::Time(10 * SECOND), 8);
    // 1 of 2 in each second: 8 calls and half of them failed with the last call of second 3.
    assert_eq!(timeline(policy(), "sf sf sf sf ss ss ss"), "CCCOOCC");
    // The failures of second 0 have left when those of second 10 come: 3 of 13.
    let quiet = "fff ss ss ss ss ss - - - - fff ss";
    assert_eq!(timeline(policy(), quiet), "CCCCCCCCCCCC");
    // Too few calls for a decision: one a second, all failing, and the eighth decides.
    assert_eq!(timeline(policy(), "f f f f f f f f f f"), "CCCCCCCOOO");
}

#[test]
fn slow_call_rate() {
    let rates =
        Rates { failure_rate: None, slow_call_rate: Some(percent(80)), ..rate(Span::Calls(10), 5).rates };
    let policy = || Policy { failure_threshold: None, rates: rates.clone(), ..brief() };
    // All slow: the fifth decides, and a slow probe opens it again.
    assert_eq!(timeline(policy(), "SS SS SS SS SS ss ss ss"), "CCOOOOCC");
    // A success is no proof of health, and a quick failure none of slowness.
    assert_eq!(timeline(policy(), "fffff fffff fffff"), "CCC");
    // 3 of 5 is less than 80 %.
    assert_eq!(timeline(policy(), "SSSss SSSss SSSss"), "CCC");
}

#[test]
fn all_of_them() {
    let rates = Rates { slow_call_rate: Some(percent(80)), ..rate(Span::Calls(10), 6).rates };
    let policy = || Policy { failure_threshold: Some(4), rates: rates.clone(), ..brief() };
    // Whichever is first: the run at 1.0 ...
    assert_eq!(timeline(policy(), "sfff fsss ssss ssss"), "COOC");
    // ... half of six at 2.5 ...
    assert_eq!(timeline(policy(), "fs fs fs fs fs"), "CCOOC");
    // ... or slowness.
    assert_eq!(timeline(policy(), "SS SS SS SS SS ss"), "CCOOOO");
}

#[test]
fn growing_recovery_timeout() {
    let policy = Policy {
        failure_threshold: Some(1),
        recovery_backoff: Factor::from_hundredths(200).unwrap(),
        recovery_timeout_max: 8 * SECOND,
        ..brief()
    };
    // Tried at 2, 6, 14 and 22: after 2, 4, 8 and 8 seconds. Closed at 30, and tripped at once: 8 seconds again.
    let script = ["f"; 30].join(" ") + " s f - - - - - - - - s";
    let expected = "O".repeat(30) + "C" + &"O".repeat(8) + "HC";
    assert_eq!(timeline(policy, &script), expected);
}

#[test]
fn several_probes_and_a_slow_start() {
    let policy =
        Policy { failure_threshold: Some(2), success_threshold: 3, slow_start: Some(3 * SECOND), ..brief() };
    // Half-open at 2.5; one probe a second, three of them, then a slow start of three seconds.
    assert_eq!(timeline(policy, "ff - s s s s - - - -"), "OOHHHcccCC");
}
