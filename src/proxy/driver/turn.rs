//! Whose turn it is among a worker's connections.
//!
//! A connection that has little to move does so as soon as a socket of its own is ready. Those that move much stand in a line
//! and take turns, one at a time, and between two of them the runtime looks at the sockets again. So whoever has little to
//! move waits for one turn of another connection, however many there are that move much and whatever they do: a hostile
//! client of one backend cannot take another's share.
//!
//! Absent on purpose: backends. Among those that move much each connection counts the same.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::pin;
use std::task::{Context, Waker};

use tokio::task::yield_now;

/// Bytes read that are much. With so many the turn of a connection is over that was not expected to have them, and that of any
/// while there are others that have little to move. One read of each side may go beyond.
const MUCH: usize = 32 * 1024;
/// The same where all that there are move much.
const MOST: usize = 512 * 1024;
/// For how many turns a connection that has moved much is expected to do so again.
const EXPECTED: u8 = 8;
/// For how many turns of the line a connection that has had little to move is expected to come again.
const REMEMBERED: u8 = 16;

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// Those of a worker that move much.
#[derive(Default)]
struct Line {
    waiting: VecDeque<(NonZeroU64, Waker)>,
    /// Whose turn it is.
    called: Option<NonZeroU64>,
    tickets: u64,
    /// Turns until those that have little to move are forgotten.
    others: u8,
}

/// A connection's turn, and its place in the line.
#[derive(Default)]
pub(super) struct Turn {
    /// Bytes read in this one.
    read: usize,
    /// From how many on it is over.
    limit: usize,
    /// In how many turns it is not expected to move much any more.
    expected: u8,
    ticket: Option<NonZeroU64>,
}

impl Line {
    fn join(&mut self, waker: &Waker) -> Option<NonZeroU64> {
        self.tickets += 1;
        let ticket = NonZeroU64::new(self.tickets)?;
        self.waiting.push_back((ticket, waker.clone()));
        Some(ticket)
    }

    fn leave(&mut self, ticket: NonZeroU64) {
        if self.called == Some(ticket) {
            self.called = None;
        } else {
            self.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    fn call(&mut self) {
        if self.called.is_none()
            && let Some((ticket, waker)) = self.waiting.pop_front()
        {
            self.called = Some(ticket);
            wake_after_a_look(&waker);
        }
    }
}

/// Wakes a task when the runtime has looked at the sockets, and behind all that this wakes. One that is merely woken may run
/// many times before.
fn wake_after_a_look(waker: &Waker) {
    // A task that yields is woken in this way; no other can be had.
    let _ = pin!(yield_now()).poll(&mut Context::from_waker(waker));
}

impl Turn {
    /// Whether the connection may move now. If not, the task is woken when it may.
    pub(super) fn begin(&mut self, cx: &Context<'_>) -> bool {
        LINE.with_borrow_mut(|line| {
            if self.ticket.is_none() && self.expected == 0 {
                line.others = REMEMBERED;
                self.limit = MUCH;
            } else {
                if self.ticket.is_none() {
                    self.ticket = line.join(cx.waker());
                    line.call();
                }
                if self.ticket != line.called {
                    return false;
                }
                self.limit = if line.others == 0 { MOST } else { MUCH };
                line.others = line.others.saturating_sub(1);
            }
            self.read = 0;
            true
        })
    }

    /// The most to read from one side at a time.
    pub(super) fn most(&self) -> usize {
        self.limit
    }

    /// Whether so much has been read that it is another's turn.
    pub(super) fn is_over(&self) -> bool {
        self.read >= self.limit
    }

    /// Notes that so many bytes have been read.
    pub(super) fn add(&mut self, bytes: usize) {
        self.read += bytes;
    }

    /// Ends it. A connection that has `more` to move has another when those before it in the line have had theirs.
    pub(super) fn end(&mut self, cx: &Context<'_>, more: bool) {
        let much = more || self.read >= MUCH;
        self.expected = if much { EXPECTED } else { self.expected.saturating_sub(1) };
        if !more && self.ticket.is_none() {
            return;
        }
        LINE.with_borrow_mut(|line| {
            if let Some(ticket) = self.ticket.take() {
                line.leave(ticket);
            }
            if more {
                self.ticket = line.join(cx.waker());
            }
            line.call();
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            LINE.with_borrow_mut(|line| {
                line.leave(ticket);
                line.call();
            });
        }
    }
}
