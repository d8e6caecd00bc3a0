//! A request as far as it is known when it is decided upon: its command and, for a few, its first arguments.

use std::time::Instant;

use super::command::Command;
use super::fate::{Fate, Then, Way};
use super::reject::Local;
use super::upstream::Subscriptions;

/// A request as far as it is known when it is decided upon.
pub(super) struct Asked<'a> {
    pub(super) command: Command,
    /// The configuration lets it pass whatever the breaker says.
    pub(super) cure: bool,
    pub(super) args: u64,
    /// Its first two arguments, for commands that need them.
    pub(super) first: [&'a [u8]; 2],
    /// CLIENT REPLY keeps it from getting a reply.
    pub(super) muted: bool,
    /// When it came.
    pub(super) at: Instant,
}

impl Asked<'_> {
    /// Whether the first argument is this word.
    pub(super) fn is(&self, word: &str) -> bool {
        self.first[0].eq_ignore_ascii_case(word.as_bytes())
    }

    pub(super) fn conclusive(&self) -> bool {
        self.command.is_conclusive(self.first[0])
    }

    pub(super) fn always_passes(&self) -> bool {
        self.cure || self.command.always_passes(self.first[0])
    }

    pub(super) fn poisons(&self) -> bool {
        self.command.poisons(self.first[0])
    }

    /// Queued in a transaction, it breaks the array of replies: `SUBSCRIBE a b` is two frames in one slot.
    pub(super) fn breaks_block(&self) -> bool {
        matches!(self.command, Command::Subscribe(_) | Command::Unsubscribe(_) | Command::Hello)
            || self.command == Command::Client && self.is("REPLY")
    }

    /// Swallowed, and answered by fusewire unless it gets no reply.
    pub(super) fn answered(&self, local: Local) -> Fate {
        Fate { way: Way::Swallow((!self.muted).then_some(local)), then: Then::GoOn }
    }

    /// A RESP2 subscriber's CLIENT REPLY is refused: with an error, or, behind CLIENT REPLY OFF, without a word. Who is
    /// one is known from confirmations that may be yet to come, so what it changes cannot be told.
    pub(super) fn unsettles(&self, subscriptions: &Subscriptions) -> bool {
        self.command == Command::Client && self.is("REPLY") && subscriptions.may_confine()
    }

    /// How CLIENT REPLY would have it; none if it is something else or malformed.
    pub(super) fn reply_mode(&self) -> Option<&'static str> {
        let reply = self.command == Command::Client && self.args == 2 && self.is("REPLY");
        let modes = ["ON", "OFF", "SKIP"];
        modes.into_iter().find(|mode| reply && self.first[1].eq_ignore_ascii_case(mode.as_bytes()))
    }
}
