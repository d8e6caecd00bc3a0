//! A Postgres that keeps no tables but knows in what state of its session each statement ran.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::judge::Context;
use super::random::Random;
use super::redis_server::value;
use super::world::{Weather, World};
use crate::proxy::socket::Socket;

/// A message: its tag, its length, its body.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Takes one whole message off the front.
pub(super) fn take(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let len = u32::from_be_bytes(*buffer.get(1..)?.first_chunk()?) as usize;
    let body = buffer.get(5..len + 1)?.to_vec();
    let tag = buffer[0];
    buffer.drain(..=len);
    Some((tag, body))
}

/// Texts that end with a zero byte.
pub(super) fn texts(body: &[u8]) -> Vec<String> {
    body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Msim\0\0").as_bytes())
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

struct Server {
    place: u64,
    status: u8,
    /// What the open transaction has done.
    pending: Vec<(u64, Context)>,
    /// Versions of prepared statements.
    statements: BTreeMap<String, u64>,
    portal: Option<(u64, u64)>,
    skipping: bool,
    copy: Option<(u64, Vec<u8>)>,
}

/// One connection of the server.
pub(super) fn serve(world: Rc<World>, socket: Socket, random: Random) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let _ = talk(&world, socket, random).await;
    })
}

async fn talk(world: &World, mut socket: Socket, mut random: Random) -> std::io::Result<()> {
    let len = socket.read_u32().await? as usize;
    let mut startup = vec![0; len.saturating_sub(4).min(10_000)];
    socket.read_exact(&mut startup).await?;
    world.until_awake().await;
    if world.weather.get() == Weather::Loading {
        return socket.write_all(&error("FATAL", "57P03")).await;
    }
    let mut out = message(b'R', &[0, 0, 0, 0]);
    out.extend(message(b'S', b"server_version\x0015\0"));
    out.extend(message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
    out.extend(message(b'Z', b"I"));
    socket.write_all(&out).await?;
    let mut server = Server {
        place: 0,
        status: b'I',
        pending: Vec::new(),
        statements: BTreeMap::new(),
        portal: None,
        skipping: false,
        copy: None,
    };
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 4096]);
    loop {
        let n = socket.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..n]);
        let mut out = Vec::new();
        while let Some((tag, body)) = take(&mut buffer) {
            if random.chance(4) {
                world.until_awake().await;
                socket.write_all(&std::mem::take(&mut out)).await?;
                sleep(Duration::from_millis(random.pick(&[1, 50, 1900, 2500]))).await;
            }
            world.until_awake().await;
            if random.chance(5) {
                out.extend(message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhi\0\0"));
            }
            if tag == b'X' {
                return Ok(());
            }
            server.take(world, tag, &body, &mut out);
        }
        world.until_awake().await;
        socket.write_all(&out).await?;
    }
}

impl Server {
    fn take(&mut self, world: &World, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        if self.copy.is_some() {
            return self.copying(world, tag, body, out);
        }
        if self.skipping && tag != b'S' {
            return;
        }
        let broken = world.weather.get() == Weather::Loading;
        match tag {
            b'Q' => {
                let sql = texts(body).swap_remove(0);
                if let Err(code) = self.query(world, &sql, broken, out) {
                    self.fail(code, out);
                }
                if self.copy.is_none() {
                    out.extend(message(b'Z', &[self.status]));
                }
            }
            b'S' => {
                self.skipping = false;
                out.extend(message(b'Z', &[self.status]));
            }
            b'P' | b'B' | b'E' => {
                if let Err(code) = self.extended(world, tag, &texts(body), broken, out) {
                    self.skipping = true;
                    self.fail(code, out);
                }
            }
            _ => {}
        }
    }

    fn fail(&mut self, code: &str, out: &mut Vec<u8>) {
        out.extend(error("ERROR", code));
        if self.status == b'T' {
            self.status = b'E';
        }
    }

    fn query(
        &mut self,
        world: &World,
        sql: &str,
        broken: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let words: Vec<&str> = sql.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(0);
        match words[0] {
            "COMMIT" | "ROLLBACK" => {
                let commit = words[0] == "COMMIT" && self.status != b'E';
                let pending = std::mem::take(&mut self.pending);
                if commit {
                    let mut judge = world.judge.borrow_mut();
                    pending.into_iter().for_each(|(token, context)| judge.runs(token, context));
                }
                self.status = b'I';
                out.extend(complete(if commit { "COMMIT" } else { "ROLLBACK" }));
            }
            _ if self.status == b'E' => return Err("25P02"),
            _ if broken => return Err("53200"),
            "BEGIN" => {
                self.status = b'T';
                out.extend(complete("BEGIN"));
            }
            "SET" => {
                self.place = number(3);
                out.extend(complete("SET"));
            }
            "SELECT" => {
                self.run(world, number(1), 0);
                out.extend(message(b'D', &value(number(1), number(2) as usize)));
                out.extend(complete(&format!("DONE {}", number(1))));
            }
            "COPY" => {
                self.copy = Some((number(1), Vec::new()));
                out.extend(message(b'G', &[0, 0, 0]));
            }
            "INSERT" => {
                self.run(world, number(1), 0);
                out.extend(complete(&format!("DONE {}", number(1))));
            }
            _ => return Err("42601"),
        }
        Ok(())
    }

    fn extended(
        &mut self,
        world: &World,
        tag: u8,
        texts: &[String],
        broken: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let refused = match self.status {
            b'E' => Some("25P02"),
            _ if broken => Some("53200"),
            _ => None,
        };
        match (tag, refused) {
            (b'P', Some(_)) => drop(self.statements.remove(&texts[0])),
            (b'P', None) => {
                let version = texts[1].split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
                self.statements.insert(texts[0].clone(), version);
                out.extend(message(b'1', b""));
            }
            (_, Some(_)) => {}
            (b'B', None) => {
                // The token is the portal's name.
                let version = *self.statements.get(&texts[1]).ok_or("26000")?;
                self.portal = Some((texts[0].parse().unwrap_or(0), version));
                out.extend(message(b'2', b""));
            }
            (_, None) => {
                let (token, version) = self.portal.take().ok_or("34000")?;
                self.run(world, token, version);
                out.extend(complete(&format!("DONE {token}")));
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn copying(&mut self, world: &World, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        match tag {
            b'd' => {
                if let Some((_, data)) = &mut self.copy {
                    data.extend_from_slice(body);
                }
                return;
            }
            b'c' => {
                if let Some((token, data)) = self.copy.take() {
                    if data != value(token, data.len()) {
                        world.object(format!("the bytes of request {token} were changed"));
                    }
                    self.run(world, token, 0);
                    out.extend(complete(&format!("DONE {token}")));
                }
            }
            b'f' => {
                self.copy = None;
                self.fail("57014", out);
            }
            _ => return,
        }
        out.extend(message(b'Z', &[self.status]));
    }

    fn run(&mut self, world: &World, token: u64, version: u64) {
        let block = self.status != b'I';
        let context = Context { place: self.place, user: version, block };
        if block {
            self.pending.push((token, context));
        } else {
            world.judge.borrow_mut().runs(token, context);
        }
    }
}
