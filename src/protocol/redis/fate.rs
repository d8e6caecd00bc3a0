//! What becomes of a request: where its bytes go, and what follows its last one.

use super::command::TimeoutWatch;
use super::reject::Local;
use super::request::Body;

/// A request that has been decided upon and has not ended.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) body: Body,
    pub(super) fate: Fate,
    pub(super) watch: Option<Box<TimeoutWatch>>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) way: Way,
    pub(super) then: Then,
}

/// Where its bytes go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the backend. `owed`: its reply is the last thing in the queue.
    Forward { owed: bool },
    /// Nowhere; its reply, if it gets one, is due when its last byte has come.
    Swallow(Option<Local>),
    /// Nowhere; another has been sent in its place, whose reply is in the queue.
    Replaced,
}

/// What follows its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request.
    GoOn,
    /// Nothing that anybody looks at: the backend hangs up by itself.
    Close,
    /// The end, after what is owed.
    HangUp,
    /// A plain relay.
    Relay,
}
