//! Simple units: a Query or a FunctionCall, which is one message.

use std::time::Instant;

use super::admission::{Batch, Decision};
use super::doom::{Doom, Fate};
use super::{Act, End, Run, Step};
use crate::metrics::Counter;
use crate::protocol::postgres::local::Local;
use crate::protocol::postgres::lost::Peek;
use crate::protocol::postgres::message::Message;
use crate::protocol::postgres::session::Session;
use crate::protocol::postgres::statement::Shape;
use crate::protocol::postgres::units::{Flight, Kind};

impl Session {
    /// A Query or a FunctionCall; within a run it ends that run's part before it.
    pub(super) fn simple(&mut self, now: Instant, message: Message<'_>, run: Run, batch: &mut Batch) -> Step {
        let tag = message.tag;
        let within = run == Run::Inside;
        let mut revives = false;
        if self.client.doom != Doom::None {
            match self.doomed(now, message, run, batch) {
                Fate::Ordinary => {}
                Fate::Revives => revives = true,
                Fate::Step(step) => return step,
                Fate::RollsBack => {
                    self.client.doom = Doom::None;
                    self.queue.reply(Local::RolledBack);
                    self.queue.reply(Local::Ready(1));
                    return Step::Take(Act::Drop);
                }
                Fate::Fails => {
                    self.client.doom = Doom::None;
                    self.lane().add(Counter::RejectedSession, 1);
                    self.queue.reply(Local::Undone);
                    self.queue.reply(Local::Ready(1));
                    return Step::Take(Act::Drop);
                }
            }
        }
        let account = match self.decide(now, message, within, batch) {
            Decision::Pass(account) => account,
            Decision::Refuse => {
                return Step::Take(Act::Refuse { tag, peek: Peek::new(tag), opens: true });
            }
            Decision::Hold => return Step::Hold,
        };
        if revives {
            self.client.doom = Doom::None;
        }
        let mut flight = Flight::new(Kind::Simple, account, now, true);
        flight.within = within;
        flight.owed(false);
        self.queue.launch(flight);
        Step::Take(Act::Forward(End::Query((tag == b'Q').then(Shape::default))))
    }
}
