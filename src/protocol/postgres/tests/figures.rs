//! What is counted, and as what.

use std::time::Duration;

use super::rig::*;
use crate::breaker::Fault;
use crate::metrics::Counter;

fn started_rig() -> Rig {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    rig
}

#[test]
fn answers_that_come_together_have_each_the_duration_of_its_own_call() {
    let (a, b) = (Duration::from_secs(3), Duration::from_secs(4));
    for cut in [Cut::Whole, Cut::Bytes(1)] {
        let mut rig = started_rig();
        play(&mut rig, &[Client(q("SELECT 1").repeat(2))], cut);
        rig.now += a;
        play(&mut rig, &[Client(q("SELECT 1").repeat(2))], cut);
        rig.now += b;
        play(&mut rig, &[Server(rows().repeat(4))], cut);
        assert_eq!(rig.outcome().timed, (1 + 4, (a + b) * 2 + b * 2), "with the startup");
        rig.balance();
    }
}

#[test]
fn answers_that_come_together_belong_each_to_the_generation_of_its_own_call() {
    let twice = || Client(q("SELECT 1").repeat(2));
    let mut rig = started_rig();
    play(&mut rig, &[twice(), Trip, Reset, twice(), Server(rows().repeat(4))], Cut::Whole);
    let end = rig.outcome();
    assert_eq!((end.count(Counter::Success), end.count(Counter::Stale)), (1 + 4, 2));
    rig.balance();
}

#[test]
fn what_a_swallowed_sync_joins_is_one_call() {
    let copy = [parse("", "COPY t FROM STDIN"), bind(""), execute(), sync(), copy_data(b"1"), copy_done()];
    let run = [parse("", "SELECT 1"), bind(""), execute(), sync()];
    let asked = [m(b'1', b""), m(b'2', b""), m(b'G', &[0, 0, 0]), complete("COPY 1")];
    let end = session(&[
        Client([copy.concat(), run.concat()].concat()),
        Server(asked.concat()),
        Server(extended_rows()),
    ]);
    assert_eq!((end.verdicts(), end.told().as_str()), ((1 + 1, 0, 1), "12GC12DCZ"));
}

#[test]
fn a_call_that_has_failed_is_no_second_failure_when_its_connection_dies() {
    let queries = q("SELECT 1").repeat(3);
    let end = session(&[Client(queries), Server(error("ERROR", "53200")), ServerEof(Fault::Eof)]);
    assert_eq!((end.verdicts(), end.failed()), ((1, 1, 2), vec!["53200"]));
}
