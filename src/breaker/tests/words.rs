//! The words that logs, metrics, the API and clients show: people's alarms and dashboards are made of them.

use super::*;

#[test]
fn states_and_modes_go_by_the_words_and_numbers_of_the_documentation() {
    let states = [State::Closed, State::HalfOpen, State::Open];
    assert_eq!(states.map(State::label), ["closed", "half_open", "open"]);
    assert_eq!(states.map(State::gauge), [0, 1, 2]);
    assert_eq!(Mode::ALL.map(Mode::label), ["enforce", "observe", "disabled"]);
}

#[test]
fn every_fault_has_a_label_and_a_sentence() {
    let words = Fault::ALL.map(|fault| (fault.label(), fault.to_string()));
    let expected = [
        ("refused", "connection refused"),
        ("unreachable", "host unreachable"),
        ("dns", "name not resolved"),
        ("connect_timeout", "connect timeout"),
        ("tls", "TLS handshake failed"),
        ("reset", "connection reset"),
        ("eof", "connection closed"),
        ("timeout", "no reply in time"),
        ("malformed", "malformed reply"),
        ("probe_silent", "probe got no reply in time"),
    ];
    assert_eq!(words, expected.map(|(label, sentence)| (label, sentence.to_owned())));
    let cause = Cause::from(Fault::Dns);
    assert_eq!((cause.label(), cause.to_string().as_str()), ("dns", "name not resolved"));
}

#[test]
fn a_reply_is_called_by_the_row_that_it_matched() {
    let code = Code::new("57P03");
    assert_eq!((code.as_str(), code.to_string().as_str()), ("57P03", "57P03"));
    let cause = Cause::from(code);
    assert_eq!((cause.label(), cause.to_string().as_str()), ("57P03", "57P03"));
}

#[test]
fn every_kind_of_call_has_its_word() {
    let kinds = [CallKind::Connect, CallKind::Command, CallKind::Startup, CallKind::Query, CallKind::Check];
    assert_eq!(kinds.map(CallKind::label), ["connect", "command", "startup", "query", "check"]);
}

#[test]
fn the_log_says_after_what_a_state_was_entered() {
    let mut bench = Bench::tripped();
    bench.at(30.0);
    bench.call(Verdict::Success);
    bench.breaker.trip(bench.now, None);
    bench.breaker.reset(bench.now);
    bench.breaker.trip(bench.now, None);
    bench.breaker.set_mode(bench.now, Mode::Disabled);
    let whys: Vec<Why> =
        bench.breaker.take_transitions().into_iter().map(|transition| transition.why).collect();
    let expected = [
        ("consecutive_failures", "3 consecutive failures"),
        ("delay_passed", "its recovery timeout"),
        ("probe_succeeded", "1 successful probe"),
        ("manual", "a manual trip"),
        ("reset", "a manual reset"),
        ("manual", "a manual trip"),
        ("disabled", "it was disabled"),
    ];
    let words: Vec<_> = whys.iter().map(|why| (why.label(), why.to_string())).collect();
    assert_eq!(words, expected.map(|(label, sentence)| (label, sentence.to_owned())));
    assert_eq!(Why::CheckSucceeded.to_string(), "a successful check");
    assert_eq!(Why::ProbesSucceeded(2).to_string(), "2 successful probes");
    let causes: Vec<_> = whys.iter().filter_map(Why::cause).collect();
    assert_eq!(causes, [&Cause::from(Fault::Refused)]);
}

#[test]
fn a_factor_is_read_as_it_was_given() {
    assert_eq!(Factor::from_hundredths(250).map(Factor::hundredths), Some(250));
    assert_eq!(Factor::from_hundredths(99), None);
}
