//! A Redis that keeps no data but knows in what state of its session each command came.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::judge::Context;
use super::random::Random;
use super::world::{Weather, World};
use crate::proxy::socket::Socket;

/// The value of the request with this number: `size` bytes that no other one has.
pub(super) fn value(token: u64, size: usize) -> Vec<u8> {
    let mut random = Random::new(token);
    (0..size).map(|_| random.next() as u8).collect()
}

pub(super) fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

pub(super) fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    words.iter().for_each(|word| out.extend(bulk(word)));
    out
}

/// The confirmation of a subscription's change.
pub(super) fn confirmation(resp3: bool, what: &str, topic: &str, count: usize) -> Vec<u8> {
    let kind = if resp3 { '>' } else { '*' };
    format!("{kind}3\r\n${}\r\n{what}\r\n$1\r\n{topic}\r\n:{count}\r\n", what.len()).into_bytes()
}

/// Takes one whole request off the front.
fn request(buffer: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let line = |from: usize| {
        let end = buffer.get(from..)?.windows(2).position(|two| two == b"\r\n")? + from;
        let number = std::str::from_utf8(&buffer[from + 1..end]).ok()?.parse::<usize>().ok()?;
        Some((number, end + 2))
    };
    let (count, mut at) = line(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (len, start) = line(at)?;
        at = start + len + 2;
        words.push(buffer.get(start..start + len)?.to_vec());
    }
    if at > buffer.len() {
        return None;
    }
    buffer.drain(..at);
    Some(words)
}

#[derive(Default)]
struct Server {
    place: u64,
    user: u64,
    resp3: bool,
    /// Inside MULTI: what is queued.
    queue: Option<Vec<Vec<Vec<u8>>>>,
    topics: Vec<String>,
    off: bool,
    skip: bool,
}

/// One connection of the server.
pub(super) fn serve(world: Rc<World>, socket: Socket, random: Random) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let _ = talk(&world, socket, random).await;
    })
}

async fn talk(world: &World, mut socket: Socket, mut random: Random) -> std::io::Result<()> {
    let mut server = Server::default();
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 4096]);
    loop {
        let n = socket.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..n]);
        let mut out = Vec::new();
        while let Some(words) = request(&mut buffer) {
            if random.chance(3) {
                world.until_awake().await;
                socket.write_all(&std::mem::take(&mut out)).await?;
                sleep(Duration::from_millis(random.pick(&[1, 50, 1900, 2500]))).await;
            }
            world.until_awake().await;
            if !server.topics.is_empty() && random.chance(30) {
                let kind = if server.resp3 { '>' } else { '*' };
                out.extend(format!("{kind}3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n").into_bytes());
            }
            let mut wait = Duration::ZERO;
            let was_skipped = std::mem::take(&mut server.skip);
            let reply = server.execute(world, &words, &mut wait);
            if !wait.is_zero() {
                socket.write_all(&std::mem::take(&mut out)).await?;
                sleep(wait).await;
            }
            if !server.off && !was_skipped && !server.skip {
                out.extend(reply);
            }
        }
        world.until_awake().await;
        socket.write_all(&out).await?;
        if random.chance(1) {
            // It says no more and goes on reading: half a connection.
            socket.shutdown().await?;
            while socket.read(&mut chunk).await? > 0 {}
            return Ok(());
        }
    }
}

impl Server {
    fn execute(&mut self, world: &World, words: &[Vec<u8>], wait: &mut Duration) -> Vec<u8> {
        let word = |at: usize| {
            words.get(at).map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default()
        };
        let number = |at: usize| word(at).parse::<u64>().unwrap_or(0);
        let ok = || b"+OK\r\n".to_vec();
        let name = word(0);
        let immediate = ["EXEC", "DISCARD", "MULTI", "RESET", "WATCH"].contains(&name.as_str());
        if let (Some(queue), false) = (&mut self.queue, immediate) {
            queue.push(words.to_vec());
            return b"+QUEUED\r\n".to_vec();
        }
        let loading = world.weather.get() == Weather::Loading;
        match name.as_str() {
            "SELECT" => {
                self.place = number(1);
                ok()
            }
            "AUTH" => {
                self.user = number(1);
                ok()
            }
            "HELLO" => {
                self.resp3 = true;
                b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec()
            }
            "RESET" => {
                *self = Self::default();
                b"+RESET\r\n".to_vec()
            }
            "CLIENT" => {
                match word(2).as_str() {
                    "ON" => self.off = false,
                    "OFF" => self.off = true,
                    _ => self.skip = !self.off,
                }
                ok()
            }
            "MULTI" => {
                self.queue = Some(Vec::new());
                ok()
            }
            "DISCARD" => match self.queue.take() {
                Some(_) => ok(),
                None => b"-ERR DISCARD without MULTI\r\n".to_vec(),
            },
            "EXEC" => match self.queue.take() {
                None => b"-ERR EXEC without MULTI\r\n".to_vec(),
                Some(_) if loading => b"-LOADING sim\r\n".to_vec(),
                Some(queue) => {
                    let mut out = format!("*{}\r\n", queue.len()).into_bytes();
                    queue.iter().for_each(|words| out.extend(self.run(world, words, true)));
                    out
                }
            },
            "WATCH" | "UNWATCH" => ok(),
            // What the proxy sends in place of a rejected request behind CLIENT REPLY SKIP.
            "ECHO" => bulk(&words[1]),
            "SUBSCRIBE" => self.topics(words, |topics, topic| topics.push(topic), "subscribe"),
            "UNSUBSCRIBE" => {
                self.topics(words, |topics, topic| topics.retain(|known| *known != topic), "unsubscribe")
            }
            "BLPOP" => {
                *wait = Duration::from_secs(number(2));
                b"*-1\r\n".to_vec()
            }
            _ if loading => b"-LOADING sim\r\n".to_vec(),
            // What the proxy sends in front of a command that may take long, to decide a probe.
            "PING" if self.resp3 || self.topics.is_empty() => b"+PONG\r\n".to_vec(),
            "PING" => b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec(),
            _ => self.run(world, words, false),
        }
    }

    fn topics(&mut self, words: &[Vec<u8>], change: fn(&mut Vec<String>, String), what: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for word in &words[1..] {
            let topic = String::from_utf8_lossy(word).into_owned();
            change(&mut self.topics, topic.clone());
            out.extend(confirmation(self.resp3, what, &topic, self.topics.len()));
        }
        out
    }

    /// A command that is booked: `SET number value` or `GET number size`.
    fn run(&self, world: &World, words: &[Vec<u8>], block: bool) -> Vec<u8> {
        let token = String::from_utf8_lossy(&words[1]).parse().unwrap_or(0);
        let context = Context { place: self.place, user: self.user, block };
        world.judge.borrow_mut().runs(token, context);
        if words[0] == b"SET" {
            if words[2] != value(token, words[2].len()) {
                world.object(format!("the bytes of request {token} were changed"));
            }
            return format!("+{token}\r\n").into_bytes();
        }
        let size = String::from_utf8_lossy(&words[2]).parse().unwrap_or(0);
        bulk(&value(token, size))
    }
}
