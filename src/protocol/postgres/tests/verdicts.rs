//! PROTOCOLS.md §3.5 and §4 as a session lives through them.

use super::rig::*;
use crate::breaker::{Fault, State};
use crate::metrics::Counter;
use crate::protocol::{Phase, Wait};

fn calls(end: &Outcome) -> (u64, u64, u64) {
    let (s, f, i) = end.verdicts();
    (s - 1, f, i)
}

fn answered(answer: Vec<u8>) -> Outcome {
    session(&[Client(q("SELECT 1")), Server(answer)])
}

#[test]
fn the_unlocalised_severity_decides() {
    let xx000 = |severity| calls(&answered(error(severity, "XX000")));
    assert_eq!((xx000("ERROR"), xx000("FATAL"), xx000("PANIC")), ((0, 0, 1), (0, 1, 0), (0, 1, 0)));
}

#[test]
fn the_unlocalised_severity_decides_wherever_it_stands() {
    let answer = m(b'E', b"VERROR\0SFATAL\0CXX000\0Mx\0\0");
    assert_eq!(calls(&answered([answer, z('I')].concat())), (0, 0, 1));
}

#[test]
fn before_9_6_the_localised_severity_must_do() {
    let old = m(b'E', b"SFATAL\0CXX000\0Mx\0\0");
    assert_eq!(calls(&answered(old)), (0, 1, 0));
}

#[test]
fn the_clients_own_mistakes_are_successes() {
    for code in ["23505", "42601", "42P01", "22012", "40001", "40P01", "0A000", "54000", "P0001", "08P01"] {
        let end = answered([error("ERROR", code), z('I')].concat());
        assert_eq!((calls(&end), end.phase), ((1, 0, 0), Phase::Relay), "{code}");
    }
}

#[test]
fn cancels_and_timeouts_of_users_are_ignored() {
    for code in ["57014", "55P03", "25P02", "25006", "08006", "58P01", "XX000", "HV000", "57000"] {
        let end = answered([error("ERROR", code), z('I')].concat());
        assert_eq!(calls(&end), (0, 0, 1), "{code}");
    }
}

#[test]
fn failures_of_the_backend_are_failures_and_the_session_may_go_on() {
    for code in ["53000", "53100", "53200", "53300", "58000", "58030", "XX001", "XX002", "57P03"] {
        let end = session(&[
            Client(q("SELECT 1")),
            Server([error("ERROR", code), z('I')].concat()),
            Client(q("SELECT 1")),
            Server(rows()),
        ]);
        assert_eq!((calls(&end), end.failed(), end.phase), ((1, 1, 0), vec![code], Phase::Relay));
    }
}

#[test]
fn rows_before_the_error_do_not_make_a_success() {
    let end = answered([m(b'T', &[0, 0]), row(), error("ERROR", "53100"), z('I')].concat());
    assert_eq!(calls(&end), (0, 1, 0));
}

#[test]
fn a_code_forged_by_raise_is_a_success() {
    let end = answered([error_with("ERROR", "53300", "mine", "exec_stmt_raise"), z('I')].concat());
    assert_eq!(calls(&end), (1, 0, 0));
    // The routine comes last, behind texts of any length.
    let long = "x".repeat(100_000);
    let mut rig = Rig::new();
    let answer = [error_with("ERROR", "53300", &long, "exec_stmt_raise"), z('I')].concat();
    play(&mut rig, &[started(), vec![Client(q("x")), Server(answer)]].concat(), Cut::Bytes(777));
    assert_eq!(rig.outcome().verdicts(), (2, 0, 0));
}

#[test]
fn what_dblink_and_postgres_fdw_pass_on_says_nothing_of_this_server() {
    for routine in ["dblink_res_error", "pgfdw_report_error", "pgfdw_report_internal"] {
        for code in ["53100", "57P01", "XX001", "08006"] {
            let end = answered([error_with("ERROR", code, "full", routine), z('I')].concat());
            assert_eq!(calls(&end), (0, 0, 1), "{routine} {code}");
        }
        let end = answered([error_with("ERROR", "42P01", "missing", routine), z('I')].concat());
        assert_eq!(calls(&end), (1, 0, 0), "{routine}");
        // Such an error does not end the session; one that does is the server's.
        assert_eq!(answered(error_with("FATAL", "57P01", "bye", routine)).failed(), ["57P01"], "{routine}");
    }
    for routine in ["dblink_res_errors", "dblink_res_erro", "exec_stmt_raise_", "pgfdw"] {
        let end = answered([error_with("ERROR", "53100", "full", routine), z('I')].concat());
        assert_eq!(end.failed(), ["53100"], "{routine}");
    }
}

#[test]
fn an_unknown_fatal_in_flight_is_a_failure_with_a_closed_label() {
    let end = answered(error("FATAL", "ZZ999"));
    assert_eq!((calls(&end), end.failed()), ((0, 1, 0), vec!["FATAL"]));
    let panic = answered(error("PANIC", "23505"));
    assert_eq!(panic.failed(), ["PANIC"]);
}

#[test]
fn pgbouncers_texts_tell_its_errors_apart() {
    let fatal = |text: &str| {
        let answer = error_with("FATAL", "08P01", text, "x");
        run(&[Client(startup()), Connect, Server(answer), ServerEof(Fault::Eof)]).verdicts()
    };
    for text in [
        "no more connections allowed (max_client_conn)",
        "query_wait_timeout",
        "server login has been failing, cached error: connect failed (server_login_retry)",
        "server conn crashed?",
        "server down",
        "server DNS lookup failed",
        "pooler is shutting down",
    ] {
        assert_eq!(fatal(text), (0, 1, 0), "{text}");
    }
    for text in ["no such user", "password authentication failed", "invalid startup packet layout"] {
        assert_eq!(fatal(text), (1, 0, 0), "{text}");
    }
}

#[test]
fn a_fatal_error_is_one_verdict_and_the_close_after_it_none() {
    let end = session(&[
        Client([q("SELECT 1"), q("SELECT 2"), pbes("")].concat()),
        Server(error("FATAL", "57P01")),
        ServerEof(Fault::Eof),
    ]);
    assert_eq!((calls(&end), end.failed()), ((0, 1, 2), vec!["57P01"]));
    assert_eq!((end.told().as_str(), end.phase), ("E", Phase::Finish));
}

#[test]
fn a_dead_connection_is_one_failure_however_many_calls_were_in_flight() {
    for (fault, label) in [(Fault::Eof, "eof"), (Fault::Reset, "reset")] {
        let queries: Vec<u8> = std::iter::repeat_n(q("SELECT 1"), 10).flatten().collect();
        let end = session(&[Client(queries), Server(rows()), ServerEof(fault)]);
        assert_eq!((calls(&end), end.failed()), ((1, 1, 8), vec![label]));
        assert_eq!((end.told().as_str(), end.phase), ("TDCZE", Phase::Finish));
        assert_eq!((end.error(b'C').as_str(), end.error(b'V').as_str()), ("08006", "FATAL"));
        assert_eq!(end.state, State::Closed);
    }
}

#[test]
fn a_death_in_the_middle_of_a_message_can_only_be_closed() {
    let answer = rows();
    let end = session(&[Client(q("SELECT 1")), Server(answer[..13].to_vec()), ServerEof(Fault::Eof)]);
    assert_eq!((calls(&end), end.phase), ((0, 1, 0), Phase::Abort));
    assert_eq!(end.to_client, answer[..13]);
}

#[test]
fn a_crash_announced_by_a_notice_is_the_failure_of_the_call_in_flight() {
    for code in ["57P01", "57P02"] {
        let dying = [Server(notice("WARNING", code)), ServerEof(Fault::Eof)];
        let busy = session(&[&[Client(q("SELECT 1"))][..], &dying].concat());
        assert_eq!((calls(&busy), busy.failed(), busy.phase), ((0, 1, 0), vec![code], Phase::Finish));
        let idle = session(&dying);
        assert_eq!((calls(&idle), idle.told().as_str(), idle.phase), ((0, 0, 0), "N", Phase::Finish));
    }
    // Another notice announces nothing, and one by RAISE is the application's.
    let forged = m(b'N', b"VWARNING\0C57P02\0Mx\0Rexec_stmt_raise\0\0");
    for other in [notice("WARNING", "53100"), notice("FATAL", "58030"), forged] {
        let end = session(&[Client(q("SELECT 1")), Server(other), ServerEof(Fault::Eof)]);
        assert_eq!(end.failed(), ["eof"]);
    }
    // A notice that was not followed by the end meant nothing.
    let end = session(&[
        Client([q("SELECT 1"), q("SELECT 1")].concat()),
        Server([notice("WARNING", "57P02"), rows()].concat()),
        ServerEof(Fault::Eof),
    ]);
    assert_eq!(end.failed(), ["eof"]);
    let end = session(&[
        Client([q("SELECT 1"), q("SELECT 1")].concat()),
        Server([complete("SELECT 0"), notice("WARNING", "57P02"), z('I')].concat()),
        ServerEof(Fault::Eof),
    ]);
    assert_eq!(end.failed(), ["eof"]);
}

#[test]
fn fifty_idle_connections_that_close_do_not_count() {
    let first = Rig::new();
    for dying in [vec![], error("FATAL", "57P01"), error("FATAL", "57P05"), notice("WARNING", "57P02")] {
        for _ in 0..50 {
            let mut rig = Rig::on(first.gate.clone(), first.settings.clone(), first.now);
            play(&mut rig, &started(), Cut::Whole);
            play(&mut rig, &[Server(dying.clone()), ServerEof(Fault::Eof)], Cut::Bytes(4));
            assert_eq!(rig.outcome().phase, Phase::Finish);
            assert!(rig.to_client.ends_with(&dying));
        }
    }
    let snapshot = first.snapshot();
    assert_eq!((snapshot.totals.get(Counter::Failure), snapshot.state), (0, State::Closed));
}

#[test]
fn cancelled_queries_neither_trip_nor_end_the_run_of_failures() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    let query = |answer: &str| [Client(q("x")), Server([error("ERROR", answer), z('I')].concat())];
    for _ in 0..4 {
        play(&mut rig, &query("53200"), Cut::Whole);
        for _ in 0..5 {
            play(&mut rig, &query("57014"), Cut::Whole);
        }
    }
    assert_eq!((rig.snapshot().state, rig.snapshot().consecutive_failures), (State::Closed, 4));
    play(&mut rig, &query("53200"), Cut::Whole);
    assert_eq!(rig.snapshot().state, State::Open);
}

#[test]
fn successes_and_failures_reach_the_breaker_in_the_order_of_the_replies() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    let failure = [error("ERROR", "53200"), z('I')].concat();
    let sent: Vec<u8> = std::iter::repeat_n(q("x"), 5).flatten().collect();
    let answer = [failure.clone(), rows(), failure.clone(), failure, rows()].concat();
    play(&mut rig, &[Client(sent.clone()), Server(answer)], Cut::Whole);
    assert_eq!(rig.snapshot().consecutive_failures, 0);
    let failure = [error("ERROR", "53200"), z('I')].concat();
    let answer = [rows(), rows(), rows(), failure.clone(), failure].concat();
    play(&mut rig, &[Client(sent), Server(answer)], Cut::Whole);
    assert_eq!(rig.snapshot().consecutive_failures, 2);
}

#[test]
fn a_reply_that_does_not_come_is_one_failure_and_the_end_of_both_connections() {
    let end =
        session(&[Client([q("SELECT 1"), q("SELECT 2")].concat()), Waits(Wait::Backend(RESPONSE)), Deadline]);
    assert_eq!((calls(&end), end.failed()), ((0, 1, 1), vec!["timeout"]));
    assert_eq!((end.told().as_str(), end.error(b'C').as_str(), end.phase), ("E", "08006", Phase::Finish));
    let half = session(&[Client(q("SELECT 1")), Server(vec![b'D', 0, 0, 0, 99, 0]), Deadline]);
    assert_eq!((half.failed(), half.phase), (vec!["timeout"], Phase::Abort));
}

#[test]
fn a_late_success_from_before_the_trip_changes_nothing_but_figures() {
    let end = session(&[Client(q("SELECT 1")), Trip, Server(rows()), Is(State::Open)]);
    assert_eq!((calls(&end), end.count(Counter::Stale)), ((1, 0, 0), 1));
}

#[test]
fn rejected_replies_behind_a_dead_connection_are_replaced_by_its_error() {
    let end = session(&[Client(q("SELECT 1")), Trip, Client(q("SELECT 2")), ServerEof(Fault::Eof)]);
    assert_eq!((end.told().as_str(), end.error(b'C').as_str(), end.phase), ("E", "08006", Phase::Finish));
}
