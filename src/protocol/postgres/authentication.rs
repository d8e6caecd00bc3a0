//! Authentication: whose move it is while a session starts. A client that keeps the server waiting for its password
//! must not pass for a silent backend.

use super::ledger::Account;
use super::session::Session;
use super::units::{Flight, Kind};

/// The questions and answers so far.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    challenges: u32,
    answers: u32,
}

impl Authentication {
    /// Whether the server waits for the client.
    pub(super) fn client_owes(&self) -> bool {
        self.answers < self.challenges
    }
}

impl Session {
    /// The server has asked a question.
    pub(super) fn challenged(&mut self) {
        self.authentication.challenges = self.authentication.challenges.saturating_add(1);
        if self.authentication.client_owes() {
            self.probe_owed(false);
        }
    }

    /// An answer of the client's is whole.
    pub(super) fn answered(&mut self) {
        self.authentication.answers = self.authentication.answers.saturating_add(1);
        if !self.authentication.client_owes() {
            self.probe_owed(true);
        }
    }

    /// Tells the gate whose move it is in a startup that is a probe.
    fn probe_owed(&mut self, owed: bool) {
        if let Some(Flight { kind: Kind::Startup, account: Account::Permit(permit), .. }) = self.queue.peek()
        {
            permit.set_owed(owed);
        }
    }
}
