//! PROTOCOLS.md §3.3: what opens and closes a call.

use super::rig::*;
use crate::breaker::{Fault, State};
use crate::metrics::Counter;
use crate::protocol::{Phase, Wait};

/// Verdicts of the session without its startup.
fn calls(end: &Outcome) -> (u64, u64, u64) {
    let (s, f, i) = end.verdicts();
    (s - 1, f, i)
}

#[test]
fn a_simple_query_is_one_call_however_many_statements() {
    let answer = [complete("SELECT 1"), complete("SELECT 1"), m(b'I', b""), z('I')].concat();
    let end = session(&[Client(q("SELECT 1; SELECT 2;")), Server(answer.clone())]);
    assert_eq!((calls(&end), end.to_client.clone()), ((1, 0, 0), answer));
}

#[test]
fn a_function_call_is_one_call() {
    let end = session(&[Client(function()), Server([m(b'V', &[0, 0, 0, 0]), z('I')].concat())]);
    assert_eq!(calls(&end), (1, 0, 0));
}

#[test]
fn an_extended_run_is_one_call_up_to_its_sync_and_flush_does_not_close_it() {
    let end = session(&[
        Client([parse("", "SELECT 1"), describe(""), flush()].concat()),
        Waits(Wait::Backend(RESPONSE)),
        Server([m(b'1', b""), m(b't', &[0, 0]), m(b'n', b"")].concat()),
        Client([bind(""), execute(), flush()].concat()),
        Server([m(b'2', b""), complete("SELECT 0")].concat()),
        Client(sync()),
        Waits(Wait::Backend(RESPONSE)),
        Server(z('I')),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((1, 0, 0), 0));
}

#[test]
fn pipelined_runs_end_in_order_and_each_sync_has_its_ready() {
    let end = session(&[
        Client([pbes("a"), q("SELECT 1"), pbes("b"), sync()].concat()),
        Server([extended_rows(), rows(), extended_rows(), z('I')].concat()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((3, 0, 0), 0));
}

#[test]
fn asynchronous_messages_belong_to_nobody() {
    let news = [notice("NOTICE", "00000"), param("TimeZone", "UTC"), m(b'A', b"\0\0\0\x01c\0p\0")].concat();
    let end = session(&[
        Server(news.clone()),
        Client(q("SELECT 1")),
        Server(
            [news.clone(), m(b'T', &[0, 0]), news.clone(), complete("SELECT 0"), news.clone(), z('I')]
                .concat(),
        ),
        Server(news),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((1, 0, 0), 0));
}

#[test]
fn after_an_error_everything_up_to_sync_is_skipped_even_a_query() {
    let sent = [parse("", "SELEC"), q("SELECT 1"), flush(), sync()].concat();
    let answer = [error("ERROR", "42601"), z('I')].concat();
    // Whether the error comes before or after the rest has been sent.
    let late = session(&[Client(sent.clone()), Server(answer.clone()), Waits(Wait::Nothing)]);
    let early = session(&[
        Client(parse("", "SELEC")),
        Server(error("ERROR", "42601")),
        Client([q("SELECT 1"), flush()].concat()),
        Waits(Wait::Nothing),
        Client(sync()),
        Waits(Wait::Backend(RESPONSE)),
        Server(z('I')),
    ]);
    for end in [late, early] {
        assert_eq!((end.told().as_str(), end.count(Counter::Opaque)), ("EZ", 0));
        assert_eq!(end.count(Counter::Success), 2);
    }
    // The queue is in step again.
    let after = session(&[
        Client(sent),
        Server(answer),
        Client(q("SELECT 1")),
        Waits(Wait::Backend(RESPONSE)),
        Server(rows()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!(after.count(Counter::Opaque), 0);
}

#[test]
fn a_query_that_is_skipped_while_it_is_being_sent_does_not_end_the_run() {
    let query = q("SELECT 1");
    let (head, tail) = query.split_at(7);
    let end = session(&[
        Client([parse("", "SELEC"), head.to_vec()].concat()),
        Server(error("ERROR", "42601")),
        Client(tail.to_vec()),
        Waits(Wait::Nothing),
        Client(sync()),
        Waits(Wait::Backend(RESPONSE)),
        Server(z('I')),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((end.told().as_str(), end.count(Counter::Opaque)), ("EZ", 0));
}

#[test]
fn a_query_within_a_run_that_works_has_a_ready_of_its_own() {
    let end = session(&[
        Client([parse("", "SELECT 1"), q("SELECT 2"), sync()].concat()),
        Server([m(b'1', b""), rows()].concat()),
        Waits(Wait::Backend(RESPONSE)),
        Server(z('I')),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((2, 0, 0), 0));
}

#[test]
fn what_is_sent_behind_a_query_within_a_run_still_belongs_to_it() {
    let end = session(&[
        Client([parse("", "SELECT 1"), q("SELECT 2"), bind("")].concat()),
        Server([m(b'1', b""), rows()].concat()),
        Client([execute(), sync()].concat()),
        Server([m(b'2', b""), row(), complete("SELECT 1"), z('I')].concat()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((3, 0, 0), 0));
}

#[test]
fn a_run_that_has_begun_goes_on_when_the_one_before_it_is_answered() {
    let end = session(&[
        Client([pbes(""), parse("", "SELECT 1")].concat()),
        Server(extended_rows()),
        Client([bind(""), execute(), sync()].concat()),
        Server(extended_rows()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((2, 0, 0), 0));
}

#[test]
fn each_copy_of_a_unit_has_data_of_its_own() {
    let copy = || [parse("", "COPY t FROM STDIN"), bind(""), execute()].concat();
    let asked = || [m(b'1', b""), m(b'2', b""), m(b'G', &[0, 0, 0])].concat();
    let early = || [copy_data(b"1"), copy_done()].concat();
    // A Sync amid the data is swallowed: what comes behind it ends the run.
    let late = || [copy_data(b"2"), sync(), copy_done(), sync()].concat();
    let run = session(&[
        Client([copy(), early(), copy()].concat()),
        Server([asked(), complete("COPY 1"), asked()].concat()),
        Client(late()),
        Server([complete("COPY 1"), z('I')].concat()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((run.told().as_str(), run.count(Counter::Opaque)), ("12GC12GCZ", 0));
    let query = session(&[
        Client([q("COPY t FROM STDIN; COPY t FROM STDIN"), early()].concat()),
        Server([m(b'G', &[0, 0, 0]), complete("COPY 1"), m(b'G', &[0, 0, 0])].concat()),
        Client([copy_data(b"2"), sync(), copy_done()].concat()),
        Server([complete("COPY 1"), z('I')].concat()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((query.told().as_str(), query.count(Counter::Opaque)), ("GCGCZ", 0));
}

#[test]
fn an_answer_of_one_byte_streams_like_any_other() {
    let end =
        session(&[Client(q("SELECT 1")), Server([m(b'C', b"\0"), z('I')].concat()), Waits(Wait::Nothing)]);
    assert_eq!((calls(&end), end.told().as_str()), ((1, 0, 0), "CZ"));
}

#[test]
fn messages_pass_as_they_come() {
    let messages =
        [parse("s", "SELECT 1"), bind("s"), describe("s"), close("s"), execute(), q("SELECT 1"), function()];
    for message in messages {
        let mut rig = Rig::new();
        play(&mut rig, &started(), Cut::Whole);
        for end in 5..message.len() {
            rig.client(&message[if end == 5 { 0 } else { end - 1 }..end], true);
            assert_eq!(rig.to_server[startup().len()..], message[..end], "nothing is held back");
        }
        rig.balance();
    }
}

#[test]
fn a_query_that_fails_within_a_run_does_not_skip_the_sync() {
    let end = session(&[
        Client([parse("", "SELECT 1"), q("SELEC"), bind(""), sync()].concat()),
        Server([m(b'1', b""), error("ERROR", "42601"), z('I')].concat()),
        Waits(Wait::Backend(RESPONSE)),
        Server([m(b'2', b""), z('I')].concat()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((3, 0, 0), 0));
}

/// Sequences that a Postgres 15 was seen to answer with these tags.
#[test]
fn after_sequences_as_a_server_answers_them_nothing_is_in_flight() {
    let pbe = |sql| [parse("", sql), bind(""), execute()].concat();
    let copy = || pbe("COPY t FROM STDIN");
    let data = || [copy_data(b"1\n"), copy_done()].concat();
    let select = || q("SELECT 1");
    let answer = |tags: &str| -> Vec<u8> {
        let body = |tag| match tag {
            'Z' => b"I".to_vec(),
            'C' => b"X\0".to_vec(),
            'E' => b"VERROR\0C42601\0\0".to_vec(),
            'T' | 't' | 'D' => vec![0, 0],
            'G' | 'H' => vec![0, 0, 0],
            _ => Vec::new(),
        };
        tags.chars().flat_map(|tag| m(tag as u8, &body(tag))).collect()
    };
    let seen: [(&str, Vec<Vec<u8>>); 16] = [
        ("1TDCZTDCZZ", vec![parse("n", "SELECT 1"), select(), select(), sync()]),
        ("EZTDCZ", vec![parse("", "SELEC"), select(), select(), sync(), select()]),
        ("12GCZ", vec![copy(), data(), sync()]),
        ("12GCZZ", vec![copy(), sync(), sync(), data(), sync(), sync()]),
        ("12GEZ", vec![copy(), sync(), copy_data(b"x"), copy_fail(), sync()]),
        ("12GC12DCZ", vec![copy(), sync(), data(), pbe("SELECT 1"), sync()]),
        ("12GCTDCZ", vec![copy(), sync(), data(), select()]),
        ("12GCTDCZZ", vec![copy(), sync(), data(), select(), sync()]),
        ("12EZZ", vec![pbe("COPY nope FROM STDIN"), sync(), data(), sync()]),
        ("GCZ", vec![q("COPY t FROM STDIN"), sync(), data()]),
        ("GCGCZTDCZ", vec![q("COPY t FROM STDIN; COPY t FROM STDIN"), data(), data(), select()]),
        ("GEZTDCZ", vec![q("COPY t FROM STDIN"), copy_data(b"x"), data(), select()]),
        ("HddcCZTDCZ", vec![q("COPY t TO STDOUT"), select()]),
        ("EZTDCZ", vec![m(b'S', b"x"), select()]),
        ("12DDsDDDCZ", vec![parse("", "SELECT"), bind(""), execute(), execute(), sync()]),
        ("1tTTDCZZ", vec![parse("", "SELECT 1"), describe(""), select(), sync()]),
    ];
    for (tags, sent) in seen {
        let sent = sent.concat();
        let end = session(&[Client(sent.clone()), Server(answer(tags)), Waits(Wait::Nothing)]);
        assert_eq!((end.told().as_str(), end.count(Counter::Opaque)), (tags, 0));
        let (s, f, i) = end.verdicts();
        assert_eq!((s + f + i, f), (end.count(Counter::Admitted), 0), "{tags}");
        // The session is in step: it can be ended, and a query is answered.
        let idle = session(&[Client(sent), Server(answer(tags)), Drain]);
        assert_eq!(idle.error(b'C'), "57P01", "{tags}");
    }
}

#[test]
fn a_query_cut_into_pieces_is_no_hang_until_it_is_whole() {
    let query = q("SELECT 1");
    let (head, tail) = query.split_at(7);
    session(&[
        Client(head.to_vec()),
        Waits(Wait::Nothing),
        Client(tail.to_vec()),
        Waits(Wait::Backend(RESPONSE)),
        Server(rows()),
    ]);
}

#[test]
fn copy_in_by_query_has_no_timeout_and_is_one_call() {
    let end = session(&[
        Client(q("COPY t FROM STDIN")),
        Server(m(b'G', &[0, 0, 0])),
        Waits(Wait::Nothing),
        Client([copy_data(b"1\n"), copy_data(b"2\n"), copy_done()].concat()),
        Waits(Wait::Nothing),
        Server([complete("COPY 2"), z('I')].concat()),
        Client(q("SELECT 1")),
        Waits(Wait::Backend(RESPONSE)),
        Server(rows()),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((2, 0, 0), 0));
}

#[test]
fn syncs_during_copy_in_are_swallowed_whenever_the_server_asks() {
    let open = [parse("", "COPY t FROM STDIN"), bind(""), execute(), sync()].concat();
    let data = [copy_data(b"1\n"), copy_done(), sync()].concat();
    let begin = [m(b'1', b""), m(b'2', b""), m(b'G', &[0, 0, 0])].concat();
    let end = [complete("COPY 1"), z('I')].concat();
    let orders: [Vec<Step>; 4] = [
        // Everything is sent before the server asks.
        vec![Client([open.clone(), data.clone()].concat()), Server([begin.clone(), end.clone()].concat())],
        // Data is sent after it asks.
        vec![Client(open.clone()), Server(begin.clone()), Client(data.clone()), Server(end.clone())],
        // Data, but no end, before it asks.
        vec![
            Client([open.clone(), copy_data(b"1\n")].concat()),
            Server(begin.clone()),
            Client([copy_done(), sync()].concat()),
            Server(end.clone()),
        ],
        // Two Syncs before the data.
        vec![
            Client([open.clone(), sync(), data.clone()].concat()),
            Server([begin.clone(), end.clone()].concat()),
        ],
    ];
    for (n, mut steps) in orders.into_iter().enumerate() {
        steps.extend([Waits(Wait::Nothing), Client(q("SELECT 1")), Server(rows()), Waits(Wait::Nothing)]);
        let end = session(&steps);
        assert_eq!((end.told().as_str(), end.count(Counter::Opaque)), ("12GCZTDCZ", 0), "{n}");
        assert_eq!(calls(&end), (2, 0, 0), "{n}");
    }
}

#[test]
fn an_execute_that_fails_before_it_asks_for_data_has_both_readies() {
    let end = session(&[
        Client(
            [
                parse("", "COPY t FROM STDIN"),
                bind(""),
                execute(),
                sync(),
                copy_data(b"1"),
                copy_done(),
                sync(),
            ]
            .concat(),
        ),
        Server([m(b'1', b""), m(b'2', b""), error("ERROR", "42P01"), z('I'), z('I')].concat()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((1, 0, 0), 0));
}

#[test]
fn leftover_copy_data_after_an_error_is_nobodys() {
    let end = session(&[
        Client(q("COPY t FROM STDIN")),
        Server(m(b'G', &[0, 0, 0])),
        Client(copy_data(b"x")),
        Server([error("ERROR", "22P02"), z('I')].concat()),
        Client([copy_data(b"y"), copy_done(), q("SELECT 1")].concat()),
        Server(rows()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((2, 0, 0), 0));
}

#[test]
fn a_copy_whose_sync_was_swallowed_and_that_fails_skips_what_was_sent_behind_it() {
    let run = [parse("", "COPY t FROM STDIN"), bind(""), execute(), sync()].concat();
    let asked = [m(b'1', b""), m(b'2', b""), m(b'G', &[0, 0, 0])].concat();
    for data in [copy_data(b"x"), [copy_data(b"x"), copy_done()].concat()] {
        let behind = [q("SELECT 1"), q("SELECT 2"), close("s"), q("SELECT 3"), sync()].concat();
        let end = session(&[
            Client([run.clone(), data, behind].concat()),
            Server([asked.clone(), error("ERROR", "22P02"), z('I')].concat()),
            Waits(Wait::Nothing),
            Client(q("SELECT 4")),
            Server(rows()),
            Waits(Wait::Nothing),
        ]);
        assert_eq!((end.told().as_str(), end.count(Counter::Opaque)), ("12GEZTDCZ", 0));
    }
}

#[test]
fn copy_ends_before_an_execute_end_no_copy() {
    let run =
        [parse("", "COPY t FROM STDIN"), copy_done(), copy_fail(), bind(""), execute(), sync()].concat();
    let asked = [m(b'1', b""), m(b'2', b""), m(b'G', &[0, 0, 0])].concat();
    let end = session(&[
        Client(run),
        Server(asked),
        Client([copy_data(b"1"), copy_done(), sync()].concat()),
        Server([complete("COPY 1"), z('I')].concat()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque)), ((1, 0, 0), 0));
}

#[test]
fn copy_fail_is_the_users_own_cancel() {
    let mut steps = Vec::new();
    for _ in 0..10 {
        steps.extend([
            Client(q("COPY t FROM STDIN")),
            Server(m(b'G', &[0, 0, 0])),
            Client(copy_fail()),
            Server([error("ERROR", "57014"), z('I')].concat()),
        ]);
    }
    let mut rig = Rig::new();
    play(&mut rig, &[started(), steps].concat(), Cut::Bytes(3));
    assert_eq!(rig.outcome().verdicts(), (1, 0, 10));
    rig.balance();
}

#[test]
fn copy_out_has_no_timeout() {
    let end = session(&[
        Client(q("COPY t TO STDOUT")),
        Server(m(b'H', &[0, 0, 0])),
        Waits(Wait::Nothing),
        Server([copy_data(b"1\n"), m(b'c', b""), complete("COPY 1"), z('I')].concat()),
    ]);
    assert_eq!(calls(&end), (1, 0, 0));
}

#[test]
fn copy_both_is_opaque() {
    let end = session(&[
        Client(q("START_REPLICATION")),
        Server(m(b'W', &[0, 0, 0])),
        Client(vec![0; 9]),
        Server(vec![255; 9]),
        Waits(Wait::Nothing),
        ServerEof(Fault::Eof),
    ]);
    assert_eq!((calls(&end), end.count(Counter::Opaque), end.phase), ((0, 0, 1), 1, Phase::Finish));
    assert!(end.to_client.ends_with(&[255; 9]) && end.to_server.ends_with(&[0; 9]));
}

#[test]
fn unknown_framing_is_relayed_opaquely_in_both_directions() {
    let strange = b"\x01strange".to_vec();
    let server = session(&[Client(q("SELECT 1")), Server(strange.clone()), Client(strange.clone())]);
    assert_eq!((calls(&server), server.count(Counter::Opaque)), ((0, 0, 1), 1));
    assert!(server.to_client.ends_with(&strange) && server.to_server.ends_with(&strange));
    let client = session(&[Client(m(b'!', b"x")), Server(m(b'!', b"y"))]);
    assert_eq!((calls(&client), client.count(Counter::Opaque)), ((0, 0, 0), 1));
    assert!(client.to_server.ends_with(&m(b'!', b"x")));
}

#[test]
fn lengths_out_of_bounds_from_the_client_break_the_protocol() {
    let header = |tag: u8, len: u32| [&[tag][..], &len.to_be_bytes()].concat();
    let bad = [
        header(b'Q', 3),
        header(b'Q', 0),
        header(b'Q', u32::MAX),
        header(b'Q', 1 << 30),
        header(b'S', 10_001),
        header(b'E', 10_001),
        header(b'X', 1 << 20),
        header(b'p', 65_541),
    ];
    for bytes in bad {
        let end = session(&[Client(bytes.clone())]);
        assert_eq!((end.told().as_str(), end.error(b'C').as_str(), end.phase), ("E", "08P01", Phase::Finish));
        assert_eq!((end.count(Counter::ClientMalformed), end.sent().as_str()), (1, ""));
        // Replies that are owed come first.
        let behind = session(&[Client([q("SELECT 1"), bytes].concat()), Told("RSKZ"), Server(rows())]);
        assert_eq!((behind.told().as_str(), behind.phase), ("TDCZE", Phase::Finish));
        assert_eq!(calls(&behind), (1, 0, 0));
    }
}

#[test]
fn lengths_out_of_bounds_from_the_backend_fail_the_call() {
    for bad in [[b'Z', 0, 0, 0, 4], [b'D', 0, 0, 0, 3], [b'C', 255, 255, 255, 255], [b'1', 0, 0, 0, 9]] {
        let end = session(&[Client(q("SELECT 1")), Server([m(b'T', &[0, 0]), bad.to_vec()].concat())]);
        assert_eq!((calls(&end), end.failed(), end.told().as_str()), ((0, 1, 0), vec!["malformed"], "TE"));
        assert_eq!((end.error(b'C').as_str(), end.phase), ("08006", Phase::Finish));
    }
}

#[test]
fn a_length_out_of_bounds_that_answers_nobody_makes_a_plain_relay() {
    let bad = vec![b'Z', 0, 0, 0, 4];
    let end = session(&[Server([bad.clone(), b"more".to_vec()].concat())]);
    assert_eq!((end.count(Counter::Opaque), end.phase), (1, Phase::Relay));
    assert_eq!(end.to_client, [bad, b"more".to_vec()].concat());
}

#[test]
fn what_is_no_message_ends_a_session_that_owes_a_refusal() {
    let strange = m(b'!', b"x");
    let behind = session(&[
        Client(q("SELECT 1")),
        Trip,
        Client(q("SELECT 2")),
        Client(strange.clone()),
        Server(rows()),
    ]);
    assert_eq!((behind.told().as_str(), behind.error(b'C').as_str()), ("TDCZEZE", "08P01"));
    assert_eq!((behind.count(Counter::ClientMalformed), behind.count(Counter::Opaque)), (1, 0));
    let with = session(&[Trip, Client([q("SELECT 1"), strange].concat())]);
    assert_eq!(
        (with.told().as_str(), with.error(b'C').as_str(), with.phase),
        ("EZE", "08P01", Phase::Finish)
    );
    let server =
        session(&[Client(q("SELECT 1")), Trip, Client(q("SELECT 2")), Server(b"\x01strange".to_vec())]);
    assert_eq!((server.phase, server.count(Counter::Opaque)), (Phase::Abort, 1));
}

#[test]
fn many_rows_are_followed_by_whatever_comes() {
    let five = |tag| (0..5).flat_map(|n| m(tag, &[b'x'; 9][..n * 2])).collect::<Vec<u8>>();
    let answer = |last: &[u8]| [m(b'T', &[0, 0]), five(b'D'), last.to_vec()].concat();
    let played = |last: &[u8]| session(&[Client(q("SELECT 1")), Server(answer(last))]);
    let end = played(&[complete("SELECT 5"), z('I')].concat());
    assert_eq!((calls(&end), end.told().as_str()), ((1, 0, 0), "TDDDDDCZ"));
    let end = played(&[error("ERROR", "53100"), z('I')].concat());
    assert_eq!((calls(&end), end.told().as_str()), ((0, 1, 0), "TDDDDDEZ"));
    let end = played(&[b'D', 0, 0, 0, 3]);
    assert_eq!((calls(&end), end.failed(), end.told().as_str()), ((0, 1, 0), vec!["malformed"], "TDDDDDE"));
    let copied = [m(b'H', &[0, 0, 0]), five(b'd'), m(b'c', b""), complete("COPY 5"), z('I')].concat();
    let end = session(&[Client(q("COPY t TO STDOUT")), Server(copied)]);
    assert_eq!((calls(&end), end.told().as_str()), ((1, 0, 0), "HdddddcCZ"));
}

#[test]
fn a_large_message_streams_through_both_ways() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    let megabyte = vec![b'x'; 1 << 20];
    rig.client(&[b'Q', 0x3f, 0xff, 0xff, 0xfe], true);
    for _ in 0..20 {
        rig.client(&megabyte, true);
    }
    assert!(rig.to_server.len() > 20 << 20, "the query is held back");
    rig.balance();
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    rig.client(&q("SELECT 1"), true);
    rig.server(&[b'D', 0x7f, 0xff, 0xff, 0xff]);
    for _ in 0..20 {
        rig.server(&megabyte);
    }
    assert!(rig.to_client.len() > 20 << 20, "the row is held back");
    rig.balance();
}

#[test]
fn terminate_is_forwarded_and_the_close_after_it_is_no_failure() {
    for before in [vec![], q("SELECT 1")] {
        let end = session(&[Client([before, terminate()].concat()), ServerEof(Fault::Eof)]);
        assert_eq!((end.verdicts().1, end.phase, end.sent().ends_with('X')), (0, Phase::Finish, true));
        assert_eq!((end.told().as_str(), end.count(Counter::Opaque)), ("", 0));
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let end = session(&[Client(q("SELECT 1")), ClientEof, Server(rows()), ServerEof(Fault::Eof)]);
    assert_eq!((calls(&end), end.told().as_str(), end.phase), ((1, 0, 0), "TDCZ", Phase::Finish));
}

#[test]
fn a_backend_that_ends_the_query_of_a_client_that_has_left_has_not_failed() {
    for fault in [Fault::Eof, Fault::Reset] {
        let end = session(&[Client(q("SELECT 1")), ClientEof, ServerEof(fault)]);
        assert_eq!((calls(&end), end.phase), ((0, 0, 1), Phase::Finish));
    }
    let crash = session(&[
        Client(q("SELECT 1")),
        ClientEof,
        Server(notice("WARNING", "57P02")),
        ServerEof(Fault::Eof),
    ]);
    assert_eq!((calls(&crash), crash.failed()), ((0, 1, 0), vec!["57P02"]));
}

#[test]
fn a_client_that_leaves_when_it_is_asked_for_a_password_is_no_failure() {
    for kind in [3, 5, 10] {
        let end = run(&[
            Client(startup()),
            Connect,
            Server(auth(kind)),
            ClientEof,
            ServerEof(Fault::Eof),
            Is(State::Closed),
        ]);
        assert_eq!((end.verdicts(), end.told().as_str(), end.phase), ((0, 0, 1), "R", Phase::Finish));
    }
}

#[test]
fn a_backend_owes_the_answers_that_a_flush_asks_for() {
    let (owed, free) = (Waits(Wait::Backend(RESPONSE)), Waits(Wait::Nothing));
    let asked = || vec![Client([parse("", "SELECT 1"), describe("")].concat()), free.clone()];
    let described = session(
        &[
            asked(),
            vec![
                Client(flush()),
                owed.clone(),
                Server([m(b'1', b""), m(b't', &[0, 0])].concat()),
                owed.clone(),
                Server(m(b'T', &[0, 0])),
                free.clone(),
                Client([bind(""), execute()].concat()),
                free.clone(),
                Client(sync()),
                owed.clone(),
                Server([m(b'2', b""), row(), complete("SELECT 1"), z('I')].concat()),
                free.clone(),
            ],
        ]
        .concat(),
    );
    assert_eq!(calls(&described), (1, 0, 0));
    let failed = [asked(), vec![Client(flush()), Server(error("ERROR", "42601")), free.clone()]].concat();
    assert_eq!(calls(&session(&failed)), (1, 0, 0));
    let hung = session(&[asked(), vec![Client(flush()), Deadline]].concat());
    assert_eq!((calls(&hung), hung.error(b'C').as_str()), ((0, 1, 0), "08006"));
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_run_is_no_failure() {
    let end = session(&[Client(parse("", "SELECT 1")), ClientEof, ServerEof(Fault::Eof)]);
    assert_eq!(calls(&end), (0, 0, 1));
}

#[test]
fn draining_ends_an_idle_session_natively_and_a_busy_one_after_its_transaction() {
    let idle = session(&[Drain]);
    assert_eq!((idle.told().as_str(), idle.error(b'C').as_str(), idle.phase), ("E", "57P01", Phase::Finish));
    let busy = session(&[
        Client(q("BEGIN")),
        Drain,
        Server([complete("BEGIN"), z('T')].concat()),
        Client(q("COMMIT")),
        Told("RSKZCZ"),
        Server([complete("COMMIT"), z('I')].concat()),
    ]);
    assert_eq!(
        (busy.told().as_str(), busy.error(b'C').as_str(), busy.phase),
        ("CZCZE", "57P01", Phase::Finish)
    );
    let starting = run(&[Client(startup()), Connect, Drain, Server(greeting())]);
    assert_eq!((starting.told().as_str(), starting.phase), ("RSKZE", Phase::Finish));
}

#[test]
fn every_call_in_flight_is_settled_when_the_session_is_dropped() {
    let end = session(&[Client([q("SELECT 1"), pbes(""), parse("", "x")].concat())]);
    // `run` has dropped the session and balanced its books; nothing was settled before.
    assert_eq!((calls(&end), end.count(Counter::Admitted)), ((0, 0, 0), 4));
}
