//! A raw Postgres client: sends the messages it is told to and shows every message that comes back.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::wire::Client;

/// A Postgres connection, message by message.
#[derive(Debug)]
pub struct Pg {
    /// The byte stream below, for what has no method here.
    pub raw: Client,
    /// Process id and secret of BackendKeyData, for a CancelRequest.
    pub key: Vec<u8>,
}

/// One message: its tag and its body.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// `Z`, `E`, `D`, ...
    pub tag: u8,
    /// Without tag and length.
    pub body: Vec<u8>,
}

/// The fields of an ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgError {
    /// `ERROR` or `FATAL` (field V, else S).
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The detail, or empty.
    pub detail: String,
    /// The hint, or empty.
    pub hint: String,
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} / {} / {}", self.severity, self.code, self.message, self.detail, self.hint)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.tag as char, crate::wire::Text(&self.body))
    }
}

impl Message {
    /// The fields of an error or notice.
    ///
    /// # Panics
    /// If it is neither.
    #[track_caller]
    pub fn error(&self) -> PgError {
        assert!(matches!(self.tag, b'E' | b'N'), "expected an error, got {self:?}");
        let fields: BTreeMap<u8, String> = self
            .body
            .split(|byte| *byte == 0)
            .filter(|field| !field.is_empty())
            .map(|field| (field[0], String::from_utf8_lossy(&field[1..]).into_owned()))
            .collect();
        let get = |tag: u8| fields.get(&tag).cloned().unwrap_or_default();
        let severity = if fields.contains_key(&b'V') { get(b'V') } else { get(b'S') };
        PgError { severity, code: get(b'C'), message: get(b'M'), detail: get(b'D'), hint: get(b'H') }
    }
}

/// A message as bytes.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// A simple Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

/// Parse of a statement name and its SQL.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Bind of the unnamed portal to a statement without parameters.
pub fn bind(statement: &str) -> Vec<u8> {
    message(b'B', format!("\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

/// Execute of the unnamed portal.
pub fn execute() -> Vec<u8> {
    message(b'E', b"\0\0\0\0\0")
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// A startup packet for protocol 3.0.
pub fn startup_packet(user: &str, database: &str) -> Vec<u8> {
    let body = format!("user\0{user}\0database\0{database}\0application_name\0fusewire tests\0\0");
    let mut out = (body.len() as u32 + 8).to_be_bytes().to_vec();
    out.extend_from_slice(&196_608_u32.to_be_bytes());
    out.extend_from_slice(body.as_bytes());
    out
}

/// The eight bytes of an SSLRequest.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The eight bytes of a GSSENCRequest.
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// What a server without authentication says up to its first ReadyForQuery: for fake servers.
pub fn greeting() -> Vec<u8> {
    let mut out = message(b'R', &0_u32.to_be_bytes());
    out.extend(message(b'S', b"server_version\x0015.0\0"));
    out.extend(message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]));
    out.extend(message(b'Z', b"I"));
    out
}

/// What a server says to a query that selects nothing: for fake servers.
pub fn done() -> Vec<u8> {
    let mut out = message(b'C', b"SELECT 0\0");
    out.extend(message(b'Z', b"I"));
    out
}

impl Pg {
    /// Connects without a word.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self { raw: Client::connect(addr), key: Vec::new() }
    }

    /// Connects without a word, or says why not.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { raw: Client::try_connect(addr)?, key: Vec::new() })
    }

    /// Connects to a unix socket without a word.
    pub fn unix(path: &Path) -> Self {
        Self { raw: Client::unix(path), key: Vec::new() }
    }

    /// Connects and starts a session as `postgres`.
    #[track_caller]
    pub fn session(addr: SocketAddr) -> Self {
        let mut pg = Self::connect(addr);
        pg.startup("postgres", "postgres").unwrap_or_else(|error| panic!("startup refused: {error}"));
        pg
    }

    /// Sends a startup packet and reads up to ReadyForQuery.
    ///
    /// # Errors
    /// The server's error, or one with code `EOF` if the connection ended without one.
    pub fn startup(&mut self, user: &str, database: &str) -> Result<(), PgError> {
        if let Err(error) = self.raw.try_send(&startup_packet(user, database)) {
            return Err(end_of_stream(&error.to_string()));
        }
        loop {
            let Some(message) = self.receive() else { return Err(end_of_stream("during startup")) };
            match message.tag {
                b'E' => return Err(message.error()),
                b'K' => self.key = message.body,
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Starts a session that must be refused, and returns the error; the connection must end after it.
    #[track_caller]
    pub fn refused(addr: SocketAddr) -> PgError {
        let mut pg = Self::connect(addr);
        match pg.startup("postgres", "postgres") {
            Ok(()) => panic!("the session was admitted"),
            Err(error) => {
                pg.raw.eof();
                error
            }
        }
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.raw.send(bytes);
    }

    /// The next message; none at the end of the stream.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Message> {
        let mut head = Vec::new();
        while head.len() < 5 {
            match self.raw.try_byte() {
                Some(byte) => head.push(byte),
                None if head.is_empty() => return None,
                None => panic!("end of stream inside a message head {head:?}"),
            }
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        Some(Message { tag: head[0], body: self.raw.bytes(length - 4) })
    }

    /// Every message up to and with the next ReadyForQuery, or up to the end of the stream.
    #[track_caller]
    pub fn until_ready(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(message) = self.receive() {
            let ready = message.tag == b'Z';
            all.push(message);
            if ready {
                break;
            }
        }
        all
    }

    /// Runs a simple query and returns every message up to ReadyForQuery.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&query(sql));
        self.until_ready()
    }

    /// Runs a query that must succeed; returns the first column of each row as text, and the status at the end.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> (Vec<String>, char) {
        let messages = self.query(sql);
        if let Some(error) = messages.iter().find(|message| message.tag == b'E') {
            panic!("{sql}: {}", error.error());
        }
        let rows = messages.iter().filter(|message| message.tag == b'D').map(|row| first_column(&row.body));
        (rows.collect(), status(&messages))
    }

    /// Runs a query that must fail; returns the error and the status at the end.
    #[track_caller]
    pub fn error(&mut self, sql: &str) -> (PgError, char) {
        let messages = self.query(sql);
        let error = messages.iter().find(|message| message.tag == b'E');
        let error = error.unwrap_or_else(|| panic!("{sql} did not fail: {messages:?}")).error();
        (error, status(&messages))
    }
}

/// The transaction status of the last ReadyForQuery, `?` if the stream ended without one.
pub fn status(messages: &[Message]) -> char {
    match messages.last() {
        Some(Message { tag: b'Z', body }) => body.first().map_or('?', |byte| *byte as char),
        _ => '?',
    }
}

/// The tags of messages, `1TDCZ`.
pub fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| message.tag as char).collect()
}

fn first_column(row: &[u8]) -> String {
    let length = row.get(2..6).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let value = length.and_then(|length| row.get(6..6 + usize::try_from(length).ok()?));
    value.map_or_else(|| "NULL".to_owned(), |value| String::from_utf8_lossy(value).into_owned())
}

fn end_of_stream(message: &str) -> PgError {
    let [severity, code, detail, hint] = ["", "EOF", "", ""].map(str::to_owned);
    PgError { severity, code, message: message.to_owned(), detail, hint }
}
