//! Verdicts (PROTOCOLS §2.5) and half-open (§4).

use super::*;
use crate::protocol::Class;
use crate::protocol::redis::classify::Table;

#[test]
fn errors_that_are_failures() {
    let failures = [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "MISCONF Redis is configured to save RDB snapshots",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOREPLICAS Not enough good replicas to write.",
        "ERR max number of clients reached",
        "ERR max number of clients + cluster connections reached",
        "DENIED Redis is running in protected mode",
        "LOADING",
    ];
    for error in failures {
        scenario(|rig| {
            rig.passes(req("SET k v"), format!("-{error}\r\n"));
            assert_eq!((rig.run(), rig.count(Counter::Failure)), (1, 1), "{error}");
        });
    }
}

#[test]
fn errors_that_are_successes() {
    let successes = [
        "ERR syntax error",
        "WRONGTYPE x",
        "NOAUTH x",
        "WRONGPASS x",
        "NOPERM x",
        "NOSCRIPT x",
        "NOPROTO x",
        "CROSSSLOT x",
        "BUSYKEY x",
        "BUSYGROUP x",
        "NOGROUP x",
        "INVALIDOBJ x",
        "MOVED 1 h:1",
        "ASK 1 h:1",
        "REDIRECT h:1",
        "LOADINGX x",
        "ERR maximum",
        "MYOWN from a script",
        "ERR LOADING",
        "",
        "loading x",
    ];
    after_a_failure(&successes, (0, 1));
}

#[test]
fn errors_that_say_nothing() {
    let ignored = [
        "TRYAGAIN x",
        "UNBLOCKED x",
        "READONLY x",
        "EXECABORT x",
        "IOERR x",
        "NOMASTERLINK x",
        "UNKILLABLE x",
        "NOTBUSY x",
        "INPROG x",
        "NOGOODSLAVE x",
        "NOQUORUM x",
        "ERR Protocol error: x",
        "CIRCUITOPEN backend 'x' is open",
    ];
    after_a_failure(&ignored, (1, 0));
}

/// Behind a failure each of these errors leaves such a run of failures, and so many successes.
#[track_caller]
fn after_a_failure(errors: &[&str], expected: (u32, u64)) {
    for error in errors {
        scenario(|rig| {
            rig.passes(req("GET k"), "-LOADING x\r\n").passes(req("GET k"), format!("-{error}\r\n"));
            assert_eq!((rig.run(), rig.count(Counter::Success)), expected, "{error}");
        });
    }
}

#[test]
fn the_longest_row_wins_and_the_configuration_beats_the_table() {
    let overrides = Overrides {
        failure: vec!["READONLY".into(), "ERR quorum".into(), "X".into()],
        success: vec!["OOM".into(), "XY".into()],
        ignored: vec!["LOAD".into()],
    };
    let table = Table::new(&overrides);
    let class = |error: &str| table.row(error.as_bytes()).class;
    assert_eq!(class("READONLY x"), Class::Failure);
    assert_eq!(class("ERR quorum lost"), Class::Failure);
    assert_eq!(class("ERR x"), Class::Success);
    assert_eq!(class("OOM x"), Class::Success);
    assert_eq!(class("LOADING x"), Class::Failure, "the built-in row is longer");
    assert_eq!(class("LOADED x"), Class::Ignored);
    assert_eq!((class("XZ"), class("XYZ")), (Class::Failure, Class::Success));
    assert_eq!(table.row(b"NOSUCH").code.as_str(), "*");
    assert_eq!(table.row(b"BUSYKEY").class, Class::Success);
    assert_eq!(table.rows().next().unwrap().code.as_str(), "READONLY");
}

#[test]
fn exec_is_judged_by_what_it_holds() {
    scenario(|rig| {
        rig.passes(reqs(&["MULTI", "GET k"]), "+OK\r\n+QUEUED\r\n");
        rig.passes(req("EXEC"), "*2\r\n$1\r\nv\r\n-MISCONF x\r\n");
        assert_eq!(rig.run(), 1);
        rig.passes(
            reqs(&["MULTI", "GET k", "EXEC"]),
            "+OK\r\n+QUEUED\r\n*2\r\n*1\r\n-LOADING nested\r\n-WRONGTYPE x\r\n",
        );
        assert_eq!(rig.run(), 0, "deeper, it is the script's word only");
        rig.passes(reqs(&["MULTI", "GET k", "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n!6\r\nBUSY x\r\n");
        assert_eq!(rig.run(), 1);
        rig.passes(req("LRANGE l 0 -1"), "*1\r\n-LOADING x\r\n");
        assert_eq!(rig.run(), 0, "not an EXEC");
    });
}

#[test]
fn handshake_replies_say_nothing() {
    let commands = [
        "SELECT 1",
        "AUTH p",
        "HELLO",
        "CLIENT SETNAME x",
        "ECHO x",
        "INFO",
        "PUBLISH c x",
        "MULTI",
        "DISCARD",
        "WATCH k",
        "COMMAND",
        "CONFIG GET x",
        "READONLY",
        "TIME",
        "ROLE",
    ];
    for command in commands {
        scenario(|rig| {
            rig.passes(req("GET k"), "-LOADING x\r\n").passes(req(command), "+OK\r\n");
            assert_eq!(rig.run(), 1, "{command}");
            rig.passes(req(command), "-BUSY x\r\n");
            assert_eq!(rig.run(), 2, "but their failures do: {command}");
        });
    }
    scenario(|rig| {
        rig.passes(req("GET k"), "-LOADING x\r\n");
        rig.passes(req("SUBSCRIBE a"), "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
        assert_eq!(rig.run(), 1);
    });
}

#[test]
fn failures_in_a_row_trip_and_successes_between_them_do_not() {
    scenario(|rig| {
        rig.client(req("GET k").repeat(7));
        rig.server("-LOADING x\r\n-LOADING x\r\n$-1\r\n-LOADING x\r\n-LOADING x\r\n");
        assert_eq!(rig.state(), State::Closed);
        rig.server("-LOADING x\r\n");
        assert_eq!(rig.state(), State::Open);
        rig.server("$-1\r\n");
        assert_eq!(rig.state(), State::Open, "a call from before the trip closes nothing");
        let down = rig.forget().refused(req("GET k"));
        assert!(down.contains("is open (LOADING, 3 consecutive failures); retry after 30000 ms"), "{down}");
    });
}

#[test]
fn maxclients_is_one_failure_with_the_close_behind_it() {
    scenario(|rig| {
        rig.client(reqs(&["HELLO 3", "GET k"])).server("-ERR max number of clients reached\r\n");
        rig.server_eof();
        assert_eq!(rig.count(Counter::Failure), 1);
    });
    // Before the client's bytes have been passed on.
    scenario(|rig| {
        rig.hold_dial = true;
        rig.client(req("GET k"));
        let now = rig.now;
        rig.session().on_connected(now, None);
        let bytes = std::mem::take(&mut rig.client_buf);
        rig.server("-ERR max number of clients reached\r\n");
        rig.server_eof();
        rig.client_buf = bytes;
        assert_eq!(rig.count(Counter::Failure), 1);
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_connection_that_the_backend_refuses_gets_one_reply_though_the_breaker_opens_by_it() {
    scenario(|rig| {
        rig.hold_dial = true;
        rig.client(req("GET k"));
        let now = rig.now;
        rig.session().on_connected(now, None);
        let bytes = std::mem::take(&mut rig.client_buf);
        rig.server("-ERR max number of clients reached\r\n").trip();
        rig.client_buf = bytes;
        rig.pump();
        assert_eq!(rig.down(), "-ERR max number of clients reached\r\n");
        assert_eq!((rig.phase(), rig.count(Counter::RejectedOpen)), (Phase::Finish, 0));
    });
}

#[test]
fn last_words_that_nobody_asked_for_end_the_connection() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").server("-ERR Protocol error: too big mbulk count string\r\n");
        assert_eq!((rig.phase(), rig.count(Counter::Opaque)), (Phase::Finish, 0));
    });
}

#[test]
fn a_protocol_error_of_the_backends_is_no_failure() {
    scenario(|rig| {
        rig.client(reqs(&["GET a", "GET b"])).server("-ERR Protocol error: unauthenticated bulk length\r\n");
        rig.server_eof();
        assert_eq!(rig.count(Counter::Failure), 0);
    });
}

#[test]
fn half_open_lets_one_call_through_and_its_success_closes() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").half_open().forget();
        rig.client(req("GET a"));
        rig.client(req("GET b"));
        assert_eq!(rig.up(), text(&req("GET a")));
        rig.server("$1\r\na\r\n");
        assert_eq!(rig.state(), State::Closed);
        let down = rig.down();
        assert!(down.starts_with("$1\r\na\r\n-CIRCUITOPEN backend 'cache' is half-open"), "{down}");
        assert_eq!(rig.count(Counter::RejectedHalfOpen), 1);
        assert_eq!(rig.count(Counter::Probes), 1);
        rig.forget().passes(req("GET c"), "$1\r\nc\r\n");
    });
}

#[test]
fn a_failed_probe_opens_again() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").half_open();
        rig.client(req("GET a")).server("-LOADING x\r\n");
        assert_eq!(rig.state(), State::Open);
    });
}

#[test]
fn a_hollow_handshake_does_not_close_and_loading_opens_again() {
    scenario(|rig| {
        rig.half_open();
        rig.client(reqs(&["HELLO 3", "AUTH p", "SELECT 1", "GET k"]));
        assert_eq!((rig.dials, rig.count(Counter::Probes)), (1, 1));
        rig.server("%0\r\n+OK\r\n+OK\r\n");
        assert_eq!(rig.state(), State::HalfOpen);
        rig.server("-LOADING x\r\n");
        assert_eq!(rig.state(), State::Open);
    });
}

#[test]
fn a_connection_attempt_is_a_probe_that_the_first_conclusive_reply_decides() {
    scenario(|rig| {
        rig.half_open();
        rig.client(reqs(&["HELLO 3", "GET k", "GET l"]));
        assert_eq!(rig.up(), text(&reqs(&["HELLO 3", "GET k"])), "one call through at a time");
        rig.server("%0\r\n$-1\r\n");
        assert_eq!(rig.state(), State::Closed);
        assert_eq!(rejections(&rig.down()), 1);
    });
}

#[test]
fn a_probe_that_cannot_connect_opens_again() {
    scenario(|rig| {
        rig.half_open();
        rig.hold_dial = true;
        rig.client(req("GET k"));
        let now = rig.now;
        rig.session().on_connect_failed(now, Some(crate::breaker::Fault::Refused));
        assert_eq!(rig.state(), State::Open);
    });
}

#[test]
fn a_probe_whose_connection_is_closed_before_a_byte_opens_again() {
    for refusal in ["", "-ERR max number of clients reached\r\n"] {
        scenario(|rig| {
            rig.half_open();
            rig.hold_dial = true;
            rig.client(req("GET k"));
            let (now, bytes) = (rig.now, std::mem::take(&mut rig.client_buf));
            rig.session().on_connected(now, None);
            rig.server(refusal);
            assert_eq!(rig.state() == State::HalfOpen, refusal.is_empty());
            rig.server_eof();
            rig.client_buf = bytes;
            assert_eq!((rig.state(), rig.count(Counter::Failure)), (State::Open, 1), "{refusal}");
        });
    }
}

#[test]
fn an_owner_that_goes_idle_gives_the_probe_back() {
    scenario(|rig| {
        rig.half_open();
        rig.client(req("HELLO 3")).server("%0\r\n");
        assert_eq!(rig.state(), State::HalfOpen);
        assert_eq!(rig.gate.snapshot(rig.now).probes_in_flight, 0);
        let mut next = rig.another();
        next.client(req("GET k")).server("$-1\r\n");
        assert_eq!(rig.state(), State::Closed);
    });
}

#[test]
fn an_owner_that_vanishes_gives_the_probe_back() {
    scenario(|rig| {
        rig.half_open();
        rig.client(req("GET k"));
        assert_eq!(rig.gate.snapshot(rig.now).probes_in_flight, 1);
        rig.vanish();
        assert_eq!(rig.gate.snapshot(rig.now).probes_in_flight, 0);
        assert_eq!(rig.state(), State::HalfOpen);
    });
}

#[test]
fn a_probe_whose_client_is_silent_decides_nothing() {
    let mut rig = Rig::new(Cut::Whole);
    rig.half_open().client("*2\r\n$3\r\nGET\r\n$1\r\n");
    rig.pass_time(policy().probe_timeout);
    assert_eq!(rig.state(), State::HalfOpen);
    let mut rig = Rig::new(Cut::Whole);
    rig.half_open().client("*2\r\n$3\r\nGE");
    rig.pass_time(policy().probe_timeout);
    assert_eq!(rig.state(), State::HalfOpen);
}

#[test]
fn a_probe_that_gets_no_reply_opens_again() {
    scenario(|rig| {
        rig.half_open().client(req("GET k"));
        rig.pass_time(policy().probe_timeout);
        assert_eq!(rig.state(), State::Open);
    });
}

/// Those that may rightly take long, or end the connection.
const INELIGIBLE: [&str; 7] =
    ["BLPOP k 0", "XREAD BLOCK 0 STREAMS s $", "SUBSCRIBE a", "WAIT 1 0", "SAVE", "MONITOR", "SHUTDOWN"];

#[test]
fn a_command_that_may_take_long_has_a_ping_decide_the_probe() {
    for command in INELIGIBLE {
        for warm in [true, false] {
            scenario(|rig| {
                if warm {
                    rig.passes(req("PING"), "+PONG\r\n");
                }
                rig.half_open().forget();
                rig.client(req(command));
                assert_eq!(rig.up(), text(&reqs(&["PING", command])), "{command}");
                rig.server("+PONG\r\n");
                assert_eq!((rig.state(), rig.count(Counter::Probes)), (State::Closed, 1), "{command}");
                assert_eq!(rig.down(), "", "{command}");
                let mut next = rig.another();
                next.passes(req("GET k"), "$-1\r\n");
            });
        }
    }
}

#[test]
fn the_ping_of_a_probe_is_judged_like_any_call_and_never_shown() {
    scenario(|rig| {
        rig.half_open().client(req("BLPOP k 5")).server("-LOADING x\r\n");
        assert_eq!((rig.state(), rig.down()), (State::Open, String::new()));
        rig.server("-LOADING y\r\n");
        assert_eq!(rig.down(), "-LOADING y\r\n");
        assert_eq!(rig.count(Counter::Failure), 2);
    });
    scenario(|rig| {
        rig.half_open().client(req("BLPOP k 5")).server("-NOAUTH Authentication required.\r\n");
        assert_eq!(rig.state(), State::Closed, "it is alive, and says so");
        rig.server("-NOAUTH Authentication required.\r\n");
        assert_eq!(rig.down(), "-NOAUTH Authentication required.\r\n");
    });
    scenario(|rig| {
        rig.half_open().client(req("BLPOP k 0"));
        rig.pass_time(policy().probe_timeout);
        assert_eq!(rig.state(), State::Open, "a backend that does not answer PING is silent");
    });
    scenario(|rig| {
        rig.half_open().client(req("BLPOP k 0"));
        rig.server_eof();
        assert_eq!((rig.state(), rig.count(Counter::Failure)), (State::Open, 1));
    });
    // RESP2 gives a subscriber's PING another reply.
    scenario(|rig| {
        let confirmation = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        rig.passes(req("SUBSCRIBE a"), confirmation).half_open().forget();
        rig.client(req("SUBSCRIBE a")).server("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        assert_eq!((rig.state(), rig.down()), (State::Closed, String::new()));
        rig.server(confirmation);
        assert_eq!((rig.down(), rig.wait()), (confirmation.to_owned(), Wait::Nothing));
    });
}

#[test]
fn in_a_transaction_no_ping_is_put_between() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").half_open().forget();
        let block = reqs(&["MULTI", "BLPOP k 60", "EXEC"]);
        rig.client(&block);
        assert_eq!(rig.up(), text(&block));
        rig.server("+OK\r\n");
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE), "nor does it block there");
        rig.server("+QUEUED\r\n*1\r\n*-1\r\n");
        assert_eq!(rig.state(), State::Closed);
    });
}

#[test]
fn a_command_without_a_reply_takes_no_probe_and_does_not_speak_for_the_one_behind_it() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").half_open().forget();
        rig.client(reqs(&["CLIENT REPLY SKIP", "BLPOP k 0", "GET k"]));
        assert_eq!(rig.up(), text(&reqs(&["CLIENT REPLY SKIP", "ECHO .", "GET k"])));
        assert_eq!(rig.count(Counter::Probes), 1);
    });
}

#[test]
fn a_worker_that_only_blocks_closes_the_breaker_and_goes_on_blocking() {
    scenario(|rig| {
        rig.half_open().client(req("BLPOP k 5"));
        rig.server("+PONG\r\n");
        assert_eq!(rig.state(), State::Closed);
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE + Duration::from_secs(5)));
        rig.pass_time(Duration::from_secs(5));
        rig.server("*-1\r\n");
        assert_eq!((rig.down(), rig.wait()), ("*-1\r\n".to_owned(), Wait::Nothing));
    });
}

#[test]
fn a_probe_that_has_lost_its_slot_lets_nothing_through() {
    scenario(|rig| {
        let get = req("GET k");
        rig.half_open().client(&get[..12]);
        rig.pass_time(policy().probe_timeout);
        assert_eq!(rig.state(), State::HalfOpen, "its client was the silent one");
        let mut next = rig.another();
        next.client(&get);
        assert_eq!(next.up(), text(&get), "the slot is free");
        rig.client(&get[12..]);
        assert_eq!(rig.up(), "", "and not this client's any more");
        assert_eq!(rejections(&rig.down()), 1);
        next.vanish();
    });
}

#[test]
fn a_late_reply_decides_no_probe_but_its_own() {
    scenario(|rig| {
        rig.half_open().client(req("HELLO 3")).half_open();
        rig.client(req("GET k"));
        assert_eq!(rig.up(), text(&reqs(&["HELLO 3", "GET k"])));
        rig.server("-LOADING x\r\n");
        assert_eq!(rig.state(), State::HalfOpen, "HELLO was let through by another half-open state");
        rig.server("$-1\r\n");
        assert_eq!(rig.state(), State::Closed);
    });
}

#[test]
fn a_transaction_can_be_the_probe() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").half_open().forget();
        rig.client(reqs(&["MULTI", "SET k v"])).server("+OK\r\n+QUEUED\r\n");
        assert_eq!(rig.state(), State::Closed);
        rig.passes(req("EXEC"), "*1\r\n+OK\r\n");
    });
}

#[test]
fn a_pipelined_transaction_that_is_the_probe_runs_to_its_end() {
    for warm in [true, false] {
        scenario(|rig| {
            if warm {
                rig.passes(req("PING"), "+PONG\r\n");
            }
            rig.half_open().forget();
            rig.client(reqs(&["MULTI", "SET k v", "INCR n", "EXEC", "GET k"]));
            assert_eq!(rig.up(), text(&reqs(&["MULTI", "SET k v", "INCR n", "EXEC"])), "one unit");
            rig.server("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:1\r\n");
            assert_eq!(rejections(&rig.down()), 1);
            assert!(!rig.down().contains("EXECABORT"));
            assert_eq!((rig.state(), rig.count(Counter::Probes)), (State::Closed, 1));
        });
    }
}

#[test]
fn a_probe_dies_with_its_connection_as_one_failure() {
    scenario(|rig| {
        rig.half_open().client(reqs(&["HELLO 3", "GET k"]));
        rig.server_eof();
        assert_eq!(rig.state(), State::Open);
        assert_eq!(rig.count(Counter::Failure), 1);
    });
}

#[test]
fn calls_from_before_the_trip_run_to_their_end_and_decide_nothing() {
    scenario(|rig| {
        rig.client(reqs(&["GET a", "GET b"])).half_open();
        rig.server("$-1\r\n-LOADING x\r\n");
        assert_eq!(rig.state(), State::HalfOpen);
        assert_eq!(rig.count(Counter::Stale), 2);
    });
}

#[test]
fn a_probe_behind_older_calls_is_decided_by_its_own_reply() {
    scenario(|rig| {
        rig.client(req("GET a")).half_open().client(req("GET b"));
        rig.server("-LOADING x\r\n");
        assert_eq!(rig.state(), State::HalfOpen);
        rig.server("$-1\r\n");
        assert_eq!(rig.state(), State::Closed);
    });
}

#[test]
fn an_ignored_probe_frees_its_slot() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").half_open();
        rig.client(req("SET k v")).server("-READONLY x\r\n");
        assert_eq!(rig.state(), State::HalfOpen);
        assert_eq!(rig.gate.snapshot(rig.now).probes_in_flight, 0);
        rig.client(req("GET k")).server("$-1\r\n");
        assert_eq!(rig.state(), State::Closed);
    });
}

#[test]
fn errors_of_scripts_say_nothing_where_the_configuration_says_so() {
    let ignoring = Redis { ignore_script_errors: true, ..Redis::default() };
    for script in ["EVAL x 0", "evalsha x 0", "EVAL_RO x 0", "EVALSHA_RO x 0", "FCALL f 0", "FCALL_RO f 0"] {
        scenario_under(&ignoring, |rig| {
            rig.passes(req("GET k"), "-LOADING x\r\n");
            let ignored = rig.count(Counter::Ignored);
            rig.passes(req(script), "-BUSY forged\r\n").passes(req(script), "-ERR user\r\n");
            assert_eq!((rig.run(), rig.count(Counter::Ignored)), (1, ignored + 2), "{script}");
            rig.passes(req(script), ":1\r\n");
            assert_eq!(rig.run(), 0, "a script that ran shows the backend working");
            rig.passes(req("GET k"), "-BUSY x\r\n");
            assert_eq!(rig.run(), 1, "other commands count");
            rig.passes(reqs(&["MULTI", script, "GET k"]), "+OK\r\n+QUEUED\r\n+QUEUED\r\n");
            rig.passes(req("EXEC"), "*2\r\n-MISCONF forged\r\n$-1\r\n");
            assert_eq!(rig.run(), 0, "in a transaction they do not either, and QUEUED was a success");
            rig.passes(reqs(&["MULTI", script, "EXEC"]), "+OK\r\n+QUEUED\r\n-LOADING x\r\n");
            assert_eq!(rig.run(), 1, "EXEC's own error is the backend's");
            rig.passes(reqs(&["MULTI", "GET k", "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n-OOM x\r\n");
            assert_eq!(rig.run(), 1, "another transaction counts");
        });
        scenario(|rig| {
            rig.passes(req(script), "-BUSY forged\r\n");
            assert_eq!(rig.run(), 1, "off by default: {script}");
        });
    }
    // A connection that dies under a script is a failure all the same.
    scenario_under(&ignoring, |rig| {
        rig.client(req("EVAL x 0"));
        rig.server_eof();
        assert_eq!(rig.run(), 1);
    });
}

#[test]
fn the_success_of_a_script_kill_shows_nothing() {
    scenario(|rig| {
        rig.passes(req("GET k"), "-BUSY x\r\n");
        rig.passes(req("SCRIPT KILL"), "+OK\r\n").passes(req("FUNCTION KILL"), "-NOTBUSY x\r\n");
        assert_eq!(rig.run(), 1, "a busy backend answers it");
        rig.passes(req("SCRIPT EXISTS x"), "*1\r\n:0\r\n");
        assert_eq!(rig.run(), 0);
    });
}
