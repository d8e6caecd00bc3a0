//! The frame scanner against the redis-protocol crate, where that crate can judge.

use proptest::prelude::*;
use redis_protocol::resp2::types::{OwnedFrame as Frame2, Resp2Frame as _};
use redis_protocol::resp3::types::{OwnedFrame as Frame3, Resp3Frame as _};

use crate::protocol::redis::command::Command;
use crate::protocol::redis::fuzz;
use crate::protocol::redis::reply::{PEEK_MAX, Replies, Step};
use crate::protocol::redis::request::{self, Body, Flow, Head};

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 ]{0,40}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..400)]
}

fn resp2() -> impl Strategy<Value = Frame2> {
    let leaf = prop_oneof![
        text().prop_map(|text| Frame2::SimpleString(text.into_bytes())),
        text().prop_map(|text| Frame2::Error(format!("ERR {text}"))),
        (-1_000_000_000_000i64..1_000_000_000_000).prop_map(Frame2::Integer),
        bytes().prop_map(Frame2::BulkString),
        Just(Frame2::Null),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Frame2::Array))
}

fn resp3() -> impl Strategy<Value = Frame3> {
    let leaf = prop_oneof![
        text().prop_map(move |text| Frame3::SimpleString { data: text.into_bytes(), attributes: None }),
        text().prop_map(move |text| Frame3::SimpleError { data: format!("ERR {text}"), attributes: None }),
        any::<i32>().prop_map(move |data| Frame3::Number { data: data.into(), attributes: None }),
        bytes().prop_map(move |data| Frame3::BlobString { data, attributes: None }),
        bytes().prop_map(move |data| Frame3::BlobError { data, attributes: None }),
        any::<bool>().prop_map(move |data| Frame3::Boolean { data, attributes: None }),
        (-1e6..1e6f64).prop_map(move |data| Frame3::Double { data, attributes: None }),
        "[0-9]{1,200}".prop_map(move |data| Frame3::BigNumber { data: data.into_bytes(), attributes: None }),
        Just(Frame3::Null),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|data| Frame3::Array { data, attributes: None }),
            prop::collection::vec(inner, 1..4).prop_map(move |values| {
                let data = values
                    .into_iter()
                    .enumerate()
                    .map(|(at, value)| (Frame3::Number { data: at as i64, attributes: None }, value))
                    .collect();
                Frame3::Map { data, attributes: None }
            }),
        ]
    })
}

fn encode2(frame: &Frame2) -> Vec<u8> {
    let mut out = vec![0; frame.encode_len(false)];
    let len = redis_protocol::resp2::encode::encode(&mut out, frame, false).expect("encodes");
    out.truncate(len);
    out
}

fn encode3(frame: &Frame3) -> Vec<u8> {
    let mut out = vec![0; frame.encode_len(false)];
    let len = redis_protocol::resp3::encode::complete::encode(&mut out, frame, false).expect("encodes");
    out.truncate(len);
    out
}

/// The ends of the frames that the scanner finds when `input` comes in pieces of the given sizes.
fn ends(input: &[u8], pieces: &[usize]) -> Vec<usize> {
    let (mut scanner, mut found, mut at, mut shown) = (Replies::default(), Vec::new(), 0, 0);
    let mut pieces = pieces.iter().copied().cycle();
    while shown < input.len() {
        shown = (shown + pieces.next().unwrap_or(input.len()).max(1)).min(input.len());
        while at < shown {
            match scanner.step(&input[at..shown]) {
                Step::Hold => break,
                Step::Part { len, done, .. } => {
                    assert!(len > 0 && at + len <= shown);
                    at += len;
                    if done {
                        found.push(at);
                        assert!(scanner.at_boundary());
                    }
                }
                other => panic!("{other:?} at {at}"),
            }
        }
        assert!(shown - at <= PEEK_MAX + 40, "holds {} bytes", shown - at);
    }
    assert_eq!(at, input.len());
    found
}

/// The ends of the requests in `input`, likewise.
fn request_ends(input: &[u8], pieces: &[usize]) -> Vec<usize> {
    let (mut body, mut found, mut at, mut shown, mut seen) = (None::<Body>, Vec::new(), 0, 0, 0);
    let mut pieces = pieces.iter().copied().cycle();
    while shown < input.len() {
        shown = (shown + pieces.next().unwrap_or(input.len()).max(1)).min(input.len());
        loop {
            let rest = &input[at..shown];
            match &mut body {
                None => match request::head(rest, &mut seen) {
                    Head::Partial => break,
                    Head::Command { args, len, .. } => {
                        body = Some(Body::new(args));
                        at += len;
                    }
                    other => panic!("{other:?}"),
                },
                Some(streaming) => match streaming.advance(rest, None) {
                    Flow::Done(len) => {
                        at += len;
                        found.push(at);
                        (body, seen) = (None, 0);
                        if at == shown {
                            break;
                        }
                    }
                    Flow::Partial(len) => {
                        at += len;
                        break;
                    }
                    Flow::Broken(breach) => panic!("{breach}"),
                },
            }
        }
    }
    assert_eq!(at, input.len());
    found
}

fn expected(encoded: &[Vec<u8>]) -> Vec<usize> {
    encoded
        .iter()
        .scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        })
        .collect()
}

proptest! {
    #[test]
    fn resp2_frames_end_where_the_oracle_ends_them(
        frames in prop::collection::vec(resp2(), 1..5),
        pieces in prop::collection::vec(1usize..60, 1..8),
    ) {
        let encoded: Vec<_> = frames.iter().map(encode2).collect();
        for frame in &encoded {
            let (_, len) = redis_protocol::resp2::decode::decode(frame).unwrap().unwrap();
            prop_assert_eq!(len, frame.len());
        }
        let input = encoded.concat();
        prop_assert_eq!(ends(&input, &pieces), expected(&encoded));
        prop_assert_eq!(ends(&input, &[1]), expected(&encoded));
        prop_assert_eq!(ends(&input, &[usize::MAX / 2]), expected(&encoded));
    }

    #[test]
    fn resp3_frames_end_where_the_oracle_ends_them(
        frames in prop::collection::vec(resp3(), 1..5),
        pieces in prop::collection::vec(1usize..60, 1..8),
    ) {
        let encoded: Vec<_> = frames.iter().map(encode3).collect();
        let input = encoded.concat();
        prop_assert_eq!(ends(&input, &pieces), expected(&encoded));
        prop_assert_eq!(ends(&input, &[1]), expected(&encoded));
        fuzz::replies(&input);
    }

    #[test]
    fn no_cut_changes_what_is_found_in_any_bytes(
        server in "(\\PC{0,3}|[*%~|>$:+#_,(!=-][0-3]{0,2}\\r?\\n?){0,12}",
        client in "(\\PC{0,3}|[*$][0-3]{0,2}\\r?\\n?){0,12}",
    ) {
        fuzz::replies(server.as_bytes());
        fuzz::requests(client.as_bytes());
    }

    #[test]
    fn requests_end_where_they_were_encoded_to(
        requests in prop::collection::vec(prop::collection::vec(bytes(), 1..6), 1..6),
        pieces in prop::collection::vec(1usize..60, 1..8),
    ) {
        let encoded: Vec<_> = requests
            .iter()
            .map(|words| encode2(&Frame2::Array(words.iter().cloned().map(Frame2::BulkString).collect())))
            .collect();
        let input = encoded.concat();
        prop_assert_eq!(request_ends(&input, &pieces), expected(&encoded));
        prop_assert_eq!(request_ends(&input, &[1]), expected(&encoded));
    }
}

#[test]
fn inline_words_are_split_as_redis_splits_them() {
    let words = |line: &str| match request::head(line.as_bytes(), &mut 0) {
        Head::Inline { words, .. } => {
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        }
        other => vec![format!("{other:?}")],
    };
    assert_eq!(words("ECHO \"\\x41\\n\\q'\" \r\n"), ["ECHO", "A\nq'"]);
    assert_eq!(words("ECHO 'a\\'b\\n'\n"), ["ECHO", "a'b\\n"]);
    assert_eq!(words("ECHO\u{b}\tz\r\n"), ["ECHO\u{b}", "z"]);
    assert_eq!(words("ECHO a\rb\r\n"), ["ECHO", "a", "b"]);
    assert_eq!(words("a \"\" ''\n"), ["a", "", ""]);
    assert_eq!(words("a\"b c\"\n"), ["ab c"]);
    assert_eq!(words("\"\\xg1\"\n"), ["xg1"]);
}

#[test]
fn commands_are_known_in_any_case_and_by_their_whole_name() {
    assert_eq!(Command::of(b"multi"), Command::Multi);
    assert_eq!(Command::of(b"MuLtI"), Command::Multi);
    for other in [&b"MULTIX"[..], b"MULT", b"", b"\xff\xff\xff\xff\xff", b"GEORADIUSBYMEMBER_RO"] {
        assert_eq!(Command::of(other), Command::Ordinary);
    }
}
