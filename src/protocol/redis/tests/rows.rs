//! What each command's reply looks like (PROTOCOLS §2.2) and how long it may take (§2.4).

use super::*;

pub(super) fn sub(kind: &str, topic: &str, count: u64) -> String {
    format!("*3\r\n${}\r\n{kind}\r\n${}\r\n{topic}\r\n:{count}\r\n", kind.len(), topic.len())
}

pub(super) fn sub3(kind: &str, topic: &str, count: u64) -> String {
    sub(kind, topic, count).replacen('*', ">", 1)
}

/// Nothing is owed and nothing misunderstood: an ordinary command finds its own reply.
pub(super) fn in_step(rig: &mut Rig) {
    let (opaque, success) = (rig.count(Counter::Opaque), rig.count(Counter::Success));
    assert_eq!(rig.wait(), Wait::Nothing, "something is still owed");
    rig.client(req("PING"));
    assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
    rig.server("+PONG\r\n");
    assert_eq!(rig.wait(), Wait::Nothing);
    assert_eq!((rig.count(Counter::Opaque), rig.count(Counter::Success)), (opaque, success + 1));
}

#[test]
fn subscribe_is_confirmed_for_each_channel() {
    scenario(|rig| {
        rig.client(req("SUBSCRIBE a b"));
        rig.server(sub("subscribe", "a", 1));
        assert_ne!(rig.wait(), Wait::Nothing, "one more is owed");
        rig.server(sub("subscribe", "b", 2));
        in_step(rig);
        rig.client(req("UNSUBSCRIBE")).server(sub("unsubscribe", "a", 1));
        assert_ne!(rig.wait(), Wait::Nothing);
        rig.server(sub("unsubscribe", "b", 0));
        in_step(rig);
    });
}

#[test]
fn resp2_subscribe_unsubscribe_echo_match() {
    scenario(|rig| {
        rig.client(reqs(&["SUBSCRIBE a b", "UNSUBSCRIBE", "GET z"]));
        rig.server([sub("subscribe", "a", 1), sub("subscribe", "b", 2)].concat());
        rig.server([sub("unsubscribe", "b", 1), sub("unsubscribe", "a", 0)].concat());
        assert_eq!(rig.count(Counter::Success), 0);
        rig.server("$1\r\nz\r\n");
        assert_eq!(rig.count(Counter::Success), 1);
        in_step(rig);
    });
}

#[test]
fn a_refused_subscribe_is_one_error() {
    scenario(|rig| {
        rig.passes(req("SUBSCRIBE a b c"), "-NOPERM no\r\n");
        in_step(rig);
        rig.passes(req("SUBSCRIBE"), "-ERR wrong number of arguments for 'subscribe' command\r\n");
        in_step(rig);
    });
}

#[test]
fn unsubscribe_of_nothing_is_confirmed_once() {
    scenario(|rig| {
        for kind in ["unsubscribe", "punsubscribe", "sunsubscribe"] {
            rig.passes(req(kind), format!("*3\r\n${}\r\n{kind}\r\n$-1\r\n:0\r\n", kind.len()));
            in_step(rig);
        }
        rig.passes(req("UNSUBSCRIBE a b"), [sub("unsubscribe", "a", 0), sub("unsubscribe", "b", 0)].concat());
        in_step(rig);
    });
}

#[test]
fn channels_and_patterns_share_a_count_and_shards_do_not() {
    scenario(|rig| {
        rig.passes(req("SUBSCRIBE a b"), [sub("subscribe", "a", 1), sub("subscribe", "b", 2)].concat());
        rig.passes(req("PSUBSCRIBE p*"), sub("psubscribe", "p*", 3));
        rig.passes(req("SSUBSCRIBE s"), sub("ssubscribe", "s", 1));
        rig.passes(req("UNSUBSCRIBE"), [sub("unsubscribe", "a", 2), sub("unsubscribe", "b", 1)].concat());
        in_step(rig);
        rig.passes(req("SUNSUBSCRIBE"), sub("sunsubscribe", "s", 0));
        in_step(rig);
        rig.passes(req("PUNSUBSCRIBE"), sub("punsubscribe", "p*", 0));
        in_step(rig);
    });
}

#[test]
fn messages_in_resp2_answer_nobody() {
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";
    let pmessage = "*4\r\n$8\r\npmessage\r\n$2\r\np*\r\n$1\r\na\r\n$2\r\nhi\r\n";
    scenario(|rig| {
        rig.passes(req("SUBSCRIBE a"), sub("subscribe", "a", 1));
        rig.client(req("PING")).server([message, pmessage].concat());
        assert_eq!(rig.count(Counter::Success), 0);
        rig.server("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        assert_eq!(rig.count(Counter::Success), 1);
        rig.passes(req("GET k"), "-ERR Can't execute 'get'\r\n");
        rig.server(sub("sunsubscribe", "moved", 0));
        in_step(rig);
    });
}

#[test]
fn an_array_that_looks_like_a_message_is_a_reply_without_subscriptions() {
    scenario(|rig| {
        rig.passes(req("LRANGE l 0 -1"), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        in_step(rig);
        rig.passes(req("LRANGE l 0 -1"), sub("subscribe", "a", 1));
        in_step(rig);
    });
}

#[test]
fn in_resp3_only_pushes_are_pushes() {
    scenario(|rig| {
        rig.passes(req("HELLO 3"), "%1\r\n+proto\r\n:3\r\n");
        rig.passes(req("SUBSCRIBE a b"), [sub3("subscribe", "a", 1), sub3("subscribe", "b", 2)].concat());
        in_step(rig);
        rig.client(req("LRANGE l 0 -1"));
        rig.server(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        rig.server("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        in_step(rig);
        rig.passes(req("UNSUBSCRIBE"), [sub3("unsubscribe", "a", 1), sub3("unsubscribe", "b", 0)].concat());
        in_step(rig);
    });
}

#[test]
fn a_refused_hello_keeps_the_protocol() {
    scenario(|rig| {
        rig.passes(req("HELLO 3"), "-NOPROTO unsupported\r\n");
        rig.passes(req("SUBSCRIBE a"), sub("subscribe", "a", 1));
        rig.server("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        in_step(rig);
    });
}

#[test]
fn client_reply_off_owes_nothing_until_on() {
    scenario(|rig| {
        rig.passes(req("CLIENT REPLY OFF"), "");
        rig.passes(reqs(&["SET a 1", "SET b 2", "CLIENT REPLY SKIP"]), "");
        assert_eq!(rig.wait(), Wait::Nothing);
        rig.passes(req("CLIENT REPLY ON"), "+OK\r\n");
        in_step(rig);
        assert_eq!(rig.count(Counter::Success), 1, "what has no reply says nothing");
    });
}

#[test]
fn subscriptions_are_confirmed_even_under_client_reply_off() {
    scenario(|rig| {
        rig.passes(req("CLIENT REPLY OFF"), "").passes(req("SUBSCRIBE a"), sub("subscribe", "a", 1));
        rig.server("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        rig.passes(req("UNSUBSCRIBE a"), sub("unsubscribe", "a", 0));
        rig.passes(req("RESET"), "+RESET\r\n");
        in_step(rig);
    });
}

#[test]
fn a_hello_without_a_reply_makes_a_plain_relay() {
    for mode in ["SKIP", "OFF"] {
        scenario(|rig| {
            rig.client(req("GET k")).client(reqs(&[
                &format!("CLIENT REPLY {mode}"),
                "HELLO 3",
                "LRANGE l 0 -1",
            ]));
            rig.server("$-1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
            assert_eq!((rig.count(Counter::Opaque), rig.count(Counter::Success)), (1, 1));
        });
    }
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").client(req("CLIENT REPLY SKIP")).trip().forget();
        rig.client(reqs(&["HELLO 3", "GET k"]));
        assert_eq!(rejections(&rig.down()), 1, "a rejected one poisons as ever");
        assert_eq!(rig.count(Counter::Opaque), 0);
    });
}

#[test]
fn client_reply_skip_skips_itself_and_the_next() {
    scenario(|rig| {
        rig.passes(reqs(&["CLIENT REPLY SKIP", "SET a 1", "GET a"]), "$1\r\n1\r\n");
        in_step(rig);
        rig.passes(reqs(&["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "GET a", "GET b"]), "$1\r\nb\r\n");
        in_step(rig);
        rig.passes(reqs(&["CLIENT REPLY SKIP", "CLIENT REPLY ON"]), "+OK\r\n");
        in_step(rig);
        rig.passes(reqs(&["CLIENT REPLY SKIP", "RESET"]), "");
        in_step(rig);
        rig.passes("CLIENT REPLY SKIP\r\nSET a 1\r\nGET a\r\n", "$1\r\n1\r\n");
        in_step(rig);
        rig.passes(req("CLIENT REPLY BAD"), "-ERR syntax error\r\n");
        in_step(rig);
        rig.passes(req("CLIENT REPLY SKIP x"), "-ERR wrong number\r\n");
        in_step(rig);
    });
}

#[test]
fn reset_ends_client_reply_off_and_subscriptions() {
    scenario(|rig| {
        rig.passes(reqs(&["CLIENT REPLY OFF", "SUBSCRIBE a"]), sub("subscribe", "a", 1));
        rig.passes(req("RESET"), "+RESET\r\n");
        rig.passes(req("LRANGE l 0 -1"), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        in_step(rig);
    });
}

#[test]
fn reset_leaves_a_transaction() {
    scenario(|rig| {
        rig.passes(reqs(&["MULTI", "SET a 1", "RESET"]), "+OK\r\n+QUEUED\r\n+RESET\r\n");
        rig.trip().forget();
        assert_eq!(rejections(&rig.refused(req("GET a"))), 1, "no longer inside");
    });
}

#[test]
fn a_lost_watch_is_a_success() {
    for null in ["*-1\r\n", "_\r\n"] {
        scenario(|rig| {
            rig.passes(
                reqs(&["WATCH k", "MULTI", "GET k", "EXEC"]),
                ["+OK\r\n+OK\r\n+QUEUED\r\n", null].concat(),
            );
            assert_eq!(rig.count(Counter::Success), 2);
            in_step(rig);
        });
    }
}

#[test]
fn queued_commands_that_break_the_array_make_a_plain_relay() {
    for queued in ["SUBSCRIBE a b", "HELLO 3", "CLIENT REPLY OFF", "UNSUBSCRIBE"] {
        scenario(|rig| {
            // Nothing behind it is looked at, not even before its reply has come.
            rig.client(reqs(&["MULTI", queued])).trip().client(req("EXEC"));
            assert_eq!(rig.up(), text(&reqs(&["MULTI", queued, "EXEC"])));
            rig.server("+OK\r\n+QUEUED\r\n*1\r\n*3\r\nwhatever");
            assert_eq!(rig.count(Counter::Opaque), 1, "{queued}");
            rig.passes(req("GET k"), "still relayed");
        });
    }
    for queued in ["CLIENT ID", "SCRIPT REPLY"] {
        scenario(|rig| {
            rig.passes(reqs(&["MULTI", queued, "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n:5\r\n");
            in_step(rig);
        });
    }
}

#[test]
fn monitor_and_replication_are_plain_relays_behind_what_is_owed() {
    for stream in ["MONITOR", "SYNC", "PSYNC ? -1"] {
        scenario(|rig| {
            rig.client(reqs(&["GET k", stream])).client("junk \0 that is no request");
            assert_eq!(rig.count(Counter::Opaque), 0, "the reply to GET is still owed");
            rig.server("$1\r\nv\r\n$185\r\nREDIS0010").server("no crlf here");
            assert_eq!(rig.count(Counter::Success), 1);
            assert_eq!(rig.count(Counter::Opaque), 1);
            assert_eq!(rig.down(), "$1\r\nv\r\n$185\r\nREDIS0010no crlf here");
            assert!(rig.up().ends_with("junk \0 that is no request"));
            assert_eq!(rig.wait(), Wait::Nothing);
            assert_eq!(rig.server_eof(), Phase::Finish);
            assert_eq!(rig.count(Counter::Failure), 0);
        });
    }
}

#[test]
fn quit_ends_in_good_order() {
    scenario(|rig| {
        rig.client(reqs(&["GET k", "QUIT", "FLUSHALL"]));
        assert!(!rig.up().contains("FLUSHALL"));
        rig.server("$-1\r\n+OK\r\n");
        assert_eq!(rig.server_eof(), Phase::Finish);
        assert_eq!(rig.down(), "$-1\r\n+OK\r\n");
        assert_eq!(rig.count(Counter::Failure), 0);
    });
}

#[test]
fn shutdown_may_end_without_a_reply() {
    scenario(|rig| {
        rig.client(req("SHUTDOWN NOSAVE"));
        assert_eq!(rig.wait(), Wait::Nothing, "saving takes as long as it takes");
        assert_eq!(rig.server_eof(), Phase::Finish);
        assert_eq!(rig.count(Counter::Failure), 0);
    });
    scenario(|rig| {
        rig.passes(req("SHUTDOWN"), "-ERR Errors trying to SHUTDOWN\r\n").client(req("GET k"));
        rig.server_eof();
        assert_eq!(rig.count(Counter::Failure), 1, "it did not shut down, so this is news");
    });
}

#[test]
fn blocking_commands_wait_their_own_time_and_no_longer() {
    let own = |secs| Wait::Backend(RESPONSE + Duration::from_secs_f64(secs));
    let table = [
        ("BLPOP k 60", own(60.0)),
        ("BRPOP a b 0.5", own(0.5)),
        ("BZPOPMIN k 1", own(1.0)),
        ("BLMOVE a b LEFT RIGHT 2", own(2.0)),
        ("BRPOPLPUSH a b 3", own(3.0)),
        ("BLPOP k 0", Wait::Nothing),
        ("BLMPOP 60 1 k LEFT", own(60.0)),
        ("BZMPOP 0 1 k MIN", Wait::Nothing),
        ("XREAD COUNT 1 BLOCK 5000 STREAMS s $", own(5.0)),
        ("XREAD BLOCK 0 STREAMS s $", Wait::Nothing),
        ("XREAD STREAMS block 0", Wait::Backend(RESPONSE)),
        ("XREADGROUP GROUP block block BLOCK 1000 STREAMS s >", own(1.0)),
        ("XREADGROUP GROUP g c STREAMS block >", Wait::Backend(RESPONSE)),
        ("XREADGROUP GROUP g c NOACK BLOCK 1000 STREAMS s >", own(1.0)),
        ("XREADGROUP GROUP block 5 STREAMS s >", Wait::Backend(RESPONSE)),
        ("XREADGROUP GROUP g streams COUNT 1 BLOCK 1000 STREAMS s >", own(1.0)),
        ("WAIT 1 2000", own(2.0)),
        ("WAITAOF 1 1 2000", own(2.0)),
        ("WAIT 1 0", Wait::Nothing),
        ("MIGRATE h 6379 k 0 4000", own(4.0)),
        ("MIGRATE h 6379 k 0 0 COPY", own(1.0)),
        ("EVAL return 0", Wait::Nothing),
        ("FCALL f 0", Wait::Nothing),
        ("SAVE", Wait::Nothing),
        ("DEBUG SLEEP 3", Wait::Nothing),
        ("BLPOP k never", Wait::Backend(RESPONSE)),
        ("BLPOP k -1", Wait::Backend(RESPONSE)),
        ("BLPOP 7 never", Wait::Backend(RESPONSE)),
        ("BLPOP k 31536000", own(31_536_000.0)),
        ("BLPOP k 31536000.001", Wait::Nothing),
        ("BLPOP", Wait::Backend(RESPONSE)),
        ("GET k", Wait::Backend(RESPONSE)),
        ("AUTH p", Wait::Backend(Duration::from_secs(5))),
    ];
    for (command, wait) in table {
        scenario(|rig| {
            rig.client(req(command));
            assert_eq!(rig.wait(), wait, "{command}");
            rig.server("*-1\r\n");
            assert_eq!(rig.wait(), Wait::Nothing, "{command}");
            assert_eq!(rig.count(Counter::Failure), 0);
            rig.client(format!("{command}\r\n"));
            assert_eq!(rig.wait(), wait, "inline {command}");
        });
    }
}

#[test]
fn commands_that_the_configuration_names_may_take_any_time() {
    let names = ["FT.*", "GRAPH.QUERY|slow", "BLPOP", "SELECT"];
    let own = Redis { unbounded_commands: names.map(Into::into).to_vec(), ..Redis::default() };
    let unbounded = ["ft.search i *", "FT. x", "GRAPH.QUERY SLOW q", "graph.query slow q", "BLPOP k 5"];
    for command in unbounded {
        scenario_under(&own, |rig| {
            for request in [req(command), format!("{command}\r\n").into_bytes()] {
                rig.client(&request);
                assert_eq!(rig.wait(), Wait::Nothing, "{command}");
                rig.server("+OK\r\n");
            }
            in_step(rig);
            rig.half_open().forget();
            rig.client(req(command));
            assert_eq!(rig.up(), text(&reqs(&["PING", command])), "no probe: {command}");
        });
    }
    for command in ["GET k", "GRAPH.QUERY fast q", "GRAPH.QUERY", "FTX", "GRAPH.QUERYX SLOW"] {
        scenario_under(&own, |rig| {
            rig.client(req(command));
            assert_eq!(rig.wait(), Wait::Backend(RESPONSE), "{command}");
        });
    }
    // What sets the connection's state keeps its own rules.
    scenario_under(&own, |rig| {
        rig.client(req("SELECT 1"));
        assert_eq!(rig.wait(), Wait::Backend(Duration::from_secs(5)));
        rig.server("+OK\r\n").trip();
        rig.refused(req("SELECT 3"));
        assert!(rig.session().watches_breaker());
    });
}

#[test]
fn a_blocking_command_is_no_latency_sample() {
    scenario(|rig| {
        rig.client(req("BLPOP k 60"));
        rig.now += Duration::from_secs(59);
        rig.server("*-1\r\n");
        assert_eq!(rig.count(Counter::Success), 1);
        assert_eq!(rig.totals().latency_counts.iter().sum::<u64>(), 0);
        rig.passes(req("XREAD STREAMS s 0"), "*-1\r\n");
        assert_eq!(rig.totals().latency_counts.iter().sum::<u64>(), 1);
    });
}

#[test]
fn in_a_transaction_nothing_blocks() {
    scenario(|rig| {
        rig.passes(req("MULTI"), "+OK\r\n").client(req("BLPOP k 60"));
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
        rig.server("+QUEUED\r\n").client(req("EXEC"));
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
        rig.server("*1\r\n*-1\r\n");
        in_step(rig);
    });
}

#[test]
fn what_is_queued_behind_a_blocking_command_waits_too() {
    scenario(|rig| {
        rig.client(reqs(&["BLPOP k 0", "GET k"]));
        assert_eq!(rig.wait(), Wait::Nothing);
        rig.server("*-1\r\n");
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
        rig.server("$-1\r\n");
    });
}

#[test]
fn a_pause_seen_by_one_session_extends_the_deadlines_of_all() {
    scenario(|rig| {
        let mut other = rig.another();
        other.client(req("GET k"));
        rig.passes(req("CLIENT PAUSE 60000"), "+OK\r\n");
        other.now += RESPONSE;
        let now = other.now;
        other.session().on_deadline(now);
        assert_eq!(other.phase(), Phase::Relay);
        let Wait::Backend(limit) = other.wait() else { panic!("{:?}", other.wait()) };
        assert_eq!(limit, RESPONSE + Duration::from_secs(60));
        other.now += limit - RESPONSE;
        let now = other.now;
        other.session().on_deadline(now);
        assert_eq!(other.phase(), Phase::Finish);
        assert_eq!(rig.count(Counter::Failure), 1);
    });
}

#[test]
fn a_pause_is_begun_and_ended_by_the_commands_for_it_and_only_if_they_succeed() {
    scenario(|rig| {
        let paused = |rig: &Rig| rig.settings.paused();
        rig.passes(req("CLIENT PAUSE 60000"), "-NOPERM no\r\n")
            .passes(req("CLIENT SETNAME 60000"), "+OK\r\n");
        assert_eq!(paused(rig), None);
        let until = Some(rig.now + Duration::from_secs(60));
        rig.passes(req("CLIENT PAUSE 60000"), "+OK\r\n");
        assert_eq!(paused(rig), until);
        rig.passes(req("CLIENT UNPAUSE"), "-NOPERM no\r\n").passes(req("CLIENT ID"), ":5\r\n");
        assert_eq!(paused(rig), until);
        rig.passes(req("CLIENT UNPAUSE"), "+OK\r\n");
        assert_eq!(paused(rig), None);
    });
}

#[test]
fn a_request_without_a_command_uses_up_client_reply_skip() {
    for nothing in ["*0\r\n", "*-1\r\n", "\r\n", "\n"] {
        scenario(|rig| {
            let requests = [req("CLIENT REPLY SKIP"), nothing.into(), reqs(&["PING", "GET a"])].concat();
            rig.passes(requests, "+PONG\r\n$1\r\na\r\n");
            in_step(rig);
        });
    }
}

#[test]
fn client_reply_of_a_resp2_subscriber_makes_a_plain_relay() {
    // Redis refuses it: with one error, or, behind CLIENT REPLY OFF, without a word.
    scenario(|rig| {
        rig.passes(reqs(&["SUBSCRIBE a", "CLIENT REPLY OFF", "UNSUBSCRIBE a", "GET k"]), "");
        let replies =
            [&sub("subscribe", "a", 1), "-ERR Can't execute\r\n", &sub("unsubscribe", "a", 0), "$-1\r\n"];
        rig.forget().server(replies.concat());
        assert_eq!(rig.down(), replies.concat());
        assert_eq!((rig.count(Counter::Opaque), rig.wait()), (1, Wait::Nothing));
    });
    scenario(|rig| {
        rig.passes(reqs(&["CLIENT REPLY OFF", "PSUBSCRIBE p"]), sub("psubscribe", "p", 1));
        rig.passes(reqs(&["CLIENT REPLY ON", "GET k", "RESET", "GET k"]), "+RESET\r\n$-1\r\n");
        assert_eq!((rig.count(Counter::Opaque), rig.wait()), (1, Wait::Nothing));
    });
}

#[test]
fn client_reply_of_a_resp3_subscriber_is_accounted_for() {
    scenario(|rig| {
        rig.passes(req("HELLO 3"), "%0\r\n").passes(req("SUBSCRIBE a"), sub3("subscribe", "a", 1));
        rig.passes(reqs(&["CLIENT REPLY SKIP", "GET a", "GET b"]), "$1\r\nb\r\n");
        in_step(rig);
    });
}

#[test]
fn a_name_too_long_to_be_known_says_nothing_of_what_begins_alike() {
    let nameless = req(&format!("{} k 0", "n".repeat(100)));
    for cut in [Cut::Whole, Cut::Bytes] {
        let mut rig = Rig::new(cut);
        rig.client([nameless.clone(), req("BLPOP k 0")].concat()).server("+OK\r\n");
        assert_eq!(rig.wait(), Wait::Nothing, "{cut:?}");
    }
}

#[test]
fn ordinary_commands_in_a_pipeline_are_known_by_their_whole_heads() {
    for (first, second) in [("GET k", "GET k v"), ("SET k 0", "XADD k 0"), ("SET k 0", "BLPOP k 0")] {
        let mut rig = Rig::new(Cut::Whole);
        rig.client(req(first).repeat(3)).client([req(first).repeat(3), req(second), req(first)].concat());
        rig.server("+OK\r\n".repeat(6));
        let blocks = second.starts_with("BLPOP");
        assert_eq!(rig.wait() == Wait::Nothing, blocks, "{second} behind {first}");
        rig.server("+OK\r\n".repeat(2));
        assert_eq!((rig.wait(), rig.totals().in_flight()), (Wait::Nothing, 0));
        assert_eq!(rig.count(Counter::Opaque), 0);
    }
}
