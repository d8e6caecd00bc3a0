//! A backend's values that are no aggregates: one line, or a length and so many bytes.
//!
//! Absent on purpose: what a value is part of, which `reply` keeps count of. All here is a function of the bytes.

use memchr::memchr;

use super::number::{Number, number, short_string};
use super::reply::{PEEK_MAX, Seen, Step};

/// How far a line's end is looked for byte by byte.
const NEAR: usize = 8;

/// Where a value that has been let through in part goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// So many bytes before a bulk's CRLF.
    Bulk(u64),
    /// Within a line whose beginning has been let through.
    Line,
}

/// How much of a value is there.
pub(super) enum Scalar<'a> {
    /// All of it.
    Whole { len: usize, seen: Seen<'a> },
    /// `len` bytes that may go out before the rest is there.
    Part { len: usize, rest: Rest, seen: Seen<'a> },
    /// Nothing that may go out yet, or ever.
    None(Step<'a>),
}

/// Whole values that lie behind one another.
pub(super) struct Run<'a> {
    /// How many.
    pub(super) n: u64,
    /// Their length in bytes.
    pub(super) len: usize,
    /// The last integer among them, if it is worth a look.
    pub(super) seen: Seen<'a>,
}

/// Reads whole values at nesting `depth` that are no errors, at most `most`: what pipelines and lists consist of, in one
/// pass. Ends before whatever is anything else, which is then read by itself.
#[inline]
pub(super) fn run(input: &[u8], depth: usize, most: u64) -> Run<'_> {
    let mut run = Run { n: 0, len: 0, seen: Seen::Nothing };
    while run.n < most {
        let rest = input.get(run.len..).unwrap_or_default();
        if let [b'$', ..] = rest
            && let Some(len) = short_string(rest)
        {
            // What most values are.
            run.n += 1;
            run.len += len;
            continue;
        }
        match scalar(rest, depth) {
            Scalar::Whole { seen: Seen::Error { .. }, .. } | Scalar::Part { .. } | Scalar::None(_) => break,
            Scalar::Whole { len, seen } => {
                run.n += 1;
                run.len += len;
                if seen != Seen::Nothing {
                    run.seen = seen;
                }
            }
        }
    }
    run
}

/// The value at the start of `input`, at nesting `depth`.
pub(super) fn scalar(input: &[u8], depth: usize) -> Scalar<'_> {
    match input.first() {
        None => Scalar::None(Step::Hold),
        Some(b'$' | b'=') => match length(input) {
            Err(step) => Scalar::None(step),
            Ok((None, len)) => Scalar::Whole { len, seen: Seen::Nothing },
            Ok((Some(left), from)) => bulk(input, from, left, Seen::Nothing),
        },
        Some(kind @ (b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(')) => line(*kind, depth, input),
        Some(b'!') => bulk_error(input, depth),
        // RESP's types are punctuation. A new one is passed on, letters and binary are no RESP at all.
        Some(byte) if byte.is_ascii_punctuation() => Scalar::None(Step::Unknown),
        Some(_) => Scalar::None(Step::Broken),
    }
}

/// The rest of a value.
pub(super) fn rest(input: &[u8], rest: Rest) -> Scalar<'_> {
    let seen = Seen::Nothing;
    match rest {
        Rest::Bulk(left) => bulk(input, 0, left, seen),
        Rest::Line => match line_end(input) {
            Some(len) => Scalar::Whole { len, seen },
            // A CR at the end may be half of the line's end, so it waits for the byte behind it.
            None => match input.len() - usize::from(input.ends_with(b"\r")) {
                0 => Scalar::None(Step::Hold),
                len => Scalar::Part { len, rest, seen },
            },
        },
    }
}

#[inline]
fn line(kind: u8, depth: usize, input: &[u8]) -> Scalar<'_> {
    let end = line_end(input);
    let text = match end {
        Some(end) => input.get(1..end - 2),
        None => input.get(1..).filter(|text| text.len() > PEEK_MAX),
    };
    let Some(text) = text else { return Scalar::None(Step::Hold) };
    let text = text.get(..PEEK_MAX).unwrap_or(text);
    let seen = match kind {
        b'-' => Seen::Error { depth, text },
        // A confirmation's count, if it is one.
        b':' if depth == 1 => Seen::Integer(text),
        _ => Seen::Nothing,
    };
    match end {
        Some(len) => Scalar::Whole { len, seen },
        None => {
            let len = input.len() - usize::from(input.ends_with(b"\r"));
            Scalar::Part { len, rest: Rest::Line, seen }
        }
    }
}

fn bulk_error(input: &[u8], depth: usize) -> Scalar<'_> {
    let (left, from) = match length(input) {
        Err(step) => return Scalar::None(step),
        Ok((None, len)) => return Scalar::Whole { len, seen: Seen::Nothing },
        Ok((Some(left), from)) => (left, from),
    };
    let want = usize::try_from(left).unwrap_or(usize::MAX).min(PEEK_MAX);
    match input.get(from..from + want) {
        None => Scalar::None(Step::Hold),
        Some(text) => bulk(input, from, left, Seen::Error { depth, text }),
    }
}

/// `from` bytes of header, then `left` bytes of payload and CRLF.
#[inline]
fn bulk<'a>(input: &'a [u8], from: usize, left: u64, seen: Seen<'a>) -> Scalar<'a> {
    let whole = usize::try_from(left).unwrap_or(usize::MAX);
    let rest = input.get(from..).unwrap_or_default();
    match rest.get(whole..) {
        Some([b'\r', b'\n', ..]) => Scalar::Whole { len: from + whole + 2, seen },
        Some([] | [b'\r']) if from + whole > 0 => {
            Scalar::Part { len: from + whole, rest: Rest::Bulk(0), seen }
        }
        Some([] | [b'\r']) => Scalar::None(Step::Hold),
        Some(_) => Scalar::None(Step::Broken),
        None => Scalar::Part { len: input.len(), rest: Rest::Bulk(left - rest.len() as u64), seen },
    }
}

/// A length line: the length (none for a null), and how many bytes the line takes.
#[inline]
pub(super) fn length<'a>(input: &[u8]) -> Result<(Option<u64>, usize), Step<'a>> {
    match number(input) {
        Number::Partial => Err(Step::Hold),
        Number::Good { value: -1, len } => Ok((None, len)),
        Number::Good { value, len } => match u64::try_from(value) {
            Ok(value) => Ok((Some(value), len)),
            Err(_) => Err(Step::Broken),
        },
        // RESP3's streamed strings and aggregates: specified, and sent by no server.
        Number::Bad if input.get(1) == Some(&b'?') => Err(Step::Unknown),
        Number::Bad => Err(Step::Broken),
    }
}

/// The length of the line at the start of `input`, its CRLF included.
#[inline]
fn line_end(input: &[u8]) -> Option<usize> {
    // `+OK` and `:1` are over before a search for the end has begun.
    let near = input.iter().take(NEAR).position(|byte| *byte == b'\r');
    if let Some(at) = near
        && input.get(at + 1) == Some(&b'\n')
    {
        return Some(at + 2);
    }
    let mut from = 0;
    loop {
        let at = from + memchr(b'\r', input.get(from..)?)?;
        match input.get(at + 1) {
            Some(b'\n') => return Some(at + 2),
            Some(_) => from = at + 1,
            None => return None,
        }
    }
}
