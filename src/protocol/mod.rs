//! What a protocol must tell the driver: pure session state, bytes and time in, decisions out.
//!
//! A [`Session`] belongs to one client connection and its upstream connection. It sees borrowed slices of the
//! driver's read buffer and answers with a [`Plan`]: forward these bytes, drop those, insert these. It asks the
//! [`crate::gate`] for admission when a call begins and reports the verdict when it ends.
//!
//! Absent on purpose: sockets, `await`, clocks, buffers of whole values. Whatever a session does not understand
//! it forwards untouched.

mod class;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod limit;
mod plan;
pub mod postgres;
pub mod proxy_protocol;
pub mod redis;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use class::Class;
pub(crate) use limit::Limit;
pub use plan::{Plan, Span};

use crate::breaker::Fault;

/// One client connection's protocol state. The driver calls the entries below, then looks at [`Session::phase`],
/// [`Session::replies`] and [`Session::wait`] again.
///
/// **Unconsumed input.** What a plan does not consume is presented again, followed by whatever has come since.
/// A session leaves bytes unconsumed only when it needs more of them to decide (at most [`HOLD_MAX`]), when
/// [`Phase::Dial`] must end first, or when local replies must leave first.
pub trait Session {
    /// Bytes from the client, the unconsumed ones first. `drained` says that no more can be read right now.
    /// Called only in [`Phase::Relay`] and [`Phase::Idle`], and never with an empty slice.
    fn on_client(&mut self, now: Instant, input: &[u8], drained: bool, plan: &mut Plan);

    /// Bytes from the backend, the unconsumed ones first. If the next thing owed to the client is a local reply
    /// (a rejection in the middle of a pipeline), the session stops consuming; the driver calls
    /// [`Session::replies`] and presents the rest again.
    fn on_server(&mut self, now: Instant, input: &[u8], plan: &mut Plan);

    /// Appends local replies that are due (their turn in the order of requests has come), about
    /// [`REPLY_CHUNK`] bytes at most at a time; nothing when none is due. Called again until it appends nothing,
    /// and only when everything before has been handed to the client's socket.
    fn replies(&mut self, now: Instant, out: &mut Vec<u8>);

    /// What the driver is to do with the connection.
    fn phase(&self) -> Phase;

    /// Whose move it is, and how long it may take.
    fn wait(&self) -> Wait;

    /// The upstream connection that [`Phase::Dial`] asked for stands. `peer` is its resolved address, none for
    /// unix sockets.
    fn on_connected(&mut self, now: Instant, peer: Option<SocketAddr>);

    /// The upstream connection that stands next is encrypted. Comes right before [`Session::on_connected`].
    fn on_upstream_secured(&mut self) {}

    /// The client's leg is encrypted now, as [`Phase::Secure`] asked, or as the listener does by itself. `alpn`: the
    /// protocol that was agreed on. A handshake that fails ends the connection without a word to the session.
    fn on_secured(&mut self, _now: Instant, _alpn: Option<&[u8]>) {}

    /// No upstream connection could be had. `None`: a fault of this machine (out of descriptors or ports), which
    /// says nothing about the backend.
    fn on_connect_failed(&mut self, now: Instant, fault: Option<Fault>);

    /// The dial waits for a place among the backend's connections, or does not any more: meanwhile the backend owes
    /// nothing.
    fn on_queued(&mut self, _queued: bool) {}

    /// No place was to be had among the backend's connections, which are limited to `limit`. That is no verdict.
    fn on_full(&mut self, now: Instant, limit: u32);

    /// The client's next request waits until then, at the latest, because as many calls are in flight as may be: it is
    /// presented again every now and then, and nothing more is read meanwhile.
    fn queued(&self) -> Option<Instant> {
        None
    }

    /// The client has closed its sending side.
    fn on_client_eof(&mut self, now: Instant);

    /// Whether the client's end of input may be passed on to the backend now. Asked after
    /// [`Session::on_client_eof`], once all consumed input has been written upstream.
    fn may_forward_eof(&self) -> bool;

    /// Whether the client has ended its side and all that the backend still owes it is the end of the connection.
    fn is_parting(&self) -> bool;

    /// The backend has closed ([`Fault::Eof`]) or reset ([`Fault::Reset`]) its connection; everything it sent
    /// before has been presented.
    fn on_server_eof(&mut self, now: Instant, fault: Fault);

    /// The time of [`Session::wait`] is over. The session must leave the phase or the wait.
    fn on_deadline(&mut self, now: Instant);

    /// Whether the session must hear of state changes: a poisoned connection ends when its breaker leaves open.
    fn watches_breaker(&self) -> bool {
        false
    }

    /// The breaker's state has changed, or may have while nobody watched. Called only while
    /// [`Session::watches_breaker`].
    fn on_breaker_change(&mut self, _now: Instant) {}

    /// The proxy is shutting down: end natively as soon as no call and no transaction is open. After it, the
    /// session must reach [`Phase::Finish`] as soon as that is so (perhaps at once).
    fn on_drain(&mut self, now: Instant);

    /// The time for that is over: whatever is open, the session must reach [`Phase::Finish`], or [`Phase::Abort`] if
    /// there can be no last words. What is under way says nothing about the backend.
    fn on_drain_over(&mut self, now: Instant);
}

/// The most bytes that a session may leave unconsumed while it waits for more of them: the longest inline command
/// or startup packet, with room to spare. A driver's read buffer is larger.
pub const HOLD_MAX: usize = 66 * 1024;

/// About how many bytes of local replies [`Session::replies`] appends at a time.
pub const REPLY_CHUNK: usize = 16 * 1024;

/// What a session wants of its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No upstream connection exists or is wanted yet; client bytes are welcome.
    Idle,
    /// An upstream connection is wanted; client bytes wait. Ends with [`Session::on_connected`] or
    /// [`Session::on_connect_failed`].
    Dial(Target),
    /// The client's leg is to be encrypted: once the replies have been written, the client begins a TLS handshake.
    /// Unconsumed input is the beginning of it. Ends with [`Session::on_secured`].
    Secure,
    /// Bytes flow both ways. An upstream connection may have been refused by the breaker, in which case there is
    /// none and the session consumes and answers all client bytes itself.
    Relay,
    /// Everything owed to the client has been planned or is in [`Session::replies`]: write it, close the upstream
    /// connection, shut down the client's, drain what it still sends for a moment, close.
    Finish,
    /// Close both connections now; a partly relayed frame can have no orderly end.
    Abort,
}

/// Where to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The backend's configured address.
    Backend,
    /// Exactly this address: a Postgres CancelRequest must reach the server that its session runs on.
    Exactly(SocketAddr),
    /// The backend's configured address, for a CancelRequest of a session that nobody knows. Like the one above it takes
    /// no place among the backend's connections: it may be what frees one.
    Aside,
}

/// Whose move it is. The driver measures the backend's time from the last progress: the last byte in either direction, the
/// moment when the request was wholly accepted by the backend's socket, or when a blocked write to the client
/// went on; while a write is blocked it stands still. The client's is measured from the last that it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nobody's, or it may take as long as it likes.
    Nothing,
    /// The backend's: a reply is owed within this time.
    Backend(Duration),
    /// The client's: it must be through with this step of its handshake within this time, byte by byte or not.
    Client(Duration),
}
