//! Where a client's requests begin and end: multibulk and inline, found in borrowed slices.
//!
//! Stricter than Redis where leniency would let two parsers disagree: Redis 7 runs `$4\r\nPINGxx`, this scanner
//! calls it a protocol error. Absent on purpose: what a command means, and any copy of an argument, for a value
//! of 512 MiB passes in pieces.

use std::fmt;

use memchr::memchr2;

use super::number::{Number, number, short_string};

/// The longest inline request, as in Redis (`PROTO_INLINE_MAX_SIZE`).
pub(super) const INLINE_MAX: usize = 64 * 1024;
/// The longest argument: the default of `proto-max-bulk-len`.
pub(super) const BULK_MAX: i64 = 512 * 1024 * 1024;
/// The most arguments of a request.
pub(super) const ARGS_MAX: i64 = i32::MAX as i64;
/// A command name or an argument longer than this is none that a decision depends on, so it is not waited for.
pub(super) const WORD_MAX: usize = 64;

/// How a client broke the protocol, in Redis's own words where Redis has some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breach {
    /// The number after `*`.
    MultibulkLength,
    /// The number after `$`.
    BulkLength,
    /// Not a `$` where an argument begins.
    ExpectedBulk(u8),
    /// No CRLF where an argument ends: Redis 7 does not look, and would run what follows as something else.
    BulkEnd,
    /// No line end within [`INLINE_MAX`].
    InlineTooLong,
    /// A quote that is not closed, or text right behind a closing quote.
    Quotes,
    /// A NUL in an inline request, on which Redis waits for ever.
    Nul,
    /// More requests without an answer than a connection may have.
    TooManyInFlight,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MultibulkLength => f.write_str("invalid multibulk length"),
            Self::BulkLength => f.write_str("invalid bulk length"),
            Self::ExpectedBulk(got) => {
                let got = if got.is_ascii_graphic() { char::from(*got) } else { ' ' };
                write!(f, "expected '$', got '{got}'")
            }
            Self::BulkEnd => f.write_str("expected CRLF after bulk"),
            Self::InlineTooLong => f.write_str("too big inline request"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
            Self::Nul => f.write_str("NUL in inline request"),
            Self::TooManyInFlight => f.write_str("too many requests without an answer"),
        }
    }
}

/// The beginning of a request, up to where it can be decided upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    /// Not there yet; bounded by the constants above.
    Partial,
    /// A request that gets no reply: `*0`, `*-1`, a blank line.
    Nothing(usize),
    /// `len` bytes up to and including the command's name; `args` arguments follow. A name longer than
    /// [`WORD_MAX`] is no name that is known: it reads as empty and is left to follow as an argument.
    Command { name: &'a [u8], args: u64, len: usize },
    /// A whole inline request of `len` bytes with at least one word.
    Inline { words: Vec<Vec<u8>>, len: usize },
    /// A protocol error.
    Broken(Breach),
}

/// Finds the head of the request at the start of `input`. `seen` remembers how much of an inline request has
/// been searched, so that a slow one costs no quadratic time; it starts at 0 for each request.
pub(super) fn head<'a>(input: &'a [u8], seen: &mut usize) -> Head<'a> {
    match input.first() {
        None => Head::Partial,
        Some(b'*') => multibulk(input),
        Some(_) => inline(input, seen),
    }
}

/// The head of an ordinary request. In a pipeline most begin with the same bytes, and need not be read to be known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    head: &'a [u8],
    args: u64,
}

impl<'a> Known<'a> {
    /// `input` begins with a head of `len` bytes that is a [`Head::Command`] of this name with so many arguments to
    /// come. None if its name is not among those bytes, which then tell nothing.
    #[inline]
    pub(super) fn new(input: &'a [u8], name: &[u8], args: u64, len: usize) -> Option<Self> {
        let head = input.get(..len).filter(|_| !name.is_empty())?;
        Some(Self { head, args })
    }

    /// The length of the request at the start of `input`, if it is whole and has this head. Whatever else is there is for
    /// [`head`] to read.
    #[inline]
    pub(super) fn again(&self, input: &[u8]) -> Option<usize> {
        match Body::new(self.args).advance(input.strip_prefix(self.head)?, None) {
            Flow::Done(len) => Some(self.head.len() + len),
            Flow::Partial(_) | Flow::Broken(_) => None,
        }
    }
}

fn multibulk(input: &[u8]) -> Head<'_> {
    let (count, at) = match number(input) {
        Number::Partial => return Head::Partial,
        Number::Bad => return Head::Broken(Breach::MultibulkLength),
        Number::Good { value, len } => (value, len),
    };
    let args = match u64::try_from(count) {
        Ok(0) | Err(_) => return Head::Nothing(at),
        Ok(_) if count > ARGS_MAX => return Head::Broken(Breach::MultibulkLength),
        Ok(args) => args,
    };
    match word(input.get(at..).unwrap_or_default()) {
        Word::Partial => Head::Partial,
        Word::Long => Head::Command { name: &[], args, len: at },
        Word::Whole { word, len } => Head::Command { name: word, args: args - 1, len: at + len },
        Word::Broken(breach) => Head::Broken(breach),
    }
}

fn inline<'a>(input: &'a [u8], seen: &mut usize) -> Head<'a> {
    let from = (*seen).min(input.len());
    let window = input.get(from..input.len().min(INLINE_MAX + 1)).unwrap_or_default();
    let Some(at) = memchr2(b'\n', 0, window) else {
        if input.len() > INLINE_MAX {
            return Head::Broken(Breach::InlineTooLong);
        }
        *seen = input.len();
        return Head::Partial;
    };
    let end = from + at;
    if input.get(end) == Some(&0) {
        return Head::Broken(Breach::Nul);
    }
    let line = input.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match split(line) {
        None => Head::Broken(Breach::Quotes),
        Some(words) if words.is_empty() => Head::Nothing(end + 1),
        Some(words) => Head::Inline { words, len: end + 1 },
    }
}

/// The first two arguments behind a head, as far as they are short ones; longer or missing ones read as empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Peek<'a> {
    /// More bytes are needed.
    Partial,
    /// The arguments.
    Words([&'a [u8]; 2]),
    /// A protocol error.
    Broken(Breach),
}

/// Looks at the first arguments of a request without consuming them. `args` is how many it has.
pub(super) fn peek(input: &[u8], args: u64) -> Peek<'_> {
    let mut words: [&[u8]; 2] = [&[], &[]];
    let mut rest = input;
    for (slot, _) in words.iter_mut().zip(0..args) {
        match word(rest) {
            Word::Partial => return Peek::Partial,
            Word::Long => break,
            Word::Broken(breach) => return Peek::Broken(breach),
            Word::Whole { word, len } => {
                *slot = word;
                rest = rest.get(len..).unwrap_or_default();
            }
        }
    }
    Peek::Words(words)
}

/// The arguments of a request that has been decided upon, as they stream by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Body {
    left: u64,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At an argument's `$`.
    Length,
    /// So many bytes before an argument's CRLF.
    Data(u64),
}

/// Is shown each argument, those above [`WORD_MAX`] as none.
pub(super) type Show<'a> = &'a mut dyn FnMut(Option<&[u8]>);

/// How far a body has come. The bytes counted may go out as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The request ends after so many bytes.
    Done(usize),
    /// So many bytes, and more are needed.
    Partial(usize),
    /// A protocol error behind the bytes seen so far. An argument's CRLF is not let out before it has been checked,
    /// so the backend has never been given the whole of this request.
    Broken(Breach),
}

impl Body {
    /// The body of a request with `args` arguments to come.
    pub(super) fn new(args: u64) -> Self {
        Self { left: args, at: At::Length }
    }

    /// Reads on.
    #[inline]
    pub(super) fn advance(&mut self, input: &[u8], watch: Option<Show<'_>>) -> Flow {
        let at = match watch {
            None if self.at == At::Length => self.short(input),
            _ => 0,
        };
        match self.left {
            0 => Flow::Done(at),
            _ => self.read(input, at, watch),
        }
    }

    /// The length of the arguments that are whole and short, as most are: up to the first that is not.
    #[inline]
    fn short(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while self.left > 0
            && let Some(rest @ [b'$', ..]) = input.get(at..)
            && let Some(len) = short_string(rest)
        {
            self.left -= 1;
            at += len;
        }
        at
    }

    /// Reads on from `at`, whatever is there.
    fn read(&mut self, input: &[u8], mut at: usize, mut watch: Option<Show<'_>>) -> Flow {
        while self.left > 0 {
            let rest = input.get(at..).unwrap_or_default();
            match self.at {
                At::Length => {
                    let (length, len) = match bulk_length(rest) {
                        Ok(Some(found)) => found,
                        Ok(None) => return Flow::Partial(at),
                        Err(breach) => return Flow::Broken(breach),
                    };
                    if let Some(show) = watch.as_mut() {
                        match word(rest) {
                            Word::Partial => return Flow::Partial(at),
                            Word::Whole { word, .. } => show(Some(word)),
                            Word::Long | Word::Broken(_) => show(None),
                        }
                    }
                    self.at = At::Data(length);
                    at += len;
                }
                At::Data(length) => {
                    let whole = usize::try_from(length).unwrap_or(usize::MAX);
                    if rest.len() <= whole {
                        self.at = At::Data(length - rest.len() as u64);
                        return Flow::Partial(input.len());
                    }
                    match rest.get(whole..) {
                        Some([b'\r', b'\n', ..]) => {
                            self.at = At::Length;
                            self.left -= 1;
                            at += whole + 2;
                        }
                        Some([b'\r']) => {
                            self.at = At::Data(0);
                            return Flow::Partial(at + whole);
                        }
                        _ => return Flow::Broken(Breach::BulkEnd),
                    }
                }
            }
        }
        Flow::Done(at)
    }
}

/// A short bulk string, whole.
enum Word<'a> {
    Partial,
    Whole { word: &'a [u8], len: usize },
    Long,
    Broken(Breach),
}

fn word(input: &[u8]) -> Word<'_> {
    let (length, at) = match bulk_length(input) {
        Ok(None) => return Word::Partial,
        Ok(Some(found)) => found,
        Err(breach) => return Word::Broken(breach),
    };
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= WORD_MAX) else {
        return Word::Long;
    };
    match (input.get(at..at + length), input.get(at + length..at + length + 2)) {
        (Some(word), Some(b"\r\n")) => Word::Whole { word, len: at + length + 2 },
        (Some(_), Some(_)) => Word::Broken(Breach::BulkEnd),
        _ => Word::Partial,
    }
}

/// `$<length>\r\n`: the length and how many bytes the header takes.
#[inline]
fn bulk_length(input: &[u8]) -> Result<Option<(u64, usize)>, Breach> {
    match input.first() {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => return Err(Breach::ExpectedBulk(*other)),
    }
    match number(input) {
        Number::Partial => Ok(None),
        Number::Good { value, len } if value <= BULK_MAX => match u64::try_from(value) {
            Ok(length) => Ok(Some((length, len))),
            Err(_) => Err(Breach::BulkLength),
        },
        Number::Good { .. } | Number::Bad => Err(Breach::BulkLength),
    }
}

/// Splits an inline request into words as `sdssplitargs` does; none if the quotes do not balance.
fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let mut words = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    loop {
        while bytes.next_if(blank).is_some() {}
        if bytes.peek().is_none() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match bytes.next() {
                // `sdssplitargs` ends a word at these only, so a vertical tab stays part of it.
                None | Some(b' ' | b'\t' | b'\n' | b'\r') => break,
                Some(quote @ (b'"' | b'\'')) => {
                    quoted(quote, &mut bytes, &mut word)?;
                    if bytes.peek().is_some_and(|next| !blank(next)) {
                        return None;
                    }
                    break;
                }
                Some(byte) => word.push(byte),
            }
        }
        words.push(word);
    }
}

/// The rest of a quoted word, its closing quote included.
fn quoted(
    quote: u8,
    bytes: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>,
    word: &mut Vec<u8>,
) -> Option<()> {
    loop {
        match bytes.next()? {
            byte if byte == quote => return Some(()),
            b'\\' if quote == b'\'' => word.push(bytes.next_if_eq(&b'\'').unwrap_or(b'\\')),
            b'\\' => {
                let mut ahead = bytes.clone();
                let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
                if ahead.next() == Some(b'x')
                    && let (Some(high), Some(low)) = (hex(ahead.next()), hex(ahead.next()))
                {
                    *bytes = ahead;
                    word.push((high * 16 + low) as u8);
                    continue;
                }
                word.push(match bytes.next()? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
            }
            byte => word.push(byte),
        }
    }
}
