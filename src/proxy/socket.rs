//! A connected socket of either kind, and output that it would not take yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Timeouts;
use crate::protocol::Plan;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
}

impl Socket {
    /// Prepares a client's socket: no Nagle delay, keepalive. A failure to set an option is no reason to refuse
    /// the connection.
    pub fn tune_downstream(&self, timeouts: &Timeouts) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive(timeouts));
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
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let poll = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
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
        }
    }

    /// Ends the sending side.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

fn keepalive(timeouts: &Timeouts) -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(timeouts.keepalive)
        .with_interval(std::time::Duration::from_secs(10))
        .with_retries(3)
}

/// Output that a socket would not take yet. Owns no memory while empty.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    written: usize,
}

impl Backlog {
    /// Whether everything has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes as much as the socket takes. Returns how much that was.
    ///
    /// # Errors
    /// The socket's.
    pub fn flush(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> io::Result<usize> {
        let mut total = 0;
        while !self.is_empty() {
            match socket.poll_write(cx, &[IoSlice::new(&self.bytes[self.written..])]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    total += n;
                    self.written += n;
                    if self.written == self.bytes.len() {
                        *self = Self::default();
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
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
        if self.is_empty() {
            match socket.poll_write(cx, slices) {
                Poll::Ready(Ok(n)) => IoSlice::advance_slices(&mut slices, n),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        for slice in slices {
            self.bytes.extend_from_slice(slice);
        }
        Ok(())
    }
}
