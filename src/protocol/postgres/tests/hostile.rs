//! Arbitrary bytes, and the scanner against `postgres_protocol` as its oracle.

use bytes::BytesMut;
use postgres_protocol::message::backend::{self, Message};
use proptest::prelude::*;

use super::rig::*;
use crate::breaker::Fault;
use crate::metrics::Counter;
use crate::protocol::postgres::message::{HEADER, Header};
use crate::protocol::{Phase, Session as _, Wait};

fn request() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(q("SELECT 1")),
        Just(q("")),
        Just([parse("", ""), bind(""), execute(), sync()].concat()),
        Just(parse("s", "")),
        Just(q("BEGIN")),
        Just(q("SET a = b")),
        Just(q("COPY t FROM STDIN")),
        Just(parse("", "SELECT 1")),
        Just(parse("s", "SELECT 1")),
        Just(bind("s")),
        Just(bind("")),
        Just(describe("s")),
        Just(execute()),
        Just(close("s")),
        Just(flush()),
        Just(sync()),
        Just(function()),
        Just(copy_data(b"x")),
        Just(copy_done()),
        Just(copy_fail()),
        Just(password()),
        Just(startup()),
        prop::collection::vec(any::<u8>(), 0..20),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(tag, body)| m(tag, &body)),
    ]
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(rows()),
        Just(extended_rows()),
        Just(z('I')),
        Just(z('T')),
        Just(z('E')),
        Just(complete("SELECT 1")),
        Just(m(b'1', b"")),
        Just(m(b'2', b"")),
        Just(m(b'n', b"")),
        Just(m(b'G', &[0, 0, 0])),
        Just(m(b'H', &[0, 0, 0])),
        Just(auth(0)),
        Just(auth(3)),
        Just(key(1, &[1; 4])),
        Just(error("ERROR", "42601")),
        Just(error("ERROR", "53200")),
        Just(error("FATAL", "57P01")),
        Just(notice("WARNING", "57P02")),
        prop::collection::vec(any::<u8>(), 0..20),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(tag, body)| m(tag, &body)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => request().prop_map(Client),
        8 => response().prop_map(Server),
        1 => Just(Trip),
        1 => Just(HalfOpen),
        1 => Just(Reset),
        1 => Just(Deadline),
        1 => Just(Drain),
        1 => Just(ClientEof),
        1 => prop_oneof![Just(Fault::Eof), Just(Fault::Reset)].prop_map(ServerEof),
    ]
}

/// Plays what the present phase allows.
fn play_what_fits(rig: &mut Rig, steps: &[Step], cut: usize) {
    for step in steps {
        if let Phase::Dial(_) = rig.session.phase() {
            play(rig, &[Connect], Cut::Whole);
        }
        let relays = rig.session.phase() == Phase::Relay;
        match step {
            Server(_) | ServerEof(_) if !relays => continue,
            Deadline if rig.session.wait() == Wait::Nothing => continue,
            Client(_) if !relays && rig.session.phase() != Phase::Idle => continue,
            _ => play(rig, std::slice::from_ref(step), Cut::Bytes(cut)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_nothing_panics_and_the_books_balance(
        begun in any::<bool>(),
        answering in any::<bool>(),
        steps in prop::collection::vec(step(), 0..40),
        cut in 1usize..64,
    ) {
        let mut rig = if answering { Rig::answering() } else { Rig::new() };
        if begun {
            play(&mut rig, &started(), Cut::Whole);
        }
        play_what_fits(&mut rig, &steps, cut);
        rig.balance();
    }

    #[test]
    fn any_cut_gives_the_same_bytes_and_the_same_verdicts(
        answering in any::<bool>(),
        steps in prop::collection::vec(step(), 0..12),
        cut in 1usize..16,
    ) {
        let once = |cut| {
            let mut rig = if answering { Rig::answering() } else { Rig::new() };
            play(&mut rig, &started(), Cut::Whole);
            play_what_fits(&mut rig, &steps, cut);
            let outcome = rig.outcome().settled();
            rig.balance();
            outcome
        };
        let (whole, pieces) = (once(usize::MAX), once(cut));
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn while_the_breaker_is_closed_no_byte_is_changed(
        sent in prop::collection::vec(request(), 0..20),
        cut in 1usize..64,
    ) {
        let mut rig = Rig::new();
        play(&mut rig, &started(), Cut::Whole);
        let bytes = sent.concat();
        play(&mut rig, &[Client(bytes.clone())], Cut::Bytes(cut));
        let passed = rig.to_server.split_off(startup().len());
        prop_assert!(bytes.starts_with(&passed));
        let malformed = rig.snapshot().totals.get(Counter::ClientMalformed) > 0;
        prop_assert!(malformed || bytes.len() - passed.len() < HEADER);
        rig.balance();
    }

    #[test]
    fn the_reader_agrees_with_postgres_protocol(
        answers in prop::collection::vec(response(), 0..20),
    ) {
        let bytes = answers.concat();
        let mut theirs = BytesMut::from(bytes.as_slice());
        let mut ours = bytes.as_slice();
        loop {
            let Some(header) = Header::read(ours) else {
                prop_assert!(matches!(backend::Header::parse(&theirs), Ok(None)));
                break;
            };
            let Ok(len) = header.server_body() else { break };
            // The oracle's own reader of headers, because `Message::parse` refuses `v`, `W`, `V` and long keys.
            let oracle = backend::Header::parse(&theirs).unwrap().unwrap();
            prop_assert_eq!((oracle.tag(), oracle.len() as usize), (header.tag, len + 4));
            if ours.len() < HEADER + len {
                break;
            }
            if !matches!(header.tag, b'v' | b'W' | b'V' | b'K') {
                let before = theirs.len();
                if let Ok(Some(_)) = Message::parse(&mut theirs) {
                    prop_assert_eq!(before - theirs.len(), HEADER + len);
                    ours = &ours[HEADER + len..];
                    continue;
                }
            }
            ours = &ours[HEADER + len..];
            theirs = BytesMut::from(ours);
        }
    }
}

#[test]
fn our_own_messages_are_read_by_postgres_protocol() {
    use fallible_iterator::FallibleIterator;
    let end = session(&[Trip, Client(q("SELECT 1"))]);
    let mut bytes = BytesMut::from(end.to_client.as_slice());
    let Some(Message::ErrorResponse(body)) = Message::parse(&mut bytes).unwrap() else { panic!("no error") };
    let fields: Vec<u8> = body.fields().map(|field| Ok(field.type_())).collect().unwrap();
    assert_eq!(fields, b"SVCMDHR");
    assert!(
        matches!(Message::parse(&mut bytes).unwrap(), Some(Message::ReadyForQuery(z)) if z.status() == b'I')
    );
    assert!(bytes.is_empty());
}
