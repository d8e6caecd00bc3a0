//! Replies: which request a frame answers, and what it says about the backend.
//!
//! Frames go out as they come. Held are at most the header of an array or push whose kind decides whether it is a
//! reply at all, and the first bytes of an error.

use std::time::{Duration, Instant};

use super::command::Topic;
use super::fifo::Head;
use super::owed::{Account, Calls, Effect, Expect, Owed};
use super::reply::{Kind, Seen, Step, elements, push_kind};
use super::scalar;
use super::session::{Block, Life, Link, Session};
use crate::breaker::{CallKind, Fault, Verdict};
use crate::protocol::Plan;

/// The frame that is passing.
#[derive(Debug, Default)]
pub(super) struct Frame {
    role: Role,
    /// Its type byte.
    first: u8,
    /// It is an error.
    failed: bool,
    /// What an error in it says, if that is no success: few are, so it takes room only then.
    verdict: Option<Box<Verdict>>,
    /// The last integer directly inside it: a confirmation's number of subscriptions.
    count: Option<u32>,
    /// It does not reach the client.
    swallowed: bool,
}

impl Frame {
    /// What it says of the backend.
    fn take_verdict(&mut self) -> Verdict {
        self.verdict.take().map_or(Verdict::Success, |verdict| *verdict)
    }
}

/// What a frame is to the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    /// The reply to the head of the queue.
    #[default]
    Reply,
    /// An attribute; the frame it belongs to follows.
    Attribute,
    /// Nobody's reply.
    Push,
    /// A confirmation of (un)subscribing that nobody waits for.
    Notice(Topic, bool),
    /// A confirmation that the head of the queue waits for.
    Confirmation(Topic, bool),
    /// An error that nobody waits for.
    Stray,
}

/// What is known of the client's subscriptions, from the confirmations.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: u32,
    patterns: u32,
    shards: u32,
    /// RESP3 is spoken: pushes have a type of their own.
    resp3: bool,
    /// Requests to subscribe among those that the backend owes a reply for, each an entry of the queue.
    pub(super) asked: u32,
    /// Confirmations may come that nobody waits for, because CLIENT REPLY kept their requests out of the queue.
    pub(super) unannounced: bool,
}

impl Subscriptions {
    /// After RESET.
    pub(super) fn clear(&mut self) {
        *self = Self { asked: self.asked, ..Self::default() };
    }

    /// Whether a command that is sent now may find a RESP2 subscriber, of whom Redis takes next to none.
    pub(super) fn may_confine(&self) -> bool {
        !self.resp3 && (self.any() || self.asked > 0 || self.unannounced)
    }

    fn any(&self) -> bool {
        self.channels + self.patterns + self.shards > 0
    }

    fn of(&self, topic: Topic) -> u32 {
        match topic {
            Topic::Channels => self.channels,
            Topic::Patterns => self.patterns,
            Topic::Shards => self.shards,
        }
    }

    /// A confirmation's count: of channels and patterns together, or of shard channels.
    fn set(&mut self, topic: Topic, count: u32) {
        match topic {
            Topic::Channels => self.channels = count.saturating_sub(self.patterns),
            Topic::Patterns => self.patterns = count.saturating_sub(self.channels),
            Topic::Shards => self.shards = count,
        }
    }
}

/// Calls that have ended, not yet reported.
#[derive(Default)]
struct Wins {
    /// Those that succeeded, as far as they were admitted together.
    calls: Option<Calls>,
    /// Those whose success says nothing.
    hollow: u64,
}

impl Session {
    /// Takes in what the backend has sent.
    pub(super) fn frames(&mut self, now: Instant, input: &[u8], plan: &mut Plan) {
        let mut wins = Wins::default();
        while matches!(self.life, Life::Relay(_)) {
            let rest = input.get(plan.consumed()..).unwrap_or_default();
            let Some(first) = rest.first() else { break };
            if self.replies.at_value() {
                if self.replies.at_boundary() {
                    if self.plain_replies(now, rest, plan, &mut wins) {
                        continue;
                    }
                    match self.fifo.head() {
                        Some(Head::Local) => break,
                        Some(Head::Opaque) => {
                            self.relay();
                            break;
                        }
                        Some(Head::Calls | Head::Owed(_)) | None => {}
                    }
                }
                let Some(role) = self.role(*first, rest) else { break };
                let swallowed = matches!(role, Role::Reply | Role::Attribute)
                    && self
                        .fifo
                        .head_owed()
                        .is_some_and(|head| matches!(head.effect, Effect::Replace(_) | Effect::Withhold));
                self.frame =
                    Frame { role, first: *first, failed: false, verdict: None, count: None, swallowed };
                if role == Role::Reply && self.fifo.head().is_none() {
                    // A reply that nobody asked for: the queue is wrong, and nothing may be put in between.
                    self.relay();
                    break;
                }
            }
            match self.replies.step(rest) {
                Step::Hold => break,
                Step::Part { len, done, seen } => {
                    match self.frame.swallowed {
                        true => plan.drop(len),
                        false => plan.forward(len),
                    }
                    self.see(&seen);
                    if done {
                        self.framed(now, &mut wins);
                    }
                }
                // What cannot be delimited cannot have anything put behind it.
                Step::Unknown => self.relay(),
                Step::Broken => {
                    self.report(now, &mut wins);
                    self.broken(now);
                }
            }
        }
        self.report(now, &mut wins);
        if matches!(self.life, Life::Opaque) {
            plan.forward(input.len() - plan.consumed());
        }
    }

    /// The replies to ordinary calls that are no errors, as many as are whole: what most of a read consists of, and one
    /// span. Whether there was one; anything else is looked at by itself.
    #[inline]
    fn plain_replies(&mut self, now: Instant, rest: &[u8], plan: &mut Plan, wins: &mut Wins) -> bool {
        let Some(calls) = self.fifo.ordinary() else { return false };
        let run = scalar::run(rest, 0, calls.n);
        if run.n == 0 {
            return false;
        }
        plan.forward(run.len);
        self.grace = Duration::ZERO;
        self.fifo.take(run.n);
        self.won(now, wins, Calls { n: run.n, ..calls });
        true
    }

    /// What the frame that begins here is; none: more bytes are needed to tell.
    #[inline]
    fn role(&mut self, first: u8, rest: &[u8]) -> Option<Role> {
        let pushed = match first {
            b'>' => true,
            b'*' if !self.subscriptions.resp3 => {
                let waits = matches!(
                    self.fifo.head(),
                    Some(Head::Owed(Owed { expect: Expect::Confirmations { .. } | Expect::LeaveAll(_), .. }))
                );
                if !waits && !self.subscriptions.any() && !self.subscriptions.unannounced {
                    return Some(Role::Reply);
                }
                false
            }
            b'|' => return Some(Role::Attribute),
            b'-' if self.fifo.head().is_none() => return Some(Role::Stray),
            _ => return Some(Role::Reply),
        };
        let other = if pushed { Role::Push } else { Role::Reply };
        let (kind, parts) = match push_kind(rest) {
            Kind::Partial => return None,
            Kind::None => return Some(other),
            Kind::Of(kind) => (kind, elements(rest)),
        };
        let (topic, leave) = match (kind, parts) {
            (b"message" | b"smessage", Some(3)) | (b"pmessage", Some(4)) => return Some(Role::Push),
            (b"subscribe", Some(3)) => (Topic::Channels, false),
            (b"psubscribe", Some(3)) => (Topic::Patterns, false),
            (b"ssubscribe", Some(3)) => (Topic::Shards, false),
            (b"unsubscribe", Some(3)) => (Topic::Channels, true),
            (b"punsubscribe", Some(3)) => (Topic::Patterns, true),
            (b"sunsubscribe", Some(3)) => (Topic::Shards, true),
            _ => return Some(other),
        };
        let waits = match self.fifo.head_owed().map(|head| head.expect) {
            Some(Expect::Confirmations { topic: of, leave: leaving, .. }) => (of, leaving) == (topic, leave),
            Some(Expect::LeaveAll(of)) => of == topic && leave,
            Some(Expect::Reply) | None => false,
        };
        Some(if waits { Role::Confirmation(topic, leave) } else { Role::Notice(topic, leave) })
    }

    #[inline]
    fn see(&mut self, seen: &Seen<'_>) {
        match seen {
            Seen::Nothing => {}
            Seen::Integer(text) => {
                self.frame.count = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            }
            Seen::Error { depth: 0, text } => {
                self.frame.failed = true;
                let head = self.fifo.head_owed();
                if head.is_some_and(|head| head.scripted && head.effect != Effect::Exec) {
                    self.frame.verdict = Some(Box::new(Verdict::Ignored));
                    return;
                }
                self.frame.verdict = match self.settings.verdict(text) {
                    Verdict::Success => None,
                    verdict => Some(Box::new(verdict)),
                };
                // The backend closes behind these; its end of file is then no second failure.
                let last_words: [&[u8]; 4] =
                    [b"UNBLOCKED", b"DENIED", b"ERR max number of clients", b"ERR Protocol error"];
                self.dismissed |= last_words.iter().any(|words| text.starts_with(words));
            }
            Seen::Error { depth: 1, text } => {
                let head = self.fifo.head_owed().filter(|head| head.effect == Effect::Exec);
                if let Some(scripted) = head.map(|head| head.scripted)
                    && self.frame.verdict.is_none()
                    && let verdict @ Verdict::Failure(_) = self.settings.verdict(text)
                {
                    // Which of the replies is a script's is not known.
                    self.frame.verdict = Some(Box::new(if scripted { Verdict::Ignored } else { verdict }));
                }
            }
            Seen::Error { .. } => {}
        }
    }

    /// A frame has ended.
    #[inline]
    fn framed(&mut self, now: Instant, wins: &mut Wins) {
        match self.frame.role {
            Role::Reply => self.replied(now, wins),
            Role::Attribute | Role::Push => {}
            Role::Notice(topic, _) => self.subscribed(topic),
            Role::Confirmation(topic, _) => {
                self.subscribed(topic);
                let none_left = self.subscriptions.of(topic) == 0;
                let done = match self.fifo.head_owed().map(|head| &mut head.expect) {
                    Some(Expect::Confirmations { left, .. }) => {
                        *left = left.saturating_sub(1);
                        *left == 0
                    }
                    Some(Expect::LeaveAll(_)) => none_left,
                    Some(Expect::Reply) | None => false,
                };
                if done {
                    self.replied(now, wins);
                }
            }
            Role::Stray => self.strayed(now),
        }
    }

    fn subscribed(&mut self, topic: Topic) {
        if let Some(count) = self.frame.count {
            self.subscriptions.set(topic, count);
        }
    }

    /// The head of the queue has its reply.
    #[inline]
    fn replied(&mut self, now: Instant, wins: &mut Wins) {
        self.grace = Duration::ZERO;
        if self.frame.verdict.is_none()
            && let Some(calls) = self.fifo.ordinary()
        {
            self.fifo.take(1);
            return self.won(now, wins, Calls { n: 1, ..calls });
        }
        let Some(owed) = self.fifo.take_one() else { return };
        if let Expect::Confirmations { leave: false, .. } = owed.expect {
            self.subscriptions.asked = self.subscriptions.asked.saturating_sub(1);
        }
        let verdict = self.frame.take_verdict();
        let hollow = verdict == Verdict::Success && !owed.conclusive;
        if owed.effect != Effect::None {
            self.take_effect(&owed);
        }
        let mut decides = false;
        if !hollow && let Some(permit) = self.probes.release(owed.probe) {
            decides = true;
            self.report(now, wins);
            permit.record(now, verdict.clone());
        }
        let Account::Call { generation, start } = owed.account else { return };
        match verdict {
            // The permit has said it all; said twice it would count twice.
            _ if decides || hollow => wins.hollow += 1,
            Verdict::Success if owed.timed => self.won(now, wins, Calls { n: 1, generation, start }),
            Verdict::Success => self.lane.succeeded_untimed(now, generation, CallKind::Command),
            Verdict::Ignored => wins.hollow += 1,
            Verdict::Failure(_) => {
                self.report(now, wins);
                self.lane.permit_of(generation, CallKind::Command, start).record(now, verdict);
            }
        }
    }

    /// More successes, reported with others of the same admission.
    #[inline]
    fn won(&self, now: Instant, wins: &mut Wins, calls: Calls) {
        match &mut wins.calls {
            Some(same) if (same.generation, same.start) == (calls.generation, calls.start) => {
                same.n += calls.n;
            }
            _ => {
                self.report(now, wins);
                wins.calls = Some(calls);
            }
        }
    }

    /// What a reply changes.
    fn take_effect(&mut self, owed: &Owed) {
        match &owed.effect {
            Effect::None | Effect::Exec | Effect::Leave | Effect::Withhold => {}
            Effect::Hello => {
                if !self.frame.failed {
                    self.subscriptions.resp3 = self.frame.first == b'%';
                }
            }
            Effect::Reset => {
                if !self.frame.failed {
                    self.subscriptions.clear();
                }
            }
            Effect::Multi(number) => {
                // NOAUTH, say: no transaction was opened, and what follows is not part of one.
                if self.frame.failed
                    && matches!(self.block, Block::Open { number: open, .. } if open == *number)
                {
                    self.block = Block::None;
                }
            }
            Effect::Pause(until) => {
                if !self.frame.failed {
                    self.settings.pause(Some(*until));
                }
            }
            Effect::Unpause => {
                if !self.frame.failed {
                    self.settings.pause(None);
                }
            }
            Effect::Replace(local) => self.fifo.answer_first((**local).clone()),
        }
    }

    /// An error that nobody waits for: the backend refuses the connection, or the queue is wrong.
    fn strayed(&mut self, now: Instant) {
        let verdict = self.frame.take_verdict();
        match (&verdict, &self.life) {
            (Verdict::Failure(_), Life::Relay(Link::Fresh(generation))) => match self.probes.release_oldest()
            {
                Some(probe) => probe.record(now, verdict),
                None => self.failed_at_birth(now, *generation, verdict),
            },
            _ if self.dismissed => {}
            _ => self.relay(),
        }
        if self.dismissed {
            // It answers whatever the client was about to ask, and nothing may be put behind it.
            self.hang_up();
        }
    }

    /// The backend has broken the protocol: a failure of the call it was to answer.
    fn broken(&mut self, now: Instant) {
        self.fail(now, Fault::Malformed);
        self.end(Life::Abort);
    }

    #[inline]
    fn report(&self, now: Instant, wins: &mut Wins) {
        if wins.hollow > 0 {
            self.lane.ignored(wins.hollow);
            wins.hollow = 0;
        }
        if let Some(Calls { n, generation, start }) = wins.calls.take() {
            let duration = now.saturating_duration_since(start);
            self.lane.succeeded(now, generation, CallKind::Command, duration, n);
        }
    }
}
