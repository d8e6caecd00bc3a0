//! The decision on one request: forwarded, swallowed or replaced (PROTOCOLS §2.2 to §2.4).
//!
//! Decided are the command and, for a few, its first arguments; a value of any size may still be on its way.

use std::time::Instant;

use super::asked::Asked;
use super::command::{Command, Patience, millis};
use super::downstream::Batch;
use super::fate::{Fate, Then, Way};
use super::owed::{Account, Effect, Expect, Owed};
use super::reject::{Local, Text};
use super::session::{Block, Mute, Session};
use crate::breaker::{CallKind, Generation};
use crate::gate::Rejection;
use crate::metrics::Counter;
use crate::protocol::Plan;

/// Sent in place of the EXEC of a transaction that the breaker overtook.
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
/// Sent when a rejected transaction leaves a WATCH behind at the backend.
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";
/// Decides a probe in place of a command that may rightly take long.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// Takes the place of a rejected request behind CLIENT REPLY SKIP, so that the backend does not skip another's reply.
const SKIPPED: &[u8] = b"*2\r\n$4\r\nECHO\r\n$1\r\n.\r\n";

/// On what grounds a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// A call like any other, of this generation.
    Call(Generation),
    /// A call that goes along with the probe in hand of this number.
    Covered(Generation, u32),
    /// It is the probe of this number itself.
    Probe(Generation, u32),
    /// No call: it passes whatever the breaker says.
    Free,
}

impl Session {
    /// Decides on a request, CLIENT REPLY SKIP included.
    pub(super) fn begin(&mut self, batch: &mut Batch, mut asked: Asked<'_>, plan: &mut Plan) -> Fate {
        let (mode, live) = (self.mute, self.live());
        asked.muted = mode != Mute::No;
        if mode == Mute::Next {
            self.mute = Mute::No;
        }
        let fate = self.decide(batch, &asked, plan);
        if mode == Mute::Next && live && matches!(fate.way, Way::Swallow(_)) {
            plan.insert(SKIPPED);
        }
        fate
    }

    fn decide(&mut self, batch: &mut Batch, asked: &Asked<'_>, plan: &mut Plan) -> Fate {
        if asked.command == Command::Forbidden {
            self.lane.add(Counter::ClientMalformed, 1);
            return Fate { way: Way::Swallow(None), then: Then::HangUp };
        }
        if let Block::Virtual(rejection) = &self.block {
            let rejection = rejection.clone();
            if let Some(fate) = self.in_virtual_block(asked, rejection, plan) {
                return fate;
            }
        }
        if let Some(rejection) = self.poison.clone() {
            return self.poisoned(asked, rejection);
        }
        let breaks_block = matches!(self.block, Block::Open { .. }) && asked.breaks_block();
        if breaks_block || asked.unsettles(&self.subscriptions) {
            self.sent();
            return Fate { way: Way::Forward { owed: false }, then: Then::Relay };
        }
        if asked.command == Command::Multi
            && let Some(rejection) = self.unwatched.clone()
        {
            // The WATCH that was to guard this transaction never reached the backend.
            self.lane.add(Counter::RejectedSession, 1);
            self.block = Block::Virtual(rejection);
            return asked.answered(Local::Text(Text::Ok));
        }
        match self.admit(batch, asked, plan) {
            Ok(pass) => self.forward(batch, asked, pass),
            Err(rejection) => self.reject(asked, rejection, plan),
        }
    }

    /// Asks the breaker, unless the answer is known.
    fn admit(&mut self, batch: &mut Batch, asked: &Asked<'_>, plan: &mut Plan) -> Result<Pass, Rejection> {
        if let Some(generation) = batch.closed {
            self.lane.passed(1);
            return Ok(Pass::Call(generation));
        }
        if asked.always_passes() {
            return Ok(Pass::Free);
        }
        // A transaction is one call: its EXEC goes along with it, and in it nothing blocks.
        let within = matches!(self.block, Block::Open { .. }) && asked.command != Command::Exec;
        let eligible = asked.command.eligible() || within;
        let conclusive = asked.conclusive() && !within;
        if !asked.muted
            && let Some(probe) = self.probes.unspent(batch.now)
        {
            let (generation, number) = (probe.permit.generation(), probe.number);
            probe.spent = conclusive || !eligible;
            self.lane.passed(1);
            if eligible {
                return Ok(Pass::Covered(generation, number));
            }
            self.ping(number, batch.now, plan);
            return Ok(Pass::Call(generation));
        }
        if let Block::Open { generation, .. } = self.block
            && within
        {
            self.lane.passed(1);
            return Ok(Pass::Call(generation));
        }
        if let Some(rejection) = &batch.rejection {
            self.lane.rejected(rejection, 1);
            return Err(rejection.clone());
        }
        let answer = match asked.muted {
            true => self.lane.admit_ineligible(batch.now, CallKind::Command),
            false => self.lane.admit(batch.now, CallKind::Command),
        };
        match answer {
            Ok(permit) if permit.is_probe() => {
                let generation = permit.generation();
                let number = self.probes.hold(permit, conclusive || !eligible, true);
                if eligible {
                    return Ok(Pass::Probe(generation, number));
                }
                self.lane.passed(1);
                self.ping(number, batch.now, plan);
                Ok(Pass::Call(generation))
            }
            Ok(permit) => Ok(Pass::Call(permit.defer())),
            Err(rejection) => {
                if !asked.muted || rejection.is_open() {
                    batch.rejection = Some(rejection.clone());
                }
                Err(rejection)
            }
        }
    }

    /// Sends a PING of fusewire's own, whose reply decides a probe: the command behind it may rightly take long, and
    /// would keep everybody else waiting for its verdict.
    fn ping(&mut self, number: u32, now: Instant, plan: &mut Plan) {
        plan.insert(PING);
        self.sent();
        self.fifo.owe(Owed {
            account: Account::None,
            effect: Effect::Withhold,
            probe: Some(number),
            ..Owed::calls(1, 0, now)
        });
    }

    /// Lets a request through: what its reply will look like, and what it changes for those behind it.
    fn forward(&mut self, batch: &Batch, asked: &Asked<'_>, pass: Pass) -> Fate {
        let mut owed = Owed {
            account: match pass {
                Pass::Call(generation) | Pass::Covered(generation, _) => {
                    Account::Call { generation, start: batch.now }
                }
                Pass::Probe(..) | Pass::Free => Account::None,
            },
            conclusive: asked.conclusive(),
            probe: match pass {
                Pass::Covered(_, number) | Pass::Probe(_, number) => Some(number),
                Pass::Call(_) | Pass::Free => None,
            },
            ..Owed::calls(1, 0, batch.now)
        };
        if asked.command.handshake() {
            owed.patience = Patience::Handshake;
        }
        let mut muted = asked.muted;
        let mut then = Then::GoOn;
        let in_block = matches!(self.block, Block::Open { .. });
        match asked.command {
            // Which protocol is spoken from here on only its reply could tell.
            Command::Hello if muted => then = Then::Relay,
            Command::Hello => owed.effect = Effect::Hello,
            Command::Reset => {
                owed.effect = Effect::Reset;
                self.leave_block();
                // RESET ends CLIENT REPLY OFF and so gets its reply; CLIENT REPLY SKIP still skips it.
                muted &= self.mute == Mute::No;
                self.mute = Mute::No;
            }
            Command::Quit => {
                owed.effect = Effect::Leave;
                then = Then::Close;
            }
            Command::Shutdown => {
                owed.effect = Effect::Leave;
                owed.patience = Patience::Unbounded;
                owed.timed = false;
            }
            Command::Multi if !in_block => {
                let generation = match pass {
                    Pass::Call(generation) | Pass::Covered(generation, _) | Pass::Probe(generation, _) => {
                        generation
                    }
                    Pass::Free => 0,
                };
                self.blocks = self.blocks.wrapping_add(1);
                owed.effect = Effect::Multi(self.blocks);
                self.block =
                    Block::Open { number: self.blocks, generation, unbounded: false, scripted: false };
            }
            Command::Exec => {
                if let Block::Open { unbounded, scripted, .. } = self.block {
                    owed.effect = Effect::Exec;
                    owed.scripted = scripted;
                    if unbounded {
                        owed.patience = Patience::Unbounded;
                        owed.timed = false;
                    }
                }
                self.leave_block();
            }
            Command::Discard => self.leave_block(),
            Command::Watch => self.watching |= !in_block,
            // Inside a transaction it comes to the same: the end of that forgets every WATCH.
            Command::Unwatch => {
                self.watching = false;
                self.unwatched = None;
            }
            Command::Subscribe(topic) if asked.args > 0 => {
                owed.expect = Expect::Confirmations { topic, leave: false, left: asked.args };
                self.subscriptions.asked += u32::from(!muted);
            }
            Command::Unsubscribe(topic) if asked.args > 0 => {
                owed.expect = Expect::Confirmations { topic, leave: true, left: asked.args };
            }
            Command::Unsubscribe(topic) => owed.expect = Expect::LeaveAll(topic),
            Command::Client => match asked.reply_mode() {
                Some("ON") => {
                    self.mute = Mute::No;
                    muted = false;
                }
                Some("OFF") => {
                    self.mute = Mute::Off;
                    muted = true;
                }
                Some(_) => {
                    if self.mute == Mute::No {
                        self.mute = Mute::Next;
                    }
                    muted = true;
                }
                None if asked.is("PAUSE") => {
                    if let Some(Patience::Own(pause)) = millis(asked.first[1]) {
                        owed.effect = Effect::Pause(batch.now + pause);
                    }
                }
                None if asked.is("UNPAUSE") => owed.effect = Effect::Unpause,
                None => {}
            },
            Command::Stream => {
                muted = true;
                then = Then::Relay;
            }
            Command::Blocking(_) if !in_block => owed.timed = false,
            Command::Eval | Command::Unbounded | Command::Debugging => {
                let excluded =
                    asked.command == Command::Eval && batch.live(&self.settings).ignore_script_errors;
                match &mut self.block {
                    Block::Open { unbounded, scripted, .. } => {
                        *unbounded = true;
                        *scripted |= excluded;
                    }
                    Block::None | Block::Virtual(_) => {
                        owed.patience = Patience::Unbounded;
                        owed.timed = false;
                        owed.scripted = excluded;
                    }
                }
            }
            _ => {}
        }
        self.sent();
        if muted {
            if matches!(owed.account, Account::Call { .. }) {
                self.lane.ignored(1);
            }
            self.subscriptions.unannounced |=
                matches!(asked.command, Command::Subscribe(_) | Command::Unsubscribe(_));
            if asked.command == Command::Reset {
                self.subscriptions.clear();
            }
        } else {
            self.fifo.owe(owed);
        }
        Fate { way: Way::Forward { owed: !muted }, then }
    }

    fn leave_block(&mut self) {
        self.block = Block::None;
        self.watching = false;
        self.unwatched = None;
    }

    /// Rejects a request that the breaker did not let through.
    fn reject(&mut self, asked: &Asked<'_>, rejection: Rejection, plan: &mut Plan) -> Fate {
        if asked.poisons() {
            self.poison = Some(rejection.clone());
        }
        match asked.command {
            Command::Multi => {
                // What a loading Redis does. An error here would be ignored by some drivers, and EXEC would run
                // half a transaction or nothing that is one.
                self.block = Block::Virtual(rejection);
                return asked.answered(Local::Text(Text::Ok));
            }
            Command::Watch => self.unwatched = Some(rejection.clone()),
            Command::Exec if matches!(self.block, Block::Open { .. }) => {
                self.leave_block();
                return self.replace(asked, DISCARD, Local::Aborted(rejection), plan);
            }
            _ => {}
        }
        asked.answered(Local::Rejected(1, rejection))
    }

    /// Sends `request` in place of the client's, which gets `local` when the backend has replied.
    fn replace(&mut self, asked: &Asked<'_>, request: &[u8], local: Local, plan: &mut Plan) -> Fate {
        plan.insert(request);
        self.sent();
        if !asked.muted {
            self.fifo.owe(Owed {
                account: Account::None,
                effect: Effect::Replace(Box::new(local)),
                ..Owed::calls(1, 0, asked.at)
            });
        }
        Fate { way: Way::Replaced, then: Then::GoOn }
    }

    /// A request inside a transaction that was rejected. None: it is the same as outside.
    fn in_virtual_block(&mut self, asked: &Asked<'_>, rejection: Rejection, plan: &mut Plan) -> Option<Fate> {
        let local = match asked.command {
            Command::Quit | Command::Reset => {
                self.block = Block::None;
                return None;
            }
            Command::Exec => Local::Aborted(rejection),
            Command::Discard => Local::Text(Text::Ok),
            Command::Multi => return Some(asked.answered(Local::Text(Text::NestedMulti))),
            _ => {
                self.lane.add(Counter::RejectedSession, 1);
                if asked.poisons() {
                    self.poison.get_or_insert_with(|| rejection.clone());
                }
                return Some(asked.answered(Local::Rejected(1, rejection)));
            }
        };
        if asked.command == Command::Exec {
            self.lane.add(Counter::RejectedSession, 1);
        }
        let watching = self.watching && self.live();
        self.leave_block();
        Some(match watching {
            true => self.replace(asked, UNWATCH, local, plan),
            false => asked.answered(local),
        })
    }

    /// A request on a connection whose state is not what its client believes.
    fn poisoned(&mut self, asked: &Asked<'_>, rejection: Rejection) -> Fate {
        if asked.command == Command::Quit {
            return Fate { then: Then::HangUp, ..asked.answered(Local::Text(Text::Ok)) };
        }
        let on = match asked.reply_mode() {
            Some("OFF") => {
                self.mute = Mute::Off;
                return Fate { way: Way::Swallow(None), then: Then::GoOn };
            }
            Some("SKIP") => {
                if self.mute == Mute::No {
                    self.mute = Mute::Next;
                }
                return Fate { way: Way::Swallow(None), then: Then::GoOn };
            }
            Some(_) => {
                self.mute = Mute::No;
                true
            }
            None => false,
        };
        match self.lane.closed() {
            None => self.lane.rejected(&rejection, 1),
            Some(_) => self.lane.add(Counter::RejectedSession, 1),
        }
        if asked.command == Command::Multi {
            self.block = Block::Virtual(rejection);
            return asked.answered(Local::Text(Text::Ok));
        }
        let local = Local::Rejected(1, rejection);
        if on {
            return Fate { way: Way::Swallow(Some(local)), then: Then::GoOn };
        }
        asked.answered(local)
    }
}
