//! Dialling a backend: one logical connect over all of its addresses, up to the end of the TLS handshake.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

use super::socket::Socket;
use super::tls::{Secured, Store};
use crate::breaker::Fault;
use crate::config::{Endpoint, Timeouts};
use crate::protocol::Target;

/// An upstream connection and the address it was made to; none for unix sockets.
#[derive(Debug)]
pub struct Upstream {
    /// The connected socket.
    pub socket: Socket,
    /// Its resolved address.
    pub peer: Option<SocketAddr>,
}

/// Connects to `target` within the connect timeout, and sends `preface` before anything else: names are resolved anew for each dial, every address is tried
/// in turn, and all of it together, with the TLS handshake if there is one, is one call.
///
/// # Errors
/// The fault of the last address that was tried; `None` if this machine is at fault (out of descriptors, ports or
/// memory), which says nothing about the backend.
pub async fn dial(
    backend: &Endpoint,
    target: Target,
    timeouts: &Timeouts,
    tls: Option<&Store>,
    preface: &[u8],
) -> Result<Upstream, Option<Fault>> {
    let deadline = Instant::now() + timeouts.connect;
    #[cfg(test)]
    if let Some(dialled) = super::memory::dial() {
        let memory = dialled.until(deadline).await?;
        let mut upstream = Upstream { socket: Socket::Memory(memory), peer: None };
        upstream.begin(preface, deadline).await?;
        return Ok(upstream);
    }
    let mut upstream = match (target, backend) {
        (Target::Exactly(address), _) => connect_any(&[address], deadline).await?,
        (Target::Backend | Target::Aside, Endpoint::Unix(path)) => connect_unix(path, deadline).await?,
        (Target::Backend | Target::Aside, Endpoint::Tcp { host, port }) => {
            let addresses = resolve(host, *port, deadline).await?;
            connect_any(&addresses, deadline).await?
        }
    };
    upstream.socket.tune_upstream(timeouts);
    upstream.begin(preface, deadline).await?;
    let Some(tls) = tls else { return Ok(upstream) };
    let Upstream { socket, peer } = upstream;
    match timeout_at(deadline, tls.connect(socket)).await {
        Ok(Ok(Secured::Yes(socket) | Secured::No(socket))) => Ok(Upstream { socket, peer }),
        Ok(Ok(Secured::Redial)) => {
            let addresses: Vec<SocketAddr> = peer.into_iter().collect();
            let mut upstream = connect_any(&addresses, deadline).await?;
            upstream.socket.tune_upstream(timeouts);
            upstream.begin(preface, deadline).await?;
            Ok(upstream)
        }
        Ok(Err(error)) if is_local(&error) => Err(None),
        Ok(Err(error)) => {
            tls.complain(&error);
            Err(Some(Fault::Tls))
        }
        Err(_) => {
            tls.complain(&io::ErrorKind::TimedOut.into());
            Err(Some(Fault::ConnectTimeout))
        }
    }
}

impl Upstream {
    /// Sends what comes before everything else.
    async fn begin(&mut self, preface: &[u8], deadline: Instant) -> Result<(), Option<Fault>> {
        if preface.is_empty() {
            return Ok(());
        }
        match timeout_at(deadline, self.socket.write_all(preface)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Some(Fault::Reset)),
            Err(_) => Err(Some(Fault::ConnectTimeout)),
        }
    }
}

async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, Option<Fault>> {
    match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) if is_local(&error) => Err(None),
        Ok(Err(_)) | Err(_) => Err(Some(Fault::Dns)),
    }
}

async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<Upstream, Option<Fault>> {
    let mut failed = Some(Fault::Dns);
    for (tried, &address) in addresses.iter().enumerate() {
        // What is left of the time is shared fairly, so that a black hole in front does not starve a good address.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(Upstream { socket: Socket::Tcp(stream), peer: Some(address) }),
            Ok(Err(error)) if is_local(&error) => return Err(None),
            Ok(Err(error)) => failed = Some(fault_of(&error)),
            Err(_) => failed = Some(Fault::ConnectTimeout),
        }
    }
    Err(failed)
}

async fn connect_unix(path: &Path, deadline: Instant) -> Result<Upstream, Option<Fault>> {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(Upstream { socket: Socket::Unix(stream), peer: None }),
            // A unix socket with a full backlog refuses at once instead of waiting as TCP does.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(Some(Fault::ConnectTimeout));
                }
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) if is_local(&error) => return Err(None),
            Err(error) => return Err(Some(fault_of(&error))),
        }
    }
}

/// The fault behind a failed connect.
fn fault_of(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Refused,
        io::ErrorKind::TimedOut => Fault::ConnectTimeout,
        io::ErrorKind::ConnectionReset => Fault::Reset,
        _ => Fault::Unreachable,
    }
}

/// Whether an error is this machine's doing and not the backend's.
pub(super) fn is_local(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const EADDRNOTAVAIL: i32 = 99;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | EADDRNOTAVAIL | ENOBUFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts() -> Timeouts {
        let second = Duration::from_secs(1);
        Timeouts { connect: second, response: None, handshake: second, tcp_user: second, keepalive: second }
    }

    #[tokio::test]
    async fn the_second_address_is_tried_when_the_first_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let bad = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let upstream = connect_any(&[bad, good], Instant::now() + Duration::from_secs(5)).await.unwrap();
        assert_eq!(upstream.peer, Some(good));
        let refused = connect_any(&[bad], Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(refused.unwrap_err(), Some(Fault::Refused));
    }

    #[tokio::test]
    async fn a_unix_socket_that_is_not_there_is_unreachable() {
        let backend = Endpoint::Unix("/nonexistent/fusewire.sock".into());
        let failed = dial(&backend, Target::Backend, &timeouts(), None, b"").await;
        assert_eq!(failed.unwrap_err(), Some(Fault::Unreachable));
    }

    #[test]
    fn running_out_of_descriptors_is_not_the_backends_fault() {
        assert!(is_local(&io::Error::from_raw_os_error(24)));
        assert!(!is_local(&io::Error::from_raw_os_error(111)));
    }
}
