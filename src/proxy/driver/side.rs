//! One of a connection's two sockets, with what it has read and cannot place yet.
//!
//! Absent on purpose: the session. A side knows which bytes are new, not what they mean.

use std::io;
use std::task::{Context, Poll};

use super::super::socket::{Backlog, Socket};
use crate::breaker::Fault;
use crate::protocol::HOLD_MAX;

/// One of the two sockets.
pub(super) struct Side {
    pub(super) socket: Socket,
    /// Input that the session has left unconsumed.
    pub(super) held: Box<[u8]>,
    /// Something has happened since the session left `held`: it is worth showing again.
    pub(super) again: bool,
    pub(super) backlog: Backlog,
    pub(super) input: Input,
    /// Nothing could be read this turn: the task is woken when that changes, and need not ask again before.
    pub(super) quiet: bool,
    /// Our sending side is shut, or the peer does not take any more.
    pub(super) output_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Open,
    /// The peer has ended it; the session has yet to hear of it.
    Ended(Fault),
    /// The session has heard of it.
    Over,
}

/// What [`Side::fill`] has put into the scratch buffer.
pub(super) struct Filled {
    /// Held and fresh bytes.
    pub(super) len: usize,
    pub(super) fresh: usize,
    /// No more can be read right now.
    pub(super) drained: bool,
}

impl Side {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            held: Box::default(),
            again: false,
            backlog: Backlog::default(),
            input: Input::Open,
            quiet: false,
            output_over: false,
        }
    }

    /// Puts the held bytes, then `most` fresh ones at most, into `scratch`. None if there is nothing new to show.
    pub(super) fn fill(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        most: usize,
    ) -> io::Result<Option<Filled>> {
        let held = self.held.len();
        let mut fresh = 0;
        let mut drained = true;
        if self.input == Input::Open && held <= HOLD_MAX && !self.quiet {
            let size = most.min(scratch.len() - held);
            let room = &mut scratch[held..held + size];
            match self.socket.poll_read(cx, room) {
                Poll::Ready(Ok(0)) => self.input = Input::Ended(Fault::Eof),
                Poll::Ready(Ok(n)) => (fresh, drained) = (n, n < size),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => self.quiet = true,
            }
        }
        let again = std::mem::take(&mut self.again) && held > 0;
        if fresh == 0 && !again {
            return Ok(None);
        }
        scratch[..held].copy_from_slice(&self.held);
        Ok(Some(Filled { len: held + fresh, fresh, drained }))
    }

    /// Keeps what the session left. Owns no memory when that is nothing.
    pub(super) fn hold(&mut self, rest: &[u8]) {
        if !rest.is_empty() || !self.held.is_empty() {
            self.held = rest.into();
        }
    }

    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        if self.backlog.is_empty() { Ok(0) } else { self.backlog.flush(cx, &mut self.socket) }
    }

    /// How much it holds.
    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.held.len() + self.backlog.len()
    }

    pub(super) fn give_up_output(&mut self) {
        self.output_over = true;
        self.backlog = Backlog::default();
    }
}
