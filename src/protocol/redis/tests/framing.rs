//! Framing: requests and replies that pass, and those that may not (PROTOCOLS §2.1).

use super::*;
use crate::protocol::redis::request::{ARGS_MAX, INLINE_MAX};

#[test]
fn a_pipeline_passes_untouched_and_every_reply_counts() {
    scenario(|rig| {
        let requests = reqs(&["SET k v", "GET k", "PING"]);
        rig.client(&requests).server("+OK\r\n$1\r\nv\r\n+PONG\r\n");
        assert_eq!(rig.up, requests);
        assert_eq!(rig.down(), "+OK\r\n$1\r\nv\r\n+PONG\r\n");
        assert_eq!(rig.count(Counter::Success), 3);
        assert_eq!(rig.dials, 1);
    });
}

#[test]
fn requests_without_a_command_get_no_reply() {
    scenario(|rig| {
        rig.passes("\r\n", "")
            .passes("\n", "")
            .passes("*0\r\n", "")
            .passes("*-1\r\n", "")
            .passes("  \r\n", "");
        assert_eq!(rig.wait(), Wait::Nothing);
        rig.trip();
        assert_eq!(rig.down(), "");
        rig.client("*0\r\n\r\n");
        assert_eq!(rig.down(), "", "no rejection either");
    });
}

#[test]
fn inline_requests_are_requests() {
    scenario(|rig| {
        rig.passes("PING\r\n", "+PONG\r\n").passes("ping\n", "+PONG\r\n").passes("+PING\r\n", "-ERR no\r\n");
        rig.passes("SET k \"a b\\x41\\\"\" 'it\\'s'\r\n", "+OK\r\n");
        assert_eq!(rig.count(Counter::Success), 4);
    });
}

#[test]
fn the_crlf_behind_a_bulk_is_checked_before_the_backend_sees_it() {
    broken_scenario(|rig| {
        let down = rig.refused("*1\r\n$4\r\nPINGxx");
        assert_eq!(down, "-ERR Protocol error: expected CRLF after bulk\r\n");
        assert_eq!(rig.phase(), Phase::Finish);
        assert_eq!(rig.count(Counter::ClientMalformed), 1);
        assert_eq!(rig.count(Counter::Failure) + rig.run() as u64, 0);
    });
    // In the middle of a request the beginning is out already; the end of the argument is not.
    broken_scenario(|rig| {
        rig.client("*2\r\n$3\r\nGET\r\n$1\r\nkxx*1\r\n$8\r\nFLUSHALL\r\n");
        assert_eq!(rig.down(), "-ERR Protocol error: expected CRLF after bulk\r\n");
        assert!(!rig.up().contains("FLUSHALL") && !rig.up().ends_with("kxx"), "{}", rig.up());
        assert_eq!(rig.phase(), Phase::Finish);
    });
}

#[test]
fn malformed_requests_end_their_own_connection_only() {
    let table: [(&[u8], &str); 16] = [
        (b"*01\r\n", "invalid multibulk length"),
        (b"*3 \r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*-0\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*1\n", "invalid multibulk length"),
        (b"*1\rX", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$04\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"ECHO \"a\r\n", "unbalanced quotes in request"),
        (b"ECHO \"a\"b\r\n", "unbalanced quotes in request"),
    ];
    for (bytes, words) in table {
        broken_scenario(|rig| {
            rig.passes(req("GET k"), "$-1\r\n").forget();
            rig.client(bytes);
            assert_eq!(rig.down(), format!("-ERR Protocol error: {words}\r\n"), "{}", text(bytes));
            assert_eq!(rig.phase(), Phase::Finish);
            assert_eq!(rig.count(Counter::ClientMalformed), 1);
            assert_eq!(rig.count(Counter::Failure), 0);
        });
    }
}

#[test]
fn a_nul_in_an_inline_request_does_not_hang() {
    broken_scenario(|rig| {
        rig.client(b"PI\0NG\r\n");
        assert_eq!(rig.down(), "-ERR Protocol error: NUL in inline request\r\n");
    });
}

#[test]
fn an_endless_inline_request_is_cut_off() {
    let mut rig = Rig::new(Cut::Whole);
    rig.client(vec![b'a'; 60_000]);
    assert_eq!(rig.phase(), Phase::Relay);
    rig.client(vec![b'a'; 6_000]);
    assert_eq!(rig.down(), "-ERR Protocol error: too big inline request\r\n");
    assert_eq!(rig.phase(), Phase::Finish);
}

#[test]
fn an_inline_request_of_the_longest_kind_passes() {
    let (mut rig, line) = (Rig::new(Cut::Whole), vec![b'a'; INLINE_MAX]);
    rig.client(&line);
    assert_eq!(rig.down(), "", "its end may be next");
    rig.client("\n");
    assert_eq!(rig.up.len(), INLINE_MAX + 1);
    let mut rig = Rig::new(Cut::Whole);
    rig.client([&line[..], b"\n"].concat());
    assert_eq!((rig.up.len(), rig.down()), (INLINE_MAX + 1, String::new()));
    rig.client([&line[..], b"a\n"].concat());
    assert_eq!(rig.phase(), Phase::Relay, "the first one's reply is owed");
    rig.server("-ERR unknown command\r\n");
    assert!(rig.down().ends_with("-ERR Protocol error: too big inline request\r\n"));
}

#[test]
fn as_many_announced_arguments_as_may_be_cost_nothing() {
    let mut rig = Rig::new(Cut::Whole);
    let request = format!("*{ARGS_MAX}\r\n$3\r\nDEL\r\n$1\r\na\r\n");
    rig.client(&request);
    assert_eq!(rig.up(), request);
    assert_eq!(rig.wait(), Wait::Nothing, "the client is the slow one");
}

#[test]
fn no_more_of_a_request_is_waited_for_than_decides_on_it() {
    let named = ["GRAPH.QUERY|slow", "BLPOP"].map(Into::into).to_vec();
    let own = Redis { unbounded_commands: named, ..Redis::default() };
    for (name, passes) in [
        ("GET", true),
        ("EVAL", true),
        ("BLPOP", true),
        ("SELECT", true),
        ("EXEC", true),
        ("CLIENT", false),
        ("SCRIPT", false),
        ("GRAPH.QUERY", false),
    ] {
        let mut rig = Rig::with(Cut::Whole, &own);
        let head = format!("*3\r\n${}\r\n{name}\r\n", name.len());
        rig.client(&head);
        assert_eq!(rig.up(), if passes { &head } else { "" }, "{name}");
        rig.client("$1\r\na\r\n$1\r\nb\r\n");
        assert_eq!(rig.up(), format!("{head}$1\r\na\r\n$1\r\nb\r\n"), "{name}");
    }
}

#[test]
fn what_looks_like_an_argument_inside_a_value_is_none() {
    let lookalike = "$1\r\nx\r\n";
    scenario(|rig| {
        let value = format!("{lookalike}{lookalike}");
        rig.passes(
            format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()),
            format!("${}\r\n{value}\r\n", value.len()),
        );
        rig.passes(req("GET k"), "$-1\r\n");
        assert_eq!((rig.wait(), rig.count(Counter::Success)), (Wait::Nothing, 2));
    });
    // Behind a request without arguments it is an inline request of two.
    scenario(|rig| {
        rig.passes(format!("*1\r\n$4\r\nPING\r\n{lookalike}"), "+PONG\r\n-ERR $1\r\n-ERR x\r\n");
        assert_eq!((rig.wait(), rig.count(Counter::Success)), (Wait::Nothing, 3));
    });
}

#[test]
fn a_line_feed_alone_ends_no_line() {
    for line in ["+\nx\r\n", "+x\n\r\n", "+1234567\n\r\n", "+\rx\r\n"] {
        scenario(|rig| {
            rig.client(req("GET k").repeat(2)).server(line);
            assert_eq!(rig.count(Counter::Success), 1, "{line:?}");
            rig.server("+OK\r\n");
            assert_eq!((rig.count(Counter::Success), rig.wait()), (2, Wait::Nothing), "{line:?}");
        });
    }
}

#[test]
fn a_value_goes_out_though_its_line_end_has_not_come() {
    for pieces in [&["$5\r\nhello"][..], &["$5\r\nhe", "llo"], &["$5\r\n", "hello"]] {
        let mut rig = Rig::new(Cut::Whole);
        rig.client(req("GET k"));
        for piece in pieces {
            rig.server(piece);
        }
        assert_eq!(rig.down(), "$5\r\nhello", "{pieces:?}");
    }
}

#[test]
fn a_connection_that_dies_behind_an_attribute_is_cut_off() {
    for attribute in ["|0\r\n", "|1\r\n+ttl\r\n:3600\r\n"] {
        broken_scenario(|rig| {
            rig.client(req("GET k")).server(attribute);
            assert_eq!(rig.server_eof(), Phase::Abort, "{attribute:?}");
        });
    }
}

#[test]
fn a_protocol_error_is_told_after_the_replies_before_it() {
    broken_scenario(|rig| {
        rig.client([req("GET k"), b"*x\r\n".to_vec()].concat());
        assert_eq!(rig.down(), "");
        assert_eq!(rig.phase(), Phase::Relay);
        rig.server("$1\r\nv\r\n");
        assert_eq!(rig.down(), "$1\r\nv\r\n-ERR Protocol error: invalid multibulk length\r\n");
        assert_eq!(rig.phase(), Phase::Finish);
        assert_eq!(rig.count(Counter::Success), 1);
    });
}

#[test]
fn browsers_are_hung_up_on_without_a_word() {
    for line in ["POST / HTTP/1.1\r\n", "Host: x\r\n", "hOST: x\r\n"] {
        broken_scenario(|rig| {
            assert_eq!(rig.refused(line), "");
            assert_eq!(rig.phase(), Phase::Finish);
            assert_eq!(rig.count(Counter::ClientMalformed), 1);
        });
    }
}

#[test]
fn a_large_value_streams_as_it_comes() {
    let mut rig = Rig::new(Cut::Whole);
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300000000\r\n";
    rig.client(head).client(vec![b'x'; 100_000]);
    assert_eq!(rig.up.len(), head.len() + 100_000, "nothing is held back");
    assert!(rig.client_buf.is_empty());
    assert_eq!(rig.wait(), Wait::Nothing, "a slow upload is no hang of the backend's");
    rig.client(req("GET k").repeat(0));
    let mut rig = Rig::new(Cut::Whole);
    rig.client(req("GET k")).server("$300000000\r\n").server(vec![b'x'; 100_000]);
    assert_eq!(rig.down.len(), 12 + 100_000);
    assert!(rig.server_buf.is_empty());
}

#[test]
fn a_rejected_value_is_discarded_and_answered_at_its_end() {
    scenario(|rig| {
        rig.passes(req("PING"), "+PONG\r\n").trip().forget();
        let set =
            [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20\r\n".to_vec(), vec![b'x'; 20], b"\r\n".to_vec()].concat();
        rig.client(&set[..set.len() - 1]);
        assert_eq!(rig.down(), "");
        rig.client(&set[set.len() - 1..]);
        assert_eq!(rejections(&rig.down()), 1);
        assert_eq!(rig.up(), "");
    });
}

#[test]
fn every_resp3_type_passes_whatever_the_cut() {
    let frames = [
        "+OK\r\n",
        "-ERR x\r\n",
        ":-12\r\n",
        "$5\r\nhello\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "_\r\n",
        "#t\r\n",
        ",3.14\r\n",
        ",inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "!5\r\nERR a\r\n",
        "=8\r\ntxt:abcd\r\n",
        "*2\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*0\r\n",
        "~1\r\n:1\r\n",
        "|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n",
        "*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
        "%0\r\n",
        "|0\r\n+x\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
    ];
    for frame in frames {
        scenario(|rig| {
            rig.passes(reqs(&["GET k"]), frame);
            assert_eq!(rig.count(Counter::Success), 1, "{frame:?}");
            assert_eq!(rig.wait(), Wait::Nothing, "{frame:?}");
        });
    }
    scenario(|rig| {
        rig.client(req("GET k").repeat(frames.len())).server(frames.concat());
        assert_eq!(rig.down(), frames.concat());
        assert_eq!(rig.count(Counter::Success), frames.len() as u64);
    });
}

#[test]
fn pushes_answer_nobody() {
    scenario(|rig| {
        rig.client(reqs(&["GET a", "GET b"]));
        rig.server(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n$1\r\n1\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n");
        assert_eq!(rig.count(Counter::Success), 1);
        rig.server(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n$1\r\n2\r\n");
        assert_eq!(rig.count(Counter::Success), 2);
        assert_eq!(rig.wait(), Wait::Nothing);
    });
}

#[test]
fn a_push_inside_an_exec_array_takes_no_slot() {
    scenario(|rig| {
        rig.passes(reqs(&["MULTI", "PUBLISH c x", "GET k"]), "+OK\r\n+QUEUED\r\n+QUEUED\r\n");
        rig.passes(req("EXEC"), "*2\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n:1\r\n_\r\n");
        assert_eq!(rig.wait(), Wait::Nothing);
        rig.passes(req("GET k"), "_\r\n");
        assert_eq!(rig.count(Counter::Opaque), 0, "in step");
        assert_eq!(rig.count(Counter::Success), 3, "GET queued, EXEC, GET");
    });
}

#[test]
fn unknown_framing_makes_a_plain_relay() {
    for frame in ["$?\r\n;4\r\nabcd\r\n;0\r\n", "*?\r\n:1\r\n.\r\n", "^new\r\n"] {
        broken_scenario(|rig| {
            rig.client(req("GET k")).server(frame);
            assert_eq!(rig.down(), frame);
            assert_eq!(rig.phase(), Phase::Relay);
            assert_eq!(rig.count(Counter::Opaque), 1);
            rig.forget().client("anything").server("at all");
            assert_eq!((rig.up(), rig.down()), ("anything".to_owned(), "at all".to_owned()));
        });
    }
}

#[test]
fn a_connection_that_owes_a_rejection_is_cut_and_not_made_a_plain_relay() {
    broken_scenario(|rig| {
        rig.client(req("GET a"));
        rig.trip().client(req("GET b"));
        rig.server("^new\r\n");
        assert_eq!(rig.phase(), Phase::Abort, "nobody could tell where the rejection belongs");
        assert_eq!(rig.count(Counter::Opaque), 0);
    });
}

#[test]
fn nesting_beyond_the_bound_makes_a_plain_relay() {
    let mut rig = Rig::new(Cut::Whole);
    let deep = "*1\r\n".repeat(100_000);
    rig.client(req("GET k")).server(&deep);
    assert_eq!(rig.down(), deep);
    assert_eq!(rig.count(Counter::Opaque), 1);
}

#[test]
fn a_malformed_reply_is_one_failure_and_the_end() {
    for frame in ["HTTP/1.1 400\r\n", "$abc\r\n", "*-2\r\n", "$3\r\nabcXX", "\0\0"] {
        broken_scenario(|rig| {
            rig.client(reqs(&["GET a", "GET b", "GET c"])).server(frame);
            assert_eq!(rig.phase(), Phase::Abort, "{frame:?}");
            assert_eq!(rig.count(Counter::Failure), 1);
            assert_eq!(rig.count(Counter::Ignored), 3, "the connect and the other two");
        });
    }
}

#[test]
fn a_long_error_is_classified_by_its_first_word() {
    scenario(|rig| {
        rig.passes(req("GET k"), format!("-LOADING {}\r\n", "x".repeat(300)));
        rig.passes(req("GET k"), format!("!{}\r\nBUSY {}\r\n", 305, "x".repeat(300)));
        assert_eq!(rig.run(), 2);
        rig.passes(req("GET k"), format!("+{}\r\n", "\r\n".replace('\n', "").repeat(50)));
        assert_eq!(rig.run(), 0);
    });
}

#[test]
fn an_attribute_answers_nobody() {
    scenario(|rig| {
        rig.client(reqs(&["GET a", "GET b", "MGET c"]));
        for answered in 0..2 {
            rig.server("|1\r\n+ttl\r\n:3600\r\n");
            assert_eq!(rig.count(Counter::Success), answered);
            rig.server("$1\r\nv\r\n");
            assert_eq!(rig.count(Counter::Success), answered + 1);
        }
        rig.server("*1\r\n|1\r\n+ttl\r\n:3600\r\n");
        assert_eq!(rig.count(Counter::Success), 2, "nor is it an element");
        rig.server("$1\r\nv\r\n");
        assert_eq!(rig.count(Counter::Success), 3);
        assert_eq!(rig.count(Counter::Opaque), 0);
    });
}
