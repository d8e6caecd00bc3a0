//! Extended units: a run of Parse, Bind, Describe, Execute and Close up to its Sync.

use std::time::Instant;

use super::admission::{Batch, Decision};
use super::doom::{Doom, Fate};
use super::missing::substitute;
use super::{Act, End, Run, Step};
use crate::metrics::Counter;
use crate::protocol::postgres::ledger::Account;
use crate::protocol::postgres::local::Local;
use crate::protocol::postgres::lost::Peek;
use crate::protocol::postgres::message::{HEADER, Header, Message};
use crate::protocol::postgres::names::name_at;
use crate::protocol::postgres::session::Session;
use crate::protocol::postgres::units::{Flight, Kind};

/// How far ahead Close messages are followed to see whether nothing but a Sync comes after them.
const CLOSES_MAX: usize = 16 * 1024;

impl Session {
    /// A message of a run that is not rejected.
    pub(super) fn extended(
        &mut self,
        now: Instant,
        message: Message<'_>,
        run: Run,
        batch: &mut Batch,
    ) -> Step {
        let tag = message.tag;
        let mut passing_name = None;
        let mut revives = false;
        let mut act = Step::Take(Act::Forward(End::Nothing));
        // Close touches nothing but names.
        if self.client.doom != Doom::None && tag != b'C' {
            match self.doomed(now, message, run, batch) {
                Fate::Ordinary => {}
                Fate::Revives | Fate::RollsBack => revives = true,
                Fate::Step(step) => return step,
                Fate::Fails => {
                    self.lane().add(Counter::RejectedSession, 1);
                    self.queue.reply(Local::Undone);
                    self.client.run = Run::Rejected;
                    return Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: false });
                }
            }
        }
        if !self.client.names.is_empty() {
            match self.names_rejected(message) {
                None => return Step::Hold,
                Some(true) if run == Run::Outside && self.may_reject() && self.passes(batch) => {
                    self.lane().add(Counter::RejectedSession, 1);
                    self.queue.reply(Local::Missing);
                    self.client.run = Run::Rejected;
                    return Step::Take(Act::Drop);
                }
                Some(true) => act = Step::Replace(substitute(tag)),
                Some(false) => {}
            }
            if tag == b'P' {
                let Some(name) = name_at(message.body, message.is_whole()) else { return Step::Hold };
                passing_name = Some(name);
            }
        }
        if run == Run::Inside {
            self.extend(now, batch);
        } else {
            let closes_only = if tag == b'C' && self.may_reject() && !self.passes(batch) {
                match closes_only(message.rest) {
                    None if message.rest.len() < CLOSES_MAX => return Step::Hold,
                    answer => answer == Some(true),
                }
            } else {
                false
            };
            let decision = if closes_only {
                Decision::Pass(Account::Settled)
            } else {
                self.decide(now, message, false, batch)
            };
            let account = match decision {
                Decision::Pass(account) => account,
                Decision::Refuse => {
                    self.client.run = Run::Rejected;
                    return Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: true });
                }
                Decision::Hold => return Step::Hold,
            };
            if revives {
                self.client.doom = Doom::None;
            }
            let mut flight = Flight::new(Kind::Extended, account, now, !closes_only);
            flight.pending = 1;
            flight.owed(false);
            self.queue.launch(flight);
            self.client.run = Run::Inside;
        }
        if tag == b'E' {
            self.queue.executes();
        }
        self.learn(message);
        if let Some(name) = passing_name {
            self.client.names.remove(&name);
        }
        act
    }

    /// One more message in the run that is being sent.
    fn extend(&mut self, now: Instant, batch: &mut Batch) {
        match self.queue.tail() {
            Some(tail) if tail.kind == Kind::Extended && !tail.whole => {
                tail.pending = tail.pending.saturating_add(1);
            }
            // A Query has cut the run short; what follows is a part of its own.
            _ => {
                batch.passed += 1;
                let account = Account::Passed(self.client.generation);
                let mut flight = Flight::new(Kind::Extended, account, now, true);
                flight.pending = 1;
                self.queue.launch(flight);
            }
        }
    }

    /// The Sync that ends a run, or one by itself.
    pub(super) fn sync(&mut self, now: Instant, run: Run, batch: &mut Batch) -> Step {
        if self.client.copying {
            return Step::Take(Act::Forward(End::Nothing));
        }
        self.client.run = Run::Outside;
        match self.queue.tail() {
            Some(tail) if run != Run::Outside && tail.kind == Kind::Extended && !tail.whole => {
                tail.whole = true;
                tail.start = now;
                tail.owed(true);
            }
            _ => {
                // By itself it is no call. While calls are rejected it must not hang on the backend either.
                if run == Run::Outside && self.may_reject() && !self.passes(batch) {
                    self.queue.reply(Local::Ready(1));
                    return Step::Take(Act::Drop);
                }
                let mut flight = Flight::new(Kind::Extended, Account::Settled, now, false);
                flight.whole = true;
                self.queue.launch(flight);
            }
        }
        Step::Take(Act::Forward(End::Nothing))
    }
}

/// Whether nothing but Close messages comes before the next Sync or Flush; none while that is not there.
fn closes_only(mut rest: &[u8]) -> Option<bool> {
    loop {
        let header = Header::read(rest)?;
        match header.tag {
            b'C' => rest = rest.get(HEADER + header.client_body()?..)?,
            tag => return Some(matches!(tag, b'S' | b'H')),
        }
    }
}
