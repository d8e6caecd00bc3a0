//! PROTOCOLS.md §3.1 and §3.2: TLS with fusewire, TLS with the server itself, and channel binding.

use super::rig::*;
use crate::breaker::{Fault, Policy, State};
use crate::config::tls::{Downstream, Identity, Upstream};
use crate::config::{Overrides, Tls};
use crate::gate::Gate;
use crate::metrics::Counter;
use crate::protocol::postgres::encryption::Answer;
use crate::protocol::{Phase, Session as _, Target, Wait};

const HELLO: &[u8] = &[0x16, 3, 1, 0, 2, 1, 2];

fn rig(tls: &Tls) -> Rig {
    let mut rig = Rig::new();
    let settings = settings_with(Overrides::default(), tls);
    rig = Rig::on(rig.gate.clone(), settings, rig.now);
    rig
}

fn offered(required: bool) -> Tls {
    let identity = Identity { cert: "cert".into(), key: "key".into() };
    Tls { downstream: Some(Downstream { identity, client_ca: None }), required, upstream: Upstream::Plain }
}

fn passthrough(required: bool) -> Tls {
    Tls { downstream: None, required, upstream: Upstream::Passthrough }
}

fn secured(tls: &Tls) -> Rig {
    let mut rig = rig(tls);
    rig.client(&ssl_request(), true);
    rig.session.on_secured(rig.now, None);
    rig
}

#[test]
fn tls_is_granted_and_the_startup_comes_within() {
    let mut rig = rig(&offered(true));
    rig.client(&ssl_request(), true);
    assert_eq!((rig.to_client.as_slice(), rig.session.phase()), (&b"S"[..], Phase::Secure));
    rig.session.on_secured(rig.now, None);
    assert_eq!(rig.session.phase(), Phase::Idle);
    rig.client(&startup(), true);
    assert_eq!(rig.session.phase(), Phase::Dial(Target::Backend));
    rig.step(&Connect);
    rig.server(&greeting());
    assert_eq!((rig.to_server, rig.to_client), (startup(), [b"S".to_vec(), greeting()].concat()));
}

#[test]
fn bytes_behind_the_request_for_tls_end_the_connection_unanswered() {
    let mut rig = rig(&offered(false));
    rig.client(&[ssl_request(), startup()].concat(), true);
    assert_eq!((rig.to_client.as_slice(), rig.session.phase()), (&b""[..], Phase::Finish));
    assert_eq!(rig.outcome().count(Counter::ClientMalformed), 1);
    assert_eq!(rig.outcome().count(Counter::Admitted), 0);
}

#[test]
fn gss_is_declined_before_tls_and_nothing_is_encrypted_twice() {
    let mut rig = rig(&offered(false));
    rig.client(&gss_request(), true);
    rig.client(&ssl_request(), true);
    assert_eq!(rig.to_client, b"NS");
    rig.session.on_secured(rig.now, None);
    for request in [ssl_request(), gss_request(), HELLO.to_vec()] {
        let mut rig = secured(&offered(false));
        rig.client(&request, true);
        assert_eq!(rig.session.phase(), Phase::Finish, "{request:?}");
        assert_eq!(rig.outcome().count(Counter::ClientMalformed), 1);
    }
}

#[test]
fn direct_tls_needs_the_protocols_name_in_the_handshake() {
    for (alpn, phase) in
        [(Some(&b"postgresql"[..]), Phase::Idle), (Some(&b"h2"[..]), Phase::Finish), (None, Phase::Finish)]
    {
        let mut rig = rig(&offered(true));
        rig.client(&HELLO[..1], true);
        assert_eq!((rig.session.phase(), rig.to_client.len()), (Phase::Secure, 0));
        rig.session.on_secured(rig.now, alpn);
        assert_eq!(rig.session.phase(), phase, "{alpn:?}");
    }
    // Whoever has asked before cannot begin without asking.
    for tls in [offered(false), passthrough(false)] {
        for hello in [HELLO, &HELLO[..1]] {
            let mut late = rig(&tls);
            late.client(&[&gss_request(), hello].concat(), true);
            assert_eq!(late.session.phase(), Phase::Finish);
            let mut later = rig(&tls);
            later.client(&gss_request(), true);
            later.client(hello, true);
            assert_eq!((later.session.phase(), later.to_client.as_slice()), (Phase::Finish, &b"N"[..]));
        }
    }
}

#[test]
fn a_server_says_in_one_byte_whether_it_is_willing() {
    assert_eq!(
        [b'S', b'N', b'E', 0].map(Answer::of),
        [Answer::Willing, Answer::Unwilling, Answer::Error, Answer::Error]
    );
}

#[test]
fn plain_clients_are_refused_natively_where_tls_is_required_but_may_cancel() {
    let mut rig = rig(&offered(true));
    rig.client(&startup(), true);
    let end = rig.outcome();
    assert_eq!((end.told().as_str(), end.error(b'C').as_str()), ("E", "28000"));
    assert_eq!((end.phase, end.count(Counter::Admitted)), (Phase::Finish, 0));
    let mut rig = self::rig(&offered(true));
    rig.client(&cancel(1, &[1, 2, 3, 4]), true);
    assert_eq!(rig.session.phase(), Phase::Dial(Target::Aside));
}

#[test]
fn a_refusal_while_open_is_said_within_tls() {
    let mut rig = secured(&offered(false));
    rig.gate.trip(rig.now, None);
    rig.to_client.clear();
    rig.client(&startup(), true);
    let end = rig.outcome();
    assert_eq!((end.told().as_str(), end.error(b'C').as_str()), ("E", "57P03"));
    assert_eq!(end.phase, Phase::Finish);
}

fn sasl(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect();
    m(b'R', &[&[0, 0, 0, 10], &list[..], &[0]].concat())
}

#[test]
fn channel_binding_is_hidden_only_from_a_plain_client_of_an_encrypted_server() {
    let both = sasl(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    let hidden = sasl(&["SCRAM-SHA-256"]);
    for (client, server, expected) in
        [(false, false, &both), (true, false, &both), (true, true, &both), (false, true, &hidden)]
    {
        for cut in 0..both.len() {
            let mut rig = if client { secured(&offered(false)) } else { self::rig(&offered(false)) };
            rig.client(&startup(), true);
            if server {
                rig.session.on_upstream_secured();
            }
            rig.step(&Connect);
            rig.to_client.clear();
            rig.server(&both[..cut]);
            rig.server(&both[cut..]);
            assert_eq!(&rig.to_client, expected, "{client} {server} {cut}, at its last byte");
            rig.server(&z('I')[..1]);
            assert_eq!(&rig.to_client, expected, "{client} {server} {cut}");
            // A question has been asked, so the client's move it is.
            assert_eq!(rig.session.wait(), Wait::Client(HANDSHAKE));
        }
    }
}

#[test]
fn passthrough_forwards_the_request_and_the_first_answer_is_the_success() {
    for first in [ssl_request(), HELLO.to_vec()] {
        let mut rig = rig(&passthrough(true));
        rig.client(&first[..first.len() - 1], true);
        assert_eq!((rig.session.phase(), rig.session.wait()), (Phase::Idle, Wait::Client(HANDSHAKE)));
        rig.client(&first[first.len() - 1..], true);
        assert_eq!(rig.session.phase(), Phase::Dial(Target::Backend));
        rig.step(&Connect);
        rig.client(b"", true);
        assert_eq!((&rig.to_server, rig.session.wait()), (&first, Wait::Backend(HANDSHAKE)));
        rig.server(b"S");
        rig.server(&[0x16, 3, 3]);
        rig.client(&[0x17, 3, 3], true);
        assert_eq!(rig.to_client, [b'S', 0x16, 3, 3]);
        assert_eq!(rig.to_server, [&first[..], &[0x17, 3, 3]].concat());
        assert_eq!((rig.outcome().verdicts(), rig.session.wait()), ((1, 0, 0), Wait::Nothing));
    }
}

#[test]
fn passthrough_to_a_server_that_does_not_answer_is_a_failure() {
    for (step, cause) in [(ServerEof(Fault::Eof), "eof"), (Deadline, "timeout")] {
        let mut rig = rig(&passthrough(false));
        rig.client(&ssl_request(), true);
        rig.step(&Connect);
        rig.step(&step);
        assert_eq!((rig.outcome().failed(), rig.session.phase()), (vec![cause], Phase::Finish));
    }
    let mut rig = rig(&passthrough(false));
    rig.client(&ssl_request(), true);
    rig.step(&Connect);
    rig.step(&ClientEof);
    rig.step(&ServerEof(Fault::Eof));
    assert_eq!((rig.outcome().failed(), rig.session.phase()), (vec![], Phase::Finish));
}

#[test]
fn passthrough_is_closed_without_a_word_while_open() {
    let now = std::time::Instant::now();
    let gate = Gate::new("db", Policy::default(), 1, now);
    gate.trip(now, None);
    let settings = settings_with(Overrides::default(), &passthrough(false));
    let mut rig = Rig::on(gate, settings, now);
    rig.client(&ssl_request(), true);
    assert_eq!((rig.session.phase(), rig.to_client.len()), (Phase::Finish, 0));
    assert_eq!((rig.snapshot().state, rig.outcome().count(Counter::RejectedOpen)), (State::Open, 1));
}
