//! What an ErrorResponse or NoticeResponse says, read as it streams by.
//!
//! The routine comes last, after texts of any length (a RAISE may carry a megabyte of detail), so a bounded copy
//! of the body's beginning would miss it. Fields are therefore read one after another, each into a few bytes.

/// How grave a report is. From the field `V`, which no locale translates; before 9.6 there was only `S`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Severity {
    /// The statement failed, the session goes on. Also whatever is none of the others: notices, and the words of a server
    /// before 9.6 that translates them.
    #[default]
    Error,
    /// The session is over.
    Fatal,
    /// All sessions of the server are over.
    Panic,
}

impl Severity {
    fn parse(word: &[u8]) -> Self {
        match word {
            b"FATAL" => Self::Fatal,
            b"PANIC" => Self::Panic,
            _ => Self::Error,
        }
    }

    /// Whether the session ends with it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Fatal | Self::Panic)
    }
}

/// The fields that a verdict depends on.
#[derive(Debug, Default)]
pub(super) struct Report {
    severity: Severity,
    /// `V` was seen, and overrules `S` whichever comes first.
    unlocalised: bool,
    code: Text<5>,
    message: Text<MESSAGE_MAX>,
    voice: Voice,
    field: Field,
}

/// How much of a message text is kept: pgbouncer's texts are told apart by their first words.
const MESSAGE_MAX: usize = 64;
/// How much of another field is kept: more than the longest name that matters, so that a longer one is told apart.
const ROUTINE_MAX: usize = 20;

/// Who chose the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Voice {
    /// The server.
    #[default]
    Server,
    /// The application, by a RAISE, which may claim any code it likes.
    Application,
    /// Another server, whose error dblink or postgres_fdw passes on.
    OtherServer,
}

impl Voice {
    /// From the field `R`, the name of the function that reports.
    fn of(routine: &[u8]) -> Self {
        match routine {
            b"exec_stmt_raise" => Self::Application,
            b"dblink_res_error" => Self::OtherServer,
            _ if routine.starts_with(b"pgfdw_report") => Self::OtherServer,
            _ => Self::Server,
        }
    }
}

#[derive(Debug)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Text<N> {
    fn push(&mut self, more: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(more) {
            *to = *from;
        }
        self.len = (self.len + more.len()).min(N);
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
enum Field {
    /// The next byte names a field.
    #[default]
    Name,
    /// Within the field of this name.
    Value(u8, Text<ROUTINE_MAX>),
    /// The closing zero has been read.
    Over,
}

impl Report {
    /// Takes the next bytes of the body.
    pub(super) fn feed(&mut self, mut input: &[u8]) {
        while let Some((&first, rest)) = input.split_first() {
            match &mut self.field {
                Field::Over => return,
                Field::Name => {
                    self.field = match first {
                        0 => Field::Over,
                        name => Field::Value(name, Text::default()),
                    };
                    input = rest;
                }
                Field::Value(name, word) => {
                    let end = memchr::memchr(0, input);
                    let (text, rest) = input.split_at(end.unwrap_or(input.len()));
                    match *name {
                        b'C' => self.code.push(text),
                        b'M' => self.message.push(text),
                        _ => word.push(text),
                    }
                    input = rest;
                    if end.is_some() {
                        self.close();
                        input = rest.get(1..).unwrap_or_default();
                    }
                }
            }
        }
    }

    fn close(&mut self) {
        if let Field::Value(name, word) = std::mem::take(&mut self.field) {
            match name {
                b'V' => {
                    self.severity = Severity::parse(word.as_bytes());
                    self.unlocalised = true;
                }
                b'S' if !self.unlocalised => self.severity = Severity::parse(word.as_bytes()),
                b'R' => self.voice = Voice::of(word.as_bytes()),
                _ => {}
            }
        }
    }

    /// How grave it is.
    pub(super) fn severity(&self) -> Severity {
        self.severity
    }

    /// The SQLSTATE.
    pub(super) fn code(&self) -> &[u8] {
        self.code.as_bytes()
    }

    /// The beginning of the message.
    pub(super) fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Who chose the code.
    pub(super) fn voice(&self) -> Voice {
        self.voice
    }
}
