//! Where a backend's frames begin and end, RESP2 and RESP3, found in borrowed slices.
//!
//! Iterative: the stack of unfinished aggregates is a list of remaining counts, so nesting costs a few bytes and
//! never the process. Bulk payloads stream. Absent on purpose: values; all that is ever shown are the first
//! bytes of an error, an integer, and the kind of a push.

use super::number::{Number, number};
use super::scalar::{self, Rest, Scalar, length};

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
    /// Within a value whose beginning has been let through.
    Within(Rest),
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
    /// The last integer of these that is directly inside the frame.
    Integer(&'a [u8]),
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
            At::Type => self.elements(input).unwrap_or_else(|| self.value(input)),
            At::Within(rest) => self.scalar(scalar::rest(input, rest)),
        }
    }

    /// Elements of the innermost aggregate, all at once; the last, which ends it, is left to [`Replies::value`].
    fn elements<'a>(&mut self, input: &'a [u8]) -> Option<Step<'a>> {
        let depth = self.stack.len();
        let level = self.stack.last_mut()?;
        let run = scalar::run(input, depth, level.left - 1);
        level.left -= run.n;
        (run.n > 0).then_some(Step::Part { len: run.len, done: false, seen: run.seen })
    }

    fn value<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        let depth = self.stack.len();
        match input.first() {
            Some(kind @ (b'*' | b'~' | b'%' | b'|' | b'>')) => self.aggregate(*kind, depth, input),
            _ => self.scalar(scalar::scalar(input, depth)),
        }
    }

    #[inline]
    fn scalar<'a>(&mut self, scalar: Scalar<'a>) -> Step<'a> {
        match scalar {
            Scalar::Whole { len, seen } => {
                self.at = At::Type;
                self.part(len, seen)
            }
            Scalar::Part { len, rest, seen } => {
                self.at = At::Within(rest);
                Step::Part { len, done: false, seen }
            }
            Scalar::None(step) => step,
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
