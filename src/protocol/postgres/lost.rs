//! What a rejected message would have done, read while it is dropped.

use super::names::Name;
use super::statement::{Scanner, Turn};

/// What is read of a rejected message while it is dropped.
#[derive(Debug)]
pub(super) enum Peek {
    /// A Query: its text.
    Query(Scanner),
    /// A Parse: its statement's name, then its text.
    Name(Name),
    /// The text of the statement of this name.
    Text(Name, Scanner),
    /// Anything else.
    Nothing,
}

impl Peek {
    pub(super) fn new(tag: u8) -> Self {
        match tag {
            b'Q' => Self::Query(Scanner::default()),
            b'P' => Self::Name(Name::default()),
            _ => Self::Nothing,
        }
    }

    pub(super) fn feed(&mut self, body: &[u8]) {
        match self {
            Self::Query(scanner) | Self::Text(_, scanner) => scanner.feed(body),
            Self::Name(name) => match memchr::memchr(0, body) {
                None => name.push(body),
                Some(at) => {
                    name.push(body.get(..at).unwrap_or_default());
                    let mut scanner = Scanner::default();
                    // The zero between them is a blank to it.
                    scanner.feed(body.get(at..).unwrap_or_default());
                    *self = Self::Text(std::mem::take(name), scanner);
                }
            },
            Self::Nothing => {}
        }
    }

    /// Ends the message: what it would have done.
    pub(super) fn finish(self) -> Lost {
        let (name, mut scanner) = match self {
            Self::Query(scanner) => (None, scanner),
            Self::Text(name, scanner) => (Some(name), scanner),
            // A Parse whose name does not end prepares nothing.
            Self::Name(_) | Self::Nothing => return Lost::default(),
        };
        scanner.finish();
        Lost {
            name,
            sets: scanner.sets(),
            begins: scanner.leaves_open(),
            ends: matches!(scanner.turn(), Some(Turn::Commits | Turn::RollsBack)),
        }
    }
}

/// What a rejected message would have done.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// The statement that it would have prepared.
    pub(super) name: Option<Name>,
    /// It would have set session state.
    pub(super) sets: bool,
    /// It would have left a transaction open.
    pub(super) begins: bool,
    /// It would have ended the transaction, and done nothing else.
    pub(super) ends: bool,
}
