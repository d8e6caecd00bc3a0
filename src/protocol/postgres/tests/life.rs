//! Ends of a connection, and settings that change under it.

use super::rig::*;
use crate::breaker::Fault;
use crate::config::{Overrides, Postgres, SqlState, Tls};
use crate::protocol::{Phase, Session as _};

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
    rig.step(&Server(rows()));
    assert_eq!(rig.outcome().verdicts(), (2, 0, 0), "it still gets its answer");
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
fn a_session_obeys_new_settings_from_its_next_call_on() {
    let mut rig = started_rig();
    let code = SqlState::parse("57014").expect("five characters");
    let changed = Postgres { reject_query_code: code, ..postgres(Overrides::default()) };
    rig.settings.adopt(&changed, &timeouts(), &Tls::default());
    play(&mut rig, &[Trip, Client(q("SELECT 1"))], Cut::Whole);
    assert_eq!(rig.outcome().error(b'C'), "57014");
}
