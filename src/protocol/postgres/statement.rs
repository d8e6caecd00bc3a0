//! The little that must be known of SQL: its first words, when a statement is about to be rejected.
//!
//! A client whose `SET ROLE` was lost would go on as the wrong user, one whose `CREATE TEMP TABLE` was lost would
//! write into the lasting table of that name, so a rejected statement that sets session state ends the session. A
//! lost BEGIN dooms what follows it (ADR 0011). The scanner would rather see such a statement where there is none (a
//! `; SET` inside a string ends the session, which is safe) than miss one, so it does not follow quotes.
//!
//! Absent on purpose: a grammar, and any look at statements while the breaker is closed beyond one `memchr`.

/// No word that matters has as many letters. A longer one is read as one of so many, which is none of them.
const WORD_MAX: usize = 16;

/// Statements that leave something behind in their session.
const SETTERS: &[&[u8]] =
    &[b"set", b"reset", b"discard", b"listen", b"unlisten", b"prepare", b"deallocate", b"load"];
/// `SET` followed by one of these ends with its transaction, and rejections happen outside transactions.
const PASSING: &[&[u8]] = &[b"local", b"transaction", b"constraints"];
/// What may stand between CREATE and TEMP.
const BEFORE_TEMP: &[&[u8]] = &[b"or", b"replace", b"local", b"global"];
/// What makes a relation the session's own.
const TEMPS: &[&[u8]] = &[b"temp", b"temporary", b"pg_temp"];
/// Statements that may rightly take as long as they like.
const LASTING: &[&[u8]] = &[b"copy", b"listen"];

/// Reads statements piece by piece.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    place: Place,
    gap: Gap,
    word: [u8; WORD_MAX],
    len: usize,
    sets: bool,
    lasts: bool,
    /// Statements that have a word, up to two.
    statements: u8,
    /// What the first of them does.
    first: Option<Turn>,
    /// A transaction has been begun and not ended.
    begun: bool,
}

/// What a text does to the transaction it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its first statement is BEGIN.
    Begins,
    /// It is COMMIT and nothing else.
    Commits,
    /// It is ROLLBACK and nothing else.
    RollsBack,
    /// It holds no statement.
    Empty,
}

/// Which word of a statement comes next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    First,
    AfterSet,
    /// After CREATE and what may stand before TEMP.
    AfterCreate,
    /// Later in a CREATE.
    Creating,
    /// After COMMIT or ROLLBACK and words that change nothing. Anything else (TO, PREPARED, AND CHAIN, the `$$` of a
    /// function's body) makes it some other statement.
    Ending(Turn),
    /// Later in a statement that may yet say INTO TEMP.
    Later,
    AfterInto,
    /// Later in an INSERT, whose INTO names what is there already.
    Inserting,
}

/// What stands between words.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Gap {
    #[default]
    Plain,
    Dash,
    Slash,
    Line,
    Block(u32),
    BlockStar(u32),
    BlockSlash(u32),
}

impl Scanner {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, text: &[u8]) {
        for &byte in text {
            self.byte(byte);
        }
    }

    /// Ends the text: the last word is whole.
    pub(super) fn finish(&mut self) {
        self.end_word();
        self.end_statement();
    }

    /// What the text, now ended, does to the transaction it stands in; none if it is some other work.
    pub(super) fn turn(&self) -> Option<Turn> {
        match self.first {
            Some(Turn::Begins) => Some(Turn::Begins),
            first if self.statements == 1 => first,
            _ if self.statements == 0 => Some(Turn::Empty),
            _ => None,
        }
    }

    /// Whether a transaction that the text begins is still open at its end.
    pub(super) fn leaves_open(&self) -> bool {
        self.begun
    }

    /// Whether a statement sets session state.
    pub(super) fn sets(&self) -> bool {
        self.sets
    }

    /// Whether a statement may last.
    pub(super) fn lasts(&self) -> bool {
        self.lasts
    }

    fn byte(&mut self, byte: u8) {
        // Comments are followed only where a word matters: elsewhere they can hide nothing but a `;`, which at worst
        // makes us look once too often.
        if !matches!(self.place, Place::Later | Place::Inserting) {
            let (gap, swallowed) = self.gap.next(byte);
            self.gap = gap;
            if swallowed {
                self.end_word();
                return;
            }
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | 0x80.. => {
                if let Some(slot) = self.word.get_mut(self.len) {
                    *slot = byte.to_ascii_lowercase();
                }
                self.len = (self.len + 1).min(WORD_MAX);
            }
            b';' => {
                self.end_word();
                self.end_statement();
                self.place = Place::First;
                self.gap = Gap::Plain;
            }
            _ => {
                self.end_word();
                let blank = byte.is_ascii_whitespace() || byte == 0;
                if let (Place::Ending(_), false) = (self.place, blank) {
                    self.place = Place::Later;
                }
            }
        }
    }

    fn end_statement(&mut self) {
        // `SET` and nothing behind it is a syntax error, yet better ended than misread.
        self.sets |= self.place == Place::AfterSet;
        if let Place::Ending(turn) = self.place {
            self.begun = false;
            if self.statements == 1 {
                self.first = Some(turn);
            }
        }
    }

    fn end_word(&mut self) {
        let len = std::mem::take(&mut self.len);
        if len == 0 {
            return;
        }
        let word = self.word.get(..len).unwrap_or_default();
        self.place = match self.place {
            Place::First => {
                self.statements = (self.statements + 1).min(2);
                self.sets |= SETTERS.contains(&word) && word != b"set";
                self.lasts |= LASTING.contains(&word);
                match word {
                    b"set" => Place::AfterSet,
                    b"create" => Place::AfterCreate,
                    b"insert" | b"merge" | b"copy" => Place::Inserting,
                    b"commit" | b"end" => Place::Ending(Turn::Commits),
                    b"rollback" | b"abort" => Place::Ending(Turn::RollsBack),
                    b"begin" | b"start" => {
                        self.begun = true;
                        if self.statements == 1 {
                            self.first = Some(Turn::Begins);
                        }
                        Place::Later
                    }
                    _ => Place::Later,
                }
            }
            Place::AfterSet => {
                self.sets |= !PASSING.contains(&word);
                Place::Later
            }
            Place::AfterCreate if BEFORE_TEMP.contains(&word) => Place::AfterCreate,
            Place::AfterCreate | Place::Creating => {
                self.sets |= match self.place {
                    Place::AfterCreate => TEMPS.contains(&word),
                    _ => word == b"pg_temp",
                };
                Place::Creating
            }
            Place::Ending(turn) if matches!(word, b"work" | b"transaction") => Place::Ending(turn),
            Place::AfterInto if matches!(word, b"local" | b"global") => Place::AfterInto,
            Place::Inserting => {
                self.sets |= word == b"set_config";
                Place::Inserting
            }
            Place::AfterInto | Place::Ending(_) | Place::Later => {
                self.sets |=
                    word == b"set_config" || (self.place == Place::AfterInto && TEMPS.contains(&word));
                if word == b"into" { Place::AfterInto } else { Place::Later }
            }
        };
    }
}

impl Gap {
    /// The next state, and whether the byte belongs to a comment.
    fn next(self, byte: u8) -> (Self, bool) {
        match (self, byte) {
            (Self::Plain, b'-') => (Self::Dash, true),
            (Self::Plain, b'/') => (Self::Slash, true),
            (Self::Plain, _) => (Self::Plain, false),
            (Self::Dash, b'-') => (Self::Line, true),
            (Self::Slash, b'*') => (Self::Block(1), true),
            (Self::Dash | Self::Slash, _) => (Self::Plain, false),
            (Self::Line, b'\n' | b'\r') => (Self::Plain, true),
            (Self::Line, _) => (Self::Line, true),
            (Self::Block(n) | Self::BlockStar(n), b'*') => (Self::BlockStar(n), true),
            (Self::BlockSlash(n), b'*') => (Self::Block(n + 1), true),
            (Self::BlockStar(1), b'/') => (Self::Plain, true),
            (Self::BlockStar(n), b'/') => (Self::Block(n - 1), true),
            (Self::Block(n) | Self::BlockSlash(n), b'/') => (Self::BlockSlash(n), true),
            (Self::Block(n) | Self::BlockStar(n) | Self::BlockSlash(n), _) => (Self::Block(n), true),
        }
    }
}

/// Whether a simple query is one statement that cannot leave a transaction open: anything but BEGIN and START
/// TRANSACTION. Comments before it and several statements are not looked into. Read piece by piece, one `memchr`
/// each.
#[derive(Debug, Default)]
pub(super) struct Shape {
    head: [u8; 5],
    len: usize,
    ended: bool,
    several: bool,
}

impl Shape {
    /// Takes the next bytes.
    #[inline]
    pub(super) fn feed(&mut self, mut text: &[u8]) {
        while self.len < self.head.len()
            && let Some((&byte, rest)) = text.split_first()
        {
            if self.len > 0 || !byte.is_ascii_whitespace() {
                if byte == b';' {
                    break;
                }
                if let Some(slot) = self.head.get_mut(self.len) {
                    *slot = byte.to_ascii_lowercase();
                }
                self.len += 1;
            }
            text = rest;
        }
        if !self.ended {
            let Some(at) = memchr::memchr(b';', text) else { return };
            self.ended = true;
            // `;b` is no BEGIN, but what follows a `;` is not looked into either.
            self.len = self.head.len();
            text = text.get(at + 1..).unwrap_or_default();
        }
        self.several |= !text.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0);
    }

    /// Whether the text, now whole, may hold a PREPARE, DEALLOCATE or DISCARD.
    pub(super) fn may_prepare(&self) -> bool {
        let named = matches!(self.head.first(), Some(b'a'..=b'z'));
        !named || self.several || matches!(&self.head, b"prepa" | b"deall" | b"disca")
    }

    /// Whether the text, now whole, is plain.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        let named = matches!(self.head.first(), Some(b'a'..=b'z' | b'(' | 0));
        named && !self.several && !matches!(&self.head, b"begin" | b"start")
    }
}
