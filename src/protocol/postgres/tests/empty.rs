//! Empty queries that are answered while others are refused.

use super::rig::*;
use crate::breaker::{Mode, State};
use crate::metrics::Counter;
use crate::protocol::HOLD_MAX;

fn answering(steps: &[Step]) -> Outcome {
    session_on(Rig::answering, steps)
}

fn run_of(name: &str) -> Vec<u8> {
    [bind(name), execute(), sync()].concat()
}

#[test]
fn without_the_setting_an_empty_query_is_refused_like_any_other() {
    let end = session(&[Trip, Client([q(""), parse("", ""), run_of("")].concat())]);
    assert_eq!((end.told().as_str(), end.sent().as_str(), end.count(Counter::RejectedOpen)), ("EZEZ", "", 2));
}

#[test]
fn empty_queries_are_answered_while_others_are_refused() {
    for text in ["", " ", ";", " ; ;\n", "-- ping", "/* a /* b */ ; SET */ ;", "--\n;--", "/**/"] {
        let end = answering(&[Trip, Client([q(text), q("SELECT 1"), q(text)].concat())]);
        assert_eq!((end.told().as_str(), end.sent().as_str()), ("IZEZIZ", ""), "{text}");
        assert_eq!((end.count(Counter::RejectedOpen), end.verdicts()), (1, (1, 0, 0)), "{text}");
    }
    for text in ["SELECT 1", "(", "1", ";;x", "-- a\nx", "/* a", "/* a /* */ x */ y", "'", "$$$$", "/", "-"] {
        let end = answering(&[Trip, Client(q(text))]);
        assert_eq!((end.told().as_str(), end.count(Counter::RejectedOpen)), ("EZ", 1), "{text}");
    }
}

#[test]
fn while_the_breaker_is_closed_they_go_to_the_server() {
    let end = answering(&[Client([q(""), parse("", ""), run_of("")].concat())]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("QPBES", ""));
}

#[test]
fn an_empty_run_is_answered_message_by_message() {
    let portal = m(b'D', b"P\0");
    let unnamed = [parse("", ";"), bind(""), portal.clone(), execute(), sync()].concat();
    assert_eq!(answering(&[Trip, Client(unnamed)]).told(), "12nIZ");
    let described = [parse("", ""), describe(""), bind(""), execute(), sync()].concat();
    let end = answering(&[Trip, Client(described.repeat(3))]);
    assert_eq!((end.told().as_str(), end.sent().as_str()), ("1tn2IZ1tn2IZ1tn2IZ", ""));
    assert_eq!(end.count(Counter::RejectedOpen), 0);
}

#[test]
fn a_run_that_does_more_is_refused_whole() {
    for run in [
        [parse("", ""), bind(""), execute(), parse("", "DELETE"), bind(""), execute(), sync()].concat(),
        [parse("", ""), parse("", "DELETE"), bind(""), execute(), sync()].concat(),
        [parse("", ""), bind("other"), execute(), sync()].concat(),
        [parse("named", ""), bind("named"), execute(), sync()].concat(),
        [bind(""), execute(), sync()].concat(),
        [parse("", ""), execute(), sync()].concat(),
        [parse("", ""), bind(""), execute(), q("DELETE"), sync()].concat(),
        [parse("", ""), bind(""), execute(), close("other"), sync()].concat(),
        [parse("", ""), flush(), bind(""), execute(), sync()].concat(),
        [parse("", ""), sync()].concat(),
        pbes(""),
        [parse("", ""), describe("other"), bind(""), execute(), sync()].concat(),
        [parse("", ""), bind(""), describe("other"), execute(), sync()].concat(),
        [parse("", ""), m(b'D', b"P\0"), bind(""), execute(), sync()].concat(),
        [describe(""), parse("", ""), bind(""), execute(), sync()].concat(),
        [parse("", ""), m(b'B', b"p\0\0\0\0\0\0\0\0"), execute(), sync()].concat(),
        [parse("", ""), m(b'B', &[0]), execute(), sync()].concat(),
        [parse("", ""), bind(""), execute(), bind(""), sync()].concat(),
    ] {
        let end = answering(&[Trip, Client(run)]);
        assert_eq!((end.told().as_str(), end.sent().as_str()), ("EZ", ""));
    }
}

/// A read is cut anywhere, and what is left of it must leave room for the next.
#[test]
fn a_run_that_goes_on_for_ever_is_not_held() {
    let portal = m(b'D', b"P\0");
    let mut run = [parse("", ""), bind(""), portal.repeat(HOLD_MAX / portal.len() + 1)].concat();
    run.pop();
    let mut rig = Rig::answering();
    play(&mut rig, &started(), Cut::Whole);
    play(&mut rig, &[Trip, Client(run), Told("RSKZE")], Cut::Whole);
}

#[test]
fn a_client_that_waits_in_the_middle_of_a_run_is_not_left_waiting() {
    let end = answering(&[Trip, Client([parse("", ""), flush()].concat())]);
    assert_eq!(end.told(), "E");
}

/// pgjdbc prepares its test after five of them.
#[test]
fn a_statement_that_was_prepared_empty_is_answered_by_its_name() {
    let prepared = || Client([parse("S_1", ""), run_of("S_1")].concat());
    let answer = Server([m(b'1', b""), m(b'2', b""), m(b'I', b""), z('I')].concat());
    let end = answering(&[
        prepared(),
        answer.clone(),
        Trip,
        Client(run_of("S_1").repeat(2)),
        Told("RSKZ12IZ2IZ2IZ"),
    ]);
    assert_eq!((end.sent().as_str(), end.count(Counter::RejectedOpen)), ("PBES", 0));
    // What may have made it another statement.
    for change in [
        [parse("S_1", "DELETE"), sync()].concat(),
        [close("S_1"), sync()].concat(),
        q("DEALLOCATE ALL"),
        q("/**/ PREPARE \"S_1\" AS DELETE FROM t"),
        q("SELECT 1; DEALLOCATE ALL"),
        [parse("", "DISCARD ALL"), bind(""), execute(), sync()].concat(),
    ] {
        let end = answering(&[
            prepared(),
            answer.clone(),
            Client(change),
            Server(z('I')),
            Trip,
            Client(run_of("S_1")),
        ]);
        assert_eq!(&end.told()[4..], "ZEZ");
    }
    // A rejected one, too.
    let end = answering(&[
        prepared(),
        answer.clone(),
        Trip,
        Client([parse("S_1", "DELETE"), sync()].concat()),
        Client(run_of("S_1")),
    ]);
    assert_eq!(&end.told()[4..], "EZEZ");
    for kept in [
        q("SELECT 1"),
        q("BEGIN"),
        [close("S_2"), sync()].concat(),
        [parse("S_2", "SELECT 1"), sync()].concat(),
    ] {
        let end = answering(&[
            prepared(),
            answer.clone(),
            Client(kept),
            Server(z('I')),
            Trip,
            Client(run_of("S_1")),
        ]);
        assert_eq!(&end.told()[4..], "Z2IZ");
    }
}

#[test]
fn the_unnamed_statement_is_not_what_the_client_believes_and_must_be_parsed_again() {
    let empty = [parse("", ""), run_of("")].concat();
    let end = answering(&[
        Client([parse("", "DELETE"), sync()].concat()),
        Server([m(b'1', b""), z('I')].concat()),
        Trip,
        Client(empty),
        Reset,
        Client(run_of("")),
    ]);
    assert_eq!(
        (end.told().as_str(), end.sent().as_str(), end.error(b'C').as_str()),
        ("1Z12IZEZ", "PS", "26000")
    );
}

#[test]
fn within_a_transaction_and_while_merely_observing_they_pass() {
    let end =
        answering(&[Client(q("BEGIN")), Server([complete("BEGIN"), z('T')].concat()), Trip, Client(q(""))]);
    assert_eq!(end.sent(), "QQ");
    let mut rig = Rig::answering();
    rig.gate.set_mode(rig.now, Mode::Observe);
    play(&mut rig, &started(), Cut::Whole);
    play(&mut rig, &[Trip, Client(q(""))], Cut::Whole);
    assert_eq!(rig.outcome().sent(), "Q");
}

#[test]
fn an_empty_query_is_no_probe() {
    let end = answering(&[HalfOpen, Client(q("")), Is(State::HalfOpen)]);
    assert_eq!((end.told().as_str(), end.count(Counter::Probes), end.sent().as_str()), ("IZ", 0, ""));
}

#[test]
fn a_query_of_any_length_is_answered_or_refused_as_it_comes() {
    for (len, told) in [(1024, "IZ"), (1025, "EZ")] {
        let end = answering(&[Trip, Client(q(&" ".repeat(len - 1)))]);
        assert_eq!(end.told(), told, "{len}");
    }
    // The rig sees that no more is held than may be.
    let endless = |tag: u8, begin: &[u8]| [&[tag, 0, 2, 0, 0][..], begin, &[b' '; 70_000]].concat();
    let portal = m(b'D', b"P\0").repeat(10_000);
    for (sent, told) in [
        (endless(b'Q', b""), "RSKZ"),
        (endless(b'P', b"\0"), "RSKZ"),
        ([parse("", ""), bind(""), portal].concat(), "RSKZE"),
    ] {
        let mut rig = Rig::answering();
        play(&mut rig, &started(), Cut::Whole);
        rig.step(&Trip);
        rig.client(&sent, true);
        assert_eq!((rig.outcome().told().as_str(), rig.outcome().sent().as_str()), (told, ""));
    }
}

#[test]
fn names_of_empty_statements_are_known_apart_and_not_without_end() {
    let prepare = |name: &str| [parse(name, ""), sync()].concat();
    let asked = |prepared: &[Vec<u8>], used: &[u8]| {
        let mut rig = Rig::answering();
        play(&mut rig, &started(), Cut::Whole);
        for run in prepared {
            play(&mut rig, &[Client(run.clone()), Server([m(b'1', b""), z('I')].concat())], Cut::Bytes(9));
        }
        let before = rig.to_client.len();
        play(&mut rig, &[Trip, Client(used.to_vec())], Cut::Whole);
        tags(&rig.to_client[before..])
    };
    let two = [prepare("a"), prepare("b")];
    assert_eq!(asked(&two, &[run_of("a"), run_of("b")].concat()), "2IZ2IZ");
    assert_eq!(asked(&two, &run_of("c")), "EZ");
    assert_eq!(asked(&two, &[describe(""), run_of("a")].concat()), "EZ", "that is another statement");
    let portal = [m(b'C', b"Pa\0"), sync()].concat();
    assert_eq!(asked(&[prepare("a"), portal], &run_of("a")), "2IZ", "a portal is no statement");
    let many: Vec<_> = (0..17).map(|n| prepare(&format!("s{n}"))).collect();
    assert_eq!(asked(&many[..16], &run_of("s0")), "2IZ");
    assert_eq!(asked(&many, &[run_of("s0"), run_of("s16")].concat()), "EZEZ"[..2].to_owned() + "2IZ");
    // The server compares the first 63 bytes.
    let (name, longer) = ("n".repeat(63), "n".repeat(200));
    assert_eq!(asked(&[prepare(&name)], &run_of(&longer)), "2IZ");
    assert_eq!(asked(&[prepare(&name), [close(&longer), sync()].concat()], &run_of(&name)), "EZ");
}

#[test]
fn unlike_answers_are_told_apart() {
    let run = [parse("", ""), run_of("")].concat();
    let empties = [q("").repeat(2), run.repeat(2), q("")].concat();
    let end = answering(&[Client(q("SELECT 1")), Trip, Client(empties), Server(rows())]);
    assert_eq!(end.told(), "TDCZIZIZ12IZ12IZIZ");
}

#[test]
fn the_answer_waits_for_the_replies_before_it() {
    let end = answering(&[Client(q("SELECT 1")), Trip, Client(q("")), Told("RSKZ"), Server(rows())]);
    assert_eq!(end.told(), "TDCZIZ");
}

#[test]
fn a_pipeline_of_empty_queries_is_stored_as_a_count() {
    let mut rig = Rig::answering();
    play(&mut rig, &started(), Cut::Whole);
    play(&mut rig, &[Client(q("SELECT 1")), Trip], Cut::Whole);
    let before = rig.to_client.len();
    // More than the queue has entries.
    let n = 17 << 16;
    for _ in 0..17 {
        rig.client(&q("").repeat(1 << 16), true);
    }
    assert_eq!(rig.to_client.len(), before);
    rig.server(&rows());
    assert_eq!(rig.to_client.len() - before - rows().len(), 11 * n);
}
