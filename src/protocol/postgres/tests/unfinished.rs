//! A session that ends while the server waits for more of its client: nobody waits for what can never come.

use super::rig::*;
use crate::breaker::State;
use crate::protocol::{Phase, Wait};

/// A message that no client may send: its length does not even cover itself.
const MALFORMED: &[u8] = &[b'Q', 0, 0, 0, 1];

/// What the client got, and how the last error of it ends the session.
fn ends(steps: &[Step]) -> (String, String) {
    let end = session(steps);
    assert_eq!((end.phase, end.failed(), end.state), (Phase::Finish, vec![], State::Closed));
    (end.told(), end.error(b'C'))
}

fn malformed(told: &str) -> (String, String) {
    (told.to_owned(), "08P01".to_owned())
}

#[test]
fn a_run_without_its_sync_keeps_no_error_back() {
    assert_eq!(ends(&[Client([&parse("", "SELECT 1"), MALFORMED].concat())]), malformed("E"));
    let behind = [Client([&q("SELECT 1"), &parse("", "SELECT 1")[..], MALFORMED].concat()), Told("RSKZ")];
    assert_eq!(ends(&[&behind[..], &[Server(rows())]].concat()), malformed("TDCZE"));
}

#[test]
fn what_a_flush_asked_for_comes_before_the_error() {
    let flushed = Client([&parse("", "SELECT 1"), &flush()[..], MALFORMED].concat());
    let waits = [flushed.clone(), Waits(Wait::Backend(RESPONSE))];
    assert_eq!(ends(&[&waits[..], &[Server(m(b'1', b""))]].concat()), malformed("1E"));
    assert_eq!(session(&[flushed, Deadline]).failed(), ["timeout"]);
}

#[test]
fn a_run_that_the_server_skips_keeps_no_error_back() {
    let run = [&parse("", "SELEC"), &q("SELECT 1")[..], MALFORMED].concat();
    assert_eq!(ends(&[Client(run), Server(error("ERROR", "42601"))]), malformed("EE"));
}

#[test]
fn a_copy_that_waits_for_data_keeps_no_error_back() {
    let (copy, asks) = (q("COPY t FROM STDIN"), m(b'G', &[0, 0, 0]));
    assert_eq!(
        ends(&[Client(copy.clone()), Server(asks.clone()), Client(MALFORMED.to_vec())]),
        malformed("GE")
    );
    // The server has yet to ask for the data when the client goes wrong.
    assert_eq!(ends(&[Client([&copy, MALFORMED].concat()), Server(asks.clone())]), malformed("GE"));
    // What comes together with the question is not listened to, as it is not if it comes later.
    let more = Server([asks.clone(), rows()].concat());
    assert_eq!(ends(&[Client([&copy, MALFORMED].concat()), more]), malformed("GE"));
    let run = [&parse("", "COPY t FROM STDIN"), &bind("")[..], &execute(), &sync(), MALFORMED].concat();
    let asked = Server([m(b'1', b""), m(b'2', b""), asks].concat());
    assert_eq!(ends(&[Client(run), asked]), malformed("12GE"));
}

#[test]
fn a_login_that_waits_for_its_password_keeps_no_error_back() {
    let end = run(&[Client(startup()), Connect, Server(auth(5)), Client(vec![b'p', 0, 0, 0, 1])]);
    assert_eq!((end.told().as_str(), end.error(b'C').as_str(), end.phase), ("RE", "08P01", Phase::Finish));
    assert_eq!(end.verdicts(), (0, 0, 1));
    // The question comes when the client has gone wrong already.
    let end = run(&[Client([&startup()[..], MALFORMED].concat()), Connect, Server(auth(5))]);
    assert_eq!((end.told().as_str(), end.error(b'C').as_str(), end.phase), ("RE", "08P01", Phase::Finish));
}

#[test]
fn a_statement_behind_a_rejected_begin_is_told_so_in_the_middle_of_a_run() {
    let end = session(&[
        Trip,
        Client(q("BEGIN")),
        Client([close("s"), flush()].concat()),
        Reset,
        Server(m(b'3', b"")),
        Client(parse("", "DELETE FROM t")),
    ]);
    assert_eq!((end.told().as_str(), end.phase), ("EZ3E", Phase::Finish));
}

#[test]
fn a_run_behind_replies_of_ours_keeps_no_error_back() {
    let late = [&bind("s")[..], &execute(), &sync(), &parse("", "SELECT 1"), &bind("s"), MALFORMED].concat();
    let rejected = Client([&parse("s", "SELECT 1")[..], &sync()].concat());
    assert_eq!(ends(&[Trip, rejected, Reset, Client(late)]), malformed("EZEZE"));
}
