//! The end of connections, in three steps: drain, the last words, silence.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The switch that ends the connections of a backend, or of the process.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    /// The same as `drain`, at the price of an atomic load.
    draining: AtomicBool,
    drain: CancellationToken,
    over: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    /// Stops accepting and asks every connection to end as soon as no call and no transaction is open.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.0.drain.cancel();
    }

    /// The time for that is over: every connection says its last words, whatever is open on it.
    pub fn finish(&self) {
        self.drain();
        self.0.over.cancel();
    }

    /// Ends everything at once.
    pub fn stop(&self) {
        self.finish();
        self.0.stop.cancel();
    }

    /// Whether the drain has begun.
    pub(super) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Completes when the drain begins.
    pub async fn drained(&self) {
        self.0.drain.cancelled().await;
    }

    /// Completes when the time to drain is over.
    pub(super) async fn over(&self) {
        self.0.over.cancelled().await;
    }

    /// Completes when everything is to end at once.
    pub(super) async fn stopped(&self) {
        self.0.stop.cancelled().await;
    }

    /// A connection's ear for it.
    pub(super) fn ear(&self) -> Drain {
        Drain {
            waiting: Box::pin(self.0.drain.clone().cancelled_owned()),
            steps: self.0.clone(),
            registered: false,
            heard: Heard::Nothing,
        }
    }
}

/// One connection's ear for the beginning and the end of the drain. Costs an atomic load a turn.
pub struct Drain {
    steps: Arc<Steps>,
    /// For the step that comes next.
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: bool,
    heard: Heard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Begun,
    Over,
}

impl Drain {
    /// Whether the drain has begun; true once only. The first call arranges for the task to be woken.
    #[inline]
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            // A task's waker stays good for its life, so asking once is enough.
            self.registered = true;
            let _: Poll<()> = self.waiting.as_mut().poll(cx);
        }
        if self.heard != Heard::Nothing || !self.steps.draining.load(Ordering::Acquire) {
            return false;
        }
        self.heard = Heard::Begun;
        self.waiting = Box::pin(self.steps.over.clone().cancelled_owned());
        true
    }

    /// Whether the time to drain is over; true once only, and not before [`Drain::poll_begun`] was.
    #[inline]
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.heard != Heard::Begun || self.waiting.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.heard = Heard::Over;
        true
    }
}
