//! The least that a proxy can do: one thread around epoll, one read and one write for each event, nothing looked at.
//! It is the floor under every ratio.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// As large as fusewire's.
const BUFFER: usize = 128 * 1024;
/// More than a bench has ports.
const LISTENERS: usize = 8;

/// A client and its server, either of which is at `[side]`.
struct Pair {
    sockets: [TcpStream; 2],
    /// What `[side]` has not taken yet.
    owed: [Vec<u8>; 2],
    /// `[side]` has sent its last byte.
    over: [bool; 2],
}

/// Forwards each address to the one behind it, until it is killed.
pub(crate) fn run(legs: &[&str]) {
    let legs: Vec<SocketAddr> = legs.iter().map(|leg| leg.parse().expect("an address")).collect();
    let mut poll = Poll::new().expect("epoll");
    let mut events = Events::with_capacity(1024);
    let mut listeners: Vec<(TcpListener, SocketAddr)> = Vec::new();
    for (at, leg) in legs.chunks_exact(2).enumerate() {
        let mut listener = TcpListener::bind(leg[0]).expect("a port");
        poll.registry().register(&mut listener, Token(at), Interest::READABLE).expect("epoll");
        listeners.push((listener, leg[1]));
    }
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        if poll.poll(&mut events, None).is_err() {
            continue;
        }
        let mut ended = Vec::new();
        for event in &events {
            let token = event.token().0;
            if let Some((listener, upstream)) = listeners.get(token) {
                while let Ok((client, _)) = listener.accept() {
                    let Ok(server) = TcpStream::connect(*upstream) else { continue };
                    let at = free.pop().unwrap_or_else(|| {
                        pairs.push(None);
                        pairs.len() - 1
                    });
                    let mut pair =
                        Pair { sockets: [client, server], owed: Default::default(), over: [false; 2] };
                    for (side, socket) in pair.sockets.iter_mut().enumerate() {
                        let _ = socket.set_nodelay(true);
                        let token = Token(LISTENERS + at * 2 + side);
                        let both = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(socket, token, both).expect("epoll");
                    }
                    pairs[at] = Some(pair);
                }
                continue;
            }
            let (at, side) = ((token - LISTENERS) / 2, (token - LISTENERS) % 2);
            let Some(pair) = &mut pairs[at] else { continue };
            let alive = (!event.is_writable() || pair.flush(side))
                // What held back the other's bytes may be gone now.
                && (!event.is_writable() || pair.forward(1 - side, &mut buffer))
                && (!event.is_readable() || pair.forward(side, &mut buffer));
            if !alive || pair.over == [true; 2] {
                pairs[at] = None;
                ended.push(at);
            }
        }
        // Not before: an event of this batch may still name the old pair.
        free.append(&mut ended);
    }
}

impl Pair {
    /// Writes what `side` is owed. Whether the pair lives.
    fn flush(&mut self, side: usize) -> bool {
        while !self.owed[side].is_empty() {
            match self.sockets[side].write(&self.owed[side]) {
                Ok(n) => drop(self.owed[side].drain(..n)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// Moves what `from` has sent. Whether the pair lives.
    fn forward(&mut self, from: usize, buffer: &mut [u8]) -> bool {
        let to = 1 - from;
        while self.owed[to].is_empty() && !self.over[from] {
            match self.sockets[from].read(buffer) {
                Ok(0) => {
                    self.over[from] = true;
                    let _ = self.sockets[to].shutdown(Shutdown::Write);
                }
                Ok(n) => {
                    match self.sockets[to].write(&buffer[..n]) {
                        Ok(taken) if taken == n => {}
                        Ok(taken) => self.owed[to].extend_from_slice(&buffer[taken..n]),
                        // While it is being connected, too.
                        Err(error)
                            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                        {
                            self.owed[to].extend_from_slice(&buffer[..n]);
                        }
                        Err(_) => return false,
                    }
                    if n < buffer.len() {
                        return true;
                    }
                }
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected),
            }
        }
        true
    }
}
