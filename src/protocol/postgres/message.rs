//! The one thing that all messages after the first share: a tag byte, a length, a body.
//!
//! The reader looks at five bytes and no further, so a 1 GiB row streams through in constant memory.
//! `postgres_protocol`'s own `Message::parse` wants whole messages, fails on `K` with a 32-byte key, on `v`, `W`
//! and `V`, and waits for 4 GiB on a length of -1; it serves as the oracle in the tests instead.

/// Bytes of a tag and a length.
pub(super) const HEADER: usize = 5;

/// The largest length word of `Q P B F d`: the server's own `PQ_LARGE_MESSAGE_LIMIT`.
const LARGE: u32 = 0x3fff_fffe;
/// The largest length word of every other message of a client: the server's own `PQ_SMALL_MESSAGE_LIMIT`.
const SMALL: u32 = 10_000;
/// The largest length word of `p`: a GSS token; passwords and SASL answers are shorter.
const SECRET: u32 = 65_540;
/// The largest length word of what a server sends, apart from rows, texts and COPY data.
const MODEST: u32 = 1 << 20;
/// The length words of rows and COPY data.
const ROW: std::ops::RangeInclusive<u32> = 4..=i32::MAX as u32;
/// Above it an `E` during startup is no message at all, but the bare text of a postmaster that could not fork:
/// libpq draws the line at the same place.
pub(super) const STARTUP_ERROR_MAX: usize = 30_000;

/// A tag and the length word behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tag: u8,
    len: u32,
}

/// Why a server's header cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// A tag that no version of the protocol that we know has.
    Unknown,
    /// A known tag with a length that it cannot have.
    Broken,
}

impl Header {
    /// Reads the first five bytes; none while there are fewer.
    #[inline]
    pub(super) fn read(input: &[u8]) -> Option<Self> {
        match *input {
            [tag, a, b, c, d, ..] => Some(Self { tag, len: u32::from_be_bytes([a, b, c, d]) }),
            _ => None,
        }
    }

    /// The body's length in a client's message; none when the length word is out of its bounds.
    #[inline]
    pub(super) fn client_body(self) -> Option<usize> {
        let max = match self.tag {
            b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => SMALL,
            b'p' => SECRET,
            _ => LARGE,
        };
        if (4..=max).contains(&self.len) { Some(self.len as usize - 4) } else { None }
    }

    /// The body's length in a server's message.
    #[inline]
    pub(super) fn server_body(self) -> Result<usize, Framing> {
        let (min, max) = match self.tag {
            b'D' | b'T' | b'd' | b'E' | b'N' | b'A' | b'V' => (4, i32::MAX as u32),
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => (4, 4),
            b'Z' => (5, 5),
            b'R' => (8, MODEST),
            b'C' | b'S' | b't' | b'K' | b'G' | b'H' | b'W' | b'v' => (4, MODEST),
            _ => return Err(Framing::Unknown),
        };
        if (min..=max).contains(&self.len) { Ok(self.len as usize - 4) } else { Err(Framing::Broken) }
    }
}

/// The bytes at the start of `input` that are whole messages with this tag, whose length has no bound of its own: rows and
/// COPY data come by the thousand.
#[inline]
pub(super) fn run_of(tag: u8, input: &[u8]) -> usize {
    let mut run = 0;
    while let Some(header) = input.get(run..).and_then(Header::read) {
        // The length word counts itself, not the tag.
        let end = run + 1 + header.len as usize;
        if header.tag != tag || !ROW.contains(&header.len) || end > input.len() {
            break;
        }
        run = end;
    }
    run
}

/// A message whose header has been read, with as much of its body as there is.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) tag: u8,
    /// The body's length when whole.
    pub(super) len: usize,
    pub(super) body: &'a [u8],
    /// The message and everything behind it.
    pub(super) rest: &'a [u8],
}

impl<'a> Message<'a> {
    #[inline]
    pub(super) fn new(tag: u8, len: usize, rest: &'a [u8]) -> Self {
        let body = rest.get(HEADER..).unwrap_or_default();
        Self { tag, len, body: body.get(..len).unwrap_or(body), rest }
    }

    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.body.len() == self.len
    }
}
