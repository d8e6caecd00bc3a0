//! Servers that follow a script: what a real server does only by accident, done on purpose.
//!
//! Each accepted connection plays one script; the last script serves every later connection. What a client sent
//! is recorded, connection by connection. A server that refuses needs no code: see
//! [`crate::tools::free_port`].

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::until::{check, eventually};
use crate::wire::Text;

/// One thing a fake server does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads until these bytes have come, after all that earlier steps have seen. The end of the client's input
    /// ends the script.
    Await(Vec<u8>),
    /// Reads until this many bytes have come since the connection began.
    AwaitLength(usize),
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes one at a time, each in a packet of its own.
    Drip(Vec<u8>),
    /// For each occurrence of the first, sends the second, until the client ends its input.
    Answer(Vec<u8>, Vec<u8>),
    /// Reads on in silence until the client goes.
    Silence,
    /// Reads on in silence until the client goes, and keeps nothing of it.
    Devour,
    /// Does not even read until the server is dropped: the client's writes will block.
    Deaf,
    /// Closes in order.
    Close,
    /// Closes with a reset.
    Reset,
}

/// A fake server on a loopback port. Dropped, it closes everything.
#[derive(Debug)]
pub struct Fake {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    received: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Fake {
    /// A server that plays the same script on every connection.
    pub fn start(script: Vec<Step>) -> Self {
        Self::scripts(vec![script])
    }

    /// A server that plays the first script on the first connection and so on; the last one stays.
    pub fn scripts(scripts: Vec<Vec<Step>>) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, crate::tools::free_port()).into(), scripts)
    }

    /// [`Fake::scripts`] at this address.
    pub fn at(addr: SocketAddr, scripts: Vec<Vec<Step>>) -> Self {
        let listener = eventually("a free address", || TcpListener::bind(addr).map_err(|e| e.to_string()));
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        thread::spawn(move || {
            for (index, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                if serving.over() {
                    return;
                }
                serving.received().push(Vec::new());
                let script = scripts.get(index).or(scripts.last()).cloned().unwrap_or_default();
                let shared = serving.clone();
                thread::spawn(move || Player { stream, shared, index, seen: 0 }.play(script));
            }
        });
        Self { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.received().len()
    }

    /// What has come on connection `index` so far.
    pub fn received(&self, index: usize) -> Vec<u8> {
        self.shared.received().get(index).cloned().unwrap_or_default()
    }

    /// Waits until these bytes have come on connection `index`.
    pub fn await_received(&self, index: usize, wanted: &[u8]) {
        eventually("bytes at the fake server", || {
            let all = self.received(index);
            check(find(&all, wanted).is_some(), Text(&all))
        });
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then drops its listener.
        TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)).ok();
    }
}

struct Player {
    stream: TcpStream,
    shared: Arc<Shared>,
    index: usize,
    seen: usize,
}

impl Player {
    fn play(mut self, script: Vec<Step>) {
        self.stream.set_nodelay(true).ok();
        // Short, so that a dropped server's threads end soon.
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).ok();
        for step in script {
            if self.step(step).is_none() {
                return;
            }
        }
    }

    /// `None` ends the script and, with the player, the connection.
    fn step(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Await(wanted) => {
                while !self.find(&wanted) {
                    self.read()?;
                }
            }
            Step::AwaitLength(n) => {
                while self.all().len() < n {
                    self.read()?;
                }
                self.seen = n;
            }
            Step::Send(bytes) => self.stream.write_all(&bytes).ok()?,
            Step::Drip(bytes) => {
                for byte in bytes {
                    self.stream.write_all(&[byte]).ok()?;
                    thread::yield_now();
                }
            }
            Step::Answer(wanted, reply) => loop {
                while self.find(&wanted) {
                    self.stream.write_all(&reply).ok()?;
                }
                self.read()?;
            },
            Step::Silence => loop {
                self.read()?;
            },
            Step::Devour => {
                let mut buffer = [0; 64 * 1024];
                while !self.shared.over() {
                    match self.stream.read(&mut buffer) {
                        Ok(0) => return None,
                        Err(error)
                            if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                        {
                            return None;
                        }
                        _ => {}
                    }
                }
            }
            Step::Deaf => {
                while !self.shared.over() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Step::Close => return None,
            Step::Reset => {
                socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).ok();
                return None;
            }
        }
        Some(())
    }

    fn all(&self) -> Vec<u8> {
        self.shared.received().get(self.index).cloned().unwrap_or_default()
    }

    fn find(&mut self, wanted: &[u8]) -> bool {
        let received = self.shared.received();
        let Some(all) = received.get(self.index) else { return false };
        match find(&all[self.seen..], wanted) {
            Some(at) => {
                self.seen += at + wanted.len();
                true
            }
            None => false,
        }
    }

    fn read(&mut self) -> Option<()> {
        let mut buffer = [0; 64 * 1024];
        loop {
            if self.shared.over() {
                return None;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => {
                    self.shared.received().get_mut(self.index)?.extend_from_slice(&buffer[..n]);
                    return Some(());
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return None,
            }
        }
    }
}

fn find(all: &[u8], wanted: &[u8]) -> Option<usize> {
    all.windows(wanted.len().max(1)).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Client;

    #[test]
    fn a_script_answers_drips_and_ends() {
        let fake = Fake::scripts(vec![
            vec![Step::Await(b"a".to_vec()), Step::Drip(b"one".to_vec()), Step::Close],
            vec![Step::Answer(b"x".to_vec(), b"y".to_vec())],
        ]);
        let mut first = Client::connect(fake.addr());
        first.send(b"za");
        first.expect(b"one");
        first.eof();
        let mut second = Client::connect(fake.addr());
        second.send(b"xzx");
        second.expect(b"yy");
        second.half_close();
        second.eof();
        assert_eq!(
            (fake.connections(), fake.received(0), fake.received(1)),
            (2, b"za".into(), b"xzx".into())
        );
    }

    #[test]
    fn a_reset_is_no_orderly_end() {
        let fake = Fake::start(vec![Step::Await(b"a".to_vec()), Step::Reset]);
        let mut client = Client::connect(fake.addr());
        client.send(b"a");
        eventually("a reset", || match client.try_send(b"b") {
            Ok(()) => Err("still open".to_owned()),
            Err(_) => Ok(()),
        });
    }
}
