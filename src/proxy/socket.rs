//! A connected socket of any kind, encrypted or not, and output that it would not take yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls;
use crate::config::Timeouts;
use crate::protocol::Plan;
use crate::protocol::proxy_protocol::Ends;

/// Between two packets that ask a silent peer whether it is there; three without an answer are its end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
    /// Either with TLS on top. Boxed: its state is some kilobytes, and most sockets have none.
    Tls(Box<tls::Stream>),
    /// None any more: it went into a handshake that failed.
    Closed,
    /// No system behind it: a simulation's.
    #[cfg(test)]
    Memory(super::memory::Memory),
}

impl Socket {
    /// Prepares a client's socket: no Nagle delay, keepalive. A failure to set an option is no reason to refuse
    /// the connection.
    pub fn tune_downstream(&self, timeouts: &Timeouts) {
        if let Self::Tcp(stream) = self {
            tune(&SockRef::from(stream), timeouts);
        }
    }

    /// Prepares a backend's socket: as downstream, and data that stays unacknowledged means a dead peer.
    pub fn tune_upstream(&self, timeouts: &Timeouts) {
        if let Self::Tcp(stream) = self {
            let socket = SockRef::from(stream);
            let (time, interval) = upstream_keepalive(timeouts);
            set(&socket, time, interval);
            let _ = socket.set_tcp_user_timeout(Some(timeouts.tcp_user));
        }
    }

    /// Makes closing send a reset, so that the peer cannot take the end of the stream for the end of an answer.
    pub fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Self::Tls(stream) => stream.socket().reset_on_close(),
            Self::Unix(_) | Self::Closed => {}
            #[cfg(test)]
            Self::Memory(memory) => memory.reset_on_close(),
        }
    }

    /// Both of its ends; none for unix sockets.
    pub fn ends(&self) -> Option<Ends> {
        match self {
            Self::Tcp(stream) => {
                Some(Ends { source: stream.peer_addr().ok()?, destination: stream.local_addr().ok()? })
            }
            Self::Tls(stream) => stream.socket().ends(),
            Self::Unix(_) | Self::Closed => None,
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// The encrypted stream, if it is one.
    pub fn tls(&self) -> Option<&tls::Stream> {
        if let Self::Tls(stream) = self { Some(stream) } else { None }
    }

    /// Whether bytes that were taken from us have not reached the system: encrypted ones, that is.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.tls().is_some_and(tls::Stream::has_unsent)
    }

    /// Says in the peer's protocol that this is the end, if that is possible without waiting. A TCP connection says it
    /// by being closed; a TLS server that is not told logs an attack.
    pub fn farewell(&mut self) {
        if let Self::Tls(stream) = self {
            stream.farewell();
        }
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let poll = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Tls(stream) => stream.poll_read(cx, &mut buffer),
            Self::Closed => Poll::Ready(Ok(())),
            #[cfg(test)]
            Self::Memory(memory) => memory.poll_read(cx, &mut buffer),
        };
        poll.map_ok(|()| buffer.filled().len())
    }

    /// Writes some of `slices`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match (self, slices) {
            (Self::Tcp(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Self::Tcp(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Self::Unix(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Self::Unix(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Self::Tls(stream), _) => stream.poll_write(cx, slices),
            (Self::Closed, _) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(test)]
            (Self::Memory(memory), _) => match slices.iter().find(|slice| !slice.is_empty()) {
                Some(slice) => memory.poll_write(cx, slice),
                None => Poll::Ready(Ok(0)),
            },
        }
    }

    /// Hands what [`Socket::has_unsent`] to the system.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => stream.poll_flush(cx),
            Self::Tcp(_) | Self::Unix(_) | Self::Closed => Poll::Ready(Ok(())),
            #[cfg(test)]
            Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the sending side. Has to wait only if encrypted.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
            #[cfg(test)]
            Self::Memory(memory) => memory.poll_shutdown(cx),
        }
    }
}

/// For handshakes, which are written as plain async code.
impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = std::task::ready!(Socket::poll_read(self.get_mut(), cx, buffer.initialize_unfilled()))?;
        buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Socket::poll_write(self.get_mut(), cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll_shutdown(self.get_mut(), cx)
    }
}

/// No Nagle delay, keepalive: what every client's TCP socket gets.
pub(super) fn tune(socket: &SockRef<'_>, timeouts: &Timeouts) {
    set(socket, timeouts.keepalive, KEEPALIVE_INTERVAL);
}

fn set(socket: &SockRef<'_>, time: Duration, interval: Duration) {
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(3);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// When a silent backend is first asked whether it is there, and how often from then on. Linux ends a connection that has a
/// user timeout at the first packet that stays unanswered once nothing has come for that long (tcp(7)); so the asking
/// begins in time for the third in a row to be the last, and one that is lost costs nothing. Below a user timeout of 6 s the
/// system's whole seconds leave less room.
fn upstream_keepalive(timeouts: &Timeouts) -> (Duration, Duration) {
    const LEAST: Duration = Duration::from_secs(1);
    let whole = |time: Duration| Duration::from_secs(time.as_secs()).max(LEAST);
    (
        whole(timeouts.keepalive.min(timeouts.tcp_user / 2)),
        whole(KEEPALIVE_INTERVAL.min(timeouts.tcp_user / 6)),
    )
}

/// Output that a socket would not take yet. Owns no memory while empty.
#[derive(Debug, Default)]
pub struct Backlog {
    rest: Option<Box<Rest>>,
    /// The socket has taken bytes that it has not handed on: encrypted ones. Nothing would ever push them out if
    /// this counted as written.
    unsent: bool,
}

/// Bytes of which some have been written, but not all.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    written: usize,
}

impl Backlog {
    /// Whether everything has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_none() && !self.unsent
    }

    /// How much waits.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.bytes.len() - rest.written)
    }

    /// Writes as much as the socket takes. Returns how much that was, at least 1 if the last of it has left.
    ///
    /// # Errors
    /// The socket's.
    pub fn flush(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> io::Result<usize> {
        let mut total = 0;
        while let Some(rest) = &mut self.rest {
            match socket.poll_write(cx, &[IoSlice::new(&rest.bytes[rest.written..])]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    total += n;
                    rest.written += n;
                    if rest.written == rest.bytes.len() {
                        *self = Self { rest: None, unsent: socket.has_unsent() };
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(total),
            }
        }
        if self.unsent {
            match socket.poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unsent = false;
                    total = total.max(1);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        Ok(total)
    }

    /// Writes a plan's output, keeping what the socket does not take. Only while empty.
    ///
    /// # Errors
    /// The socket's.
    pub fn write_plan(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        input: &[u8],
        plan: &Plan,
    ) -> io::Result<()> {
        const AT_ONCE: usize = 16;
        for spans in plan.spans().chunks(AT_ONCE) {
            let mut slices = [IoSlice::new(&[]); AT_ONCE];
            for (slice, span) in slices.iter_mut().zip(spans) {
                *slice = IoSlice::new(plan.bytes(input, span));
            }
            self.write(cx, socket, &mut slices[..spans.len()])?;
        }
        Ok(())
    }

    /// Writes `slices`, keeping what the socket does not take.
    ///
    /// # Errors
    /// The socket's.
    pub fn write(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        mut slices: &mut [IoSlice<'_>],
    ) -> io::Result<()> {
        if self.rest.is_none() {
            match socket.poll_write(cx, slices) {
                Poll::Ready(Ok(n)) => {
                    IoSlice::advance_slices(&mut slices, n);
                    self.unsent = socket.has_unsent();
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            self.rest.get_or_insert_default().bytes.extend_from_slice(slice);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(tcp_user: u64, keepalive: u64) -> Timeouts {
        let [second, tcp_user, keepalive] = [1, tcp_user, keepalive].map(Duration::from_secs);
        Timeouts { connect: second, response: None, handshake: second, tcp_user, keepalive }
    }

    /// As 18,000 idle clients showed: their packets come together, and a kernel that is short of room drops some.
    #[test]
    fn two_lost_keepalive_packets_in_a_row_end_no_server_connection() {
        for (tcp_user, keepalive) in [(30, 30), (30, 3600), (30, 5), (6, 30), (7, 7), (600, 30), (86_400, 1)]
        {
            let (time, interval) = upstream_keepalive(&timeouts(tcp_user, keepalive));
            let shown = (tcp_user, keepalive, time, interval);
            assert!(time + interval * 2 < Duration::from_secs(tcp_user), "{shown:?}");
            assert!(time <= Duration::from_secs(keepalive) && interval <= KEEPALIVE_INTERVAL, "{shown:?}");
        }
        assert_eq!(upstream_keepalive(&timeouts(30, 30)), (Duration::from_secs(15), Duration::from_secs(5)));
        // The least that the system knows.
        assert_eq!(upstream_keepalive(&timeouts(1, 1)), (Duration::from_secs(1), Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn a_servers_socket_gets_them() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = Socket::Tcp(stream);
        socket.tune_upstream(&timeouts(30, 30));
        let Socket::Tcp(stream) = &socket else { unreachable!() };
        let options = SockRef::from(stream);
        assert!(options.keepalive().unwrap() && options.tcp_nodelay().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
        assert_eq!(options.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
    }
}
