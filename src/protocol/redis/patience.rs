//! How long the backend may take, and whether it is its move at all.

use std::time::Duration;

use super::command::Patience;
use super::fate::Way;
use super::fifo::Head;
use super::session::{Request, Session};

impl Session {
    /// Whether the next move is the backend's and it is not waiting for something other than itself.
    pub(super) fn backend_owes(&self) -> bool {
        self.patience().is_some() && !self.blocked()
    }

    /// How long the backend may take, if the next move is its.
    fn patience(&self) -> Option<Patience> {
        let patience = match self.fifo.head()? {
            Head::Calls => Patience::Response,
            Head::Owed(head) => head.patience,
            // Its turn has come when the message that is passing has ended.
            Head::Local if !self.replies.at_boundary() => Patience::Response,
            Head::Local | Head::Opaque => return None,
        };
        (!(self.uploading() && self.fifo.requests() == 1)).then_some(patience)
    }

    /// Whether the last request in the queue is still on its way from the client.
    pub(super) fn uploading(&self) -> bool {
        matches!(&self.request, Request::Body(decided) if decided.fate.way == Way::Forward { owed: true })
    }

    /// Whether the backend may be waiting for something other than itself.
    pub(super) fn blocked(&self) -> bool {
        matches!(self.fifo.head(), Some(Head::Owed(head)) if head.blocks())
    }

    /// When the backend has been silent for too long; none if that is not for a clock to say.
    pub(super) fn limit(&self) -> Option<Duration> {
        let limit = match self.patience()? {
            Patience::Response => self.settings.response(),
            Patience::Handshake => Some(self.settings.handshake()),
            Patience::Own(own) => self.settings.response().map(|limit| limit + own),
            Patience::Forever | Patience::Unbounded => None,
        };
        limit.map(|limit| limit.saturating_add(self.grace))
    }
}
