//! ADR 0011: nothing of a transaction whose BEGIN was rejected ever runs, and no session is rejected for ever.

use super::rig::*;
use crate::config::{Overrides, Postgres, SqlState, Tls};
use crate::metrics::Counter;
use crate::protocol::Phase;

/// What follows a BEGIN that was rejected, the breaker having closed again.
fn after_begin(more: &[Step]) -> Outcome {
    session(&[&[Trip, Client(q("BEGIN")), Told("RSKZEZ"), Reset], more].concat())
}

#[test]
fn a_write_behind_a_rejected_begin_does_not_run_by_itself() {
    for begin in
        ["BEGIN", "start transaction isolation level serializable", "/* a */ begin;", "SELECT 1; BEGIN"]
    {
        for write in [q("INSERT"), pbes(""), [bind("s"), execute(), sync()].concat(), function()] {
            let end = session(&[Trip, Client(q(begin)), Reset, Client([write, q("COMMIT")].concat())]);
            assert_eq!((end.sent().as_str(), end.told().as_str()), ("", "EZE"), "{begin}");
            assert_eq!((end.error(b'V').as_str(), end.phase), ("FATAL", Phase::Finish));
        }
    }
    let prepared = [parse("", "BEGIN"), bind(""), execute(), sync()].concat();
    let end = session(&[Trip, Client(prepared), Reset, Client(q("INSERT"))]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("", "EZE"));
}

#[test]
fn while_open_the_rest_of_the_block_is_rejected_and_the_session_stays() {
    let end = session(&[
        Trip,
        Client(q("BEGIN")),
        Client(q("INSERT")),
        Client(pbes("")),
        Client(q("ROLLBACK")),
        Reset,
        Client(q("SELECT 1")),
        Server(rows()),
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("Q", "EZEZEZCZTDCZ"));
    assert_eq!((end.count(Counter::RejectedOpen), end.phase), (3, Phase::Relay));
}

#[test]
fn a_new_block_may_begin_with_more_than_its_begin() {
    let answers = [complete("BEGIN"), complete("INSERT 0 1"), z('T')].concat();
    let end = after_begin(&[Client(q("BEGIN; INSERT")), Server(answers)]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("Q", "EZCCZ"));
    assert_eq!(end.phase, Phase::Relay);
}

#[test]
fn half_open_takes_no_probe_from_the_block() {
    let end = session(&[Trip, Client(q("BEGIN")), HalfOpen, Client(q("INSERT")), Client(q("COMMIT"))]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("", "EZEZEZ"));
    assert_eq!((end.count(Counter::Probes), end.phase), (0, Phase::Relay));
}

#[test]
fn a_rollback_is_answered_at_once_whatever_the_breaker_does() {
    for rollback in
        ["ROLLBACK", "abort", "rollback work ;", "ROLLBACK -- why", "/* a */ Rollback Transaction"]
    {
        let closed = after_begin(&[Client(q(rollback)), Client(q("SELECT 1")), Server(rows())]);
        assert_eq!((closed.sent().as_str(), closed.told().as_str()), ("Q", "EZCZTDCZ"), "{rollback}");
        assert_eq!(messages(&closed.to_client)[2], (b'C', b"ROLLBACK\0".to_vec()));
    }
}

#[test]
fn a_commit_fails_and_ends_the_block() {
    for commit in ["COMMIT", "END", "commit work;", "COMMIT /* traced */"] {
        for sent in [q(commit), [parse("", commit), bind(""), execute(), sync()].concat()] {
            let end = after_begin(&[Client(sent), Client(q("SELECT 1")), Server(rows())]);
            assert_eq!((end.sent().as_str(), end.told().as_str()), ("Q", "EZEZTDCZ"), "{commit}");
        }
    }
    let last = after_begin(&[Client(q("COMMIT"))]);
    assert_eq!((last.error(b'V').as_str(), last.error(b'C').as_str()), ("ERROR", "57000"));
    assert_eq!(last.error(b'M'), "there is nothing to commit");
}

#[test]
fn a_rollback_by_extended_query_passes_when_it_can_and_ends_the_block_when_it_cannot() {
    let rollback = || [parse("", "ROLLBACK"), bind(""), execute(), sync()].concat();
    let passed = after_begin(&[
        Client(rollback()),
        Server([m(b'1', b""), m(b'2', b""), complete("ROLLBACK"), z('I')].concat()),
        Client(q("SELECT 1")),
    ]);
    assert_eq!((passed.sent().as_str(), passed.told().as_str()), ("PBESQ", "EZ12CZ"));
    let rejected = session(&[Trip, Client(q("BEGIN")), Client(rollback()), Reset, Client(q("SELECT 1"))]);
    assert_eq!((rejected.sent().as_str(), rejected.told().as_str()), ("Q", "EZEZ"));
}

#[test]
fn what_only_resembles_an_end_ends_nothing() {
    let statements = [
        "ROLLBACK TO a",
        "ROLLBACK TO SAVEPOINT a",
        "ROLLBACK PREPARED 'a'",
        "COMMIT AND CHAIN",
        "COMMIT; INSERT",
        "END $$",
        "DO $$ BEGIN x; END $$",
    ];
    for statement in statements {
        let end = after_begin(&[Client(q(statement))]);
        assert_eq!((end.sent().as_str(), end.phase), ("", Phase::Finish), "{statement}");
    }
    let unexecuted = after_begin(&[Client([parse("c", "COMMIT"), sync()].concat()), Client(q("INSERT"))]);
    assert_eq!((unexecuted.sent().as_str(), unexecuted.told().as_str()), ("", "EZEZE"));
}

#[test]
fn what_hides_behind_a_long_beginning_does_not_run_by_itself() {
    let (blank, comment) = (" ".repeat(1100), format!("/*{}*/", "x".repeat(1100)));
    for (begin, rest) in [("", "INSERT"), ("ROLLBACK; ", "INSERT"), ("COMMIT; ", "INSERT"), ("END ", "$$")] {
        for text in [format!("{begin}{blank}{rest}"), format!("{begin}{comment}{rest}")] {
            for sent in [q(&text), [parse("", &text), bind(""), execute(), sync()].concat()] {
                let mut told = Vec::new();
                for cut in [Cut::Whole, Cut::At(1200), Cut::Bytes(7)] {
                    let mut rig = Rig::new();
                    play(&mut rig, &started(), Cut::Whole);
                    play(&mut rig, &[Trip, Client(q("BEGIN")), Reset], Cut::Whole);
                    play(&mut rig, &[Client(sent.clone())], cut);
                    assert_eq!(rig.outcome().sent(), "", "{begin}...{rest}");
                    told.push(rig.outcome().told());
                }
                assert_eq!(told, ["RSKZEZE"; 3], "{begin}...{rest}");
            }
        }
    }
}

#[test]
fn a_run_ends_the_block_by_what_it_has_parsed_last() {
    let run = |last: &str| [parse("", "COMMIT"), parse("", last), bind(""), execute(), sync()].concat();
    let ended = session(&[Trip, Client(q("BEGIN")), Client(run("COMMIT")), Reset, Client(q("SELECT 1"))]);
    assert_eq!((ended.sent().as_str(), ended.told().as_str()), ("Q", "EZEZ"));
    let open = session(&[Trip, Client(q("BEGIN")), Client(run("INSERT")), Reset, Client(q("SELECT 1"))]);
    assert_eq!((open.sent().as_str(), open.told().as_str()), ("", "EZEZE"));
}

#[test]
fn the_error_of_a_commit_has_the_code_of_a_refused_query() {
    let mut rig = Rig::new();
    let code = SqlState::parse("57014").expect("five characters");
    let changed = Postgres { reject_query_code: code, ..postgres(Overrides::default()) };
    rig.settings.adopt(&changed, &timeouts(), &Tls::default());
    play(&mut rig, &started(), Cut::Whole);
    play(&mut rig, &[Trip, Client(q("BEGIN")), Reset, Client(q("COMMIT"))], Cut::Whole);
    assert_eq!(
        (rig.outcome().error(b'M').as_str(), rig.outcome().error(b'C').as_str()),
        ("there is nothing to commit", "57014")
    );
}

#[test]
fn a_new_begin_starts_afresh() {
    let end = after_begin(&[
        Client(q("BEGIN")),
        Server([complete("BEGIN"), z('T')].concat()),
        Client(q("INSERT")),
        Server([complete("INSERT 0 1"), z('T')].concat()),
        Client(q("COMMIT")),
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("QQQ", "EZCZCZ"));
    let extended =
        after_begin(&[Client([parse("", "BEGIN"), bind(""), execute(), sync(), q("INSERT")].concat())]);
    assert_eq!(extended.sent(), "PBESQ");
    let again = session(&[Trip, Client(q("BEGIN")), Client(q("BEGIN")), Reset, Client(q("INSERT"))]);
    assert_eq!((again.sent().as_str(), again.told().as_str()), ("", "EZEZE"));
}

#[test]
fn a_block_that_is_rejected_whole_leaves_nothing_behind() {
    for block in ["BEGIN; INSERT; COMMIT", "begin; select 1; rollback;", "BEGIN; INSERT; END -- done"] {
        let end = session(&[Trip, Client(q(block)), Reset, Client(q("SELECT 1"))]);
        assert_eq!((end.sent().as_str(), end.told().as_str()), ("Q", "EZ"), "{block}");
    }
    let run =
        [parse("", "BEGIN"), bind(""), execute(), pbes(""), parse("", "COMMIT"), bind(""), execute(), sync()];
    let split = session(&[Trip, Client(run.concat()), Reset, Client(q("SELECT 1"))]);
    // The first Sync, in `pbes`, cut the run in two: the COMMIT was a unit of its own.
    assert_eq!(split.sent(), "Q");
    for function in ["DO $$ BEGIN PERFORM 1; END $$", "SELECT 'begin'", "INSERT INTO begin VALUES (1)"] {
        let end = session(&[Trip, Client(q(function)), Reset, Client(q("SELECT 1"))]);
        assert_eq!(end.sent(), "Q", "{function}");
    }
}

#[test]
fn closes_and_empty_queries_pass_and_smuggle_nothing() {
    let end = after_begin(&[
        Client([close("a"), sync()].concat()),
        Server([m(b'3', b""), z('I')].concat()),
        Client(q(" -- ping")),
        Server([m(b'I', b""), z('I')].concat()),
        Client([close("a"), flush(), q("INSERT")].concat()),
    ]);
    assert_eq!((end.sent().as_str(), end.phase), ("CSQCH", Phase::Relay));
    assert_eq!(end.count(Counter::RejectedSession), 1);
    let run = after_begin(&[Client([close("a"), pbes("")].concat())]);
    assert_eq!(run.sent(), "C");
}
