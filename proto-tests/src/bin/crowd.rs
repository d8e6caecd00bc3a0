//! Idle clients of a Redis by the thousand, in a process of their own, which has descriptors of its own.
//!
//! ```text
//! crowd ADDRESS SOURCE CLIENTS EVERY
//! ```
//!
//! They come from the address `SOURCE`, because one has no more than 28,000 ports. One in `EVERY` of them gets an answer to a
//! PING before the next one comes, so that the kernel's queue of clients to be accepted does not run over. When all are
//! connected it writes a line; they leave when standard input ends.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::ExitCode;

use proto_tests::until::PATIENCE;
use socket2::{Domain, Socket, Type};

fn main() -> ExitCode {
    match crowd() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crowd: {error}; crowd ADDRESS SOURCE CLIENTS EVERY");
            ExitCode::FAILURE
        }
    }
}

fn crowd() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, source, clients, every] = &args[..] else {
        return Err(io::Error::other("four arguments"));
    };
    let mistaken = |_| io::Error::other("an argument is not understood");
    let address: SocketAddr = address.parse().map_err(|_| io::Error::other("not an address"))?;
    let source: IpAddr = source.parse().map_err(|_| io::Error::other("not an address"))?;
    let (clients, every): (usize, usize) =
        (clients.parse().map_err(mistaken)?, every.parse().map_err(mistaken)?);
    let mut crowd = Vec::with_capacity(clients);
    for number in 0..clients {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&address.into())?;
        let mut stream = TcpStream::from(socket);
        if number % every == 0 {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            if &answer != b"+PONG\r\n" {
                return Err(io::Error::other(format!(
                    "client {number} got {:?}",
                    String::from_utf8_lossy(&answer)
                )));
            }
        }
        crowd.push(stream);
    }
    println!("{clients}");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
