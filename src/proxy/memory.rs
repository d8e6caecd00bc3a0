//! Sockets without a system, for tests in virtual time: what is read from one end was written to the other.
//!
//! They can do on demand what real ones do when it suits them: give one byte at a time, end, be reset. A dial that
//! is made while a test has put up a [`Dialler`] goes there.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::time::{Instant, sleep, timeout_at};

use crate::breaker::Fault;

/// One end of a connection.
#[derive(Debug)]
pub struct Memory {
    stream: DuplexStream,
    /// At most so many bytes are read at a time.
    slice: usize,
    /// The peer has reset the connection.
    reset: Arc<AtomicBool>,
    peer: Arc<AtomicBool>,
}

impl Memory {
    /// Both ends of a connection with so much room each way. The first reads at most `slice` bytes at a time.
    pub(super) fn pair(room: usize, slice: usize) -> (Self, Self) {
        let (one, other) = duplex(room.max(1));
        let (a, b) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let first = Self { stream: one, slice: slice.max(1), reset: a.clone(), peer: b.clone() };
        (first, Self { stream: other, slice: usize::MAX, reset: b, peer: a })
    }

    /// From the moment at which this end is dropped the other meets a reset instead of an end.
    pub(super) fn reset_on_close(&self) {
        self.peer.store(true, Ordering::Relaxed);
    }

    /// Does the same from elsewhere.
    pub(super) fn resetter(&self) -> Arc<AtomicBool> {
        self.peer.clone()
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut room = buffer.take(self.slice);
        let poll = Pin::new(&mut self.stream).poll_read(cx, &mut room);
        let n = room.filled().len();
        buffer.advance(n);
        poll
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What becomes of one dial, and after how long.
pub(super) struct Dialled {
    pub(super) delay: Duration,
    pub(super) result: Result<Memory, Option<Fault>>,
}

impl Dialled {
    /// Waits for it.
    pub(super) async fn until(self, deadline: Instant) -> Result<Memory, Option<Fault>> {
        timeout_at(deadline, sleep(self.delay)).await.map_err(|_| Some(Fault::ConnectTimeout))?;
        self.result
    }
}

/// Answers the dials of this thread.
pub(super) type Dialler = Rc<dyn Fn() -> Dialled>;

thread_local! {
    static DIALLER: RefCell<Option<Dialler>> = const { RefCell::new(None) };
}

/// Puts up a dialler for this thread, or takes it down.
pub(super) fn answer_dials(dialler: Option<Dialler>) {
    DIALLER.set(dialler);
}

/// A dial, if somebody answers.
pub(super) fn dial() -> Option<Dialled> {
    let dialler = DIALLER.with_borrow(Clone::clone)?;
    Some(dialler())
}
