//! What the fuzzer does to Postgres: its readers beside postgres-protocol's, and whole sessions.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::BytesMut;
use postgres_protocol::message::backend::{self, Message};

use super::lost::Peek;
use super::message::{HEADER, Header};
use super::report::Report;
use super::startup::{self, Packet};
use super::statement::{Scanner, Shape};
use super::{Session, Settings};
use crate::config::args::Inputs;
use crate::config::{self, Env, Protocol};
use crate::protocol::fuzz::{Words, play};

/// A server's bytes: messages end where postgres-protocol ends them, and an error says to us what it says to it.
pub(crate) fn messages(data: &[u8]) {
    let mut ours = data;
    while let Some(header) = Header::read(ours) {
        let Ok(len) = header.server_body() else { break };
        let theirs = backend::Header::parse(ours).ok().flatten();
        let theirs = theirs.map(|theirs| (theirs.tag(), usize::try_from(theirs.len()).unwrap_or(0)));
        assert_eq!(theirs, Some((header.tag, len + 4)));
        let Some(message) = ours.get(..HEADER + len) else { break };
        let body = &message[HEADER..];
        match Message::parse(&mut BytesMut::from(message)) {
            Ok(Some(Message::ErrorResponse(fields))) => report(body, fields.fields()),
            Ok(Some(Message::NoticeResponse(fields))) => report(body, fields.fields()),
            _ => {}
        }
        ours = &ours[HEADER + len..];
    }
}

/// What is read of an error, whole and byte by byte, beside what its fields say.
fn report(body: &[u8], mut fields: backend::ErrorFields<'_>) {
    use fallible_iterator::FallibleIterator;
    let (mut whole, mut pieces) = (Report::default(), Report::default());
    whole.feed(body);
    body.chunks(1).for_each(|byte| pieces.feed(byte));
    let said = |report: &Report| {
        (report.severity(), report.code().to_vec(), report.message().to_vec(), report.voice())
    };
    assert_eq!(said(&whole), said(&pieces));
    let (mut codes, mut messages) = (Vec::new(), Vec::new());
    loop {
        let field = match fields.next() {
            Ok(Some(field)) => field,
            Ok(None) => break,
            // What the oracle cannot read it cannot judge.
            Err(_) => return,
        };
        match field.type_() {
            b'C' => codes.push(field.value_bytes().to_vec()),
            b'M' => messages.push(field.value_bytes().to_vec()),
            _ => {}
        }
    }
    // No server sends a field twice.
    if let [code] = codes.as_slice() {
        assert!(code.starts_with(whole.code()), "{code:?} is read as {:?}", whole.code());
        assert_eq!(whole.code().len(), code.len().min(5));
    }
    if let [message] = messages.as_slice() {
        assert!(message.starts_with(whole.message()));
    }
}

/// A client's bytes: the first packet is the same however much follows it, and no cut changes what is read of a
/// statement.
pub(crate) fn requests(data: &[u8]) {
    let whole = startup::read(data);
    for len in 0..data.len().min(300) {
        match startup::read(&data[..len]) {
            Packet::Partial => {}
            early => assert_eq!(early, whole, "after {len} bytes"),
        }
    }
    let (mut scanner, mut bytes, mut shape, mut shapes) =
        (Scanner::default(), Scanner::default(), Shape::default(), Shape::default());
    scanner.feed(data);
    shape.feed(data);
    for byte in data.chunks(1) {
        bytes.feed(byte);
        shapes.feed(byte);
    }
    assert_eq!(shape.is_plain(), shapes.is_plain());
    for scanner in [&mut scanner, &mut bytes] {
        scanner.finish();
    }
    assert_eq!(
        (scanner.turn(), scanner.leaves_open(), scanner.sets(), scanner.lasts()),
        (bytes.turn(), bytes.leaves_open(), bytes.sets(), bytes.lasts())
    );
    let peek = |piece: usize| {
        let mut peek = Peek::new(b'P');
        data.chunks(piece).for_each(|piece| peek.feed(piece));
        let lost = peek.finish();
        (lost.name, lost.sets, lost.begins, lost.ends)
    };
    assert_eq!(peek(1), peek(usize::MAX));
}

/// Events to whole sessions. The first byte chooses what clients that ask for TLS get.
pub(crate) fn sessions(now: Instant, data: &[u8]) {
    static WORDS: LazyLock<Words> = LazyLock::new(words);
    static CONFIGS: LazyLock<Vec<config::Backend>> = LazyLock::new(|| {
        let tls = [
            "",
            ",tls-cert=/c,tls-key=/k",
            ",tls-cert=/c,tls-key=/k,tls-required=true",
            ",upstream-tls=passthrough",
        ];
        let postgres =
            |(at, tls): (usize, &&str)| format!("name=n{at},listen=127.0.0.1:{},upstream=h:1{tls}", at + 2);
        let inputs = Inputs { postgres: tls.iter().enumerate().map(postgres).collect(), ..Inputs::default() };
        config::load(&inputs, &Env::new()).expect("a valid configuration").backends
    });
    let Some((&kind, data)) = data.split_first() else { return };
    let config = match kind % 8 {
        5 => &CONFIGS[1],
        6 => &CONFIGS[2],
        7 => &CONFIGS[3],
        _ => &CONFIGS[0],
    };
    let Protocol::Postgres(postgres) = &config.protocol else { return };
    play(now, data, &WORDS, |gate| {
        let settings = Settings::new("fuzz".into(), postgres, &config.timeouts, &config.tls);
        Session::new(gate.lane(1), Arc::new(settings))
    });
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag][..], &len.to_be_bytes(), body].concat()
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

fn words() -> Words {
    let q = |sql: &str| message(b'Q', format!("{sql}\0").as_bytes());
    let parse = |name: &str, sql: &str| message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes());
    let bind = |name: &str| message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
    let describe = |name: &str| message(b'D', format!("S{name}\0").as_bytes());
    let close = |name: &str| message(b'C', format!("S{name}\0").as_bytes());
    let execute = || message(b'E', b"\0\0\0\0\0");
    let sync = || message(b'S', b"");
    let client = vec![
        packet(0x0003_0000, b"user\0u\0\0"),
        packet(0x0003_0002, b"user\0u\0\0"),
        packet(0x0003_0000, b"user\0u\0replication\0true\0\0"),
        packet(0x0002_0000, b"u\0"),
        packet(80_877_103, b""),
        packet(80_877_104, b""),
        packet(80_877_102, b"\0\0\0\x07\x01\x02\x03\x04"),
        vec![0x16, 3, 1, 0, 2, 1, 2],
        message(b'p', b"secret\0"),
        q("SELECT 1"),
        q("BEGIN"),
        q("COMMIT"),
        q("ROLLBACK"),
        q("SET a = b"),
        q("COPY t FROM STDIN"),
        q("LISTEN c"),
        q("SELECT 1; BEGIN"),
        q(""),
        parse("", "SELECT 1"),
        parse("s", "SELECT 1"),
        parse("", "BEGIN"),
        parse("", "COMMIT"),
        parse("", "SET a = b"),
        parse("", "COPY t FROM STDIN"),
        bind(""),
        bind("s"),
        describe(""),
        describe("s"),
        close("s"),
        execute(),
        message(b'H', b""),
        sync(),
        [parse("", "SELECT 1"), bind(""), execute(), sync()].concat(),
        [parse("s", "SELECT 1"), bind("s"), execute(), sync()].concat(),
        [bind("s"), execute(), sync()].concat(),
        message(b'F', &[0; 10]),
        message(b'd', b"1\n"),
        message(b'c', b""),
        message(b'f', b"no\0"),
        message(b'X', b""),
        message(b'Q', b"")[..3].to_vec(),
    ];
    let error = |tag: u8, severity: &str, code: &str, routine: &str| {
        message(tag, format!("SFEHLER\0V{severity}\0C{code}\0Mm\0R{routine}\0\0").as_bytes())
    };
    let ready = |status: u8| message(b'Z', &[status]);
    let complete = || message(b'C', b"SELECT 1\0");
    let row = || message(b'D', &[0, 1, 0, 0, 0, 1, b'1']);
    let authentication = |kind: u32| message(b'R', &kind.to_be_bytes());
    let server = vec![
        [authentication(0), message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]), ready(b'I')].concat(),
        authentication(0),
        authentication(3),
        message(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
        authentication(12),
        message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
        message(b'v', &[0; 8]),
        ready(b'I'),
        ready(b'T'),
        ready(b'E'),
        [message(b'T', &[0, 0]), row(), complete(), ready(b'I')].concat(),
        [message(b'1', b""), message(b'2', b""), row(), complete(), ready(b'I')].concat(),
        [complete(), ready(b'T')].concat(),
        message(b'1', b""),
        message(b'2', b""),
        message(b'3', b""),
        message(b'n', b""),
        message(b's', b""),
        message(b'I', b""),
        message(b't', &[0, 0]),
        message(b'T', &[0, 0]),
        row(),
        complete(),
        message(b'V', &[0; 4]),
        message(b'G', &[0; 3]),
        message(b'H', &[0; 3]),
        message(b'W', &[0; 3]),
        message(b'd', b"1\n"),
        message(b'c', b""),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'A', b"\0\0\0\x01c\0p\0"),
        error(b'N', "WARNING", "57P02", "quickdie"),
        error(b'N', "NOTICE", "00000", "x"),
        error(b'E', "ERROR", "42601", "x"),
        error(b'E', "ERROR", "53200", "x"),
        error(b'E', "ERROR", "53300", "exec_stmt_raise"),
        error(b'E', "ERROR", "57014", "x"),
        error(b'E', "FATAL", "57P01", "x"),
        error(b'E', "FATAL", "28P01", "x"),
        error(b'E', "PANIC", "XX000", "x"),
        b"N".to_vec(),
        b"S".to_vec(),
        row()[..6].to_vec(),
    ];
    Words { client, server }
}
