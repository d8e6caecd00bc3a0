//! The line that each change of state writes.

use std::io;

use super::*;

/// What `body` logs.
fn logged(body: impl FnOnce()) -> String {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(Mutex::new(writer))
        .finish();
    tracing::subscriber::with_default(subscriber, body);
    io::read_to_string(&mut reader).expect("text")
}

#[test]
fn each_change_is_one_line_and_an_opening_is_a_warning() {
    let text = logged(|| {
        let (gate, lane, now) = gate(Policy::default());
        trip(&lane, now);
        gate.reset(now);
        gate.trip(now, None);
    });
    let expected = [
        " WARN Circuit breaker 'cache' transitioned from CLOSED to OPEN after 5 consecutive failures \
         backend=\"cache\" from=\"closed\" to=\"open\" mode=\"enforce\" reason=\"consecutive_failures\" \
         last_error=connection refused retry_after=\"30s\"",
        " INFO Circuit breaker 'cache' transitioned from OPEN to CLOSED after a manual reset \
         backend=\"cache\" from=\"open\" to=\"closed\" mode=\"enforce\" reason=\"reset\"",
        " WARN Circuit breaker 'cache' transitioned from CLOSED to OPEN after a manual trip \
         backend=\"cache\" from=\"closed\" to=\"open\" mode=\"enforce\" reason=\"manual\" retry_after=\"reset\"",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_change_while_observing_says_that_nothing_is_rejected() {
    let text = logged(|| {
        let (gate, _, now) = gate(Policy { mode: Mode::Observe, ..Policy::default() });
        gate.trip(now, None);
    });
    let words = "transitioned from CLOSED to OPEN after a manual trip (observing: nothing is rejected)";
    assert!(text.contains(words), "{text}");
}
