//! PROTOCOLS.md §3.1: the first packets, the startup as one call, cancel requests.

use super::rig::*;
use crate::breaker::{Fault, State};
use crate::metrics::Counter;
use crate::protocol::postgres::message::STARTUP_ERROR_MAX;
use crate::protocol::{Phase, Session as _, Target, Wait};

#[test]
fn a_client_that_connects_and_closes_never_dials_and_never_counts() {
    let end = run(&[Waits(Wait::Client(HANDSHAKE)), ClientEof]);
    assert_eq!((end.phase, end.verdicts(), end.count(Counter::Admitted)), (Phase::Finish, (0, 0, 0), 0));
}

#[test]
fn a_partial_startup_packet_neither_dials_nor_counts_and_times_out_on_the_client() {
    let packet = startup();
    let end = run(&[Client(packet[..packet.len() - 1].to_vec()), Waits(Wait::Client(HANDSHAKE)), Deadline]);
    assert_eq!((end.phase, end.count(Counter::Admitted)), (Phase::Finish, 0));
    assert!(end.to_client.is_empty() && end.to_server.is_empty());
}

#[test]
fn the_startup_packet_is_forwarded_unchanged_and_the_first_ready_is_one_success() {
    let end = run(&started());
    assert_eq!(end.to_server, startup());
    assert_eq!(end.to_client, greeting());
    assert_eq!((end.phase, end.verdicts()), (Phase::Relay, (1, 0, 0)));
}

#[test]
fn ssl_and_gss_requests_are_declined_once_each_in_any_order() {
    for requests in [vec![ssl_request(), gss_request()], vec![gss_request(), ssl_request()]] {
        let mut steps: Vec<Step> = requests.into_iter().map(Client).collect();
        steps.extend(started());
        let end = run(&steps);
        assert_eq!(end.to_client, [b"NN".to_vec(), greeting()].concat());
        assert_eq!(end.to_server, startup());
    }
}

#[test]
fn asking_twice_for_encryption_breaks_the_protocol() {
    for request in [ssl_request(), gss_request()] {
        let end = run(&[Client(request.clone()), Client(request)]);
        assert_eq!((end.told().as_str(), end.error(b'C').as_str()), ("NE", "08P01"));
        assert_eq!((end.phase, end.count(Counter::ClientMalformed)), (Phase::Finish, 1));
    }
}

#[test]
fn a_tls_handshake_without_asking_is_closed() {
    let end = run(&[Client(vec![0x16, 3, 1, 0, 200, 1])]);
    assert_eq!((end.phase, end.to_client), (Phase::Finish, vec![]));
}

#[test]
fn a_startup_packet_that_is_too_long_or_too_short_breaks_the_protocol_at_its_length() {
    for length in [0u32, 4, 7, 10_005, u32::MAX, u32::from_be_bytes(*b"GET ")] {
        let end = run(&[Client(length.to_be_bytes().to_vec())]);
        assert_eq!((end.told().as_str(), end.error(b'C').as_str()), ("E", "08P01"), "{length}");
        assert_eq!((end.phase, end.count(Counter::ClientMalformed)), (Phase::Finish, 1));
    }
}

#[test]
fn the_longest_startup_packet_is_held_whole_and_forwarded() {
    let value = "x".repeat(10_004 - 8 - "user\0u\0o\0\0\0".len());
    let packet = startup_with(&[("user", "u"), ("o", &value)]);
    assert_eq!(packet.len(), 10_004);
    let mut rig = Rig::new();
    play(&mut rig, &[Client(packet.clone()), Connect], Cut::Bytes(999));
    assert_eq!(rig.to_server, packet);
}

#[test]
fn another_major_version_is_the_servers_to_refuse() {
    let packet = [&8u32.to_be_bytes()[..], &(2u32 << 16).to_be_bytes()].concat();
    let steps = |answer| vec![Client(packet.clone()), Connect, Server(answer), ServerEof(Fault::Eof)];
    let end = run(&steps(error("FATAL", "0A000")));
    assert_eq!(
        (end.to_server.clone(), end.verdicts(), end.phase),
        (packet.clone(), (1, 0, 0), Phase::Finish)
    );
    let old = run(&steps(b"Eunsupported frontend protocol\n\0".to_vec()));
    assert_eq!(
        (old.verdicts(), old.to_client.as_slice()),
        ((0, 0, 1), &b"Eunsupported frontend protocol\n\0"[..])
    );
}

#[test]
fn a_postmaster_that_cannot_fork_answers_without_a_length_and_fails() {
    let text = b"Ecould not fork new process for connection: Cannot allocate memory\n\0".to_vec();
    let end = run(&[Client(startup()), Connect, Server(text.clone()), ServerEof(Fault::Eof)]);
    assert_eq!((end.to_client.clone(), end.verdicts(), end.failed()), (text, (0, 1, 0), vec!["malformed"]));
}

#[test]
fn something_that_is_no_postgres_fails_the_startup() {
    let redis = b"-ERR unknown command\r\n".to_vec();
    let end = run(&[Client(startup()), Connect, Server(redis.clone())]);
    assert_eq!((end.to_client.clone(), end.failed()), (redis, vec!["malformed"]));
    // `H` is a known tag, but no message of it is that long.
    let end = run(&[Client(startup()), Connect, Server(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())]);
    assert_eq!((end.told().as_str(), end.failed(), end.phase), ("E", vec!["malformed"], Phase::Finish));
}

#[test]
fn negotiate_protocol_version_and_long_keys_are_relayed() {
    let long = [9; 32];
    let answer = [m(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]), auth(0), key(1, &long), z('I')].concat();
    let end = run(&[Client(startup()), Connect, Server(answer.clone())]);
    assert_eq!((end.to_client.clone(), end.verdicts(), end.count(Counter::Opaque)), (answer, (1, 0, 0), 0));
}

#[test]
fn an_error_before_or_after_authentication_decides_the_startup() {
    for (code, verdicts) in [
        ("28P01", (1, 0, 0)),
        ("3D000", (1, 0, 0)),
        ("53300", (0, 1, 0)),
        ("57P03", (0, 1, 0)),
        ("57P05", (0, 0, 1)),
    ] {
        for before in [vec![], auth(0)] {
            let answer = [before, error("FATAL", code)].concat();
            let end = run(&[Client(startup()), Connect, Server(answer.clone()), ServerEof(Fault::Eof)]);
            assert_eq!(
                (end.verdicts(), end.to_client.clone(), end.phase),
                (verdicts, answer, Phase::Finish),
                "{code}"
            );
        }
    }
}

#[test]
fn a_connect_fault_is_one_failure_with_a_native_error_that_names_the_cause() {
    let end = run(&[Client(ssl_request()), Client(startup()), Refuse(Some(Fault::Refused))]);
    assert_eq!((end.told().as_str(), end.verdicts(), end.phase), ("NE", (0, 1, 0), Phase::Finish));
    assert_eq!(end.failed(), ["refused"]);
    assert_eq!((end.error(b'V').as_str(), end.error(b'C').as_str()), ("FATAL", "57P03"));
    assert_eq!(end.error(b'M'), "backend 'db' cannot be reached (connection refused)");
    assert_eq!(end.error(b'D'), "connection refused");
    assert!(!end.error(b'H').is_empty());
}

#[test]
fn a_backend_without_a_free_place_is_told_in_its_own_words_and_is_no_verdict() {
    let mut rig = Rig::new();
    play(&mut rig, &[Client(startup())], Cut::Whole);
    rig.session.on_full(rig.now, 7);
    rig.client(b"", true);
    let end = rig.outcome();
    assert_eq!(
        (end.error(b'V').as_str(), end.error(b'C').as_str(), end.phase),
        ("FATAL", "53300", Phase::Finish)
    );
    assert_eq!(end.error(b'M'), "sorry, too many clients already");
    assert_eq!(end.error(b'D'), "fusewire gives backend 'db' no more than 7 connections.");
    assert_eq!(end.verdicts(), (0, 0, 1));
}

#[test]
fn a_probe_that_waits_for_a_place_of_its_own_is_no_silent_backend() {
    for (queued, state) in [(true, State::HalfOpen), (false, State::Open)] {
        let mut rig = Rig::new();
        play(&mut rig, &[HalfOpen, Client(startup())], Cut::Whole);
        rig.session.on_queued(queued);
        rig.now += std::time::Duration::from_secs(3600);
        rig.gate.tick(rig.now);
        assert_eq!(rig.snapshot().state, state);
    }
}

#[test]
fn a_request_for_encryption_of_another_length_is_the_servers_to_refuse() {
    for request in [ssl_request(), gss_request()] {
        let packet = [&12u32.to_be_bytes()[..], &request[4..], b"more"].concat();
        let end = run(&[Client(packet.clone()), Connect]);
        assert_eq!((end.to_server.clone(), end.told().as_str(), end.phase), (packet, "", Phase::Relay));
    }
}

#[test]
fn an_error_of_any_length_that_libpq_takes_for_one_decides_the_startup() {
    for (longer, cause) in [(0, "53300"), (1, "malformed")] {
        let rest = STARTUP_ERROR_MAX + longer - (error_with("FATAL", "53300", "", "x").len() - 5);
        let long = error_with("FATAL", "53300", &"x".repeat(rest), "x");
        assert_eq!(long.len(), 5 + STARTUP_ERROR_MAX + longer);
        let mut rig = Rig::new();
        play(&mut rig, &[Client(startup()), Connect, Server(long.clone())], Cut::Bytes(4096));
        assert_eq!((rig.outcome().failed(), rig.to_client.len()), (vec![cause], long.len()));
    }
}

#[test]
fn keys_of_a_length_that_no_server_uses_are_relayed_and_not_remembered() {
    for len in [0, 7, 261] {
        let mut rig = Rig::new();
        let answer = [auth(0), m(b'K', &vec![1; len]), z('I')].concat();
        play(&mut rig, &[Client(startup()), Connect, Server(answer.clone())], Cut::Bytes(3));
        assert_eq!((rig.to_client.clone(), rig.settings.cancels().len()), (answer, 0), "{len}");
    }
}

#[test]
fn a_fault_of_this_machine_says_nothing_about_the_backend() {
    let end = run(&[Client(startup()), Refuse(None)]);
    assert_eq!((end.verdicts(), end.count(Counter::LocalFaults)), ((0, 0, 1), 1));
    assert_eq!((end.error(b'C').as_str(), end.error(b'V').as_str()), ("53300", "FATAL"));
}

#[test]
fn an_open_breaker_answers_the_handshake_correctly_before_it_refuses() {
    let end = run(&[Trip, Client(gss_request()), Client(ssl_request()), Told("NN"), Client(startup())]);
    assert_eq!((end.told().as_str(), end.phase), ("NNE", Phase::Finish));
    let fields: Vec<String> = b"SVCMDHR".iter().map(|f| end.error(*f)).collect();
    assert_eq!(
        fields,
        [
            "FATAL",
            "FATAL",
            "57P03",
            "backend 'db' is open (a manual trip)",
            "a manual trip",
            "retry after an operator has reset it",
            "fusewire"
        ]
    );
    assert_eq!((end.count(Counter::RejectedOpen), end.count(Counter::Admitted)), (1, 0));
    assert!(end.to_server.is_empty());
}

#[test]
fn a_cancel_request_goes_verbatim_to_the_address_of_its_session_even_when_open() {
    for secret in [vec![1; 4], vec![2; 32], vec![3; 256]] {
        let mut owner = Rig::new();
        let answer = [auth(0), key(77, &secret), z('I')].concat();
        play(&mut owner, &[Client(startup()), Connect, Server(answer), Trip], Cut::Bytes(3));
        let mut rig = Rig::on(owner.gate.clone(), owner.settings.clone(), owner.now);
        let packet = cancel(77, &secret);
        play(&mut rig, &[Client(packet.clone())], Cut::Bytes(5));
        assert_eq!(rig.session.phase(), Phase::Dial(target()));
        play(&mut rig, &[Connect, Client(b"more".to_vec())], Cut::Whole);
        assert_eq!(rig.to_server, packet);
        assert_eq!(rig.session.wait(), Wait::Backend(std::time::Duration::from_secs(5)));
        play(&mut rig, &[ServerEof(Fault::Eof)], Cut::Whole);
        let end = rig.outcome();
        assert_eq!(
            (end.phase, end.count(Counter::Cancels), end.count(Counter::Admitted)),
            (Phase::Finish, 1, 1)
        );
        assert_eq!(end.count(Counter::RejectedOpen), 0);
    }
}

#[test]
fn a_cancel_request_without_a_known_session_goes_to_the_backend_and_never_fails_it() {
    let mut rig = Rig::new();
    play(&mut rig, &[Client(cancel(1, &[1; 4]))], Cut::Whole);
    assert_eq!(rig.session.phase(), Phase::Dial(Target::Aside));
    play(&mut rig, &[Refuse(Some(Fault::Refused))], Cut::Whole);
    let end = rig.outcome();
    assert_eq!((end.phase, end.verdicts(), end.to_client), (Phase::Finish, (0, 0, 0), vec![]));
}

#[test]
fn a_cancel_request_ends_after_its_own_wait() {
    let end = run(&[Client(cancel(1, &[1; 4])), Connect, Deadline]);
    assert_eq!((end.phase, end.verdicts()), (Phase::Finish, (0, 0, 0)));
}

#[test]
fn a_cancel_request_with_a_bad_key_breaks_the_protocol() {
    for key in [vec![], vec![1; 3], vec![1; 257]] {
        let end = run(&[Client(cancel(1, &key))]);
        assert_eq!((end.phase, end.count(Counter::ClientMalformed)), (Phase::Finish, 1));
    }
}

#[test]
fn a_session_that_is_over_is_forgotten_by_the_cancel_registry() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    let cancels = rig.settings.cancels().clone();
    let mut other = Rig::on(rig.gate.clone(), rig.settings.clone(), rig.now);
    let answer = [auth(0), key(8, &[1, 2, 3, 4]), z('I')].concat();
    play(&mut other, &[Client(startup()), Connect, Server(answer)], Cut::Whole);
    assert_eq!((cancels.len(), cancels.is_empty()), (2, false));
    drop((rig, other));
    assert_eq!((cancels.len(), cancels.is_empty()), (0, true));
}

#[test]
fn a_cancel_request_does_not_use_up_a_probe() {
    let end = run(&[HalfOpen, Client(cancel(1, &[1; 4])), Connect, Is(State::HalfOpen)]);
    assert_eq!((end.count(Counter::Probes), end.probes), (0, 0));
}

#[test]
fn each_step_of_authentication_waits_for_the_one_who_owes_it() {
    let (client, backend) = (Waits(Wait::Client(HANDSHAKE)), Waits(Wait::Backend(HANDSHAKE)));
    for kind in [3, 5, 7, 8, 9, 10, 11] {
        let end = run(&[
            Client(startup()),
            Connect,
            backend.clone(),
            Server(auth(kind)),
            client.clone(),
            Client(password()),
            backend.clone(),
            Server(auth(12)),
            backend.clone(),
            Server(auth(0)),
            backend.clone(),
            Server(z('I')),
            Waits(Wait::Nothing),
        ]);
        assert_eq!(end.verdicts(), (1, 0, 0), "{kind}");
    }
}

#[test]
fn a_backend_that_stalls_in_startup_fails_and_a_client_that_stalls_does_not() {
    let backend = run(&[Client(startup()), Connect, Deadline]);
    assert_eq!((backend.failed(), backend.error(b'C').as_str()), (vec!["timeout"], "57P03"));
    assert_eq!(backend.phase, Phase::Finish);
    let client = run(&[Client(startup()), Connect, Server(auth(3)), Deadline]);
    assert_eq!((client.verdicts(), client.phase), ((0, 0, 1), Phase::Finish));
}

#[test]
fn a_backend_that_closes_in_startup_fails() {
    for (fault, label) in [(Fault::Eof, "eof"), (Fault::Reset, "reset")] {
        let end = run(&[Client(startup()), Connect, Server(auth(0)), ServerEof(fault)]);
        assert_eq!((end.failed(), end.told().as_str(), end.phase), (vec![label], "RE", Phase::Finish));
        assert_eq!(end.error(b'C'), "57P03");
    }
}

#[test]
fn a_replication_session_has_no_timeouts_and_streams_opaquely() {
    // The server takes no `o`: it could be the beginning of either word.
    for value in ["true", "database", "1", "on", "o"] {
        let packet = startup_with(&[("user", "u"), ("replication", value)]);
        let end = run(&[
            Client(packet),
            Connect,
            Server(greeting()),
            Client(q("START_REPLICATION 0/0")),
            Waits(Wait::Nothing),
            Server(m(b'W', &[0, 0, 0])),
            Client(copy_data(b"r")),
            Server(copy_data(b"w")),
        ]);
        assert_eq!((end.count(Counter::Opaque), end.told().ends_with("Wd")), (1, true), "{value}");
        assert_eq!(end.verdicts(), (1, 0, 1));
    }
    for value in ["false", "OFF", "no", "0", "f"] {
        let packet = startup_with(&[("user", "u"), ("replication", value)]);
        run(&[
            Client(packet),
            Connect,
            Server(greeting()),
            Client(q("SELECT")),
            Waits(Wait::Backend(RESPONSE)),
        ]);
    }
}

#[test]
fn replication_is_no_probe_and_a_connection_attempt_is() {
    let packet = startup_with(&[("user", "u"), ("replication", "1")]);
    let refused = run(&[HalfOpen, Client(packet)]);
    assert_eq!((refused.told().as_str(), refused.count(Counter::RejectedHalfOpen)), ("E", 1));
    let mut steps = vec![HalfOpen];
    steps.extend(started());
    steps.push(Is(State::Closed));
    assert_eq!(run(&steps).count(Counter::Probes), 1);
}
