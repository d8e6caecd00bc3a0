//! A connected socket of any kind, encrypted or not, and output that it would not take yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls;
use crate::config::Timeouts;
use crate::protocol::Plan;
use crate::protocol::proxy_protocol::Ends;

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
        self.tune_downstream(timeouts);
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(timeouts.tcp_user));
        }
    }

    /// Makes closing send a reset, so that the peer cannot take the end of the stream for the end of an answer.
    pub fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => {
                let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
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

/// No Nagle delay, keepalive: what every TCP socket gets.
pub(super) fn tune(socket: &SockRef<'_>, timeouts: &Timeouts) {
    let keepalive = TcpKeepalive::new()
        .with_time(timeouts.keepalive)
        .with_interval(std::time::Duration::from_secs(10))
        .with_retries(3);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
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
