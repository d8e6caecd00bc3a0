//! Where a backend's frames begin and end, RESP2 and RESP3, found in borrowed slices.
//!
//! Iterative: the stack of unfinished aggregates is a list of remaining counts, so nesting costs a few bytes and
//! never the process. Bulk payloads stream. Absent on purpose: values; all that is ever shown are the first
//! bytes of an error, an integer, and the kind of a push.

use memchr::memchr;

use super::request::{Number, number};

/// Deeper nesting than this is not followed: the connection becomes a plain relay.
pub(super) const DEPTH_MAX: usize = 256;
/// How much of a line is waited for before it is let through in pieces; enough for every row of the verdict table.
pub(super) const PEEK_MAX: usize = 128;
/// The longest kind of push (`punsubscribe`, `sunsubscribe`).
const KIND_MAX: i64 = 12;

/// The frame scanner of one upstream connection.
#[derive(Debug, Default)]
pub(super) struct Replies {
    stack: Vec<Level>,
    at: At,
    /// An attribute has been read at the top level; the frame it belongs to is still to come.
    attributed: bool,
}

/// An unfinished aggregate.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Elements still to come; a map's keys and values count one each.
    left: u64,
    role: Role,
}

/// What an aggregate is in the one around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// An element.
    Element,
    /// An attribute: precedes an element and is none.
    Attribute,
    /// A push in the middle of a reply: Redis 7.0 puts a client's own message inside its EXEC array without
    /// counting it.
    Push,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// At a type byte.
    #[default]
    Type,
    /// So many bytes before a bulk's CRLF.
    Bulk(u64),
    /// Within a line whose beginning has been let through.
    Line,
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// More bytes are needed; a bounded number is held.
    Hold,
    /// `len` bytes may go out; `done` says that a top-level frame ends with them.
    Part { len: usize, done: bool, seen: Seen<'a> },
    /// Framing that no known server uses, or nesting beyond [`DEPTH_MAX`].
    Unknown,
    /// Known framing, broken.
    Broken,
}

/// What is worth a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// Nothing.
    Nothing,
    /// An error, at most [`PEEK_MAX`] bytes of it. Depth 0 is the frame itself.
    Error { depth: usize, text: &'a [u8] },
    /// An integer.
    Integer { depth: usize, text: &'a [u8] },
}

impl Replies {
    /// Between two frames: local replies may go out here.
    #[inline]
    pub(super) fn at_boundary(&self) -> bool {
        self.at_value() && !self.attributed
    }

    /// At the type byte of a frame, perhaps behind its attribute.
    #[inline]
    pub(super) fn at_value(&self) -> bool {
        self.stack.is_empty() && self.at == At::Type
    }

    /// Reads on; `input` is not empty.
    #[inline]
    pub(super) fn step<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        match self.at {
            At::Type => self.value(input),
            At::Bulk(left) => self.bulk(input, 0, left, Seen::Nothing),
            At::Line => match line_end(input) {
                Some(end) => {
                    self.at = At::Type;
                    self.part(end, Seen::Nothing)
                }
                // A CR at the end may be half of the line's end, so it waits for the byte behind it.
                None => match input.len() - usize::from(input.ends_with(b"\r")) {
                    0 => Step::Hold,
                    len => Step::Part { len, done: false, seen: Seen::Nothing },
                },
            },
        }
    }

    fn value<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        let depth = self.stack.len();
        match input.first() {
            None => Step::Hold,
            Some(kind @ (b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(')) => self.line(*kind, depth, input),
            Some(kind @ (b'$' | b'=' | b'!')) => {
                let (left, at) = match length(input) {
                    Err(step) => return step,
                    Ok((None, at)) => return self.part(at, Seen::Nothing),
                    Ok((Some(left), at)) => (left, at),
                };
                let mut seen = Seen::Nothing;
                if *kind == b'!' {
                    let want = usize::try_from(left).unwrap_or(usize::MAX).min(PEEK_MAX);
                    match input.get(at..at + want) {
                        None => return Step::Hold,
                        Some(text) => seen = Seen::Error { depth, text },
                    }
                }
                self.bulk(input, at, left, seen)
            }
            Some(kind @ (b'*' | b'~' | b'%' | b'|' | b'>')) => self.aggregate(*kind, depth, input),
            // RESP's types are punctuation. A new one is passed on, letters and binary are no RESP at all.
            Some(byte) if byte.is_ascii_punctuation() => Step::Unknown,
            Some(_) => Step::Broken,
        }
    }

    #[inline]
    fn line<'a>(&mut self, kind: u8, depth: usize, input: &'a [u8]) -> Step<'a> {
        let end = line_end(input);
        let text = match end {
            Some(end) => input.get(1..end - 2),
            None => input.get(1..).filter(|text| text.len() > PEEK_MAX),
        };
        let Some(text) = text else { return Step::Hold };
        let text = text.get(..PEEK_MAX).unwrap_or(text);
        let seen = match kind {
            b'-' => Seen::Error { depth, text },
            b':' => Seen::Integer { depth, text },
            _ => Seen::Nothing,
        };
        match end {
            Some(end) => self.part(end, seen),
            None => {
                self.at = At::Line;
                let len = input.len() - usize::from(input.ends_with(b"\r"));
                Step::Part { len, done: false, seen }
            }
        }
    }

    /// `from` bytes of header, then `left` bytes of payload and CRLF.
    #[inline]
    fn bulk<'a>(&mut self, input: &'a [u8], from: usize, left: u64, seen: Seen<'a>) -> Step<'a> {
        let whole = usize::try_from(left).unwrap_or(usize::MAX);
        let rest = input.get(from..).unwrap_or_default();
        match rest.get(whole..) {
            Some([b'\r', b'\n', ..]) => {
                self.at = At::Type;
                self.part(from + whole + 2, seen)
            }
            Some([] | [b'\r']) if from + whole > 0 => {
                self.at = At::Bulk(0);
                Step::Part { len: from + whole, done: false, seen }
            }
            Some([] | [b'\r']) => Step::Hold,
            Some(_) => Step::Broken,
            None => {
                self.at = At::Bulk(left - rest.len() as u64);
                Step::Part { len: input.len(), done: false, seen }
            }
        }
    }

    fn aggregate<'a>(&mut self, kind: u8, depth: usize, input: &'a [u8]) -> Step<'a> {
        let (count, len) = match length(input) {
            Err(step) => return step,
            Ok((None, len)) => return self.part(len, Seen::Nothing),
            Ok((Some(count), len)) => (count, len),
        };
        let left = if matches!(kind, b'%' | b'|') { count * 2 } else { count };
        let role = match kind {
            b'|' => Role::Attribute,
            b'>' if depth > 0 => match push_kind(input) {
                Kind::Partial => return Step::Hold,
                Kind::Of(b"message" | b"pmessage" | b"smessage" | b"invalidate") => Role::Push,
                Kind::Of(_) | Kind::None => Role::Element,
            },
            _ => Role::Element,
        };
        if left == 0 {
            return match role {
                Role::Element => self.part(len, Seen::Nothing),
                Role::Attribute | Role::Push => {
                    self.attributed |= depth == 0;
                    Step::Part { len, done: false, seen: Seen::Nothing }
                }
            };
        }
        if depth == DEPTH_MAX {
            return Step::Unknown;
        }
        self.stack.push(Level { left, role });
        Step::Part { len, done: false, seen: Seen::Nothing }
    }

    /// A value has ended.
    #[inline]
    fn part<'a>(&mut self, len: usize, seen: Seen<'a>) -> Step<'a> {
        let done = self.complete();
        Step::Part { len, done, seen }
    }

    #[inline]
    fn complete(&mut self) -> bool {
        while let Some(level) = self.stack.last_mut() {
            level.left -= 1;
            if level.left > 0 {
                return false;
            }
            let role = level.role;
            self.stack.pop();
            if role != Role::Element {
                self.attributed |= self.stack.is_empty();
                return false;
            }
        }
        self.attributed = false;
        true
    }
}

/// The kind of a push, which is its first element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// More bytes are needed.
    Partial,
    /// The kind.
    Of(&'a [u8]),
    /// The first element is no short string.
    None,
}

/// Looks at the first element of the aggregate that `input` starts with.
pub(super) fn push_kind(input: &[u8]) -> Kind<'_> {
    let Number::Good { value: 1.., len } = number(input) else {
        return if number(input) == Number::Partial { Kind::Partial } else { Kind::None };
    };
    let rest = input.get(len..).unwrap_or_default();
    match rest.first() {
        None => return Kind::Partial,
        Some(b'$') => {}
        Some(_) => return Kind::None,
    }
    match number(rest) {
        Number::Partial => Kind::Partial,
        Number::Good { value: value @ 0..=KIND_MAX, len } => {
            rest.get(len..len + value.unsigned_abs() as usize).map_or(Kind::Partial, Kind::Of)
        }
        Number::Good { .. } | Number::Bad => Kind::None,
    }
}

/// How many elements the aggregate that `input` starts with has; none if that is not known yet.
pub(super) fn elements(input: &[u8]) -> Option<i64> {
    match number(input) {
        Number::Good { value, .. } => Some(value),
        Number::Partial | Number::Bad => None,
    }
}

/// A length line: the length (none for a null), and how many bytes the line takes.
fn length<'a>(input: &[u8]) -> Result<(Option<u64>, usize), Step<'a>> {
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
