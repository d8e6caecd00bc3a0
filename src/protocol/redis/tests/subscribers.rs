//! What subscribers hear, and in which order (PROTOCOLS §2.2).

use super::rows::{in_step, sub, sub3};
use super::*;

/// A message on a channel of each kind.
const MESSAGES: [(&str, &str); 3] = [
    ("SUBSCRIBE", "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"),
    ("PSUBSCRIBE", "*4\r\n$8\r\npmessage\r\n$1\r\na\r\n$1\r\na\r\n$2\r\nhi\r\n"),
    ("SSUBSCRIBE", "*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"),
];

#[test]
fn each_kind_of_subscription_is_confirmed_and_heard_by_itself() {
    for (subscribe, message) in MESSAGES {
        let kind = subscribe.to_lowercase();
        let leave = kind.replace("subscribe", "unsubscribe");
        scenario(|rig| {
            rig.client(req(&format!("{subscribe} a b"))).server(sub(&kind, "a", 1));
            assert_ne!(rig.wait(), Wait::Nothing, "one more is owed");
            rig.server(sub(&kind, "b", 2));
            in_step(rig);
            rig.client(req("PING")).server(message);
            assert_ne!(rig.wait(), Wait::Nothing, "{message:?} answers nobody");
            rig.server("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
            rig.client(req(&leave)).server(sub(&leave, "a", 1));
            assert_ne!(rig.wait(), Wait::Nothing, "one more is owed");
            rig.server(sub(&leave, "b", 0));
            in_step(rig);
            rig.passes(req("LRANGE l 0 -1"), message);
            in_step(rig);
        });
    }
}

#[test]
fn a_shard_that_moves_away_confirms_nobody_elses_leave() {
    scenario(|rig| {
        rig.passes(req("SSUBSCRIBE s"), sub("ssubscribe", "s", 1));
        rig.passes(req("SUBSCRIBE a"), sub("subscribe", "a", 1));
        rig.client(req("UNSUBSCRIBE")).server(sub("sunsubscribe", "s", 0));
        assert_ne!(rig.wait(), Wait::Nothing, "the channel is still subscribed");
        rig.server(sub("unsubscribe", "a", 0));
        in_step(rig);
    });
}

#[test]
fn a_rejection_does_not_land_in_the_middle_of_a_message() {
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$6\r\nlonger\r\n";
    let confirmed = sub("subscribe", "a", 1);
    for (hello, message, confirmed) in [
        ("", message.to_owned(), confirmed.clone()),
        ("%0\r\n", message.replacen('*', ">", 1), confirmed.replacen('*', ">", 1)),
    ] {
        for at in 1..message.len() {
            scenario(|rig| {
                if !hello.is_empty() {
                    rig.passes(req("HELLO 3"), hello);
                }
                rig.passes(req("SUBSCRIBE a"), &confirmed).trip().forget();
                rig.server(&message[..at]).client(req("PING")).server(&message[at..]);
                let down = rig.down();
                assert!(down.contains(&message) && rejections(&down) == 1, "{at} bytes before it: {down:?}");
            });
        }
    }
}

#[test]
fn a_backend_that_falls_silent_within_a_message_keeps_no_rejection_waiting_for_ever() {
    broken_scenario(|rig| {
        rig.passes(req("SUBSCRIBE a"), sub("subscribe", "a", 1));
        rig.server("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$6\r\nlon");
        assert_eq!(rig.wait(), Wait::Nothing, "nobody waits for it");
        rig.trip().client(req("PING"));
        assert_eq!(rig.wait(), Wait::Backend(RESPONSE));
        let now = rig.now;
        rig.session().on_deadline(now);
        assert_eq!((rig.phase(), rig.count(Counter::Failure)), (Phase::Abort, 0), "no call was in flight");
    });
}

#[test]
fn a_push_is_over_when_its_last_byte_has_come() {
    scenario(|rig| {
        rig.passes(req("HELLO 3"), "%0\r\n").passes(req("SUBSCRIBE a"), sub3("subscribe", "a", 1));
        rig.server(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        assert_eq!(rig.server_eof(), Phase::Finish);
    });
}

#[test]
fn an_attribute_of_a_push_answers_nobody() {
    scenario(|rig| {
        rig.passes(req("HELLO 3"), "%0\r\n").passes(req("SUBSCRIBE a"), sub3("subscribe", "a", 1));
        rig.server("|1\r\n+seq\r\n:7\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n");
        in_step(rig);
    });
}

/// A plain relay passes on what a session would not: behind a trip, a GET.
fn relays(rig: &mut Rig) -> bool {
    rig.trip().forget().client(req("GET k"));
    rig.up() == text(&req("GET k"))
}

#[test]
fn client_reply_behind_a_subscription_on_its_way_makes_a_plain_relay_at_once() {
    for requests in [
        vec!["SUBSCRIBE a"],
        vec!["RESET", "SUBSCRIBE a"],
        vec!["SUBSCRIBE", "SUBSCRIBE a"],
        vec!["SUBSCRIBE a", "SUBSCRIBE b"],
    ] {
        scenario(|rig| {
            rig.client(reqs(&requests)).client(req("CLIENT REPLY OFF"));
            assert!(relays(rig), "{requests:?}");
        });
    }
    scenario(|rig| {
        rig.client(reqs(&["RESET", "SUBSCRIBE a"])).server("+RESET\r\n").client(req("CLIENT REPLY OFF"));
        assert!(relays(rig), "the subscription is younger than the RESET");
    });
}

#[test]
fn client_reply_behind_no_subscription_is_accounted_for() {
    // Redis refuses a SUBSCRIBE of nothing.
    scenario(|rig| {
        let refused = "-ERR wrong number of arguments for 'subscribe' command\r\n";
        rig.passes(
            reqs(&["SUBSCRIBE", "CLIENT REPLY SKIP", "GET a", "GET b"]),
            [refused, "$-1\r\n"].concat(),
        );
        in_step(rig);
    });
    scenario(|rig| {
        rig.passes(req("SUBSCRIBE a"), "-NOPERM no\r\n");
        rig.passes(reqs(&["CLIENT REPLY SKIP", "GET a", "GET b"]), "$-1\r\n");
        in_step(rig);
    });
}
