//! What a client costs that has connected, said something once, and is silent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::peer::{Kind, Servers};
use crate::report::Measured;
use crate::rows::{Protocol, ROWS};

/// Clients before the first look, so that what a process allocates once is not put down to them.
const FIRST: usize = 64;

/// Opens `clients` connections that have had one reply each, and divides.
pub(crate) fn measure(kind: Kind, servers: &Servers, clients: usize) -> Measured {
    let row = ROWS.iter().find(|row| row.name == "idle").expect("the row");
    let peer = kind.start(servers, row);
    let addr = peer.addr(Protocol::Redis);
    let mut open: Vec<TcpStream> = (0..FIRST).map(|_| greet(addr)).collect();
    let before = peer.usage().map_or(0.0, |usage| usage.rss);
    open.extend((0..clients).map(|_| greet(addr)));
    let after = peer.usage().map_or(0.0, |usage| usage.rss);
    let mut measured = Measured::of(kind);
    measured.rss = Some(after);
    measured.idle = Some((after - before) / clients as f64);
    measured
}

fn greet(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.write_all(b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n").expect("a request");
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"$-1\r\n");
    stream
}
