//! Redis clients that know each reply before it comes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::history::{History, Key, Promise};
use super::judge::{Figure, Judge};
use super::random::Random;
use crate::until::PATIENCE;
use crate::wire::{Reply, command};

/// Databases that are used.
pub const DATABASES: u64 = 4;
/// Users that are used: `u0` to `u2`, with passwords `p0` to `p2`, each with keys of its own.
pub const USERS: u64 = 3;
/// The password of the user `admin`, who may do everything.
pub const ADMIN: &str = "admin-password";

/// How an outage or a rejection begins; any other error is a broken promise.
const OUTAGES: &[&str] = &[
    "CIRCUITOPEN ",
    "LOADING ",
    "OOM ",
    "MISCONF ",
    "READONLY ",
    "MASTERDOWN ",
    "EXECABORT ",
    "UNBLOCKED ",
    "ERR fusewire: ",
    "ERR max number of clients reached",
    "ERR DISCARD without MULTI",
];

/// How the error ends that fusewire gives when a server kept silent.
const UNKNOWN: &str = "the outcome of the command is unknown";

/// The arguments that a Redis needs to know the users. The default user must have every right, behind a password that
/// nobody knows: Redis 7.0 checks the transactions in its append-only file against it when it loads them, and drops them.
pub fn users() -> Vec<String> {
    let mut args = Vec::new();
    for (name, password) in [("default", "unknown"), ("admin", ADMIN)] {
        args.extend(["--user", name, "on", &format!(">{password}"), "~*", "&*", "+@all"].map(str::to_owned));
    }
    for n in 0..USERS {
        args.extend(["--user".to_owned(), format!("u{n}"), "on".to_owned(), format!(">p{n}")]);
        args.extend([format!("~*:u{n}:*"), "~shared:*".to_owned(), "&*".to_owned(), "+@all".to_owned()]);
    }
    args
}

/// A connection that says why it failed instead of panicking.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The system's.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), start: 0 })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    /// The system's, or the end of the connection.
    pub fn call(&mut self, args: &[&str]) -> io::Result<Reply> {
        self.send(&command(args))?;
        self.reply()
    }

    /// Reads one RESP2 reply.
    ///
    /// # Errors
    /// The system's, or the end of the connection.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or(ErrorKind::InvalidData)?;
        let length = || rest.parse::<i64>().map_err(|_| io::Error::other(format!("not a length: {rest}")));
        Ok(match kind.as_bytes()[0] {
            b'$' => match usize::try_from(length()?) {
                Err(_) => Reply::Null,
                Ok(n) => {
                    let mut bytes = self.take(n + 2)?;
                    bytes.truncate(n);
                    Reply::Bulk(bytes)
                }
            },
            b'*' => match usize::try_from(length()?) {
                Err(_) => Reply::Null,
                Ok(n) => Reply::Many(b'*', (0..n).map(|_| self.reply()).collect::<io::Result<_>>()?),
            },
            kind @ (b'+' | b'-' | b':') => Reply::Line(kind, rest.to_owned()),
            _ => return Err(io::Error::other(format!("not a reply: {line}"))),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer[self.start..].windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[self.start..self.start + at]).into_owned();
                self.start += at + 2;
                return Ok(line);
            }
            self.fill()?;
        }
    }

    fn take(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.start < n {
            self.fill()?;
        }
        let bytes = self.buffer[self.start..self.start + n].to_vec();
        self.start += n;
        Ok(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.buffer.extend_from_slice(&piece[..n]);
                    return Ok(());
                }
                // This process was stopped and goes on; nothing was lost.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One request, with what it means.
#[derive(Debug, Clone)]
enum Call {
    Auth(u64),
    Select(u64),
    Set { name: String, value: String },
    Get(String),
    Echo(String),
    Multi,
    Queued(Box<Call>),
    Exec(Vec<Call>),
    Wait,
}

impl Call {
    fn request(&self) -> Vec<u8> {
        match self {
            Self::Auth(user) => command(&["AUTH", &format!("u{user}"), &format!("p{user}")]),
            Self::Select(db) => command(&["SELECT", &db.to_string()]),
            Self::Set { name, value } => command(&["SET", name, value]),
            Self::Get(name) => command(&["GET", name]),
            Self::Echo(text) => command(&["ECHO", text]),
            Self::Multi => command(&["MULTI"]),
            Self::Queued(call) => call.request(),
            Self::Exec(_) => command(&["EXEC"]),
            Self::Wait => command(&["WAIT", "1", "200"]),
        }
    }
}

/// Optimistic increments of a key that all clients share, by database.
#[derive(Debug, Default)]
pub struct Shared {
    /// Acknowledged.
    pub acknowledged: [AtomicU64; DATABASES as usize],
    /// Of unknown outcome.
    pub maybe: [AtomicU64; DATABASES as usize],
}

/// Clients of one backend.
#[derive(Debug)]
pub struct RedisChecker {
    threads: Vec<JoinHandle<()>>,
    /// Of ended connections.
    pub histories: Arc<Mutex<Vec<History>>>,
    /// What all clients have in common.
    pub shared: Arc<Shared>,
    /// Replies seen that were no errors, for progress.
    pub replies: Arc<AtomicU64>,
}

impl RedisChecker {
    /// Starts so many clients of the backend at `addr`, each of which rests for `pace` between two batches.
    pub fn start(
        name: &str,
        addr: SocketAddr,
        clients: u64,
        pace: Duration,
        promise: Promise,
        judge: &Arc<Judge>,
        seed: u64,
    ) -> Self {
        let histories = Arc::<Mutex<Vec<History>>>::default();
        let (shared, replies) = (Arc::<Shared>::default(), Arc::<AtomicU64>::default());
        let threads = (0..clients).map(|id| {
            let mut client = Client {
                id: format!("{name}{id}"),
                addr,
                pace,
                promise,
                judge: judge.clone(),
                histories: histories.clone(),
                shared: shared.clone(),
                replies: replies.clone(),
                random: Random::new(seed ^ (id << 32)),
                generation: 0,
                n: 0,
            };
            thread::Builder::new().name(client.id.clone()).spawn(move || client.work()).expect("a thread")
        });
        Self { threads: threads.collect(), histories, shared, replies }
    }

    /// Awaits their end.
    pub fn join(&mut self) {
        self.threads.drain(..).for_each(|thread| thread.join().expect("a checker does not panic"));
    }
}

/// One client; its connections follow one another.
struct Client {
    id: String,
    addr: SocketAddr,
    pace: Duration,
    promise: Promise,
    judge: Arc<Judge>,
    histories: Arc<Mutex<Vec<History>>>,
    shared: Arc<Shared>,
    replies: Arc<AtomicU64>,
    random: Random,
    generation: u64,
    n: u64,
}

/// What a client knows of its present connection.
struct Session {
    connection: Connection,
    history: History,
    db: u64,
    user: u64,
    /// A change of user or database was refused: nothing may run from here on.
    doubtful: Option<String>,
    /// A MULTI was refused: its block may not run.
    refused: bool,
    /// Something was refused or the server is in trouble: no reason to hurry.
    troubled: bool,
}

impl Client {
    fn work(&mut self) {
        while !self.judge.is_over() {
            self.generation += 1;
            let history = match Connection::open(self.addr) {
                Ok(connection) => self.live(connection),
                Err(_) => History::default(),
            };
            self.judge.count(Figure::RedisBreaks, u64::from(!self.judge.is_over()));
            if !history.keys.is_empty() {
                self.histories.lock().expect("no panic elsewhere").push(history);
            }
            thread::sleep(Duration::from_millis(5 + self.random.below(20)));
        }
    }

    /// From the first word of a connection to its end.
    fn live(&mut self, connection: Connection) -> History {
        let (user, history) = (self.random.below(USERS), History::default());
        let mut session =
            Session { connection, history, db: 0, user, doubtful: None, refused: false, troubled: false };
        let mut calls = vec![Call::Auth(user), Call::Select(self.random.below(DATABASES))];
        // Not longer than so, so that a quiet time has ended connections to audit.
        let mut rounds = 50 + self.random.below(200);
        while !self.judge.is_over() && rounds > 0 {
            rounds -= 1;
            if session.doubtful.is_some() {
                // Goes on as if nothing had happened, until well after the breaker has closed.
                rounds = rounds.min(60);
            }
            let mut ended = self.run(&mut session, std::mem::take(&mut calls));
            if ended.is_ok() && session.doubtful.is_none() && self.random.below(8) == 0 {
                ended = self.increment(&mut session);
            }
            if let Err(error) = ended {
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                    self.judge.violation(format!("{}: no answer within {PATIENCE:?}", self.id));
                }
                break;
            }
            thread::sleep(self.pace);
            if std::mem::take(&mut session.troubled) {
                thread::sleep(Duration::from_millis(5 + self.random.below(20)));
            }
            calls = self.invent(&session);
        }
        session.history
    }

    /// A batch that is sent at once, by a client that trusts its server to have done what it was asked before.
    fn invent(&mut self, session: &Session) -> Vec<Call> {
        let (mut db, mut user) = (session.db, session.user);
        let mut calls = Vec::new();
        for _ in 0..1 + self.random.below(8) {
            let own = |what: &str| format!("{}:g{}:d{db}:u{user}:{what}", self.id, self.generation);
            self.n += 1;
            let n = self.n;
            match self.random.below(10) {
                0 => {
                    user = self.random.below(USERS);
                    calls.push(Call::Auth(user));
                }
                1 => {
                    db = self.random.below(DATABASES);
                    calls.push(Call::Select(db));
                }
                2..=4 => {
                    let name = own(["a", "b"][n as usize % 2]);
                    calls.push(Call::Set { value: format!("{name}={n}"), name });
                }
                5 | 6 => calls.push(Call::Get(own(["a", "b"][n as usize % 2]))),
                7 => calls.push(Call::Echo(format!("{}={n}", own("echo")))),
                _ => {
                    let value = format!("{n}");
                    let body =
                        ["left", "right"].map(|half| Call::Set { name: own(half), value: value.clone() });
                    calls.push(Call::Multi);
                    calls.extend(body.iter().cloned().map(|call| Call::Queued(Box::new(call))));
                    calls.push(Call::Exec(body.into()));
                }
            }
        }
        if self.promise == Promise::Replicated && self.random.below(3) == 0 {
            calls.push(Call::Wait);
        }
        calls
    }

    fn run(&self, session: &mut Session, calls: Vec<Call>) -> io::Result<()> {
        let bytes: Vec<u8> = calls.iter().flat_map(Call::request).collect();
        let mut waiting = calls.iter();
        let mut ended = session.connection.send(&bytes);
        if ended.is_ok() {
            for call in waiting.by_ref() {
                match session.connection.reply() {
                    Ok(reply) => self.check(session, call, &reply),
                    Err(error) => {
                        self.lost(session, call);
                        ended = Err(error);
                        break;
                    }
                }
            }
        }
        waiting.for_each(|call| self.lost(session, call));
        ended
    }

    /// A reply came.
    fn check(&self, session: &mut Session, call: &Call, reply: &Reply) {
        self.judge.count(Figure::RedisReplies, 1);
        if let Reply::Line(b'-', error) = reply {
            if !OUTAGES.iter().any(|outage| error.starts_with(outage)) {
                self.judge.violation(format!("{}: {call:?} was answered {error:?}", self.id));
            }
            self.judge.count(Figure::RedisErrors, 1);
            session.troubled = true;
            if error.ends_with(UNKNOWN) {
                return self.lost(session, call);
            }
            match call {
                Call::Auth(_) | Call::Select(_) if session.doubtful.is_none() => {
                    session.doubtful = Some(format!("{call:?}: {error}"));
                }
                Call::Multi => session.refused = true,
                Call::Exec(_) => session.refused = false,
                _ => {}
            }
            return;
        }
        if let Some(why) = &session.doubtful
            && !matches!(call, Call::Multi | Call::Queued(_))
        {
            self.judge.violation(format!("{}: {call:?} got {reply:?} though refused before: {why}", self.id));
        }
        self.replies.fetch_add(1, Ordering::Relaxed);
        let mut right = match call {
            Call::Exec(body) => match reply {
                Reply::Many(_, replies) => {
                    let ran = !session.refused && replies.len() == body.len();
                    body.iter().zip(replies).for_each(|(call, reply)| self.check(session, call, reply));
                    ran
                }
                _ => false,
            },
            Call::Queued(_) => *reply == Reply::simple("QUEUED"),
            Call::Echo(text) => *reply == Reply::bulk(text),
            Call::Wait => matches!(reply, Reply::Line(b':', _)),
            Call::Get(name) => {
                let now = session.history.keys.get(name).and_then(|key| key.now.clone());
                *reply == now.map_or(Reply::Null, Reply::bulk)
            }
            Call::Auth(_) | Call::Select(_) | Call::Set { .. } | Call::Multi => *reply == Reply::simple("OK"),
        };
        match call {
            Call::Auth(user) => session.user = *user,
            Call::Select(db) => session.db = *db,
            Call::Set { name, value } => {
                self.judge.count(Figure::RedisWrites, 1);
                key(&mut session.history.keys, name).acknowledged(self.promise, value);
            }
            Call::Exec(_) => session.refused = false,
            Call::Wait if *reply != Reply::int(0) => {
                session.history.keys.values_mut().for_each(Key::confirmed);
            }
            _ => {}
        }
        if let Call::Get(name) = call {
            right &= name.contains(&format!(":d{}:u{}:", session.db, session.user));
        }
        if !right {
            let known = session.history.keys.get(match call {
                Call::Get(name) => name.as_str(),
                _ => "",
            });
            self.judge.violation(format!("{}: {call:?} got {reply:?}; known: {known:?}", self.id));
        }
    }

    /// No reply came.
    fn lost(&self, session: &mut Session, call: &Call) {
        match call {
            Call::Set { name, value } => key(&mut session.history.keys, name).maybe(value),
            Call::Exec(body) if !session.refused => body.iter().for_each(|call| self.lost(session, call)),
            _ => {}
        }
    }

    /// WATCH, GET, and a transaction that must fail if somebody else was faster.
    fn increment(&self, session: &mut Session) -> io::Result<()> {
        let db = session.db as usize;
        let name = format!("shared:d{db}:counter");
        let connection = &mut session.connection;
        if connection.call(&["WATCH", &name])? != Reply::simple("OK") {
            session.troubled = true;
            return Ok(());
        }
        let old: u64 = match connection.call(&["GET", &name])? {
            Reply::Null => 0,
            Reply::Bulk(text) => match String::from_utf8_lossy(&text).parse() {
                Ok(old) => old,
                Err(_) => {
                    self.judge.violation(format!("{}: {name} is no number", self.id));
                    0
                }
            },
            _ => {
                session.troubled = true;
                return connection.call(&["UNWATCH"]).map(drop);
            }
        };
        let new = (old + 1).to_string();
        connection
            .send(&[command(&["MULTI"]), command(&["SET", &name, &new]), command(&["EXEC"])].concat())?;
        let replies = (0..3).map(|_| connection.reply()).collect::<io::Result<Vec<_>>>();
        match replies {
            Err(error) => {
                self.shared.maybe[db].fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
            Ok(replies) => {
                self.judge.count(Figure::RedisReplies, 3);
                match &replies[2] {
                    Reply::Many(_, ran) if *ran == [Reply::simple("OK")] => {
                        self.judge.count(Figure::RedisWrites, 1);
                        self.shared.acknowledged[db].fetch_add(1, Ordering::Relaxed);
                    }
                    Reply::Null => {}
                    Reply::Line(b'-', error) if error.ends_with(UNKNOWN) => {
                        self.shared.maybe[db].fetch_add(1, Ordering::Relaxed);
                    }
                    Reply::Line(b'-', error) if OUTAGES.iter().any(|outage| error.starts_with(outage)) => {
                        session.troubled = true;
                    }
                    other => {
                        self.judge.violation(format!("{}: a watched transaction got {other:?}", self.id))
                    }
                }
                Ok(())
            }
        }
    }
}

fn key<'a>(keys: &'a mut BTreeMap<String, Key>, name: &str) -> &'a mut Key {
    let db = name.split(":d").nth(1).and_then(|rest| rest.split(':').next()).and_then(|db| db.parse().ok());
    keys.entry(name.to_owned())
        .or_insert_with(|| Key { db: db.expect("a name with a database"), ..Key::default() })
}
