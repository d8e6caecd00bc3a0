//! Empty queries, with which pools test their connections before they lend them (PROTOCOLS.md §3.6).
//!
//! A pool whose test fails throws the connection away and makes its caller wait for another, which an open backend
//! refuses. Where `answer_empty_queries` is on, an empty query is therefore answered here, as the server would, for
//! as long as others may be rejected. It is no call and no probe: it would say little about the backend.
//!
//! A driver that prepares its test (pgjdbc after five of them) later sends only its name, so names that have been
//! prepared with an empty text are remembered, and forgotten at the slightest doubt: a statement that is not empty must
//! never be answered here.

use super::message::{HEADER, Header, Message};
use super::names::{Name, Names, name_at};
use super::reply;
use super::session::Session;
use super::statement::Shape;
use crate::breaker::Mode;

/// How many bytes an empty query or run may have: enough for a comment in it.
const EMPTY_MAX: usize = 1024;
/// A Parse or Close that may be about an empty statement has at most so many bytes.
const SHORT: usize = 128;
/// How many names are remembered: a driver prepares one.
const NAMES_MAX: usize = 16;

/// What stands at the beginning of the client's input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// More bytes are needed to tell.
    Partial,
    /// Something else than an empty query.
    Other,
    /// A unit of so many bytes without a statement in it, and the answer to it, to which its ReadyForQuery comes.
    Empty(usize, Vec<u8>),
}

/// The names of statements whose text is empty.
#[derive(Debug, Default)]
pub(super) struct Known {
    names: Names,
}

impl Known {
    /// A Parse passes.
    fn parsed(&mut self, message: Message<'_>) {
        let text = memchr::memchr(0, message.body).and_then(|at| message.body.get(at + 1..));
        let name = name_at(message.body, message.is_whole());
        let (Some(text), Some(name)) = (text, name) else { return self.clear() };
        if message.is_whole() && message.len <= SHORT && is_empty(text) {
            if self.names.len() >= NAMES_MAX {
                self.clear();
            }
            self.names.insert(&name);
            return;
        }
        self.names.remove(&name);
        let mut shape = Shape::default();
        shape.feed(memchr::memchr(0, text).and_then(|end| text.get(..end)).unwrap_or(text));
        self.ran(&shape);
    }

    /// A text passes. PREPARE, DEALLOCATE and DISCARD change what a name stands for.
    #[inline]
    pub(super) fn ran(&mut self, shape: &Shape) {
        if !self.names.is_empty() && shape.may_prepare() {
            self.clear();
        }
    }

    /// A Close passes.
    fn closed(&mut self, message: Message<'_>) {
        match message.body.split_first() {
            Some((b'P', _)) => {}
            Some((_, name)) if message.is_whole() => {
                if let Some(name) = name_at(name, true) {
                    self.names.remove(&name);
                }
            }
            _ => self.clear(),
        }
    }

    /// The Parse of this name was rejected.
    pub(super) fn lost(&mut self, name: &Name) {
        self.names.remove(name);
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Session {
    /// Whether a Parse or Close is short and had better be whole when [`Session::learn`] sees it.
    #[inline]
    pub(super) fn is_to_be_learned(&self, message: Message<'_>) -> bool {
        !message.is_whole() && message.len <= SHORT && self.settings.answers_empty()
    }

    /// Takes note of a Parse or Close that passes.
    #[inline]
    pub(super) fn learn(&mut self, message: Message<'_>) {
        let known = !self.client.empties.names.is_empty();
        let named = || message.body.first().is_some_and(|byte| *byte != 0);
        match message.tag {
            b'P' if (known || named()) && self.settings.answers_empty() => {
                self.client.empties.parsed(message)
            }
            b'C' if known => self.client.empties.closed(message),
            _ => {}
        }
    }

    /// Whether a unit begins here that is empty and to be answered here.
    pub(super) fn look_for_empty(&self, message: Message<'_>) -> Look {
        let enforced = self.settings.answers_empty() && self.lane().gate().mode() == Mode::Enforce;
        match message.tag {
            _ if !enforced => Look::Other,
            b'Q' if message.len > EMPTY_MAX => Look::Other,
            b'Q' if !message.is_whole() => Look::Partial,
            b'Q' if is_empty(message.body) => Look::Empty(HEADER + message.len, reply::EMPTY.to_vec()),
            b'P' | b'B' => run(message.rest, &self.client.empties.names),
            _ => Look::Other,
        }
    }
}

/// Whether nothing but blanks, semicolons and comments comes before the first zero.
fn is_empty(body: &[u8]) -> bool {
    let Some(mut text) = memchr::memchr(0, body).and_then(|end| body.get(..end)) else { return false };
    loop {
        text = text.trim_ascii_start();
        text = if let Some(rest) = text.strip_prefix(b";") {
            rest
        } else if let Some(rest) = text.strip_prefix(b"--") {
            memchr::memchr2(b'\n', b'\r', rest).and_then(|end| rest.get(end..)).unwrap_or_default()
        } else if let Some(rest) = text.strip_prefix(b"/*").and_then(after_comment) {
            rest
        } else {
            return text.is_empty();
        };
    }
}

/// What comes behind a comment that has begun; comments nest.
fn after_comment(mut text: &[u8]) -> Option<&[u8]> {
    let mut depth = 1;
    while depth > 0 {
        text = text.get(memchr::memchr2(b'*', b'/', text)?..)?;
        let (step, taken) = match text {
            [b'*', b'/', ..] => (-1, 2),
            [b'/', b'*', ..] => (1, 2),
            _ => (0, 1),
        };
        depth += step;
        text = text.get(taken..)?;
    }
    Some(text)
}

/// Looks at an extended run up to its Sync: Parse of an empty text without a name, or nothing, then Bind, Describe and
/// Execute of it.
fn run(input: &[u8], known: &Names) -> Look {
    let mut at = 0;
    let mut unnamed = false;
    let mut bound = false;
    let mut executed = false;
    let mut answer = Vec::new();
    loop {
        if at > EMPTY_MAX {
            return Look::Other;
        }
        let rest = input.get(at..).unwrap_or_default();
        let Some(header) = Header::read(rest) else { return Look::Partial };
        let Some(len) = header.client_body() else { return Look::Other };
        if len > EMPTY_MAX {
            return Look::Other;
        }
        let Some(body) = rest.get(HEADER..HEADER + len) else { return Look::Partial };
        at += HEADER + len;
        match header.tag {
            b'P' if body.first() == Some(&0) && !unnamed && is_empty(body.get(1..).unwrap_or_default()) => {
                unnamed = true;
                answer.extend_from_slice(reply::PARSED);
            }
            b'B' if body.first() == Some(&0) && !executed => {
                match name_at(body.get(1..).unwrap_or_default(), false) {
                    Some(name) if unnamed && name == Name::default() => {}
                    Some(name) if name != Name::default() && known.contains(&name) => {}
                    _ => return Look::Other,
                }
                bound = true;
                answer.extend_from_slice(reply::BOUND);
            }
            b'D' if body == b"P\0" && bound => answer.extend_from_slice(reply::NO_DATA),
            b'D' if body == b"S\0" && unnamed => {
                answer.extend_from_slice(reply::NO_PARAMETERS);
                answer.extend_from_slice(reply::NO_DATA);
            }
            b'E' if body.first() == Some(&0) && bound && !executed => {
                executed = true;
                answer.extend_from_slice(reply::EMPTY);
            }
            b'S' if executed => {
                return Look::Empty(at, answer);
            }
            _ => return Look::Other,
        }
    }
}
