//! Connecting, ends of input, deadlines, drain.

use super::*;
use crate::breaker::{Fault, Mode};

#[test]
fn a_health_check_without_a_byte_dials_nobody() {
    let mut rig = Rig::new(Cut::Whole);
    let now = rig.now;
    rig.pump();
    assert_eq!(rig.phase(), Phase::Idle);
    rig.session().on_client_eof(now);
    assert_eq!(rig.phase(), Phase::Finish);
    assert_eq!((rig.dials, rig.count(Counter::Admitted)), (0, 0));
}

#[test]
fn an_idle_client_waits_for_ever() {
    assert_eq!(Rig::new(Cut::Whole).wait(), Wait::Nothing);
}

#[test]
fn while_open_nobody_is_dialled_and_all_is_rejected() {
    scenario(|rig| {
        rig.trip();
        assert_eq!(rejections(&rig.refused(reqs(&["HELLO 3", "GET k"]))), 2);
        assert_eq!(rig.dials, 0);
        assert_eq!(rig.count(Counter::RejectedOpen), 2, "what came over it, not the connection itself");
        assert_eq!(rig.phase(), Phase::Relay, "drivers queue and reconnect if it closes");
        rig.pass_time(HOLD);
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn quit_is_answered_without_a_backend() {
    scenario(|rig| {
        rig.trip();
        assert_eq!(rig.refused(req("QUIT")), "+OK\r\n");
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_client_that_leaves_a_poisoned_connection_ends_it() {
    scenario(|rig| {
        rig.trip().client(req("GET k"));
        let now = rig.now;
        rig.session().on_client_eof(now);
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_refused_dial_is_one_failure_and_one_error() {
    scenario(|rig| {
        rig.hold_dial = true;
        rig.client(reqs(&["GET a", "GET b"]));
        let now = rig.now;
        rig.session().on_connect_failed(now, Some(Fault::Refused));
        rig.pump();
        assert_eq!(rig.down(), "-ERR fusewire: backend 'cache' cannot be reached: connection refused\r\n");
        assert_eq!(rig.phase(), Phase::Finish);
        assert_eq!((rig.count(Counter::Failure), rig.run()), (1, 1));
    });
}

#[test]
fn a_refused_dial_that_was_only_observed_shows_as_a_call_that_would_have_been_rejected() {
    scenario(|rig| {
        rig.hold_dial = true;
        let now = rig.now;
        rig.gate.set_mode(now, Mode::Observe);
        rig.trip().client(req("GET a"));
        rig.session().on_connect_failed(now, Some(Fault::Refused));
        assert_eq!(rig.count(Counter::WouldReject), 1, "a dead server gets no command to count");
    });
}

#[test]
fn a_backend_without_a_free_place_is_told_in_its_own_words_and_is_no_verdict() {
    scenario(|rig| {
        rig.hold_dial = true;
        rig.client(reqs(&["GET a", "GET b"]));
        let now = rig.now;
        rig.session().on_full(now, 7);
        rig.pump();
        assert_eq!(
            (rig.down(), rig.phase()),
            ("-ERR max number of clients reached\r\n".into(), Phase::Finish)
        );
        assert_eq!((rig.count(Counter::Ignored), rig.count(Counter::Failure)), (1, 0));
    });
}

#[test]
fn a_fault_of_this_machine_is_no_failure() {
    scenario(|rig| {
        rig.hold_dial = true;
        rig.client(req("GET a"));
        let now = rig.now;
        rig.session().on_connect_failed(now, None);
        rig.pump();
        assert_eq!(rig.down(), "-ERR fusewire: no connection to backend 'cache': out of local resources\r\n");
        assert_eq!((rig.count(Counter::Failure), rig.count(Counter::LocalFaults)), (0, 1));
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_connection_alone_ends_no_run_of_failures() {
    scenario(|rig| {
        rig.hold_dial = true;
        rig.client(req("GET a"));
        let now = rig.now;
        rig.session().on_connect_failed(now, Some(Fault::Refused));
        let mut next = rig.another();
        next.client(req("HELLO 3"));
        assert_eq!(rig.run(), 1, "a stopped server accepts connections too");
        next.server("%0\r\n");
        assert_eq!(rig.run(), 1, "and a loading one says hello");
        next.client(req("GET k")).server("$-1\r\n");
        assert_eq!(rig.run(), 0);
    });
}

#[test]
fn a_server_that_accepts_and_closes_is_a_failure() {
    scenario(|rig| {
        rig.hold_dial = true;
        rig.client(req("GET a"));
        let now = rig.now;
        rig.session().on_connected(now, None);
        assert_eq!(rig.server_eof(), Phase::Finish);
        assert_eq!(rig.run(), 1);
    });
}

#[test]
fn a_dead_connection_with_a_pipeline_is_one_failure() {
    for fault in [Fault::Eof, Fault::Reset] {
        scenario(|rig| {
            rig.client(req("GET k").repeat(100)).server("$-1\r\n");
            assert_eq!(rig.server_lost(fault), Phase::Finish);
            assert_eq!(rig.count(Counter::Failure), 1);
            assert_eq!(rig.count(Counter::Success), 1);
            assert_eq!(rig.down(), "$-1\r\n", "the client sees a close, no invented reply");
            let failures = rig.gate.snapshot(rig.now).failures;
            assert_eq!(failures.keys().next().map(|cause| cause.label()), Some(fault.label()));
        });
    }
}

#[test]
fn a_connection_that_dies_within_a_reply_is_cut_off() {
    broken_scenario(|rig| {
        rig.client(req("GET k")).server("$10\r\nhalf");
        assert_eq!(rig.server_eof(), Phase::Abort);
        assert_eq!(rig.count(Counter::Failure), 1);
    });
}

#[test]
fn rejections_behind_a_dead_call_are_not_told_in_its_place() {
    scenario(|rig| {
        rig.client(req("GET a")).trip().client(req("GET b"));
        rig.server_eof();
        assert_eq!(rig.down(), "");
    });
}

#[test]
fn idle_connections_that_the_backend_closes_say_nothing() {
    scenario(|rig| {
        let mut idle: Vec<Rig> = (0..50).map(|_| rig.another()).collect();
        for rig in &mut idle {
            rig.passes(req("GET k"), "$-1\r\n");
        }
        for rig in &mut idle {
            assert_eq!(rig.server_eof(), Phase::Finish);
        }
        assert_eq!(rig.count(Counter::Failure), 0);
    });
}

#[test]
fn a_client_that_vanishes_says_nothing() {
    scenario(|rig| {
        rig.client(reqs(&["GET a", "SET b c", "BLPOP k 0", "SUBSCRIBE c"]));
        rig.vanish();
        assert_eq!(rig.totals().in_flight(), 0);
        assert_eq!(rig.count(Counter::Failure) + u64::from(rig.run()), 0);
        assert_eq!(rig.count(Counter::Ignored), 5);
    });
}

#[test]
fn silence_is_one_failure_and_an_error_that_says_so() {
    scenario(|rig| {
        rig.client(reqs(&["GET a", "GET b"]));
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
        rig.now += RESPONSE;
        let now = rig.now;
        rig.session().on_deadline(now);
        rig.pump();
        assert_eq!(
            rig.down(),
            "-ERR fusewire: backend 'cache' sent no reply within 30s; the outcome of the command is unknown\r\n"
        );
        assert_eq!(rig.phase(), Phase::Finish);
        assert_eq!(rig.count(Counter::Failure), 1);
        rig.server("$5\r\nlate!\r\n");
        assert!(!rig.down().contains("late"));
    });
}

#[test]
fn silence_in_the_middle_of_a_reply_has_no_orderly_end() {
    broken_scenario(|rig| {
        rig.client(req("GET a")).server("$100\r\nabc");
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
        let now = rig.now;
        rig.session().on_deadline(now);
        assert_eq!(rig.phase(), Phase::Abort);
        assert_eq!(rig.count(Counter::Failure), 1);
    });
}

#[test]
fn a_request_half_sent_is_the_clients_move() {
    let mut rig = Rig::new(Cut::Whole);
    rig.client("*2\r\n$3\r\nGET\r\n$1\r\n");
    assert_eq!(rig.wait(), Wait::Nothing);
    rig.client("k\r\n");
    assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
    rig.client("*2\r\n$3\r\nGET\r\n$1\r\n");
    assert_eq!(rig.wait(), Wait::Backend(RESPONSE), "the first one is still owed");
    rig.server("$-1\r\n");
    assert_eq!(rig.wait(), Wait::Nothing);
    rig.client("k\r\n").server("$-1\r\n");
    assert_eq!(rig.count(Counter::Success), 2);
}

#[test]
fn the_clients_eof_goes_on_when_nothing_is_owed() {
    scenario(|rig| {
        rig.client(req("GET k"));
        let now = rig.now;
        rig.session().on_client_eof(now);
        assert!(!rig.session().may_forward_eof() && !rig.session().is_parting());
        rig.server("$1\r\nv\r\n");
        assert_eq!(rig.down(), "$1\r\nv\r\n");
        assert!(rig.session().may_forward_eof() && rig.session().is_parting());
        assert_eq!(rig.server_eof(), Phase::Finish);
        assert_eq!(rig.count(Counter::Failure), 0);
    });
}

#[test]
fn the_eof_of_a_client_that_only_listens_goes_on() {
    scenario(|rig| {
        rig.client(req("MONITOR")).server("+OK\r\n");
        let now = rig.now;
        rig.session().on_client_eof(now);
        assert!(rig.session().may_forward_eof(), "a server that is not told goes on sending for ever");
    });
}

#[test]
fn a_probe_that_waits_for_a_place_of_its_own_is_no_silent_backend() {
    for (queued, state) in [(true, State::HalfOpen), (false, State::Open)] {
        scenario(|rig| {
            rig.half_open().hold_dial = true;
            rig.client(req("GET a"));
            rig.session().on_queued(queued);
            rig.pass_time(Policy::default().probe_timeout);
            assert_eq!(rig.state(), state);
        });
    }
}

#[test]
fn the_eof_of_a_client_in_the_middle_of_a_request_reaches_the_backend() {
    scenario(|rig| {
        rig.client(req("GET k")).client("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nonly a");
        let now = rig.now;
        rig.session().on_client_eof(now);
        assert!(!rig.session().may_forward_eof(), "the first one's reply is owed");
        rig.server("$-1\r\n");
        assert!(
            rig.session().may_forward_eof(),
            "the second will never be whole, and nobody but the backend can end it"
        );
    });
}

#[test]
fn the_eof_of_a_blocked_client_reaches_the_backend() {
    scenario(|rig| {
        rig.client(req("BLPOP jobs 0"));
        let now = rig.now;
        rig.session().on_client_eof(now);
        assert!(rig.session().may_forward_eof(), "else a dead worker is handed the next job");
        rig.server_eof();
        assert_eq!(rig.count(Counter::Failure), 0);
    });
    scenario(|rig| {
        rig.client(req("EVAL return 0"));
        assert!(!rig.session().may_forward_eof(), "a script is at work");
    });
}

#[test]
fn unblocked_and_then_closed_is_a_failover_and_no_failure() {
    scenario(|rig| {
        rig.client(reqs(&["BLPOP k 0", "GET k"]))
            .server("-UNBLOCKED force unblock from blocking operation\r\n");
        assert_eq!(rig.server_eof(), Phase::Finish);
        assert_eq!(rig.count(Counter::Failure), 0);
    });
}

#[test]
fn a_drain_waits_for_calls_and_transactions() {
    scenario(|rig| {
        rig.client(reqs(&["GET k", "MULTI"]));
        let now = rig.now;
        rig.session().on_drain(now);
        assert_eq!(rig.phase(), Phase::Relay);
        rig.server("$-1\r\n+OK\r\n");
        assert_eq!(rig.phase(), Phase::Relay, "the transaction is open");
        rig.passes(reqs(&["SET k v", "EXEC"]), "+QUEUED\r\n*1\r\n+OK\r\n");
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_drain_ends_idle_connections_at_once() {
    let now = Instant::now();
    let mut rig = Rig::new(Cut::Whole);
    rig.session().on_drain(now);
    assert_eq!(rig.phase(), Phase::Finish, "not a byte");
    let mut rig = Rig::new(Cut::Whole);
    rig.passes(req("GET k"), "$-1\r\n").session().on_drain(now);
    assert_eq!(rig.phase(), Phase::Finish, "idle");
    let mut rig = Rig::new(Cut::Whole);
    rig.passes(req("SUBSCRIBE a"), "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    rig.server("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n").session().on_drain(now);
    assert_eq!(rig.phase(), Phase::Relay, "within a message");
    rig.server("hi\r\n");
    assert_eq!(rig.phase(), Phase::Finish);
    let mut rig = Rig::new(Cut::Whole);
    rig.client(req("MONITOR")).session().on_drain(now);
    assert_eq!(rig.phase(), Phase::Finish, "a plain relay");
}

#[test]
fn a_drain_ends_a_connection_that_becomes_a_plain_relay() {
    scenario(|rig| {
        rig.client(reqs(&["GET k", "MONITOR"]));
        let now = rig.now;
        rig.session().on_drain(now);
        assert_eq!(rig.phase(), Phase::Relay, "a reply is owed");
        rig.server("$-1\r\n+OK\r\n");
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_drain_waits_for_half_a_request() {
    for half in ["*1\r\n$4\r\nPI", "*2\r\n$3\r\nGET\r\n$3\r\nab"] {
        let mut rig = Rig::new(Cut::Whole);
        let now = rig.now;
        rig.passes(req("GET k"), "$-1\r\n").client(half).session().on_drain(now);
        assert_eq!(rig.phase(), Phase::Relay);
    }
}

#[test]
fn the_end_of_a_drain_ends_whatever_is_open_and_says_nothing_of_the_backend() {
    scenario(|rig| {
        rig.client(reqs(&["GET k", "MULTI"]));
        let now = rig.now;
        rig.session().on_drain(now);
        rig.session().on_drain_over(now);
        assert_eq!(rig.phase(), Phase::Finish);
        assert_eq!((rig.count(Counter::Ignored), rig.count(Counter::Failure)), (3, 0));
    });
    broken_scenario(|rig| {
        rig.client(req("GET k")).server("$10\r\nhalf");
        let now = rig.now;
        rig.session().on_drain(now);
        rig.session().on_drain_over(now);
        assert_eq!(rig.phase(), Phase::Abort, "half a reply can have no orderly end");
        assert_eq!((rig.count(Counter::Ignored), rig.count(Counter::Failure)), (2, 0));
    });
    broken_scenario(|rig| {
        rig.client(req("GET k")).server("HTTP/1.1 400\r\n");
        let now = rig.now;
        rig.session().on_drain_over(now);
        assert_eq!(rig.phase(), Phase::Abort, "what is over stays as it is");
    });
}

#[test]
fn a_client_that_never_reads_costs_bounded_memory() {
    let mut rig = Rig::new(Cut::Whole);
    for _ in 0..100_000 {
        rig.now += Duration::from_micros(1);
        rig.client("*1\r\n$4\r\nPING\r\n");
        rig.up.clear();
    }
    let entries = rig.session().fifo.owed().count();
    assert!(entries < 2000, "{entries} entries");
    let mut rig = Rig::new(Cut::Whole);
    for _ in 0..200_000 {
        rig.client(reqs(&["BLPOP k 0", "HELLO"]));
        rig.up.clear();
    }
    let entries = rig.session().fifo.owed().count();
    assert!(entries <= crate::protocol::redis::fifo::ENTRIES_MAX, "{entries} entries");
    // docs/OPERATING.md says how much a full queue takes.
    let entry = size_of::<crate::protocol::redis::fifo::Entry>();
    assert!(entry <= 104, "{entry} bytes an entry");
}

#[test]
fn a_pipeline_of_one_kind_of_command_is_one_entry() {
    for command in ["EVALSHA x 0", "PUBLISH a b", "SELECT 1", "GET k"] {
        let mut rig = Rig::new(Cut::Whole);
        rig.client(req(command).repeat(1000));
        assert_eq!(rig.session().fifo.owed().count(), 1, "{command}");
        rig.server("+OK\r\n".repeat(999));
        assert!(rig.session().fifo.requests() == 1, "{command}");
        rig.server("+OK\r\n").vanish();
        let totals = rig.totals();
        assert_eq!((totals.calls(), totals.in_flight()), (1001, 0), "{command}, and the connection");
    }
    let mut rig = Rig::new(Cut::Whole);
    rig.client(reqs(&["EVAL x 0", "BLPOP k 5", "EVAL x 0", "BLPOP k 7"])).server("$-1\r\n");
    assert_eq!(rig.wait(), Wait::Backend(RESPONSE + Duration::from_secs(5)), "each waits its own time");
}

#[test]
fn what_few_sessions_need_takes_no_room_in_the_others() {
    let size = size_of::<crate::protocol::redis::Session>();
    assert!(size <= 296, "{size}");
}
