//! Whatever comes from either side: no panic, bounded memory, every call accounted for, and no byte of a
//! well-formed conversation changed.

use proptest::prelude::*;

use super::*;
use crate::breaker::Fault;
use crate::protocol::redis::fuzz::REQUESTS;
use crate::protocol::redis::request::WORD_MAX;

/// Bytes that a failure prints as text.
#[derive(Clone)]
struct Raw(Vec<u8>);

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Debug, Clone)]
enum Event {
    Client(Raw),
    Server(Raw),
    Trip,
    HalfOpen,
    Close,
    Deadline,
    ClientEof,
    ServerEof,
    Drain,
    DialFails,
    Time(u64),
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let commands = prop::sample::select(REQUESTS);
    prop_oneof![
        8 => commands.clone().prop_map(req),
        // What begins as the one before it does.
        2 => (commands.clone(), 2usize..5).prop_map(|(line, n)| req(line).repeat(n)),
        1 => (commands.clone()).prop_map(|line| [nameless(line), req(line)].concat()),
        1 => commands.prop_map(|line| format!("{line}\r\n").into_bytes()),
        1 => Just(b"*0\r\n\r\n".to_vec()),
    ]
}

/// A request like that of `line`, with a name too long to be known.
fn nameless(line: &str) -> Vec<u8> {
    let arguments = line.split_once(' ').map_or("", |(_, arguments)| arguments);
    req(format!("{} {arguments}", "n".repeat(WORD_MAX + 1)).trim())
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let replies = prop::sample::select(vec![
        "+OK\r\n",
        "+QUEUED\r\n",
        "$-1\r\n",
        "$3\r\nabc\r\n",
        ":1\r\n",
        "-ERR x\r\n",
        "-LOADING x\r\n",
        "-READONLY x\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*2\r\n:1\r\n-BUSY x\r\n",
        "%1\r\n+a\r\n:1\r\n",
        "_\r\n",
        "|1\r\n+a\r\n:1\r\n",
        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
        "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n",
        ">2\r\n$10\r\ninvalidate\r\n_\r\n",
        ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
        "-ERR max number of clients reached\r\n",
        "!3\r\nERR\r\n",
    ]);
    (replies, prop_oneof![4 => Just(1usize), 1 => 2usize..5])
        .prop_map(|(reply, n)| reply.as_bytes().repeat(n))
}

fn event() -> impl Strategy<Value = Event> {
    let cut = |(mut bytes, at): (Vec<u8>, usize)| {
        bytes.truncate(at.max(1));
        bytes
    };
    prop_oneof![
        10 => prop::collection::vec(request(), 1..6).prop_map(|all| Event::Client(Raw(all.concat()))),
        10 => prop::collection::vec(reply(), 1..6).prop_map(|all| Event::Server(Raw(all.concat()))),
        2 => (request(), 1usize..30).prop_map(cut).prop_map(Raw).prop_map(Event::Client),
        2 => (reply(), 1usize..30).prop_map(cut).prop_map(Raw).prop_map(Event::Server),
        1 => prop::collection::vec(any::<u8>(), 1..60).prop_map(Raw).prop_map(Event::Client),
        1 => prop::collection::vec(any::<u8>(), 1..60).prop_map(Raw).prop_map(Event::Server),
        1 => "[*$:+0-9\r\n-]{1,40}".prop_map(|text| Event::Client(Raw(text.into_bytes()))),
        1 => "[*$:+_%|>!=~#,(0-9\r\n-]{1,40}".prop_map(|text| Event::Server(Raw(text.into_bytes()))),
        2 => Just(Event::Trip),
        2 => Just(Event::HalfOpen),
        2 => Just(Event::Close),
        1 => Just(Event::Deadline),
        1 => Just(Event::ClientEof),
        1 => Just(Event::ServerEof),
        1 => Just(Event::Drain),
        1 => Just(Event::DialFails),
        2 => (1u64..20_000).prop_map(Event::Time),
    ]
}

/// Whole requests and replies, in any order.
fn orderly() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => prop::collection::vec(request(), 1..6).prop_map(|all| Event::Client(Raw(all.concat()))),
        10 => prop::collection::vec(reply(), 1..6).prop_map(|all| Event::Server(Raw(all.concat()))),
        2 => Just(Event::Trip),
        2 => Just(Event::HalfOpen),
        2 => Just(Event::Close),
        2 => (1u64..20_000).prop_map(Event::Time),
    ]
}

fn run(events: &[Event], cut: Cut) -> Rig {
    let mut rig = Rig::new(cut);
    for event in events {
        let now = rig.now;
        match event {
            Event::Client(bytes) => drop(rig.client(&bytes.0)),
            Event::Server(bytes) => {
                if rig.phase() == Phase::Relay {
                    rig.server(&bytes.0);
                }
            }
            Event::Trip => drop(rig.trip()),
            Event::HalfOpen => {
                rig.trip();
                rig.pass_time(HOLD);
            }
            Event::Close => drop(rig.close()),
            Event::Deadline => {
                if let Wait::Backend(limit) = rig.wait() {
                    rig.pass_time(limit);
                    let now = rig.now;
                    rig.session().on_deadline(now);
                    rig.pump();
                }
            }
            Event::ClientEof => {
                rig.session().on_client_eof(now);
                rig.pump();
            }
            Event::ServerEof => drop(rig.server_lost(Fault::Eof)),
            Event::Drain => {
                rig.session().on_drain(now);
                rig.pump();
            }
            Event::DialFails => {
                if rig.phase() == Phase::Idle {
                    rig.hold_dial = true;
                    rig.client(req("GET k"));
                    rig.hold_dial = false;
                    if rig.dialing() {
                        rig.session().on_connect_failed(now, Some(Fault::Refused));
                    }
                    rig.pump();
                }
            }
            Event::Time(millis) => rig.pass_time(Duration::from_millis(*millis)),
        }
        assert!(rig.client_buf.len() <= HOLD_MAX || rig.phase() != Phase::Relay);
        let session = rig.session();
        let mine: u64 = session.fifo.owed().map(|owed| owed.n).sum();
        assert_eq!(mine, session.fifo.requests(), "the queue has lost count");
    }
    rig
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_every_call_ends_once(events in prop::collection::vec(event(), 1..30)) {
        for cut in [Cut::Whole, Cut::Bytes] {
            let mut rig = run(&events, cut);
            if matches!(rig.phase(), Phase::Finish | Phase::Abort) {
                prop_assert_eq!(rig.totals().in_flight(), 0, "at the end of the session");
            }
            rig.vanish();
            let totals = rig.totals();
            prop_assert_eq!(totals.get(Counter::Admitted), totals.calls());
            prop_assert_eq!(rig.gate.snapshot(rig.now).probes_in_flight, 0);
        }
    }

    #[test]
    fn no_cut_changes_what_either_side_gets(events in prop::collection::vec(orderly(), 1..25), at in 1usize..80) {
        let mut whole = run(&events, Cut::Whole);
        whole.vanish();
        for cut in [Cut::At(at), Cut::Bytes] {
            let mut rig = run(&events, cut);
            rig.vanish();
            prop_assert_eq!(rig.up(), whole.up());
            prop_assert_eq!(rig.down(), whole.down());
            prop_assert_eq!(figures(&rig), figures(&whole));
        }
    }

    #[test]
    fn a_well_formed_conversation_passes_untouched_at_any_cut(
        pairs in prop::collection::vec((0usize..6, 0usize..6), 1..20),
        cut in 1usize..200,
    ) {
        let requests = ["GET k", "SET k v", "LRANGE l 0 -1", "SELECT 1", "BLPOP k 1", "INFO"];
        let replies = ["$-1\r\n", "+OK\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "-ERR x\r\n", "%1\r\n+a\r\n,1\r\n", "_\r\n"];
        let up: Vec<u8> = pairs.iter().flat_map(|(at, _)| req(requests[*at])).collect();
        let down: String = pairs.iter().map(|(_, at)| replies[*at]).collect();
        for cut in [Cut::Whole, Cut::At(cut), Cut::Bytes] {
            let mut rig = Rig::new(cut);
            rig.client(&up).server(&down);
            prop_assert_eq!(text(&rig.up), text(&up));
            prop_assert_eq!(rig.down(), down.clone());
            prop_assert_eq!(rig.wait(), Wait::Nothing);
            prop_assert_eq!(rig.totals().in_flight(), 0);
            prop_assert_eq!(rig.count(Counter::Opaque), 0);
        }
    }
}
