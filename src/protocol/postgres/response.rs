//! The server's messages while bytes flow: whose they are, what they say of the backend, and the transaction
//! status.
//!
//! Nothing is held back but incomplete headers, the status behind a `Z` and the kind behind an `R`: what a verdict
//! needs of an error is read while it streams by.

use std::time::Instant;

use super::encryption::{SASL_MAX, without_binding};
use super::ledger::Account;
use super::message::{Framing, HEADER, Header, STARTUP_ERROR_MAX, run_of};
use super::report::{Report, Voice};
use super::request::Run;
use super::session::{Session, Stage};
use super::units::{CopyIn, Kind};
use crate::breaker::{Cause, Fault, Verdict};
use crate::protocol::Plan;

/// Bytes of pid and key in BackendKeyData.
const KEY: std::ops::RangeInclusive<usize> = 8..=260;

/// The server's side of a session.
#[derive(Debug)]
pub(super) struct Server {
    /// The message that is being relayed: how much of its body is yet to come.
    left: usize,
    reading: Reading,
    /// The transaction status: `I`, `T` or `E`.
    pub(super) status: u8,
    /// What a notice said of the connection's coming end.
    pub(super) omen: Option<Cause>,
    /// The client asked for another major version of the protocol.
    pub(super) foreign: bool,
}

/// What is read of the message that is being relayed, and what of it has come.
#[derive(Debug)]
enum Reading {
    Nothing,
    Error(Box<Report>),
    Notice(Box<Report>),
    Key(Vec<u8>),
}

/// What to do with a message whose header has been read.
enum Step {
    /// Relay it; so many bytes of it are past.
    Take(usize),
    /// Send this in place of the message, which has so many bytes.
    Replace(usize, Vec<u8>),
    /// More bytes are needed to decide.
    Hold,
    /// The session has changed its stage: look again.
    Again,
}

impl Default for Server {
    fn default() -> Self {
        Self { left: 0, reading: Reading::Nothing, status: b'I', omen: None, foreign: false }
    }
}

impl Server {
    /// Whether no message to the client is half relayed.
    #[inline]
    pub(super) fn at_boundary(&self) -> bool {
        self.left == 0
    }
}

impl Session {
    /// Takes the server's bytes in [`Stage::Relay`].
    pub(super) fn on_responses(&mut self, now: Instant, input: &[u8], plan: &mut Plan) {
        loop {
            let rest = input.get(plan.consumed()..).unwrap_or_default();
            match self.stage {
                Stage::Relay => {}
                Stage::Opaque | Stage::Ending => plan.forward(rest.len()),
                _ => plan.drop(rest.len()),
            }
            if plan.consumed() == input.len() {
                break;
            }
            if self.server.left > 0 {
                plan.forward(self.take_rest(now, rest));
                continue;
            }
            self.abandon_if_over();
            if self.queue.local_is_due() {
                break;
            }
            let Some(header) = Header::read(rest) else { break };
            let step = match header.server_body() {
                Ok(len) => self.response(now, header.tag, len, rest),
                Err(framing) => self.misframed(now, framing),
            };
            match step {
                Step::Take(n) => plan.forward(n),
                Step::Replace(n, message) => {
                    plan.drop(n);
                    plan.insert(&message);
                }
                Step::Hold => break,
                Step::Again => {}
            }
        }
        self.abandon_if_over();
        self.ledger.flush(now);
    }

    /// Between two messages of the server, however many have come at once: gives up what only the client could go on with,
    /// if it is not listened to any more.
    fn abandon_if_over(&mut self) {
        if self.client.is_over && self.server.at_boundary() {
            self.abandon_unfinished();
        }
    }

    /// Relays more of the message under way; says how much.
    #[inline]
    fn take_rest(&mut self, now: Instant, rest: &[u8]) -> usize {
        let n = self.server.left.min(rest.len());
        let piece = rest.get(..n).unwrap_or_default();
        match &mut self.server.reading {
            Reading::Nothing => {}
            Reading::Error(report) | Reading::Notice(report) => report.feed(piece),
            Reading::Key(key) => key.extend_from_slice(piece),
        }
        self.server.left -= n;
        if self.server.left == 0 {
            self.read(now);
        }
        n
    }

    /// A message whose body is read has ended.
    fn read(&mut self, now: Instant) {
        match std::mem::replace(&mut self.server.reading, Reading::Nothing) {
            Reading::Nothing => {}
            Reading::Error(report) => self.error(now, &report),
            Reading::Notice(report) => {
                // A crash or an immediate shutdown is announced by a notice, and no error ever comes.
                let dying = matches!(report.code(), b"57P01" | b"57P02") && report.voice() == Voice::Server;
                if dying && let Verdict::Failure(cause) = self.settings.verdicts().judge(&report) {
                    self.server.omen = Some(cause);
                }
            }
            Reading::Key(key) => {
                if let (Some(peer), None) = (self.peer, &self.entered)
                    && self.settings.cancels.enter(&key, peer)
                {
                    self.entered = Some((key.into_boxed_slice(), peer));
                }
            }
        }
    }

    /// Relays a message that nothing more is to be known of; one that is whole leaves no state behind.
    #[inline]
    fn relay_unread(&mut self, now: Instant, len: usize, rest: &[u8]) -> Step {
        if rest.len() - HEADER >= len {
            return Step::Take(HEADER + len);
        }
        self.relay(now, len, Reading::Nothing)
    }

    /// Relays a body, reading it if need be.
    #[inline]
    fn relay(&mut self, now: Instant, len: usize, reading: Reading) -> Step {
        self.server.left = len;
        self.server.reading = reading;
        if len == 0 {
            self.read(now);
        }
        Step::Take(HEADER)
    }

    /// Decides about a message whose header has been read; `rest` begins with it.
    fn response(&mut self, now: Instant, tag: u8, len: usize, rest: &[u8]) -> Step {
        match tag {
            b'Z' => {
                let Some(&status) = rest.get(HEADER) else { return Step::Hold };
                self.server.omen = None;
                return match self.ready(now, status) {
                    true => Step::Take(HEADER + 1),
                    false => Step::Again,
                };
            }
            b'E' => {
                if self.queue.is_starting() && len > STARTUP_ERROR_MAX {
                    return self.bare_text(now);
                }
                return self.relay(now, len, Reading::Error(Box::default()));
            }
            b'N' => return self.relay(now, len, Reading::Notice(Box::default())),
            b'S' | b'A' => return self.relay_unread(now, len, rest),
            _ => self.server.omen = None,
        }
        self.queue.promote(now, &mut self.ledger);
        let Some(head) = self.queue.head() else {
            // Nobody asked for it: we have lost count somewhere, or the server speaks another dialect.
            self.turn_opaque(now);
            return Step::Again;
        };
        if head.kind == Kind::Startup {
            return self.startup(now, tag, len, rest);
        }
        if head.kind == Kind::Extended && matches!(tag, b'1' | b'2' | b'3' | b'n' | b'T' | b's' | b'I' | b'C')
        {
            head.pending = head.pending.saturating_sub(1);
            head.flushed = head.flushed.saturating_sub(1);
        }
        match tag {
            b'W' | b'R' | b'K' | b'v' => {
                self.turn_opaque(now);
                return Step::Again;
            }
            b'G' | b'H' => self.copy(tag),
            // The backend has shown that it works: a probe need not wait for the end of its rows.
            _ => {
                if let Account::Permit(_) = head.account {
                    let (account, start) = (std::mem::take(&mut head.account), head.start);
                    self.ledger.success(now, account, start);
                }
            }
        }
        if matches!(tag, b'D' | b'd') {
            // The rows behind one change nothing that it has not changed.
            let run = run_of(tag, rest);
            if run > 0 {
                return Step::Take(run);
            }
        }
        self.relay_unread(now, len, rest)
    }

    /// A message during startup.
    fn startup(&mut self, now: Instant, tag: u8, len: usize, rest: &[u8]) -> Step {
        match tag {
            b'R' => {
                let Some(kind) = rest.get(HEADER..HEADER + 4) else { return Step::Hold };
                let offers = matches!(kind, [0, 0, 0, 10]) && self.legs.hide_binding() && len <= SASL_MAX;
                if offers && rest.len() < HEADER + len {
                    return Step::Hold;
                }
                // Ok and SASLFinal are statements, everything else is a question.
                if !matches!(kind, [0, 0, 0, 0 | 12]) {
                    self.challenged();
                }
                let body = rest.get(HEADER..HEADER + len).unwrap_or_default();
                if offers && let Some(message) = without_binding(body) {
                    return Step::Replace(HEADER + len, message);
                }
                self.relay(now, len, Reading::Nothing)
            }
            b'K' if KEY.contains(&len) => self.relay(now, len, Reading::Key(Vec::with_capacity(len))),
            b'K' | b'v' => self.relay(now, len, Reading::Nothing),
            _ => {
                self.turn_opaque(now);
                Step::Again
            }
        }
    }

    /// ReadyForQuery. Whether it was expected.
    fn ready(&mut self, now: Instant, status: u8) -> bool {
        self.queue.promote(now, &mut self.ledger);
        if !self.queue.peek().is_some_and(|head| head.whole) {
            self.turn_opaque(now);
            return false;
        }
        if let Some(flight) = self.queue.land() {
            self.ledger.success(now, flight.account, flight.start);
            if flight.copying {
                self.client.copying = false;
            }
            // A Query in an extended run without an error has ended that run, too.
            if flight.within && self.queue.is_empty() && self.client.run == Run::Inside {
                self.client.run = Run::Outside;
            }
        }
        self.server.status = status;
        true
    }

    /// An ErrorResponse has been relayed.
    fn error(&mut self, now: Instant, report: &Report) {
        let verdict = self.settings.verdicts().judge(report);
        let last = report.severity().is_final();
        self.server.omen = None;
        self.queue.promote(now, &mut self.ledger);
        if let Some(head) = self.queue.head() {
            let (account, start) = (std::mem::take(&mut head.account), head.start);
            head.failed |= matches!(verdict, Verdict::Failure(_));
            head.flushed = 0;
            if head.copying {
                self.client.copying = false;
            }
            self.ledger.settle(now, account, start, verdict);
            if !last && self.queue.skip(&mut self.ledger) {
                self.client.run = Run::Skipped;
            }
        }
        if last {
            // One dead connection is one verdict: the error was for the head, the rest says nothing.
            self.ignore_flights(now);
            self.stage = Stage::Ending;
        }
    }

    /// The head has turned out to be a COPY, which may last: it is no probe any more, and nothing is rejected
    /// until it is over.
    fn copy(&mut self, tag: u8) {
        self.queue.entangle();
        if let Some(head) = self.queue.head() {
            head.copying = true;
            if let Account::Permit(_) = head.account {
                let account = std::mem::take(&mut head.account);
                self.ledger.ignore(account);
            }
        }
        if tag == b'G' {
            match self.queue.copy_in(&mut self.ledger) {
                None | Some(CopyIn::Over) => {}
                Some(CopyIn::OverWithinRun) => self.client.run = Run::Inside,
                Some(CopyIn::Data) => self.client.copying = true,
                Some(CopyIn::DataWithinRun) => {
                    self.client.copying = true;
                    self.client.run = Run::Inside;
                }
            }
        }
    }

    /// A postmaster that cannot fork says so in a text without a length. A client of another major version gets
    /// such a text for its own mistake.
    fn bare_text(&mut self, now: Instant) -> Step {
        if self.server.foreign {
            self.ignore_flights(now);
        } else {
            self.fail_flights(now, Fault::Malformed.into());
        }
        self.stage = Stage::Ending;
        Step::Again
    }

    /// A header that cannot be followed.
    fn misframed(&mut self, now: Instant, framing: Framing) -> Step {
        let starting = self.queue.is_starting();
        match framing {
            // Whatever answers a startup like this is no Postgres.
            Framing::Unknown if starting && !self.server.foreign => {
                self.fail_flights(now, Fault::Malformed.into());
                self.turn_opaque(now);
            }
            Framing::Unknown => self.turn_opaque(now),
            Framing::Broken if self.queue.flights() > 0 => self.backend_failed(now, Fault::Malformed.into()),
            Framing::Broken => self.turn_opaque(now),
        }
        Step::Again
    }
}
