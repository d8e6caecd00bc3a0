//! The life of one client connection: its stages, and the events that lead from one to the next.
//!
//! Absent on purpose: the client's first packets (`greeting`), the dial and what comes of it (`dial`), what client and
//! server messages mean while bytes flow (`request`, `response`), and the words of the errors that end a session
//! (`fatal`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Settings;
use super::authentication::Authentication;
use super::dial::Purpose;
use super::encryption::{self, Legs};
use super::ledger::Ledger;
use super::local::Local;
use super::request::Client;
use super::response::Server;
use super::units::{Kind, Queue};
use crate::breaker::{Cause, Fault, Verdict};
use crate::gate::{Lane, Permit};
use crate::metrics::Counter;
use crate::protocol::{self, Phase, Plan, REPLY_CHUNK, Wait};

/// How long a cancel request may take from its connect to the server's close.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// One client connection that speaks Postgres.
#[derive(Debug)]
pub struct Session {
    pub(super) settings: Arc<Settings>,
    pub(super) ledger: Ledger,
    pub(super) stage: Stage,
    pub(super) queue: Queue,
    pub(super) client: Client,
    pub(super) server: Server,
    pub(super) authentication: Authentication,
    /// The backend's resolved address, and the pid and key under which it is entered in [`super::Cancels`].
    pub(super) peer: Option<SocketAddr>,
    pub(super) entered: Option<(Box<[u8]>, SocketAddr)>,
    /// The session asked for replication: no timeouts.
    pub(super) replication: bool,
    pub(super) legs: Legs,
    draining: bool,
    client_eof: bool,
}

/// Where the connection is in its life.
#[derive(Debug)]
pub(super) enum Stage {
    /// First packets. Left for `Securing`, `Dialling`, or the end.
    Greeting {
        /// Encryption has been asked for: each kind at most once, as in the server.
        ssl: bool,
        gss: bool,
    },
    /// The client's leg is being encrypted. Left for `Greeting`, or the end.
    Securing {
        /// The client has begun without asking, so both must have named the protocol in the handshake.
        direct: bool,
    },
    /// The backend is being dialled; the client's packet waits unconsumed. Left for `Relay`, `Cancelling` or
    /// `Passing`, or the end.
    Dialling(Purpose),
    /// A cancel request is under way: so many of its bytes are yet to be forwarded. Left for the end.
    Cancelling(usize),
    /// The client talks to the server's own TLS; the server's first byte decides the call. Left for `Opaque`, or
    /// the end.
    Passing(Box<Permit>),
    /// Bytes flow, from the startup on. Left for `Opaque`, `Ending`, or the end.
    Relay,
    /// Bytes flow and are not looked at. Left when a side closes.
    Opaque,
    /// The server has said its last word. Left when it closes.
    Ending,
    /// See [`Phase::Finish`].
    Finish,
    /// See [`Phase::Abort`].
    Abort,
}

impl Session {
    /// A session for a connection that has just been accepted.
    pub fn new(lane: Lane, settings: Arc<Settings>) -> Self {
        Self {
            settings,
            ledger: Ledger::new(lane),
            stage: Stage::Greeting { ssl: false, gss: false },
            queue: Queue::default(),
            client: Client::default(),
            server: Server::default(),
            authentication: Authentication::default(),
            peer: None,
            entered: None,
            replication: false,
            legs: Legs::default(),
            draining: false,
            client_eof: false,
        }
    }

    pub(super) fn lane(&self) -> &Lane {
        self.ledger.lane()
    }

    /// Ends all calls in flight: one dead connection is one failure, however many there were.
    pub(super) fn fail_flights(&mut self, now: Instant, cause: Cause) {
        let mut counted = false;
        for flight in self.queue.clear() {
            counted |= flight.failed;
            if counted {
                self.ledger.ignore(flight.account);
            } else {
                counted = self.ledger.failure(now, flight.account, flight.start, cause.clone());
            }
        }
        self.ledger.flush(now);
    }

    /// Ends all calls in flight without a verdict.
    pub(super) fn ignore_flights(&mut self, now: Instant) {
        for flight in self.queue.clear() {
            self.ledger.ignore(flight.account);
        }
        self.ledger.flush(now);
    }

    /// Gives up on understanding: from here on bytes are relayed and nothing is counted.
    pub(super) fn turn_opaque(&mut self, now: Instant) {
        self.lane().add(Counter::Opaque, 1);
        // Replies of our own that wait for their turn would never know when it has come.
        self.stage = if self.queue.has_local() { Stage::Abort } else { Stage::Opaque };
        self.ignore_flights(now);
    }

    /// Ends the session if the proxy is shutting down and nothing is open.
    pub(super) fn drain_if_idle(&mut self) {
        let idle = matches!(self.stage, Stage::Relay)
            && self.queue.is_empty()
            && self.server.status == b'I'
            && self.server.at_boundary()
            && self.client.is_idle();
        if self.draining && idle {
            self.shut_down();
        }
    }

    /// The end where no message of the protocol is under way: only a passed-through handshake that the server has
    /// not answered is a call, and not one if its client has left.
    fn silenced(&mut self, now: Instant, fault: Fault) {
        let stage = std::mem::replace(&mut self.stage, Stage::Finish);
        if let Stage::Passing(permit) = stage
            && !self.client_eof
        {
            permit.record(now, Verdict::Failure(fault.into()));
        }
    }
}

impl protocol::Session for Session {
    fn on_client(&mut self, now: Instant, input: &[u8], drained: bool, plan: &mut Plan) {
        if let Stage::Greeting { .. } = self.stage {
            self.greet(now, input, plan);
        }
        let rest = input.get(plan.consumed()..).unwrap_or_default();
        match &mut self.stage {
            Stage::Greeting { .. } | Stage::Securing { .. } | Stage::Dialling(_) => {}
            Stage::Cancelling(left) => {
                let n = rest.len().min(*left);
                *left -= n;
                plan.forward(n);
                plan.drop(rest.len() - n);
            }
            Stage::Relay => self.on_requests(now, input, drained, plan),
            Stage::Opaque | Stage::Passing(_) => plan.forward(rest.len()),
            Stage::Ending | Stage::Finish | Stage::Abort => plan.drop(rest.len()),
        }
    }

    fn on_server(&mut self, now: Instant, input: &[u8], plan: &mut Plan) {
        if let Stage::Passing(_) = self.stage
            && let Stage::Passing(permit) = std::mem::replace(&mut self.stage, Stage::Opaque)
        {
            permit.record(now, Verdict::Success);
            self.turn_opaque(now);
        }
        match self.stage {
            Stage::Relay => {
                self.on_responses(now, input, plan);
                self.drain_if_idle();
            }
            Stage::Opaque | Stage::Ending | Stage::Cancelling(_) => plan.forward(input.len()),
            Stage::Greeting { .. }
            | Stage::Securing { .. }
            | Stage::Dialling(_)
            | Stage::Passing(_)
            | Stage::Finish
            | Stage::Abort => {
                plan.drop(input.len());
            }
        }
    }

    fn replies(&mut self, now: Instant, out: &mut Vec<u8>) {
        let may_end = self.draining || self.queue.local_is_due();
        if !may_end
            || !self.server.at_boundary()
            || matches!(self.stage, Stage::Abort | Stage::Opaque | Stage::Ending)
        {
            return;
        }
        let begin = out.len();
        let code = self.settings.reject_query();
        while out.len() - begin < REPLY_CHUNK {
            if self.queue.local().is_none() && self.client.is_over {
                // What stood behind replies of ours is at the head now.
                self.abandon_unfinished();
            }
            let Some(local) = self.queue.local() else { break };
            let is_last = matches!(local, Local::Fatal(_));
            if local.write(now, code.as_str(), out) {
                self.queue.local_sent();
            }
            if is_last {
                self.stage = Stage::Finish;
                self.ignore_flights(now);
                return;
            }
        }
        self.drain_if_idle();
    }

    fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Greeting { .. } => Phase::Idle,
            Stage::Securing { .. } => Phase::Secure,
            Stage::Dialling(purpose) => Phase::Dial(purpose.target()),
            Stage::Cancelling(_) | Stage::Passing(_) | Stage::Opaque | Stage::Ending => Phase::Relay,
            // The last word of ours waits for the backend's replies before it, or for the end of a message.
            Stage::Relay if self.client.is_over && self.queue.flights() == 0 && self.server.at_boundary() => {
                Phase::Finish
            }
            Stage::Relay => Phase::Relay,
            Stage::Finish => Phase::Finish,
            Stage::Abort => Phase::Abort,
        }
    }

    fn wait(&self) -> Wait {
        let handshake = self.settings.handshake();
        match &self.stage {
            Stage::Greeting { .. } | Stage::Securing { .. } => Wait::Client(handshake),
            Stage::Passing(_) => Wait::Backend(handshake),
            Stage::Cancelling(_) => Wait::Backend(CANCEL_TIMEOUT),
            Stage::Relay => match self.queue.peek() {
                Some(head) if head.kind == Kind::Startup => {
                    if self.authentication.client_owes() {
                        Wait::Client(handshake)
                    } else {
                        Wait::Backend(handshake)
                    }
                }
                Some(head) if head.is_owed() && !self.replication => {
                    self.settings.response().map_or(Wait::Nothing, Wait::Backend)
                }
                // A reply of ours waits for the end of a message that is half relayed.
                None if self.queue.local_is_due() && !self.server.at_boundary() => {
                    self.settings.response().map_or(Wait::Nothing, Wait::Backend)
                }
                _ => Wait::Nothing,
            },
            Stage::Dialling(_) | Stage::Opaque | Stage::Ending | Stage::Finish | Stage::Abort => {
                Wait::Nothing
            }
        }
    }

    fn on_secured(&mut self, _now: Instant, alpn: Option<&[u8]>) {
        self.legs.client = true;
        match self.stage {
            Stage::Securing { direct: true } if alpn != Some(encryption::ALPN) => self.hang_up(),
            // Nothing is encrypted twice, as in the server.
            Stage::Securing { .. } => self.stage = Stage::Greeting { ssl: true, gss: true },
            _ => {}
        }
    }

    fn on_upstream_secured(&mut self) {
        self.legs.server = true;
    }

    fn on_connected(&mut self, now: Instant, peer: Option<SocketAddr>) {
        self.dial_succeeded(now, peer);
    }

    fn on_connect_failed(&mut self, now: Instant, fault: Option<Fault>) {
        self.dial_failed(now, fault);
    }

    fn on_queued(&mut self, queued: bool) {
        self.dial_queued(queued);
    }

    fn on_full(&mut self, now: Instant, limit: u32) {
        self.dial_refused(now, limit);
    }

    fn queued(&self) -> Option<Instant> {
        self.client.queued.as_deref().copied().filter(|_| matches!(self.stage, Stage::Relay))
    }

    fn on_client_eof(&mut self, _now: Instant) {
        self.client_eof = true;
        if let Stage::Greeting { .. } | Stage::Securing { .. } = self.stage {
            self.stage = Stage::Finish;
        }
    }

    fn may_forward_eof(&self) -> bool {
        // A half-closed client still gets its answers: the server finishes what it has read.
        self.client_eof
    }

    fn is_parting(&self) -> bool {
        self.client_eof && matches!(self.stage, Stage::Relay) && self.queue.peek().is_none()
    }

    fn on_server_eof(&mut self, now: Instant, fault: Fault) {
        match self.stage {
            Stage::Relay => {}
            Stage::Abort => return,
            _ => return self.silenced(now, fault),
        }
        let omen = self.server.omen.take();
        // After Terminate, or when the client has left, closing is the right answer: psql leaves as soon as it is
        // asked for a password that it must ask its user for, and a server with client_connection_check_interval
        // ends the query of a client that has gone. A crash that was announced stays one.
        let expected = self.client.terminated || (self.client_eof && omen.is_none());
        if self.queue.flights() > 0 && !expected {
            self.backend_failed(now, omen.unwrap_or(Cause::Fault(fault)));
            return;
        }
        if expected {
            self.ignore_flights(now);
        }
        self.stage = if self.server.at_boundary() { Stage::Finish } else { Stage::Abort };
    }

    fn on_deadline(&mut self, now: Instant) {
        match self.stage {
            Stage::Relay => {}
            Stage::Abort => return,
            _ => return self.silenced(now, Fault::Timeout),
        }
        if self.queue.is_starting() && self.authentication.client_owes() {
            self.ignore_flights(now);
            self.authentication_timed_out();
            if !matches!(self.stage, Stage::Finish) {
                self.stage = Stage::Abort;
            }
        } else {
            self.backend_failed(now, Fault::Timeout.into());
        }
    }

    fn on_drain(&mut self, _now: Instant) {
        self.draining = true;
        if let Stage::Greeting { .. } | Stage::Securing { .. } = self.stage {
            self.stage = Stage::Finish;
        }
        self.drain_if_idle();
    }

    fn on_drain_over(&mut self, now: Instant) {
        match self.stage {
            Stage::Finish | Stage::Abort => {}
            Stage::Relay => {
                self.ignore_flights(now);
                if self.server.at_boundary() {
                    self.shut_down();
                } else {
                    self.stage = Stage::Abort;
                }
            }
            _ => self.stage = Stage::Finish,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for flight in self.queue.clear() {
            self.ledger.ignore(flight.account);
        }
        if let Some((key, peer)) = self.entered.take() {
            self.settings.cancels.leave(&key, peer);
        }
    }
}
