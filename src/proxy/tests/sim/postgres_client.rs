//! Postgres clients, and what each answer may be.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::Figures;
use super::judge::Context;
use super::postgres_server::{message, serve, take, texts};
use super::random::Random;
use super::redis_server::value;
use super::world::{World, history};
use crate::config::args::Inputs;
use crate::protocol::postgres::Session;
use crate::proxy::service::Sessions;
use crate::proxy::socket::Socket;

/// Longer than all faults together.
const HANG: Duration = Duration::from_secs(400_000);

pub(super) fn run(seed: u64) -> Result<Figures, String> {
    let inputs = |spec: &str| Inputs { postgres: vec![spec.to_owned()], ..Inputs::default() };
    history(seed, inputs, serve, client, |world, random| async move {
        let Some(mut talk) = Talk::begin(&world, random).await else { return false };
        let unit = talk.insert();
        matches!(talk.carry_out(vec![unit]).await, Ok(true))
    })
}

fn session(world: &World) -> Session {
    let Sessions::Postgres(settings) = &world.service.sessions else { panic!("a Postgres backend") };
    Session::new(world.gate.lane(1), settings.clone())
}

/// One query, or an extended run up to its Sync.
#[derive(Debug)]
struct Unit {
    bytes: Vec<u8>,
    token: Option<u64>,
    /// The tag that it completes with.
    tag: String,
    rows: Vec<u8>,
    /// What to send when the server asks for data.
    data: Vec<u8>,
}

/// The connection is over.
struct Over;

struct Talk {
    world: Rc<World>,
    socket: Socket,
    random: Random,
    buffer: Vec<u8>,
    place: u64,
    /// The place before the last SET.
    before: u64,
    status: u8,
    block: Option<u64>,
    /// The tokens of the open transaction.
    parts: Vec<u64>,
    statements: BTreeMap<&'static str, u64>,
    /// It does not look at what became of its BEGIN.
    careless: bool,
    /// Its BEGIN was refused, and it goes on as if it stood in a transaction.
    doomed: bool,
}

impl Talk {
    /// Connects and starts a session.
    async fn begin(world: &Rc<World>, mut random: Random) -> Option<Self> {
        let mut socket = world.connect(session(world));
        if random.chance(40) {
            socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.ok()?;
            let answer = socket.read_u8().await.ok()?;
            if answer != b'N' {
                world.object(format!("{answer} answers a request for encryption"));
            }
        }
        let careless = random.chance(30);
        let mut talk = Self {
            world: world.clone(),
            socket,
            random,
            buffer: Vec::new(),
            place: 0,
            before: 0,
            status: b'I',
            block: None,
            parts: Vec::new(),
            statements: BTreeMap::new(),
            careless,
            doomed: false,
        };
        let mut startup = vec![0, 3, 0, 0];
        startup.extend_from_slice(b"user\0sim\0\0");
        let mut bytes = (startup.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend(startup);
        talk.write(&bytes).await.ok()?;
        loop {
            match talk.read().await.ok()? {
                (b'Z', _) => return Some(talk),
                (b'E', body) => {
                    talk.last_words(&body).await;
                    return None;
                }
                (b'R' | b'S' | b'K' | b'N', _) => {}
                (tag, _) => talk.object(format!("{:?} in a startup", tag as char)),
            }
        }
    }

    fn object(&self, what: String) {
        self.world.object(what);
    }

    /// Writes in pieces. That it fails says nothing: the reading side knows why.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = self.random.pick(&[1, 6, 500, usize::MAX]).min(rest.len());
            if self.socket.write_all(&rest[..size]).await.is_err() {
                return Ok(());
            }
            rest = &rest[size..];
            if self.random.chance(8) {
                sleep(Duration::from_millis(self.random.pick(&[1, 20, 400]))).await;
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(u8, Vec<u8>), Over> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = take(&mut self.buffer) {
                return Ok(message);
            }
            match timeout(HANG, self.socket.read(&mut chunk)).await {
                Ok(Ok(n)) if n > 0 => self.buffer.extend_from_slice(&chunk[..n]),
                Ok(_) => return Err(Over),
                Err(_) => {
                    self.object("a client hangs".to_owned());
                    return Err(Over);
                }
            }
        }
    }

    /// A FATAL error: nothing may follow it.
    async fn last_words(&mut self, body: &[u8]) {
        let code = field(body, 'C');
        if !["57P03", "08006", "57P01", "57000", "53300"].contains(&code.as_str()) {
            self.object(format!("FATAL {code}"));
        }
        if let Ok((tag, _)) = self.read().await {
            self.object(format!("{:?} after the last word", tag as char));
        }
    }

    fn token(&mut self, version: u64) -> u64 {
        let mut judge = self.world.judge.borrow_mut();
        let token = judge.token();
        let context = Context { place: self.place, user: version, block: self.block.is_some() };
        judge.asks(token, context, self.block);
        if self.block.is_some() {
            self.parts.push(token);
        }
        token
    }

    fn query(&self, sql: &str, tag: &str) -> Unit {
        let bytes = message(b'Q', format!("{sql}\0").as_bytes());
        Unit { bytes, token: None, tag: tag.to_owned(), rows: Vec::new(), data: Vec::new() }
    }

    fn insert(&mut self) -> Unit {
        let token = self.token(0);
        Unit { token: Some(token), ..self.query(&format!("INSERT {token}"), &format!("DONE {token}")) }
    }

    fn select(&mut self) -> Unit {
        let (token, size) = (self.token(0), self.random.pick(&[0, 10, 3000]));
        let query = self.query(&format!("SELECT {token} {size}"), &format!("DONE {token}"));
        Unit { token: Some(token), rows: value(token, size), ..query }
    }

    fn copy(&mut self) -> Unit {
        let (token, size) = (self.token(0), self.random.pick(&[0, 10, 3000]));
        let fails = self.random.chance(20);
        let mut data = Vec::new();
        for piece in value(token, size).chunks(700) {
            data.extend(message(b'd', piece));
        }
        data.extend(if fails { message(b'f', b"no\0") } else { message(b'c', b"") });
        Unit {
            token: Some(token),
            data,
            ..self.query(&format!("COPY {token} FROM STDIN"), &format!("DONE {token}"))
        }
    }

    /// Extended runs, pipelined; a statement may be prepared in one and used in another.
    fn extended(&mut self) -> Vec<Unit> {
        let mut units = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            let name = self.random.pick(&["", "a", "b"]);
            let mut unit = self.query("", "");
            unit.bytes.clear();
            if !self.statements.contains_key(name) || self.random.chance(50) {
                let version = self.world.judge.borrow_mut().token();
                self.statements.insert(name, version);
                let body = format!("{name}\0INSERTV {version}\0\0\0");
                unit.bytes.extend(message(b'P', body.as_bytes()));
            }
            if self.random.chance(75) {
                let token = self.token(self.statements[name]);
                unit.bytes.extend(message(b'B', format!("{token}\0{name}\0\0\0\0\0\0\0").as_bytes()));
                unit.bytes.extend(message(b'E', format!("{token}\0\0\0\0\0").as_bytes()));
                (unit.token, unit.tag) = (Some(token), format!("DONE {token}"));
            }
            unit.bytes.extend(message(b'S', b""));
            units.push(unit);
        }
        units
    }

    fn next(&mut self) -> Vec<Unit> {
        if self.doomed {
            return match self.random.below(6) {
                0 => vec![self.query("COMMIT", "COMMIT")],
                1 => vec![self.query("ROLLBACK", "ROLLBACK")],
                2 => vec![self.select()],
                3 => self.extended(),
                _ => vec![self.insert()],
            };
        }
        match (self.status, self.random.below(12)) {
            (b'E', 0..=8) => vec![self.query("ROLLBACK", "ROLLBACK")],
            (b'T', 0 | 1) => vec![self.query("COMMIT", "COMMIT")],
            (b'T', 2) => vec![self.query("ROLLBACK", "ROLLBACK")],
            (b'I', 0 | 1) => {
                self.block = Some(self.world.judge.borrow_mut().token());
                vec![self.query("BEGIN", "BEGIN")]
            }
            (b'I', 2 | 3) => {
                self.before = self.place;
                self.place = self.random.below(5);
                vec![self.query(&format!("SET place TO {}", self.place), "SET")]
            }
            (_, 4 | 5) => vec![self.insert()],
            (_, 6) => vec![self.select()],
            (_, 7) => vec![self.copy()],
            (_, 8) => vec![self.query("NONSENSE", "")],
            (b'I', 9) => vec![self.insert(), self.select(), self.insert()],
            _ => self.extended(),
        }
    }

    /// Sends units in one go, then reads what becomes of them. Says whether all were done.
    async fn carry_out(&mut self, units: Vec<Unit>) -> Result<bool, Over> {
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.bytes.clone()).collect();
        self.write(&bytes).await?;
        let mut all = true;
        for unit in units {
            all &= self.answer(unit).await?;
        }
        Ok(all)
    }

    async fn answer(&mut self, mut unit: Unit) -> Result<bool, Over> {
        let (mut done, mut rows, mut failed) = (unit.tag.is_empty(), Vec::new(), None);
        loop {
            match self.read().await? {
                (b'N' | b'S' | b'1' | b'2', _) => {}
                (b'D', body) => rows.extend(body),
                (b'G', _) => {
                    let data = std::mem::take(&mut unit.data);
                    if data.is_empty() {
                        self.object(format!("{unit:?} is asked for data"));
                        return Err(Over);
                    }
                    self.write(&data).await?;
                }
                (b'C', body) => {
                    let tag = texts(&body).swap_remove(0);
                    if tag == "ROLLBACK" && unit.tag == "COMMIT" {
                        failed = Some(tag);
                    } else if tag != unit.tag || rows != unit.rows {
                        self.object(format!("{tag} instead of {unit:?}"));
                    }
                    done = true;
                }
                (b'E', body) if field(&body, 'V') == "FATAL" => {
                    if field(&body, 'C') == "57000" {
                        if self.status != b'I' {
                            self.object("refused inside a transaction".to_owned());
                        }
                        unit.token
                            .into_iter()
                            .for_each(|token| self.world.judge.borrow_mut().told_refused(token));
                    }
                    self.last_words(&body).await;
                    return Err(Over);
                }
                (b'E', body) => failed = Some(field(&body, 'C')),
                (b'Z', body) => {
                    self.judge(&unit, failed.as_deref(), done, body[0]);
                    return Ok(failed.is_none() && done);
                }
                (tag, _) => self.object(format!("{:?} answers {unit:?}", tag as char)),
            }
        }
    }

    /// A unit has ended with this status.
    fn judge(&mut self, unit: &Unit, failed: Option<&str>, done: bool, status: u8) {
        let before = std::mem::replace(&mut self.status, status);
        let known = ["42601", "25P02", "53200", "26000", "57014", "57000", "ROLLBACK"];
        if let Some(code) = failed.filter(|code| !known.contains(code)) {
            self.object(format!("ERROR {code}"));
        }
        if failed.is_none() && !done {
            self.object(format!("{unit:?} ended without a result"));
        }
        if failed == Some("57000") && (before != b'I' || status != b'I') {
            self.object(format!("refused in status {} with {}", before as char, status as char));
        }
        if unit.tag == "SET" && failed.is_some() {
            if failed == Some("57000") {
                self.object("a session goes on whose SET was refused".to_owned());
            }
            self.place = self.before;
        }
        let mut judge = self.world.judge.borrow_mut();
        match (unit.token, failed, self.block) {
            (Some(token), Some(_), _) => {
                judge.told_refused(token);
                self.block.into_iter().for_each(|block| judge.forbid(block));
            }
            (Some(token), None, None) => judge.told_done(token),
            _ => {}
        }
        self.doomed = match unit.tag.as_str() {
            "BEGIN" => self.careless && failed == Some("57000"),
            "COMMIT" | "ROLLBACK" => false,
            _ => self.doomed,
        };
        if status == b'I'
            && !self.doomed
            && let Some(block) = self.block.take()
        {
            let committed = unit.tag == "COMMIT" && failed.is_none();
            let parts = std::mem::take(&mut self.parts);
            match committed {
                true => parts.into_iter().for_each(|token| judge.told_done(token)),
                false => judge.forbid(block),
            }
        }
    }
}

fn field(body: &[u8], name: char) -> String {
    texts(body).iter().find_map(|text| text.strip_prefix(name)).unwrap_or_default().to_owned()
}

async fn client(world: Rc<World>, mut random: Random, _id: u64) {
    for _ in 0..random.between(1, 4) {
        if let Some(mut talk) = Talk::begin(&world, random.fork()).await {
            let mut whole = true;
            for _ in 0..random.between(0, 15) {
                let units = talk.next();
                let limit = Duration::from_millis(random.pick(&[30, 3000]));
                let vanishes = random.chance(4);
                let carried = talk.carry_out(units);
                let outcome = match vanishes {
                    true => timeout(limit, carried).await.unwrap_or(Err(Over)),
                    false => carried.await,
                };
                if outcome.is_err() {
                    // It may have stopped in the middle of a message.
                    whole = false;
                    break;
                }
                sleep(Duration::from_millis(random.pick(&[0, 0, 0, 5, 200, 1500]))).await;
            }
            let _ = match random.below(3) {
                _ if !whole => Ok(()),
                0 => talk.socket.write_all(&message(b'X', b"")).await,
                1 => talk.socket.shutdown().await,
                _ => Ok(()),
            };
        }
        sleep(Duration::from_millis(random.pick(&[0, 1, 100, 2000]))).await;
    }
}
