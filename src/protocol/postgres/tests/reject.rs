//! PROTOCOLS.md §3.4: what a rejection looks like, and where there is none.

use super::rig::*;
use crate::breaker::{Fault, State};
use crate::metrics::Counter;
use crate::protocol::{Phase, Wait};

fn rejected(end: &Outcome) -> u64 {
    end.count(Counter::RejectedOpen) + end.count(Counter::RejectedHalfOpen)
}

#[test]
fn a_refused_query_is_an_error_and_a_ready_and_the_session_stays() {
    for query in [q("SELECT 1"), function(), q("")] {
        let end = session(&[
            Trip,
            Client(query.clone()),
            Told("RSKZEZ"),
            Reset,
            Client(q("SELECT 1")),
            Server(rows()),
        ]);
        assert_eq!((end.told().as_str(), end.sent().as_str(), end.phase), ("EZTDCZ", "Q", Phase::Relay));
        let fields: Vec<String> = b"SVCMDHR".iter().map(|f| end.error(*f)).collect();
        assert_eq!(
            fields,
            [
                "ERROR",
                "ERROR",
                "57000",
                "backend 'db' is open (a manual trip)",
                "a manual trip",
                "retry after an operator has reset it",
                "fusewire"
            ]
        );
        assert_eq!(messages(&end.to_client)[1], (b'Z', b"I".to_vec()));
        assert_eq!((rejected(&end), end.verdicts()), (1, (2, 0, 0)));
    }
}

#[test]
fn a_refused_run_is_discarded_through_its_sync_and_none_of_it_is_forwarded() {
    let parts = [parse("", "SELECT 1"), bind(""), describe(""), execute(), flush(), q("SELECT 2"), sync()];
    let end = session(&[Trip, Client(parts.concat()), Reset, Client(q("SELECT 1")), Server(rows())]);
    assert_eq!((end.told().as_str(), end.sent().as_str(), rejected(&end)), ("EZTDCZ", "Q", 1));
}

#[test]
fn the_error_of_a_refused_run_does_not_wait_for_its_sync() {
    let end = session(&[
        Trip,
        Client([parse("", "SELECT 1"), flush()].concat()),
        Told("RSKZE"),
        Reset,
        Client([bind(""), execute(), sync()].concat()),
        Told("RSKZEZ"),
    ]);
    assert_eq!((end.sent().as_str(), rejected(&end)), ("", 1));
}

#[test]
fn a_rejection_waits_for_the_replies_before_it() {
    let end = session(&[
        Client(q("SELECT 1")),
        Trip,
        Client([q("SELECT 2"), pbes("")].concat()),
        Told("RSKZ"),
        Server([rows(), notice("NOTICE", "00000")].concat()),
    ]);
    assert_eq!((end.told().as_str(), end.sent().as_str(), rejected(&end)), ("TDCZEZEZN", "Q", 2));
}

#[test]
fn a_rejection_does_not_fall_into_a_half_relayed_notice() {
    let news = notice("NOTICE", "00000");
    let (head, tail) = news.split_at(9);
    let end = session(&[
        Server(head.to_vec()),
        Trip,
        Client(q("SELECT 1")),
        Server([tail.to_vec(), news.clone()].concat()),
    ]);
    assert_eq!(end.told(), "NEZN");
}

#[test]
fn within_a_transaction_nothing_is_rejected() {
    for status in ['T', 'E'] {
        let end = session(&[
            Client(q("BEGIN")),
            Server([complete("BEGIN"), z(status)].concat()),
            Trip,
            Client(q("INSERT")),
            Server([complete("INSERT 0 1"), z(status)].concat()),
            Client(pbes("")),
            Server([m(b'1', b""), m(b'2', b""), complete("INSERT 0 1"), z(status)].concat()),
            Client(q("COMMIT")),
            Server([complete("COMMIT"), z('I')].concat()),
            Client(q("SELECT 1")),
        ]);
        assert_eq!((end.sent().as_str(), rejected(&end)), ("QQPBESQ", 1), "{status}");
        assert!(end.told().ends_with("CZEZ"));
    }
}

#[test]
fn what_is_sent_behind_a_begin_that_is_in_flight_is_not_rejected() {
    for begin in ["BEGIN", "  start transaction", "/* x */ BEGIN", "SELECT 1; BEGIN"] {
        let end = session(&[Client(q(begin)), Trip, Client(q("INSERT"))]);
        assert_eq!((end.sent().as_str(), rejected(&end)), ("QQ", 0), "{begin}");
    }
    let extended = session(&[Client(pbes("maybe_begin")), Trip, Client(q("INSERT"))]);
    assert_eq!(rejected(&extended), 0);
    for plain in ["SELECT 1;", "  SELECT 1", "\n\tselect 1 ; "] {
        let end = session(&[Client(q(plain)), Trip, Client(q("INSERT"))]);
        assert_eq!(rejected(&end), 1, "{plain}");
    }
}

#[test]
fn a_run_that_has_begun_is_let_finish() {
    let end = session(&[
        Client(parse("", "SELECT 1")),
        Trip,
        Client([bind(""), execute(), sync()].concat()),
        Server(extended_rows()),
    ]);
    assert_eq!((end.sent().as_str(), rejected(&end), end.told().as_str()), ("PBES", 0, "12DCZ"));
}

#[test]
fn a_copy_in_that_is_active_passes_to_its_end() {
    let end = session(&[
        Client(q("COPY t FROM STDIN")),
        Server(m(b'G', &[0, 0, 0])),
        Trip,
        Client([copy_data(b"1"), sync(), copy_done()].concat()),
        Server([complete("COPY 1"), z('I')].concat()),
    ]);
    assert_eq!((end.sent().as_str(), rejected(&end)), ("QdSc", 0));
}

#[test]
fn what_comes_behind_a_copy_in_that_is_active_is_not_rejected() {
    let end = session(&[
        Client(q("COPY t FROM STDIN")),
        Server(m(b'G', &[0, 0, 0])),
        Trip,
        Client([copy_data(b"1"), sync(), copy_done(), q("SELECT 1")].concat()),
        Server([complete("COPY 1"), z('I'), rows()].concat()),
        Waits(Wait::Nothing),
        Drain,
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("QdScQ", "GCZTDCZE"));
    assert_eq!(end.error(b'C'), "57P01");
}

#[test]
fn the_data_of_a_rejected_copy_is_dropped_with_it() {
    let end = session(&[Trip, Client([q("COPY t FROM STDIN"), copy_data(b"1"), copy_done()].concat())]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("", "EZ"));
}

#[test]
fn a_query_that_ended_a_run_leaves_the_next_one_open_to_rejection() {
    let end = session(&[
        Client([parse("", "SELECT 1"), q("SELECT 1")].concat()),
        Server([m(b'1', b""), rows()].concat()),
        Trip,
        Client(q("SELECT 1")),
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("PQ", "1TDCZEZ"));
}

#[test]
fn once_one_is_rejected_everything_readable_is() {
    // The breaker closes between two pieces of one pipeline.
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    let old = [parse("", "DELETE"), sync()].concat();
    play(&mut rig, &[Client(old), Server([m(b'1', b""), z('I')].concat()), Trip], Cut::Whole);
    rig.client(&[parse("", "SELECT"), sync()].concat(), false);
    rig.step(&Reset);
    rig.client(&[bind(""), execute(), sync(), q("INSERT")].concat(), true);
    rig.client(&q("SELECT 1"), true);
    let end = rig.outcome();
    assert_eq!((end.sent().as_str(), rejected(&end)), ("PSQ", 3));
    assert!(end.told().ends_with("1ZEZEZEZ"), "{}", end.told());
    rig.balance();
}

#[test]
fn a_statement_whose_parse_was_rejected_is_missing_until_it_is_parsed() {
    for name in ["", "s1"] {
        for used in [[bind(name), execute(), sync()].concat(), [describe(name), sync()].concat()] {
            let end = session(&[
                Trip,
                Client([parse(name, "SELECT 2"), sync()].concat()),
                Reset,
                Client(used.clone()),
                Told("RSKZEZEZ"),
                Client([parse(name, "SELECT 2"), used].concat()),
            ]);
            assert_eq!(end.error(b'C'), "26000", "{name}");
            assert_eq!((end.count(Counter::RejectedSession), end.sent().len() > 2), (1, true));
            assert!(end.sent().starts_with('P'));
            assert!(!String::from_utf8_lossy(&end.to_server).contains("fusewire"));
        }
    }
    let other = session(&[
        Trip,
        Client([parse("s1", "SELECT 2"), sync()].concat()),
        Reset,
        Client([bind("s2"), execute(), sync()].concat()),
    ]);
    assert_eq!((other.sent().as_str(), other.count(Counter::RejectedSession)), ("BES", 0));
}

#[test]
fn a_missing_statement_in_a_transaction_or_a_run_gets_its_error_from_the_server() {
    let end = session(&[
        Trip,
        Client([parse("s1", "DELETE"), sync()].concat()),
        Reset,
        Client(q("BEGIN")),
        Server([complete("BEGIN"), z('T')].concat()),
        Client([bind("s1"), execute(), sync()].concat()),
        Server([error("ERROR", "26000"), z('E')].concat()),
        Client([parse("", "x"), describe("s1"), sync()].concat()),
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("QBESPDS", "EZCZEZ"));
    let nobody = "fusewire: its Parse was rejected";
    let bound = m(b'B', format!("\0{nobody}\0\0\0\0\0\0\0").as_bytes());
    let described = m(b'D', format!("S{nobody}\0").as_bytes());
    let rest = [bound, execute(), sync(), parse("", "x"), described, sync()].concat();
    assert!(end.to_server.ends_with(&rest), "{:?}", end.to_server);
}

/// A session to which the statement `s1` is missing.
fn missing() -> Rig {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    play(&mut rig, &[Trip, Client([parse("s1", "SELECT 1"), sync()].concat()), Reset], Cut::Whole);
    rig
}

#[test]
fn only_what_names_a_missing_statement_is_affected_by_it() {
    let portal = |name: &str| m(b'D', format!("P{name}\0").as_bytes());
    for passes in [
        portal("s1"),
        portal(&"x".repeat(2000)),
        m(b'D', b""),
        // Neither ends its name, which is the server's to say.
        m(b'B', b"s1"),
        m(b'B', b"\0s1"),
        m(b'P', b"s1"),
    ] {
        for cut in [Cut::Whole, Cut::Bytes(1), Cut::Bytes(1100)] {
            let mut rig = missing();
            play(&mut rig, &[Client([passes.clone(), sync()].concat())], cut);
            assert_eq!(rig.to_server[startup().len()..], [passes.clone(), sync()].concat());
        }
    }
}

#[test]
fn a_name_without_end_is_not_waited_for() {
    let long = vec![b'x'; 70_000];
    let message = |tag: u8, begin: &[u8]| [&[tag, 0, 1, 0xff, 0xff], begin, &long].concat();
    // The rig sees that no more is held than may be.
    let mut rig = missing();
    rig.client(&message(b'P', b""), true);
    assert!(rig.to_server.len() > long.len(), "a name of more than 63 bytes is known by those");
    let mut rig = missing();
    rig.client(&message(b'B', b""), true);
    assert_eq!(rig.outcome().error(b'C'), "26000");
}

#[test]
fn a_setting_lost_in_a_run_that_misses_a_statement_ends_the_session() {
    let mut rig = missing();
    let run = [bind("s1"), execute(), parse("", "SET a = b"), sync()].concat();
    play(&mut rig, &[Client(run)], Cut::Bytes(5));
    let end = rig.outcome();
    assert_eq!(
        (end.told().as_str(), end.error(b'V').as_str(), end.phase),
        ("RSKZEZEE", "FATAL", Phase::Finish)
    );
    assert!(end.error(b'M').starts_with("a statement that sets session state"));
}

#[test]
fn each_refusal_says_why_it_was_and_like_ones_are_a_count() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    play(&mut rig, &[Client(q("SELECT 1")), Trip, Client(q("SELECT 2").repeat(3))], Cut::Whole);
    rig.gate.trip(rig.now, Some(std::time::Duration::from_secs(9)));
    rig.step(&Client(q("SELECT 3").repeat(3)));
    assert_eq!(format!("{:?}", rig.session.queue).matches("Refused(").count(), 2);
    rig.server(&rows());
    let errors = messages(&rig.to_client).into_iter().filter(|(tag, _)| *tag == b'E');
    let hints: Vec<String> = errors.map(|(_, body)| field_of(&body, b'H')).collect();
    let (never, soon) = ("retry after an operator has reset it", "retry after 9000 ms");
    assert_eq!(hints, [never, never, never, soon, soon, soon]);
}

#[test]
fn a_run_of_closes_without_end_is_not_waited_for() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    rig.step(&Trip);
    // The rig sees that no more is held than may be.
    rig.client(&close("a").repeat(10_000), true);
    assert_eq!(rig.outcome().told(), "RSKZE");
}

#[test]
fn a_statement_is_looked_for_behind_a_long_name() {
    let copy = parse(&"n".repeat(1500), "COPY t FROM STDIN");
    for cut in [Cut::Whole, Cut::Bytes(1), Cut::Bytes(1100)] {
        let mut rig = Rig::new();
        play(&mut rig, &started(), Cut::Whole);
        play(&mut rig, &[HalfOpen], Cut::Whole);
        play(&mut rig, &[Client(copy.clone())], cut);
        assert_eq!(rig.outcome().count(Counter::Probes), 0);
    }
}

#[test]
fn a_lost_setting_ends_the_session() {
    let statements = [
        "SET search_path = a",
        "set role b",
        "  -- who\n/* a /* b */ */ SET SESSION AUTHORIZATION c",
        "RESET ALL",
        "DISCARD ALL",
        "LISTEN c",
        "UNLISTEN *",
        "PREPARE p AS SELECT 1",
        "DEALLOCATE p",
        "SELECT 1; SET x = 1",
        "SET x = 1; INSERT INTO t VALUES (1)",
        "INSERT INTO t SELECT set_config('a.b', 'c', false)",
        "SELECT set_config('a.b', 'c', false)",
        "SET",
        "CREATE TEMP TABLE t (x int)",
        "create local /* a */ temporary table t (x int)",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "CREATE TABLE pg_temp.t (x int)",
        "SELECT 1 INTO TEMP t",
        "WITH a AS (SELECT 1) SELECT * INTO LOCAL TEMPORARY t FROM a",
    ];
    for statement in statements {
        for sent in [q(statement), [parse("", statement), bind(""), execute(), sync()].concat()] {
            let end = session(&[Trip, Client([sent, q("INSERT")].concat())]);
            assert_eq!((end.told().as_str(), end.phase), ("E", Phase::Finish), "{statement}");
            assert_eq!((end.error(b'V').as_str(), end.error(b'C').as_str()), ("FATAL", "57000"));
            assert_eq!(end.sent(), "");
        }
    }
    for statement in [
        "SET LOCAL a = b",
        "SET TRANSACTION READ ONLY",
        "SELECT 'set'",
        "UPDATE t SET a = 1",
        "",
        "CREATE TABLE temp (x int)",
        "INSERT INTO temp VALUES (1)",
        "SELECT temp FROM t",
        "/* a /* b */ SET x = 1 */ SELECT 1",
        "set_config_and_more()",
        "CREATE UNLOGGED TABLE t (temp int)",
    ] {
        let end = session(&[Trip, Client(q(statement))]);
        assert_eq!((end.told().as_str(), end.phase), ("EZ", Phase::Relay), "{statement}");
    }
}

#[test]
fn a_setting_lost_later_in_a_refused_run_ends_the_session_too() {
    let end = session(&[Trip, Client([bind("s"), execute(), parse("", "SET a = b"), sync()].concat())]);
    assert_eq!((end.told().as_str(), end.phase), ("EE", Phase::Finish));
    assert_eq!(end.error(b'V'), "FATAL");
}

#[test]
fn terminate_and_runs_of_nothing_but_close_pass() {
    let end = session(&[
        Trip,
        Client([close("a"), close("b"), sync()].concat()),
        Server([m(b'3', b""), m(b'3', b""), z('I')].concat()),
        Client(terminate()),
        ServerEof(Fault::Eof),
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str(), rejected(&end)), ("CCSX", "33Z", 0));
    assert_eq!((end.count(Counter::Admitted), end.phase), (1, Phase::Finish));
}

#[test]
fn a_close_before_other_messages_does_not_smuggle_them_through() {
    let end = session(&[Trip, Client([close("a"), pbes("")].concat())]);
    assert_eq!((end.sent().as_str(), end.told().as_str(), rejected(&end)), ("", "EZ", 1));
}

#[test]
fn a_query_within_a_run_that_passed_is_not_rejected_on_its_own() {
    let end = session(&[
        Trip,
        Client([q("SELECT 1"), close("a"), flush(), q("SELECT 2"), sync()].concat()),
        Server([m(b'3', b""), rows(), z('I')].concat()),
        Reset,
        Client(q("SELECT 3")),
        Server(rows()),
        Waits(Wait::Nothing),
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("CHQSQ", "EZ3TDCZZTDCZ"));
    assert_eq!((end.count(Counter::Opaque), rejected(&end)), (0, 1));
}

#[test]
fn a_sync_by_itself_is_answered_and_a_flush_by_itself_opens_nothing() {
    let end = session(&[Trip, Client([flush(), sync(), sync(), q("SELECT 1")].concat())]);
    assert_eq!((end.told().as_str(), rejected(&end)), ("ZZEZ", 1));
}

#[test]
fn a_pipeline_of_rejections_is_stored_as_a_count_and_written_in_chunks() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    rig.step(&Trip);
    let many: Vec<u8> = std::iter::repeat_n(pbes(""), 5000).flatten().collect();
    rig.client(&many, true);
    let end = rig.outcome();
    assert_eq!((rejected(&end), end.told().matches("EZ").count()), (5000, 5000));
}

#[test]
fn half_open_lets_one_probe_through_and_its_first_answer_decides() {
    let end = session(&[
        HalfOpen,
        Client(q("SELECT 1")),
        Client(q("SELECT 2")),
        Server([m(b'T', &[0, 0])].concat()),
        Is(State::Closed),
        Client(q("SELECT 3")),
        Server([complete("SELECT 0"), z('I')].concat()),
    ]);
    assert_eq!((end.sent().as_str(), end.told().as_str()), ("QQ", "TCZEZ"));
    assert_eq!((end.count(Counter::RejectedHalfOpen), end.count(Counter::Probes)), (1, 1));
}

#[test]
fn a_notice_does_not_decide_a_probe_and_an_error_of_the_backend_reopens() {
    let end = session(&[
        HalfOpen,
        Client(q("SELECT 1")),
        Server(notice("WARNING", "01000")),
        Is(State::HalfOpen),
        Server([error("ERROR", "53200"), z('I')].concat()),
        Is(State::Open),
    ]);
    assert_eq!(end.failed(), ["53200"]);
}

#[test]
fn a_probe_that_begins_a_transaction_counts_and_the_transaction_goes_on() {
    let end = session(&[
        HalfOpen,
        Client([q("BEGIN"), q("INSERT")].concat()),
        Server([complete("BEGIN"), z('T')].concat()),
        Is(State::Closed),
        Server([complete("INSERT 0 1"), z('T')].concat()),
    ]);
    assert_eq!((end.sent().as_str(), rejected(&end)), ("QQ", 0));
}

#[test]
fn copy_and_listen_are_no_probes() {
    for statement in ["COPY t FROM STDIN", " copy t to stdout", "/* a */ COPY t FROM '/x'"] {
        for sent in [q(statement), parse("", statement)] {
            let end = session(&[HalfOpen, Client(sent)]);
            assert_eq!((end.count(Counter::Probes), rejected(&end)), (0, 1), "{statement}");
        }
    }
    let listen = session(&[HalfOpen, Client(q("LISTEN a"))]);
    assert_eq!((listen.count(Counter::Probes), listen.phase), (0, Phase::Finish));
}

#[test]
fn a_probe_that_turns_out_to_be_a_copy_frees_its_slot() {
    for (begin, told) in [(b'G', "G"), (b'H', "H")] {
        let end = session(&[
            HalfOpen,
            Client([bind("copier"), execute(), sync()].concat()),
            Server([m(begin, &[0, 0, 0])].concat()),
            Is(State::HalfOpen),
        ]);
        assert_eq!((end.count(Counter::Probes), end.probes, end.told().as_str()), (1, 0, told));
        assert_eq!(end.verdicts(), (1, 0, 1));
    }
}

#[test]
fn a_probe_whose_client_leaves_frees_its_slot() {
    let mut rig = Rig::new();
    play(&mut rig, &[started(), vec![HalfOpen, Client(q("SELECT 1"))]].concat(), Cut::Whole);
    assert_eq!(rig.snapshot().probes_in_flight, 1);
    rig.balance();
}

#[test]
fn a_startup_probe_is_decided_by_ready_and_not_before() {
    let end = run(&[
        HalfOpen,
        Client(startup()),
        Connect,
        Server(auth(0)),
        Is(State::HalfOpen),
        Server(error("FATAL", "53300")),
        Is(State::Open),
    ]);
    assert_eq!(end.failed(), ["53300"]);
}

#[test]
fn a_startup_probe_that_waits_for_its_client_is_no_silent_backend() {
    let probe = |steps: &[Step]| {
        let mut rig = Rig::new();
        play(&mut rig, &[HalfOpen, Client(startup()), Connect], Cut::Whole);
        play(&mut rig, steps, Cut::Bytes(2));
        rig.now += std::time::Duration::from_secs(3600);
        rig.gate.tick(rig.now);
        let state = rig.snapshot().state;
        rig.balance();
        state
    };
    for kind in [3, 5, 10, 11] {
        assert_eq!(probe(&[Server(auth(kind))]), State::HalfOpen, "{kind}");
        assert_eq!(probe(&[Server(auth(kind)), Client(password())]), State::Open, "{kind}");
    }
    assert_eq!(probe(&[]), State::Open);
    assert_eq!(probe(&[Server(auth(0))]), State::Open);
}

#[test]
fn a_query_probe_that_waits_for_its_client_is_no_silent_backend() {
    let probe = |steps: &[Step]| {
        let mut rig = Rig::new();
        play(&mut rig, &[started(), vec![HalfOpen]].concat(), Cut::Whole);
        play(&mut rig, steps, Cut::Whole);
        assert_eq!(rig.snapshot().probes_in_flight, 1);
        rig.now += std::time::Duration::from_secs(3600);
        rig.gate.tick(rig.now);
        let state = rig.snapshot().state;
        rig.balance();
        state
    };
    let long = q(&"SELECT 1 ".repeat(1000));
    let (head, tail) = long.split_at(long.len() - 1);
    assert_eq!(probe(&[Client(head.to_vec())]), State::HalfOpen);
    assert_eq!(probe(&[Client(head.to_vec()), Client(tail.to_vec())]), State::Open);
    let run = [parse("", "SELECT 1"), bind(""), execute()].concat();
    assert_eq!(probe(&[Client(run.clone())]), State::HalfOpen);
    assert_eq!(probe(&[Client(run.clone()), Client(sync())]), State::Open);
    assert_eq!(probe(&[Client(run), Client(flush())]), State::Open);
}

#[test]
fn a_driver_that_numbers_its_statements_keeps_its_session_through_thousands_of_rejections() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    rig.step(&Trip);
    for n in 0..10_000 {
        rig.step(&Client([parse(&format!("s{n}"), "SELECT 1"), sync()].concat()));
    }
    rig.step(&Reset);
    rig.step(&Client([bind("s0"), execute(), sync()].concat()));
    rig.step(&Client([bind("s9999"), execute(), sync()].concat()));
    rig.step(&Client([parse("s9999", "SELECT 1"), bind("s9999"), execute(), sync()].concat()));
    let end = rig.outcome();
    assert_eq!((rejected(&end), end.count(Counter::RejectedSession)), (10_000, 2));
    assert_eq!((end.sent().as_str(), end.phase), ("PBES", Phase::Relay));
    rig.balance();
}

#[test]
fn a_session_whose_rejected_statements_cannot_be_remembered_is_ended() {
    let mut rig = Rig::new();
    play(&mut rig, &started(), Cut::Whole);
    rig.step(&Trip);
    let one = |n: u32| [parse(&format!("s{n}"), "SELECT 1"), sync()].concat();
    rig.step(&Client((0..1 << 16).flat_map(one).collect()));
    assert_eq!(rig.outcome().phase, Phase::Relay);
    rig.step(&Client(one(1 << 16)));
    let end = rig.outcome();
    assert_eq!((end.phase, end.error(b'S').as_str()), (Phase::Finish, "FATAL"));
    rig.balance();
}

#[test]
fn a_session_that_waits_behind_an_open_breaker_waits_for_nothing() {
    session(&[Trip, Client(q("SELECT 1")), Waits(Wait::Nothing)]);
}
