//! A raw client: says exactly the bytes it is told, and checks exactly the bytes it gets, with a deadline.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::until::PATIENCE;

/// A byte stream to a server, TCP or unix.
pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One Redis reply, as far as tests look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A line without its type: simple strings, errors, integers and the other one-line types, by type byte.
    Line(u8, String),
    /// A bulk string, or another type of the same shape.
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`.
    Null,
    /// An array, set, push or map (keys and values in turn), by type byte.
    Many(u8, Vec<Reply>),
}

impl Reply {
    /// The text of an error reply.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn error(&self) -> &str {
        match self {
            Self::Line(b'-', text) => text,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// `+text`.
    pub fn simple(text: &str) -> Self {
        Self::Line(b'+', text.to_owned())
    }

    /// `:n`.
    pub fn int(n: i64) -> Self {
        Self::Line(b':', n.to_string())
    }

    /// A bulk string.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }
}

/// A Redis command as an array of bulk strings.
pub fn command(args: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    out
}

impl Client {
    /// Connects by TCP.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    /// Connects by TCP, or says why not.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Tcp(stream), buffer: Vec::new(), start: 0 })
    }

    /// Connects to a unix socket.
    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        Self { stream: Stream::Unix(stream), buffer: Vec::new(), start: 0 }
    }

    /// Waits so long for anything to come, where [`PATIENCE`] is not enough for what the server has to do.
    pub fn be_patient_for(&self, patience: Duration) {
        let result = match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)),
        };
        result.expect("a read timeout");
    }

    /// Another handle on the same connection, to write while this one reads. It starts without what this one has
    /// already read.
    pub fn duplicate(&self) -> Self {
        let stream = match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().expect("a second handle")),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().expect("a second handle")),
        };
        Self { stream, buffer: Vec::new(), start: 0 }
    }

    /// Writes all of `bytes`.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Writes all of `bytes`, or says why not.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Sends a Redis command.
    #[track_caller]
    pub fn command(&mut self, args: &[&str]) {
        self.send(&command(args));
    }

    /// Sends a Redis command and reads its reply.
    #[track_caller]
    pub fn call(&mut self, args: &[&str]) -> Reply {
        self.command(args);
        self.reply()
    }

    /// Reads exactly these bytes.
    #[track_caller]
    pub fn expect(&mut self, wanted: &[u8]) {
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            match self.some() {
                Ok([]) => panic!("end of stream after {}", Text(&got)),
                Ok(bytes) => {
                    let n = bytes.len().min(wanted.len() - got.len());
                    got.extend_from_slice(&bytes[..n]);
                    self.start += n;
                }
                Err(error) => panic!("{error} after {}, expected {}", Text(&got), Text(wanted)),
            }
            assert!(wanted.starts_with(&got), "expected {}, got {}", Text(wanted), Text(&got));
        }
    }

    /// Reads a line, without its end. Empty at the end of the stream.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let bytes = self.some().unwrap_or_else(|error| panic!("{error} after {}", Text(&line)));
            if bytes.is_empty() {
                return String::from_utf8_lossy(&line).into_owned();
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let n = end.map_or(bytes.len(), |end| end + 1);
            line.extend_from_slice(&bytes[..n]);
            self.start += n;
            if end.is_some() {
                let text = String::from_utf8_lossy(&line);
                return text.trim_end_matches(['\r', '\n']).to_owned();
            }
        }
    }

    /// Reads one byte; none at the end of the stream or after a reset.
    #[track_caller]
    pub fn try_byte(&mut self) -> Option<u8> {
        match self.some() {
            Ok(bytes) => {
                let byte = bytes.first().copied();
                self.start += usize::from(byte.is_some());
                byte
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads exactly `n` bytes.
    #[track_caller]
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(n.min(1 << 20));
        self.stream_out(n as u64, |piece| out.extend_from_slice(piece));
        out
    }

    /// Reads exactly `n` bytes and hands them on piece by piece.
    #[track_caller]
    pub fn stream_out(&mut self, n: u64, mut piece: impl FnMut(&[u8])) {
        let mut left = n;
        while left > 0 {
            let bytes = self.some().unwrap_or_else(|error| panic!("{error}, {left} bytes early"));
            assert!(!bytes.is_empty(), "end of stream {left} bytes early");
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            piece(&bytes[..take]);
            self.start += take;
            left -= take as u64;
        }
    }

    /// Reads one Redis reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        let line = self.line();
        assert!(!line.is_empty(), "end of stream instead of a reply");
        let (kind, rest) = (line.as_bytes()[0], line[1..].to_owned());
        match kind {
            b'$' | b'=' | b'!' => match rest.parse::<usize>() {
                Ok(n) => {
                    let bytes = self.bytes(n);
                    self.expect(b"\r\n");
                    Reply::Bulk(bytes)
                }
                Err(_) => Reply::Null,
            },
            b'_' => Reply::Null,
            b'*' | b'~' | b'>' | b'%' => match rest.parse::<usize>() {
                Ok(n) => {
                    let n = if kind == b'%' { 2 * n } else { n };
                    Reply::Many(kind, (0..n).map(|_| self.reply()).collect())
                }
                Err(_) => Reply::Null,
            },
            _ => Reply::Line(kind, rest),
        }
    }

    /// Expects the other side to end the connection, having sent nothing more.
    #[track_caller]
    pub fn eof(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "expected the end of the stream, got {}", Text(&rest));
    }

    /// Everything up to the end of the connection. A reset ends it too.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.some() {
                Ok([]) => return all,
                Ok(bytes) => {
                    all.extend_from_slice(bytes);
                    self.start = self.buffer.len();
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("{error} instead of the end of the stream, after {}", Text(&all)),
            }
        }
    }

    /// Whether anything, or the end, can be read right now.
    pub fn readable(&mut self) -> bool {
        if self.start < self.buffer.len() {
            return true;
        }
        let Stream::Tcp(stream) = &self.stream else { return false };
        stream.set_nonblocking(true).expect("non-blocking mode");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("blocking mode");
        !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Closes the sending side only.
    pub fn half_close(&mut self) {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).expect("a connected socket"),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).expect("a connected socket"),
        }
    }

    /// The client's own address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// Drops the connection with a reset instead of an orderly end.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
        }
    }

    /// Unread bytes, at least one; empty at the end of the stream.
    fn some(&mut self) -> io::Result<&[u8]> {
        if self.start == self.buffer.len() {
            self.buffer.resize(64 * 1024, 0);
            let read = loop {
                let read = match &mut self.stream {
                    Stream::Tcp(stream) => stream.read(&mut self.buffer),
                    Stream::Unix(stream) => stream.read(&mut self.buffer),
                };
                match read {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            self.start = 0;
            read?;
        }
        Ok(&self.buffer[self.start..])
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("unread", &Text(&self.buffer[self.start..])).finish_non_exhaustive()
    }
}

/// Bytes as readable text, shortened.
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(300)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
