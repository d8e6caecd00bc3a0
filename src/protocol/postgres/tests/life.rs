//! Ends of a connection, and settings that change under it.

use super::rig::*;
use crate::breaker::Fault;
use crate::config::{Overrides, Postgres, SqlState, Tls};
use crate::protocol::postgres::units::Queue;
use crate::protocol::{Phase, Plan, Session as _, Wait};

fn started_rig() -> Rig {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    rig
}

#[test]
fn the_end_of_a_clients_input_goes_on_to_the_server() {
    let mut rig = started_rig();
    play(&mut rig, &[Client(q("SELECT 1"))], Cut::Whole);
    assert!(!rig.session.may_forward_eof());
    rig.step(&ClientEof);
    assert!(rig.session.may_forward_eof(), "a server that is not told keeps the session for ever");
    assert!(!rig.session.is_parting());
    rig.step(&Server(rows()));
    assert_eq!(rig.outcome().verdicts(), (2, 0, 0), "it still gets its answer");
    assert!(rig.session.is_parting());
}

#[test]
fn the_end_of_a_drain_does_not_make_an_abort_a_proper_end() {
    let mut rig = started_rig();
    let half = [m(b'T', &[0, 0]), row()[..8].to_vec()].concat();
    play(&mut rig, &[Client(q("SELECT 1")), Server(half), ServerEof(Fault::Reset)], Cut::Whole);
    assert_eq!(rig.session.phase(), Phase::Abort);
    rig.session.on_drain_over(rig.now);
    assert_eq!(rig.session.phase(), Phase::Abort, "the client would take half a message for a whole one");
}

#[test]
fn what_is_over_stays_over() {
    let mut rig = started_rig();
    let half = [m(b'T', &[0, 0]), row()[..8].to_vec()].concat();
    play(&mut rig, &[Client(q("SELECT 1")), Server(half), ServerEof(Fault::Reset)], Cut::Whole);
    rig.session.on_server_eof(rig.now, Fault::Eof);
    assert_eq!(rig.session.phase(), Phase::Abort);
    rig.session.on_deadline(rig.now);
    assert_eq!((rig.session.phase(), rig.outcome().verdicts()), (Phase::Abort, (1, 1, 0)));
}

#[test]
fn the_end_of_a_drain_ends_whatever_is_open_natively_and_says_nothing_of_the_backend() {
    let mut rig = started_rig();
    play(
        &mut rig,
        &[Client(q("BEGIN").repeat(2)), Drain, Server([complete("BEGIN"), z('T')].concat())],
        Cut::Whole,
    );
    rig.session.on_drain_over(rig.now);
    rig.client(b"", true);
    let end = rig.outcome();
    assert_eq!(
        (end.told().as_str(), end.error(b'C').as_str(), end.phase),
        ("RSKZCZE", "57P01", Phase::Finish)
    );
    assert_eq!(end.verdicts(), (2, 0, 1));
    let mut rig = started_rig();
    play(&mut rig, &[Client(q("SELECT 1")), Drain, Server(rows()[..13].to_vec())], Cut::Whole);
    rig.session.on_drain_over(rig.now);
    assert_eq!((rig.session.phase(), rig.outcome().verdicts()), (Phase::Abort, (1, 0, 1)), "half a message");
    let mut rig = Rig::new();
    play(&mut rig, &[Client(startup())], Cut::Whole);
    rig.session.on_drain_over(rig.now);
    assert_eq!(rig.session.phase(), Phase::Finish, "not even a connection");
}

#[test]
fn a_drain_waits_for_the_end_of_a_run_that_is_rejected() {
    let end = session(&[Trip, Client(parse("", "SELECT 1")), Drain, Told("RSKZE"), Client(sync())]);
    assert_eq!((end.told().as_str(), end.error(b'C').as_str(), end.phase), ("EZE", "57P01", Phase::Finish));
    let call = function();
    let half = session(&[Trip, Client(call[..9].to_vec()), Drain, Told("RSKZ"), Client(call[9..].to_vec())]);
    assert_eq!((half.told().as_str(), half.error(b'C').as_str()), ("EZE", "57P01"));
}

#[test]
fn the_last_word_needs_nothing_more_of_the_backend() {
    let mut rig = started_rig();
    play(&mut rig, &[Client([q("SELECT 1"), vec![b'Q', 0, 0, 0, 3]].concat())], Cut::Whole);
    assert_eq!(rig.session.phase(), Phase::Relay, "an answer is owed");
    let (answer, mut plan) = (rows(), Plan::default());
    rig.session.on_server(rig.now, &answer, &mut plan);
    assert_eq!(rig.session.phase(), Phase::Finish, "before it has been written");
}

#[test]
fn a_client_that_never_reads_is_ended() {
    let mut rig = started_rig();
    rig.client(&sync().repeat(Queue::MAX), true);
    assert_eq!((rig.session.phase(), rig.to_server.len()), (Phase::Relay, startup().len() + 5 * Queue::MAX));
    rig.client(&sync(), true);
    rig.server(&z('I').repeat(Queue::MAX));
    let end = rig.outcome();
    assert_eq!((end.error(b'C').as_str(), end.phase), ("54000", Phase::Finish));
    rig.balance();
}

#[test]
fn a_backend_that_falls_silent_within_a_notice_keeps_no_refusal_waiting_for_ever() {
    let half = notice("NOTICE", "00000")[..9].to_vec();
    let end = session(&[
        Server(half),
        Waits(Wait::Nothing),
        Trip,
        Client(q("SELECT 1")),
        Waits(Wait::Backend(RESPONSE)),
        Deadline,
    ]);
    assert_eq!((end.phase, end.verdicts()), (Phase::Abort, (1, 0, 0)), "no call was in flight");
}

#[test]
fn a_session_obeys_new_settings_from_its_next_call_on() {
    let mut rig = started_rig();
    let code = SqlState::parse("57014").expect("five characters");
    let changed = Postgres { reject_query_code: code, ..postgres(Overrides::default()) };
    rig.settings.adopt(&changed, &timeouts(), &Tls::default());
    play(&mut rig, &[Trip, Client(q("SELECT 1"))], Cut::Whole);
    assert_eq!(rig.outcome().error(b'C'), "57014");
}
