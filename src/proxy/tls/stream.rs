//! An encrypted connection, and the socket beneath it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::super::socket::Socket;

/// An encrypted connection.
#[derive(Debug)]
pub struct Stream(pub(super) TlsStream<Inner>);

impl Stream {
    /// The protocol that both sides agreed on in the handshake.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }

    /// The socket beneath.
    pub fn socket(&self) -> &Socket {
        &self.0.get_ref().0.socket
    }

    /// Whether encrypted bytes wait for the socket to take them.
    pub fn has_unsent(&self) -> bool {
        self.0.get_ref().1.wants_write()
    }

    pub(in crate::proxy) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }

    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    pub(in crate::proxy) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    pub(in crate::proxy) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    /// Tells the peer that this is the end, if its socket takes that now.
    pub(in crate::proxy) fn farewell(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _: Poll<io::Result<()>> = self.poll_shutdown(&mut cx);
    }
}

/// The socket beneath a TLS connection, with what was read from it before the handshake began.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) socket: Socket,
    pub(super) early: Vec<u8>,
    /// The peer has sent something.
    pub(super) heard: bool,
}

impl AsyncRead for Inner {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            let before = buffer.filled().len();
            let poll = Pin::new(&mut this.socket).poll_read(cx, buffer);
            this.heard |= buffer.filled().len() > before;
            return poll;
        }
        let n = this.early.len().min(buffer.remaining());
        buffer.put_slice(&this.early[..n]);
        this.early.drain(..n);
        if this.early.is_empty() {
            this.early = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inner {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().socket), cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_shutdown(cx)
    }
}
