//! The end of a connection, and what it says of the calls in flight.

use std::time::Instant;

use super::owed::Account;
use super::reject::Local;
use super::session::{Life, Request, Session};
use crate::breaker::{CallKind, Fault, Generation, Verdict};

impl Session {
    /// Ends the connection. Calls still in flight say nothing.
    pub(super) fn end(&mut self, life: Life) {
        self.abandon();
        self.probes.clear();
        self.fifo.cut();
        self.life = life;
    }

    /// Ends the connection after what is owed before.
    pub(super) fn hang_up(&mut self) {
        if !self.fifo.ends() {
            self.fifo.answer(Local::End);
        }
        self.request = Request::Closed;
        self.held = false;
    }

    /// The upstream connection has failed with calls in flight: one failure, however many they are.
    pub(super) fn fail(&mut self, now: Instant, fault: Fault) {
        let verdict = Verdict::Failure(fault.into());
        let mut calls: u64 = self.calls();
        let probe = self.fifo.owed().find_map(|owed| self.probes.release(owed.probe));
        let oldest = self.fifo.owed().find_map(|owed| match owed.account {
            Account::Call { generation, start } => Some((generation, start)),
            Account::None => None,
        });
        if let Some(probe) = probe {
            // The probe is what the breaker waits for, so it is the call that the failure is put down to.
            probe.record(now, verdict);
        } else if let Some((generation, start)) = oldest {
            self.lane.permit_of(generation, CallKind::Command, start).record(now, verdict);
            calls -= 1;
        }
        self.lane.ignored(calls);
        self.probes.clear();
        self.fifo.cut();
    }

    /// A connection that the breaker let through has turned out to be none.
    pub(super) fn failed_at_birth(&self, now: Instant, generation: Generation, verdict: Verdict) {
        self.lane.passed(1);
        self.lane.permit_of(generation, CallKind::Connect, now).record(now, verdict);
    }

    /// Accounts for all calls in flight as saying nothing.
    pub(super) fn abandon(&mut self) {
        self.lane.ignored(self.calls());
    }

    /// Calls in flight that are counted by the lane.
    fn calls(&self) -> u64 {
        self.fifo.owed().filter(|owed| owed.account != Account::None).map(|owed| owed.n).sum()
    }
}
