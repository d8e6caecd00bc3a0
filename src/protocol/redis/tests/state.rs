//! What a rejection forbids (PROTOCOLS §2.3).

use super::*;

fn warm(rig: &mut Rig) {
    rig.passes(req("PING"), "+PONG\r\n").forget();
}

#[test]
fn a_rejection_is_an_ordinary_error_and_the_connection_stays() {
    scenario(|rig| {
        warm(rig);
        rig.trip().pass_time(Duration::from_millis(600));
        let down = rig.refused(req("GET k"));
        assert_eq!(down, "-CIRCUITOPEN backend 'cache' is open (a manual trip); retry after 9400 ms\r\n");
        rig.close().forget();
        rig.passes(req("GET k"), "$-1\r\n");
        assert_eq!(rig.count(Counter::RejectedOpen), 1);
        assert_eq!(rig.count(Counter::RejectedSession), 0);
    });
}

#[test]
fn rejections_wait_for_the_replies_before_them() {
    scenario(|rig| {
        rig.client(reqs(&["GET a", "GET b"])).trip();
        rig.client(reqs(&["GET c", "GET d"]));
        assert_eq!(rig.down(), "");
        rig.server("$1\r\na\r\n");
        assert_eq!(rig.down(), "$1\r\na\r\n");
        rig.close().client(req("GET e"));
        rig.server("$1\r\nb\r\n$1\r\ne\r\n");
        let down = rig.down();
        assert!(down.starts_with("$1\r\na\r\n$1\r\nb\r\n-CIRCUITOPEN"), "{down}");
        assert!(down.ends_with("ms\r\n$1\r\ne\r\n"), "{down}");
        assert_eq!(rejections(&down), 2);
    });
}

#[test]
fn a_rejected_pipeline_is_counters_and_not_bytes() {
    let mut rig = Rig::new(Cut::Whole);
    warm(&mut rig);
    rig.client(req("GET k")).trip();
    for _ in 0..100 {
        rig.client(req("GET k").repeat(1000));
    }
    assert_eq!(rig.session().fifo.owed().count(), 1);
    assert_eq!(rig.down(), "");
    rig.server("$-1\r\n");
    assert_eq!(rejections(&rig.down()), 100_000);
    assert_eq!(rig.count(Counter::RejectedOpen), 100_000);
}

#[test]
fn local_replies_come_in_chunks() {
    let mut rig = Rig::new(Cut::Whole);
    warm(&mut rig);
    let (now, requests) = (rig.now, req("GET k").repeat(10_000));
    rig.trip();
    rig.session().on_client(now, &requests, true, &mut Plan::default());
    assert_eq!(rig.wait(), Wait::Nothing, "whoever does not read them is not the backend");
    let (mut out, mut all) = (Vec::new(), 0);
    loop {
        out.clear();
        rig.session().replies(now, &mut out);
        if out.is_empty() {
            break;
        }
        assert!(out.len() <= crate::protocol::REPLY_CHUNK + 200);
        all += rejections(&text(&out));
        assert!(out.len() >= crate::protocol::REPLY_CHUNK - 200 || all == 10_000, "few are as slow as many");
        // What is there already is no matter of the session's.
        out.resize(crate::protocol::REPLY_CHUNK, b'.');
        let before = out.len();
        rig.session().replies(now, &mut out);
        all += rejections(&text(&out[before..]));
        assert!(out.len() >= 2 * before - 200 || all == 10_000);
    }
    assert_eq!(all, 10_000);
}

#[test]
fn a_rejected_state_command_poisons_the_connection() {
    let commands = [
        "AUTH p",
        "HELLO 3",
        "SELECT 3",
        "READWRITE",
        "CLIENT TRACKING ON",
        "CLIENT CACHING YES",
        "select 3",
    ];
    for command in commands {
        scenario(|rig| {
            warm(rig);
            rig.trip();
            assert_eq!(rejections(&rig.refused(reqs(&[command, "SET k v"]))), 2, "{command}");
            assert!(rig.session().watches_breaker());
            rig.gate.reset(rig.now);
            assert_eq!(rejections(&rig.refused(req("SET k v"))), 1, "closed, but this connection is lost");
            assert_eq!(rig.refused(req("RESET")).matches("-CIRCUITOPEN").count(), 1, "and not to be healed");
            assert_eq!((rig.count(Counter::RejectedOpen), rig.count(Counter::RejectedSession)), (2, 2));
            rig.tell();
            assert_eq!(rig.phase(), Phase::Finish, "{command}");
        });
    }
}

#[test]
fn a_poisoned_connection_ends_when_its_breaker_leaves_open_and_not_before() {
    scenario(|rig| {
        warm(rig);
        rig.client(req("GET k")).trip().client(req("SELECT 3"));
        rig.trip();
        assert_eq!(rig.phase(), Phase::Relay);
        rig.pass_time(HOLD);
        assert_eq!(rig.phase(), Phase::Relay, "a reply is still owed");
        rig.server("$-1\r\n");
        assert!(rig.down().starts_with("$-1\r\n-CIRCUITOPEN"));
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn other_commands_are_rejected_without_lasting_harm() {
    let commands =
        ["SUBSCRIBE a", "CLIENT SETNAME x", "CLIENT SETINFO a b", "CLIENT ID", "ASKING", "READONLY"];
    for command in commands {
        scenario(|rig| {
            warm(rig);
            rig.trip();
            assert_eq!(rejections(&rig.refused(req(command))), 1, "{command}");
            rig.close().forget();
            rig.passes(req("GET k"), "$-1\r\n");
        });
    }
}

#[test]
fn some_commands_pass_whatever_the_breaker_says() {
    let commands = [
        ("UNWATCH", "+OK\r\n"),
        ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
        ("RESET", "+RESET\r\n"),
        ("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"),
        ("CLIENT REPLY ON", "+OK\r\n"),
        ("SCRIPT KILL", "-NOTBUSY none\r\n"),
        ("FUNCTION KILL", "-NOTBUSY none\r\n"),
        ("QUIT", "+OK\r\n"),
    ];
    for (command, reply) in commands {
        scenario(|rig| {
            warm(rig);
            rig.trip().passes(req(command), reply);
            assert_eq!(rig.wait(), Wait::Nothing);
            assert_eq!(rig.count(Counter::RejectedOpen), 0, "{command}");
        });
    }
    scenario(|rig| {
        warm(rig);
        rig.trip();
        assert_eq!(rejections(&rig.refused(reqs(&["SCRIPT LOAD x", "FUNCTION LIST", "CLIENT LIST"]))), 3);
    });
}

#[test]
fn the_configuration_says_which_commands_are_cures() {
    let names = ["CONFIG|SET", "REPLICAOF", "DEBUG*"];
    let own = Redis { cures: names.map(Into::into).to_vec(), ..Redis::default() };
    for cure in ["config set a b", "CONFIG SET a b", "REPLICAOF NO ONE", "DEBUG JMAP", "DEBUGGER"] {
        scenario_under(&own, |rig| {
            warm(rig);
            rig.trip().passes(req(cure), "+OK\r\n");
            rig.passes(format!("{cure}\r\n"), "-LOADING x\r\n");
            assert_eq!((rig.count(Counter::RejectedOpen), rig.wait()), (0, Wait::Nothing), "{cure}");
        });
    }
    for other in ["CONFIG GET a", "CONFIG", "CONFIGS SET", "REPLICAOFX", "SCRIPT KILL", "FUNCTION KILL"] {
        scenario_under(&own, |rig| {
            warm(rig);
            rig.trip();
            assert_eq!(rejections(&rig.refused(req(other))), 1, "{other}");
        });
    }
    // On a connection whose state its client is wrong about even a cure could do harm.
    scenario_under(&own, |rig| {
        warm(rig);
        rig.trip();
        assert_eq!(rejections(&rig.refused(reqs(&["SELECT 3", "CONFIG SET a b"]))), 2);
    });
}

#[test]
fn subscriptions_keep_flowing_while_open() {
    scenario(|rig| {
        rig.passes(req("SUBSCRIBE a"), "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").trip().forget();
        let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";
        rig.server(message);
        assert_eq!(rig.down(), message);
        rig.refused(req("PING"));
        rig.passes(req("UNSUBSCRIBE"), "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n");
    });
}

#[test]
fn nothing_is_injected_under_client_reply_off() {
    scenario(|rig| {
        warm(rig);
        rig.trip();
        let requests = [req("CLIENT REPLY OFF"), req("SET k v").repeat(20), req("CLIENT REPLY ON")].concat();
        rig.client(requests).server("+OK\r\n");
        assert_eq!(rig.down(), "+OK\r\n");
        assert_eq!(rig.up(), text(&reqs(&["CLIENT REPLY OFF", "CLIENT REPLY ON"])));
        assert_eq!(rig.count(Counter::RejectedOpen), 20);
    });
    // The same on a connection that the breaker never let through to a backend.
    scenario(|rig| {
        rig.trip();
        let requests = [req("CLIENT REPLY OFF"), req("SET k v").repeat(20), req("CLIENT REPLY ON")].concat();
        assert_eq!(rejections(&rig.refused(requests)), 1);
        assert_eq!(rejections(&rig.refused(reqs(&["CLIENT REPLY SKIP", "GET a", "GET b"]))), 1);
    });
}

#[test]
fn a_rejected_command_behind_skip_does_not_eat_the_next_ones_reply() {
    scenario(|rig| {
        warm(rig);
        rig.client(req("CLIENT REPLY SKIP")).trip().client(req("SET k v"));
        assert_eq!(rig.down(), "");
        rig.close().forget();
        // The backend still has its SKIP pending: something must have been sent for it to skip.
        rig.passes(req("GET k"), "$-1\r\n");
        assert_eq!(rig.wait(), Wait::Nothing);
    });
    let mut rig = Rig::new(Cut::Whole);
    warm(&mut rig);
    rig.client(req("CLIENT REPLY SKIP")).trip().client(req("SET k v"));
    assert_eq!(rig.up(), text(&reqs(&["CLIENT REPLY SKIP", "ECHO ."])));
}

#[test]
fn a_rejected_transaction_is_rejected_whole_though_the_breaker_closes() {
    scenario(|rig| {
        warm(rig);
        rig.trip().client(req("MULTI"));
        assert_eq!(rig.down(), "+OK\r\n");
        rig.close().forget();
        let down = rig.refused(reqs(&["SET k v", "EXEC"]));
        assert_eq!(rejections(&down), 1, "{down}");
        assert!(
            down.ends_with("\r\n")
                && down.contains("\r\n-EXECABORT Transaction discarded because of: CIRCUITOPEN backend")
        );
        rig.forget().passes(reqs(&["MULTI", "SET k v", "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    });
}

#[test]
fn a_rejected_transaction_can_be_discarded() {
    scenario(|rig| {
        warm(rig);
        rig.trip();
        let down = rig.refused(reqs(&["MULTI", "SET k v", "MULTI", "DISCARD", "GET k"]));
        assert!(down.starts_with("+OK\r\n-CIRCUITOPEN"), "{down}");
        assert!(down.contains("-ERR MULTI calls can not be nested\r\n+OK\r\n-CIRCUITOPEN"), "{down}");
    });
}

#[test]
fn quit_and_reset_leave_a_rejected_transaction() {
    scenario(|rig| {
        warm(rig);
        rig.trip().client(req("MULTI")).forget();
        rig.passes(req("RESET"), "+RESET\r\n");
        rig.close().passes(req("GET k"), "$-1\r\n");
    });
}

#[test]
fn a_state_command_in_a_rejected_transaction_poisons() {
    scenario(|rig| {
        warm(rig);
        rig.trip().client(reqs(&["MULTI", "SELECT 3", "DISCARD"]));
        rig.close();
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn an_open_transaction_is_overtaken_at_exec() {
    scenario(|rig| {
        rig.passes(reqs(&["MULTI", "SET a 1"]), "+OK\r\n+QUEUED\r\n").trip().forget();
        rig.passes(req("SET b 2"), "+QUEUED\r\n").forget();
        rig.client(req("EXEC"));
        assert_eq!(rig.up(), text(&req("DISCARD")));
        assert_eq!(rig.down(), "");
        rig.server("+OK\r\n");
        let down = rig.down();
        assert!(
            down.starts_with("-EXECABORT Transaction discarded because of: CIRCUITOPEN backend 'cache'"),
            "{down}"
        );
        assert_eq!(down.lines().count(), 1);
        assert_eq!(rig.wait(), Wait::Nothing);
        assert_eq!(rejections(&rig.forget().refused(req("GET k"))), 1, "the transaction is over");
    });
}

#[test]
fn an_attribute_of_a_reply_that_is_kept_back_is_kept_back_with_it() {
    scenario(|rig| {
        rig.passes(reqs(&["MULTI", "SET a 1"]), "+OK\r\n+QUEUED\r\n").trip().forget();
        rig.client(req("EXEC")).server("|1\r\n+ttl\r\n:3600\r\n+OK\r\n");
        let down = rig.down();
        assert!(down.starts_with("-EXECABORT") && down.lines().count() == 1, "{down}");
    });
}

#[test]
fn an_exec_without_a_transaction_is_rejected_like_any_command() {
    scenario(|rig| {
        warm(rig);
        rig.trip();
        assert_eq!(rejections(&rig.refused(req("EXEC"))), 1);
    });
}

#[test]
fn each_rejection_says_why_it_was() {
    scenario(|rig| {
        warm(rig);
        rig.client(req("GET a")).trip().client(req("GET b").repeat(2)).half_open();
        let mut probe = rig.another();
        probe.client(req("GET p"));
        rig.client(req("GET c").repeat(2)).server("$-1\r\n");
        let down = rig.down();
        let states = |line: &str| line.split(' ').nth(4).map(str::to_owned);
        let says: Vec<_> = down.lines().skip(1).filter_map(states).collect();
        assert_eq!(says, ["open", "open", "half-open", "half-open"], "{down}");
    });
}

#[test]
fn an_open_transaction_may_discard_while_open() {
    scenario(|rig| {
        rig.passes(reqs(&["MULTI", "SET a 1"]), "+OK\r\n+QUEUED\r\n")
            .trip()
            .passes(req("DISCARD"), "+OK\r\n");
        rig.forget();
        assert_eq!(rejections(&rig.refused(req("GET k"))), 1);
    });
}

#[test]
fn a_multi_that_failed_opens_no_transaction() {
    scenario(|rig| {
        rig.passes(req("MULTI"), "-NOAUTH Authentication required.\r\n").trip().forget();
        assert_eq!(rejections(&rig.refused(req("SET k v"))), 1);
    });
}

#[test]
fn a_nested_multi_is_an_error_inside_the_transaction() {
    scenario(|rig| {
        rig.passes(reqs(&["MULTI", "MULTI"]), "+OK\r\n-ERR MULTI calls can not be nested\r\n")
            .trip()
            .forget();
        rig.passes(req("SET k v"), "+QUEUED\r\n");
    });
}

#[test]
fn a_rejected_watch_keeps_its_transaction_from_running() {
    scenario(|rig| {
        warm(rig);
        rig.trip();
        assert_eq!(rejections(&rig.refused(req("WATCH k"))), 1);
        rig.close().forget();
        rig.passes(req("GET k"), "$1\r\n1\r\n").forget();
        let down = rig.refused(reqs(&["MULTI", "SET k 2", "EXEC"]));
        assert!(down.starts_with("+OK\r\n-CIRCUITOPEN") && down.contains("-EXECABORT"), "{down}");
        rig.forget().passes(reqs(&["MULTI", "SET k 2", "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    });
    scenario(|rig| {
        warm(rig);
        rig.trip().client(req("WATCH k"));
        rig.close().forget();
        rig.passes(reqs(&["UNWATCH", "MULTI"]), "+OK\r\n+OK\r\n");
    });
}

#[test]
fn a_rejected_transaction_leaves_no_watch_behind() {
    scenario(|rig| {
        rig.passes(req("WATCH k"), "+OK\r\n").trip().forget();
        rig.client(reqs(&["MULTI", "SET k 2", "EXEC"]));
        assert_eq!(rig.up(), text(&req("UNWATCH")), "else the next transaction would be lost to it");
        rig.server("+OK\r\n");
        let down = rig.down();
        assert!(down.starts_with("+OK\r\n-CIRCUITOPEN") && down.ends_with(" ms\r\n"), "{down}");
        assert_eq!(down.lines().count(), 3, "{down}");
        rig.forget();
        rig.client(reqs(&["MULTI", "EXEC"]));
        assert_eq!(rig.up(), "", "it holds none any more");
    });
}

#[test]
fn select_rejected_and_set_after_closing_never_meets_the_wrong_database() {
    scenario(|rig| {
        warm(rig);
        rig.trip().client(req("SELECT 3"));
        rig.gate.reset(rig.now);
        assert_eq!(rejections(&rig.refused(req("SET k v"))), 1);
        assert_eq!(rejections(&rig.down()), 2);
        rig.tell();
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn no_error_of_ours_makes_a_driver_retry_in_silence() {
    let forbidden = ["unknown command", "NOPROTO", "no password is set", "max number of clients reached"];
    let mut rig = Rig::new(Cut::Whole);
    rig.trip().client(reqs(&["GET k", "MULTI", "GET k", "EXEC", "SELECT 1"]));
    let mut cut_off = Rig::new(Cut::Whole);
    cut_off.client(req("GET k"));
    let now = cut_off.now;
    cut_off.session().on_deadline(now);
    cut_off.pump();
    let down = [rig.down(), cut_off.down()].concat();
    assert!(forbidden.iter().all(|words| !down.contains(words)), "{down}");
    assert!(down.lines().all(|line| line.starts_with(['-', '+'])), "{down}");
}

#[test]
fn what_was_rejected_never_reaches_the_backend_by_way_of_a_plain_relay() {
    // Each leaves a client that believes in a state which the backend knows nothing of.
    let beliefs: [&[&str]; 4] = [&["SELECT 3"], &["MULTI", "SET k v"], &["WATCH k"], &["HELLO 3"]];
    for belief in beliefs {
        for unasked in ["+what\r\n", "-ERR what\r\n", "^new\r\n", "$?\r\n"] {
            broken_scenario(|rig| {
                warm(rig);
                rig.trip();
                rig.refused(reqs(belief));
                rig.forget().server(unasked);
                assert_eq!(rig.phase(), Phase::Abort, "{belief:?} {unasked:?}");
                rig.client(reqs(&["SET k v", "EXEC"]));
                assert_eq!(rig.up(), "");
            });
        }
    }
}

#[test]
fn the_rest_of_a_rejected_value_is_no_request() {
    broken_scenario(|rig| {
        warm(rig);
        rig.trip();
        rig.refused("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\n");
        rig.forget().server("-ERR what\r\n").client("\r\nFLUSHALL\r\n");
        assert_eq!(rig.up(), "");
    });
}

#[test]
fn a_poisoned_connection_hears_of_a_change_that_came_before_anybody_listened() {
    scenario(|rig| {
        warm(rig);
        rig.trip();
        rig.refused(req("SELECT 3"));
        rig.tell();
        assert_eq!(rig.phase(), Phase::Relay, "still open");
    });
    scenario(|rig| {
        warm(rig);
        rig.half_open();
        let mut other = rig.another();
        other.client(req("GET k"));
        rig.refused(req("SELECT 3"));
        rig.tell();
        assert_eq!(rig.phase(), Phase::Relay, "no change since it was poisoned");
        rig.trip();
        assert_eq!(rig.phase(), Phase::Relay, "open");
        rig.pass_time(HOLD);
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_connection_poisoned_in_half_open_ends_when_the_breaker_closes() {
    scenario(|rig| {
        warm(rig);
        rig.half_open();
        let mut other = rig.another();
        other.client(req("GET k"));
        rig.refused(req("SELECT 3"));
        other.server("$-1\r\n");
        assert_eq!(rig.state(), State::Closed);
        rig.tell();
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn a_plain_relay_does_not_begin_behind_a_rejected_watch() {
    scenario(|rig| {
        rig.client(req("GET k")).server("$-1\r\n");
        rig.trip().client(req("WATCH k"));
        rig.close().forget();
        rig.client(reqs(&["MONITOR", "MULTI", "SET k v", "EXEC"]));
        assert!(!rig.up().contains("EXEC"), "{:?}", rig.up());
    });
}

#[test]
fn a_rejection_that_waits_for_its_turn_does_not_end_a_connection_that_becomes_a_relay() {
    for cut in [Cut::Whole, Cut::Bytes] {
        let mut rig = Rig::new(cut);
        rig.client(req("GET k")).trip().client(req("DISCARD"));
        rig.server("$-1\r\n+OK\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
        rig.client(reqs(&["CLIENT PAUSE 50", "CLIENT REPLY OFF"]));
        assert!(rig.down().contains("CIRCUITOPEN"), "{cut:?}: {:?}", rig.down());
        assert_eq!((rig.phase(), rig.count(Counter::Opaque)), (Phase::Relay, 1), "{cut:?}");
    }
}
