//! Redis clients, and what each reply may be.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::time::{sleep, timeout};

use super::Figures;
use super::judge::Context;
use super::random::Random;
use super::redis_server::{array, bulk, confirmation, serve, value};
use super::world::{World, history};
use crate::config::args::Inputs;
use crate::protocol::redis::Session;
use crate::proxy::service::Sessions;

pub(super) fn run(seed: u64) -> Result<Figures, String> {
    let inputs = |spec: &str| Inputs { redis: vec![spec.to_owned()], ..Inputs::default() };
    history(seed, inputs, serve, client, |world, random| async move {
        let talk = RefCell::new(Talk::default());
        let before = talk.borrow().answered;
        let burst = talk.borrow_mut().plain(&world, &mut random.clone());
        hold(&world, &talk, vec![burst], random, End::Wait).await;
        talk.borrow().answered > before
    })
}

fn session(world: &World) -> Session {
    let Sessions::Redis(settings) = &world.service.sessions else { panic!("a Redis backend") };
    Session::new(world.gate.lane(1), settings.clone())
}

/// What a reply may be besides an error of the proxy's.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    /// Exactly this.
    Exactly(Vec<u8>),
    /// That much was queued.
    Queued,
    /// A transaction's result.
    Exec(Vec<u8>),
    /// So many more confirmations that begin like this.
    Confirmations(Vec<u8>, usize),
}

#[derive(Debug)]
struct Sent {
    name: &'static str,
    want: Want,
    token: Option<u64>,
    block: Option<u64>,
    watch: Option<Rc<RefCell<bool>>>,
}

/// Longer than all faults together.
const HANG: Duration = Duration::from_secs(400_000);

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Without a word.
    Vanish,
    /// It closes its side and reads to the end.
    HalfClose,
    /// When all is answered.
    Wait,
}

/// A client's idea of its connection, as far as it has sent.
#[derive(Default)]
struct Talk {
    place: u64,
    user: u64,
    resp3: bool,
    subscribed: bool,
    /// Messages may still come.
    messages: bool,
    off: bool,
    skip: bool,
    block: Option<(u64, Vec<u8>, u64)>,
    watches: Vec<Rc<RefCell<bool>>>,
    expected: VecDeque<Sent>,
    answered: u64,
    over: bool,
    /// It asks for much and is slow to read it.
    lazy: bool,
}

impl Talk {
    /// What is expected of a request now, unless the client has asked for silence.
    fn send(&mut self, name: &'static str, want: Want, token: Option<u64>) -> Option<&mut Sent> {
        if std::mem::take(&mut self.skip) || self.off {
            return None;
        }
        let block = self.block.as_ref().map(|(block, ..)| *block);
        self.expected.push_back(Sent { name, want, token, block, watch: None });
        self.expected.back_mut()
    }

    /// `SET` or `GET`, booked.
    fn plain(&mut self, world: &World, random: &mut Random) -> Vec<u8> {
        let token = world.judge.borrow_mut().token();
        let block = self.block.as_ref().map(|(block, ..)| *block);
        let context = Context { place: self.place, user: self.user, block: block.is_some() };
        world.judge.borrow_mut().asks(token, context, block);
        let size = if random.chance(if self.lazy { 30 } else { 3 }) {
            40_000
        } else {
            random.pick(&[0, 3, 100, 2000])
        };
        let number = token.to_string();
        let (request, reply) = if random.chance(60) {
            let request = array(&[b"SET", number.as_bytes(), &value(token, size)]);
            (request, format!("+{number}\r\n").into_bytes())
        } else {
            let request = array(&[b"GET", number.as_bytes(), size.to_string().as_bytes()]);
            (request, bulk(&value(token, size)))
        };
        match &mut self.block {
            Some((_, replies, count)) => {
                replies.extend(reply);
                *count += 1;
                self.send("queued", Want::Queued, Some(token));
            }
            None => {
                self.send("plain", Want::Exactly(reply), Some(token));
            }
        }
        request
    }

    /// One request of any kind.
    fn request(&mut self, world: &World, random: &mut Random) -> Vec<u8> {
        let exactly = |text: &str| Want::Exactly(text.as_bytes().to_vec());
        let kind = match (&self.block, self.subscribed) {
            (Some(_), _) => random.pick(&[0, 0, 0, 3, 3, 4]),
            // A subscriber that speaks RESP2 can do little else.
            (None, true) if !self.resp3 => random.pick(&[11, 11, 12]),
            (None, true) => random.pick(&[0, 0, 11]),
            (None, false) if self.off => random.pick(&[0, 0, 1, 8]),
            (None, false) => {
                random.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 5, 5, 6, 7, 8, 9, 10, 10, 12, 13, 14, 2, 2])
            }
        };
        match kind {
            1 => {
                self.place = random.below(4);
                self.send("select", exactly("+OK\r\n"), None);
                array(&[b"SELECT", self.place.to_string().as_bytes()])
            }
            2 => {
                let block = world.judge.borrow_mut().token();
                if let Some(sent) = self.send("multi", exactly("+OK\r\n"), None) {
                    sent.block = Some(block);
                }
                self.block = Some((block, Vec::new(), 0));
                array(&[b"MULTI"])
            }
            3 => {
                let Some((block, replies, count)) = self.block.take() else { return Vec::new() };
                let mut reply = format!("*{count}\r\n").into_bytes();
                reply.extend(replies);
                let watches = std::mem::take(&mut self.watches);
                if let Some(sent) = self.send("exec", Want::Exec(reply), None) {
                    sent.block = Some(block);
                    sent.watch = watches.into_iter().next();
                }
                array(&[b"EXEC"])
            }
            4 => {
                let Some((block, ..)) = self.block.take() else { return Vec::new() };
                self.watches.clear();
                world.judge.borrow_mut().forbid(block);
                self.send("discard", exactly("+OK\r\n"), None);
                array(&[b"DISCARD"])
            }
            5 => {
                if self.watches.is_empty() {
                    self.watches.push(Rc::default());
                }
                let watch = self.watches.first().cloned();
                if let Some(sent) = self.send("watch", exactly("+OK\r\n"), None) {
                    sent.watch = watch;
                }
                array(&[b"WATCH", b"k"])
            }
            6 => {
                self.watches.clear();
                self.send("unwatch", exactly("+OK\r\n"), None);
                array(&[b"UNWATCH"])
            }
            7 => {
                self.user = random.below(3);
                self.send("auth", exactly("+OK\r\n"), None);
                array(&[b"AUTH", self.user.to_string().as_bytes()])
            }
            8 => {
                let mode = if self.off { "ON" } else { random.pick(&["OFF", "SKIP"]) };
                match mode {
                    "ON" => {
                        (self.off, self.skip) = (false, false);
                        self.send("reply on", exactly("+OK\r\n"), None);
                    }
                    "OFF" => (self.off, self.skip) = (true, false),
                    _ => self.skip = true,
                }
                array(&[b"CLIENT", b"REPLY", mode.as_bytes()])
            }
            9 => {
                self.resp3 = true;
                self.send("hello", exactly("%1\r\n$5\r\nproto\r\n:3\r\n"), None);
                array(&[b"HELLO", b"3"])
            }
            10 if !self.skip => {
                (self.subscribed, self.messages) = (true, true);
                self.send("subscribe", self.confirmations("subscribe"), None);
                array(&[b"SUBSCRIBE", b"a", b"b"])
            }
            11 => {
                self.subscribed = false;
                self.send("unsubscribe", self.confirmations("unsubscribe"), None);
                array(&[b"UNSUBSCRIBE", b"a", b"b"])
            }
            12 if !self.skip => {
                self.send("reset", exactly("+RESET\r\n"), None);
                (self.place, self.user, self.resp3, self.subscribed) = (0, 0, false, false);
                self.watches.clear();
                array(&[b"RESET"])
            }
            13 => {
                self.send("blpop", exactly("*-1\r\n"), None);
                array(&[b"BLPOP", b"k", random.pick(&["1", "3"]).as_bytes()])
            }
            _ => self.plain(world, random),
        }
    }

    fn confirmations(&self, what: &str) -> Want {
        let whole = confirmation(self.resp3, what, "a", 0);
        Want::Confirmations(whole[..whole.len() - "$1\r\na\r\n:0\r\n".len()].to_vec(), 2)
    }

    /// Whether this may be the next thing that the client reads.
    fn judge(&mut self, world: &World, frame: &[u8]) -> Result<(), String> {
        if self.messages
            && (frame.starts_with(b"*3\r\n$7\r\nmessage") || frame.starts_with(b">3\r\n$7\r\nmessage"))
        {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(&frame[..frame.len().min(120)]).into_owned();
        if self.over {
            return Err(format!("{shown:?} after the last word"));
        }
        if frame.starts_with(b"-ERR fusewire: ") {
            self.over = true;
            return Ok(());
        }
        let mut judge = world.judge.borrow_mut();
        let Some(front) = self.expected.front_mut() else {
            return Err(format!("{shown:?} answers nothing"));
        };
        let refused = frame.starts_with(b"-CIRCUITOPEN backend 'sim' is ");
        let not_done = refused || frame == b"-LOADING sim\r\n";
        let aborted = frame.starts_with(b"-EXECABORT Transaction discarded because of: CIRCUITOPEN ");
        let fits = match &mut front.want {
            Want::Exactly(reply) => frame == reply || not_done,
            Want::Queued => frame == b"+QUEUED\r\n" || refused,
            Want::Exec(reply) => frame == reply || not_done || aborted,
            Want::Confirmations(prefix, left) if frame.starts_with(prefix) && *left > 1 => {
                *left -= 1;
                return Ok(());
            }
            Want::Confirmations(prefix, left) => frame.starts_with(prefix) || refused && *left == 2,
        };
        if !fits {
            let want = format!("{front:?}");
            return Err(format!("{shown:?} instead of {}", &want.chars().take(300).collect::<String>()));
        }
        match (not_done || aborted, front.token, front.block) {
            (true, token, block) => {
                token.into_iter().for_each(|token| judge.told_refused(token));
                block.into_iter().for_each(|block| judge.forbid(block));
                if front.name == "watch" {
                    front.watch.iter().for_each(|watch| *watch.borrow_mut() = true);
                }
            }
            (false, Some(token), None) => {
                judge.told_done(token);
                self.answered += 1;
            }
            (false, ..) => {
                let unguarded = front.watch.as_ref().is_some_and(|watch| *watch.borrow());
                if front.name == "exec" && unguarded {
                    return Err("a transaction ran whose WATCH was refused".to_owned());
                }
            }
        }
        self.expected.pop_front();
        Ok(())
    }
}

/// The length of the frame at the front, if it is whole.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let number = || std::str::from_utf8(&bytes[1..end]).ok()?.parse::<i64>().ok();
    let mut at = end + 2;
    match bytes[0] {
        b'$' => {
            if let Ok(len) = usize::try_from(number()?) {
                at += len + 2;
            }
        }
        b'*' | b'>' | b'%' => {
            let pairs = if bytes[0] == b'%' { 2 } else { 1 };
            for _ in 0..number()?.max(0) * pairs {
                at += frame_len(bytes.get(at..)?)?;
            }
        }
        _ => {}
    }
    (at <= bytes.len()).then_some(at)
}

async fn client(world: Rc<World>, mut random: Random, _id: u64) {
    for _ in 0..random.between(1, 4) {
        let talk = RefCell::new(Talk { lazy: random.chance(15), ..Talk::default() });
        let end = random.pick(&[End::Vanish, End::HalfClose, End::Wait]);
        let mut bursts = Vec::new();
        for _ in 0..random.between(0, 12) {
            bursts.push(Vec::new());
        }
        hold(&world, &talk, bursts, random.fork(), end).await;
        sleep(Duration::from_millis(random.pick(&[0, 1, 100, 2000]))).await;
    }
}

/// A connection from its beginning to its end. An empty burst is made up when its time comes.
async fn hold(world: &Rc<World>, talk: &RefCell<Talk>, bursts: Vec<Vec<u8>>, mut random: Random, end: End) {
    let (mut reader, mut writer) = split(world.connect(session(world)));
    let pauses: Vec<u64> = match talk.borrow().lazy {
        true => (0..30).map(|_| random.pick(&[0, 0, 5, 300, 3000])).collect(),
        false => Vec::new(),
    };
    let write = async {
        for mut burst in bursts {
            if burst.is_empty() {
                for _ in 0..random.between(1, 8) {
                    let request = talk.borrow_mut().request(world, &mut random);
                    burst.extend(request);
                }
            }
            let mut rest = burst.as_slice();
            while !rest.is_empty() {
                let size = random.pick(&[1, 10, 1000, usize::MAX]).min(rest.len());
                if writer.write_all(&rest[..size]).await.is_err() {
                    // Its reading side will find out why.
                    return pending().await;
                }
                rest = &rest[size..];
                if random.chance(10) {
                    sleep(Duration::from_millis(random.pick(&[1, 20, 400]))).await;
                }
            }
            if random.chance(60) {
                answered(talk).await;
            }
            sleep(Duration::from_millis(random.pick(&[0, 0, 0, 5, 200, 1500]))).await;
        }
        match end {
            End::Vanish => {}
            End::Wait => answered(talk).await,
            End::HalfClose => {
                let _ = writer.shutdown().await;
                pending::<()>().await;
            }
        }
    };
    let read = async {
        let (mut buffer, mut chunk) = (Vec::new(), vec![0; 16 * 1024]);
        let mut pauses = pauses.into_iter();
        loop {
            if let Some(pause) = pauses.next() {
                sleep(Duration::from_millis(pause)).await;
            }
            match reader.read(&mut chunk).await {
                Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
                _ => return,
            }
            let mut at = 0;
            while let Some(len) = buffer.get(at..).filter(|rest| !rest.is_empty()).and_then(frame_len) {
                let judged = talk.borrow_mut().judge(world, &buffer[at..at + len]);
                if let Err(what) = judged {
                    return world.object(what);
                }
                at += len;
            }
            buffer.drain(..at);
        }
    };
    let whole = async {
        tokio::select! {
            biased;
            () = read => {}
            () = write => {}
        }
    };
    if timeout(HANG, whole).await.is_err() {
        world.object(format!("a client hangs, with {:?} unanswered", talk.borrow().expected.front()));
    }
}

async fn answered(talk: &RefCell<Talk>) {
    while !talk.borrow().expected.is_empty() {
        sleep(Duration::from_millis(3)).await;
    }
}
