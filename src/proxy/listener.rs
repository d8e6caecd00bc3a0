//! Accepting clients, and going on accepting when the machine runs out of something.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream, ToSocketAddrs};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::service::Service;
use super::socket::{Socket, tune};
use super::upstream::is_local;
use super::worker::Bench;
use crate::config::{Endpoint, Timeouts};
use crate::metrics::Counter;

/// Connections that the kernel queues before we accept them.
const BACKLOG: i32 = 4096;
/// Pauses after a failed accept: doubling from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A bound listening socket that workers can copy.
#[derive(Debug)]
pub enum Listener {
    /// TCP, over IPv4 or IPv6.
    Tcp(StdTcpListener),
    /// A unix socket.
    Unix(StdUnixListener),
}

/// A connected socket on its way to a worker's runtime.
#[derive(Debug)]
pub(super) enum StdSocket {
    Tcp(StdTcpStream),
    Unix(StdUnixStream),
    /// Accepted by the worker that serves it.
    Registered(Socket),
}

/// The end of accepting on a port.
#[derive(Debug, Clone, Default)]
pub(super) struct Closing {
    closed: CancellationToken,
    handed_on: Arc<AtomicBool>,
    accepting: TaskTracker,
}

impl Closing {
    /// Nobody is accepted for this backend any more; with `handed_on` the clients in the queue are another's.
    pub(super) fn close(&self, handed_on: bool) {
        self.handed_on.store(handed_on, Ordering::Release);
        self.closed.cancel();
        self.accepting.close();
    }

    /// To be held by whoever accepts, longer than the listener.
    pub(super) fn accepting(&self) -> TaskTrackerToken {
        self.accepting.token()
    }

    /// Completes when it has been closed and nobody accepts any more: the address is free.
    pub(super) async fn over(&self) {
        self.accepting.wait().await;
    }
}

/// The file of a unix listener, removed when nobody listens on it any more.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Whether an accepted socket has its listener's options; elsewhere each is given them anew.
    pub(super) const OPTIONS_ARE_INHERITED: bool = cfg!(target_os = "linux");

    /// Binds every address that `endpoint` names (`localhost` has two). A unix socket file that nobody listens on
    /// any more is replaced.
    ///
    /// # Errors
    /// If no address can be bound, or any is taken.
    pub(super) fn bind(endpoint: &Endpoint) -> io::Result<(Vec<Self>, Option<SocketFile>)> {
        match endpoint {
            Endpoint::Unix(path) => {
                let listener = bind_unix(path)?;
                Ok((vec![Self::Unix(listener)], Some(SocketFile(path.clone()))))
            }
            Endpoint::Tcp { host, port } => {
                let mut listeners = Vec::new();
                let mut missing = None;
                for address in (&**host, *port).to_socket_addrs()? {
                    match bind_tcp(address) {
                        Ok(listener) => listeners.push(Self::Tcp(listener)),
                        // `localhost` on a machine without IPv6.
                        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                            missing = Some(error)
                        }
                        Err(error) => return Err(error),
                    }
                }
                match missing {
                    Some(error) if listeners.is_empty() => Err(error),
                    _ => Ok((listeners, None)),
                }
            }
        }
    }

    /// Prepares a listener that another process has bound.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// Gives it what its clients' sockets need, as [`Socket::tune_downstream`] does: one system call here instead of
    /// five for each client. A failure to set an option is no reason to refuse clients.
    pub(super) fn tune(&self, timeouts: &Timeouts) {
        if let Self::Tcp(listener) = self {
            tune(&SockRef::from(listener), timeouts);
        }
    }

    /// The address that it is bound to.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Endpoint::from),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                Ok(Endpoint::Unix(address.as_pathname().map(Path::to_path_buf).unwrap_or_default()))
            }
        }
    }

    /// Another handle on the same queue of connections.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` must not collide.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let bound = match StdUnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            StdUnixListener::bind(path)
        }
        bound => bound,
    }?;
    bound.set_nonblocking(true)?;
    Ok(bound)
}

/// Whether the file is a socket that a process left behind: connecting to it is refused.
fn is_stale(path: &Path) -> bool {
    StdUnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Socket::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

/// Accepts until the port is closed or the drain begins.
pub(super) async fn accept(listener: Listener, service: Arc<Service>, end: Closing, bench: Bench) {
    let listener = match listener {
        Listener::Tcp(listener) => TcpListener::from_std(listener).map(Accepting::Tcp),
        Listener::Unix(listener) => UnixListener::from_std(listener).map(Accepting::Unix),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "Cannot listen"),
    };
    let mut pause = PAUSE_MIN;
    let mut drained = pin!(bench.shutdown.drained());
    let mut closed = pin!(end.closed.cancelled());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drained => return,
            () = &mut closed => {
                if !end.handed_on.load(Ordering::Acquire) {
                    // Whoever is in the queue believes to be connected, and would be reset.
                    while let Some(Ok(socket)) = listener.accept().now_or_never() {
                        bench.place(StdSocket::Registered(socket), service.clone());
                    }
                }
                return;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(socket) => {
                pause = PAUSE_MIN;
                bench.place(StdSocket::Registered(socket), service.clone());
            }
            Err(error) => {
                let backend = service.backend().name();
                if is_local(&error) {
                    bench.lane(&service).add(Counter::LocalFaults, 1);
                    tracing::error!(%backend, %error, ?pause, "Cannot accept clients for the moment");
                    // The descriptor that is missing may be one that a client gives back soon.
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                } else {
                    // The client was gone before it was accepted; the next one may not be.
                    tracing::debug!(%backend, %error, "A client left before it was accepted");
                }
            }
        }
    }
}

impl StdSocket {
    /// Takes a socket out of its runtime, for another worker's.
    pub(super) fn unregister(self) -> io::Result<Self> {
        match self {
            Self::Registered(Socket::Tcp(stream)) => stream.into_std().map(Self::Tcp),
            Self::Registered(Socket::Unix(stream)) => stream.into_std().map(Self::Unix),
            unregistered => Ok(unregistered),
        }
    }

    /// Registers the socket with the present runtime.
    pub(super) fn into_socket(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Socket::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Socket::Unix),
            Self::Registered(socket) => Ok(socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_socket_has_its_listeners_options() {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts {
            connect: second,
            response: None,
            handshake: second,
            tcp_user: second,
            keepalive: second * 77,
        };
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::Tcp(listener);
        listener.tune(&timeouts);
        let _client = StdTcpStream::connect(address).unwrap();
        let Listener::Tcp(listener) = listener else { unreachable!() };
        let (accepted, _) = listener.accept().unwrap();
        let options = SockRef::from(&accepted);
        let has = options.tcp_nodelay().unwrap() && options.keepalive().unwrap();
        let times = (options.tcp_keepalive_time().unwrap(), options.tcp_keepalive_retries().unwrap());
        assert_eq!((has, times), (Listener::OPTIONS_ARE_INHERITED, (second * 77, 3)));
    }
}
