//! The life of one client connection: first packets, dial, relay, end.
//!
//! Absent on purpose: what client and server messages mean while bytes flow, which is in `request` and
//! `response`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Settings;
use super::encryption::{self, Legs, Offer};
use super::ledger::{Account, Ledger};
use super::reply::{self, Gravity, Reply};
use super::request::Client;
use super::response::Server;
use super::startup::{self, Packet};
use super::units::{Flight, Kind, Local, Queue};
use crate::breaker::{CallKind, Cause, Fault, Verdict};
use crate::config::SqlState;
use crate::gate::{Lane, Permit, Rejection};
use crate::metrics::Counter;
use crate::protocol::{self, Phase, Plan, REPLY_CHUNK, Target, Wait};

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

/// What a dial is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A session, whose startup packet has this length.
    Startup { len: usize, permit: Box<Permit> },
    /// A client's TLS handshake with the server, or the request for one.
    Passthrough { permit: Box<Permit> },
    /// A cancel request of this length.
    Cancel { len: usize, target: Target },
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

    /// Reads first packets until one leads on.
    fn greet(&mut self, now: Instant, input: &[u8], plan: &mut Plan) {
        while let Stage::Greeting { ssl, gss } = &mut self.stage {
            let asked = match startup::read(input.get(plan.consumed()..).unwrap_or_default()) {
                Packet::Partial => return,
                Packet::Ssl if !*ssl && self.settings.offer() == Offer::Tls => {
                    plan.drop(startup::REQUEST);
                    if plan.consumed() < input.len() {
                        // Whoever injects bytes behind the request must not have them taken for what comes
                        // encrypted (CVE-2021-23214); and an error before the handshake would be unencrypted, too.
                        return self.hang_up();
                    }
                    self.queue.reply(Local::Encryption);
                    self.stage = Stage::Securing { direct: false };
                    return;
                }
                Packet::Ssl if !*ssl && self.settings.offer() == Offer::Passthrough => return self.pass(now),
                Packet::Ssl => ssl,
                Packet::Gss => gss,
                Packet::DirectTls => {
                    let first = !*ssl && !*gss && plan.consumed() == 0;
                    return match (self.settings.offer(), encryption::hello(input)) {
                        (Offer::Tls, Some(_)) if first => self.stage = Stage::Securing { direct: true },
                        (Offer::Passthrough, Some(true)) if first => self.pass(now),
                        (Offer::Passthrough, Some(false)) if first => {}
                        _ => self.hang_up(),
                    };
                }
                Packet::Malformed(why) => return self.client_malformed(why),
                Packet::Cancel { len, key } => {
                    let target = self.settings.cancels.find(key).map_or(Target::Aside, Target::Exactly);
                    self.stage = Stage::Dialling(Purpose::Cancel { len, target });
                    return;
                }
                Packet::Startup { .. } if self.settings.tls_required() && !self.legs.client => {
                    return self.refuse_plain();
                }
                Packet::Startup { len, native, replication } => {
                    self.replication = replication;
                    self.server.foreign = !native;
                    return self.start(now, len);
                }
            };
            if std::mem::replace(asked, true) {
                return self.client_malformed("encryption was asked for twice");
            }
            plan.drop(startup::REQUEST);
            self.queue.reply(Local::NoEncryption);
        }
    }

    /// Lets the client speak TLS with the server itself. While open there is nothing to say to it: an error to a
    /// request for encryption is not read, and behind it only the server could be understood.
    fn pass(&mut self, now: Instant) {
        self.stage = match self.ledger.lane().admit(now, CallKind::Connect) {
            Ok(permit) => Stage::Dialling(Purpose::Passthrough { permit: Box::new(permit) }),
            Err(_) => Stage::Finish,
        };
    }

    /// Closes on a client that breaks the protocol where no error can be sent.
    fn hang_up(&mut self) {
        self.lane().add(Counter::ClientMalformed, 1);
        self.stage = Stage::Finish;
    }

    /// What a server says whose `pg_hba.conf` has nothing but `hostssl`. libpq's `sslmode=allow` then tries TLS.
    fn refuse_plain(&mut self) {
        let message = format!("backend '{}' takes no connection without TLS", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "28000",
            message: &message,
            detail: "",
            hint: "connect with sslmode=require or stricter",
        };
        self.end_with(fatal.bytes());
    }

    fn start(&mut self, now: Instant, len: usize) {
        let lane = self.ledger.lane();
        let answer = if self.replication {
            lane.admit_ineligible(now, CallKind::Startup)
        } else {
            lane.admit(now, CallKind::Startup)
        };
        match answer {
            Ok(permit) => {
                let permit = Box::new(permit);
                self.stage = Stage::Dialling(Purpose::Startup { len, permit });
            }
            Err(rejection) => self.refuse_session(now, &rejection, self.settings.reject_connect()),
        }
    }

    /// Ends the session with the words of a rejection, when all that is owed before has been sent.
    pub(super) fn refuse_session(&mut self, now: Instant, rejection: &Rejection, code: SqlState) {
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: code.as_str(),
            message: &rejection.words,
            detail: &rejection.cause,
            hint: &rejection.hint(now).to_string(),
        };
        let bytes = fatal.bytes();
        self.end_with(bytes);
    }

    /// Ends the session with a protocol error, when all that is owed before has been sent.
    pub(super) fn client_malformed(&mut self, why: &str) {
        self.lane().add(Counter::ClientMalformed, 1);
        let fatal = Reply { gravity: Gravity::Fatal, code: "08P01", message: why, detail: "", hint: "" };
        self.end_with(fatal.bytes());
    }

    /// Queues the session's last message.
    pub(super) fn end_with(&mut self, fatal: Box<[u8]>) {
        self.queue.reply(Local::Fatal(fatal));
        self.client.is_over = true;
        if self.queue.flights() == 0 && self.server.at_boundary() {
            self.stage = Stage::Finish;
        }
    }

    /// The backend has failed: one failure for whatever is in flight, and a native error if no message to the
    /// client is half sent.
    pub(super) fn backend_failed(&mut self, now: Instant, cause: Cause) {
        let starting = self.queue.peek().is_some_and(|head| head.kind == Kind::Startup);
        let refused = self.settings.reject_connect();
        let code = if starting { refused.as_str() } else { "08006" };
        let message = format!("backend '{}' has failed ({cause})", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code,
            message: &message,
            detail: if starting { "The session did not start." } else { UNKNOWN_OUTCOME },
            hint: "connect again",
        };
        let fatal = fatal.bytes();
        self.fail_flights(now, cause);
        if self.server.at_boundary() {
            self.end_with(fatal);
        } else {
            self.stage = Stage::Abort;
        }
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
            self.end_with(SHUTDOWN.bytes());
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

    fn local_fault(&mut self) {
        self.lane().add(Counter::LocalFaults, 1);
        let message = format!("no connection to backend '{}' could be made", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "53300",
            message: &message,
            detail: "The proxy's machine is out of descriptors, ports or memory.",
            hint: "try again",
        };
        self.end_with(fatal.bytes());
    }

    /// What the server itself says when its connections are used up.
    fn full(&mut self, limit: u32) {
        let detail =
            format!("fusewire gives backend '{}' no more than {limit} connections.", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: "53300",
            message: "sorry, too many clients already",
            detail: &detail,
            hint: "try again",
        };
        self.end_with(fatal.bytes());
    }

    fn connect_failed(&mut self, fault: Fault) {
        let code = self.settings.reject_connect();
        let message = format!("backend '{}' cannot be reached ({fault})", self.settings.backend);
        let fatal = Reply {
            gravity: Gravity::Fatal,
            code: code.as_str(),
            message: &message,
            detail: &fault.to_string(),
            hint: "try again",
        };
        let bytes = fatal.bytes();
        self.end_with(bytes);
    }
}

const UNKNOWN_OUTCOME: &str = "Whether the statement in flight took effect is unknown.";

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
        if !self.server.at_boundary() || matches!(self.stage, Stage::Abort | Stage::Opaque | Stage::Ending) {
            return;
        }
        let begin = out.len();
        let code = self.settings.reject_query();
        let code = code.as_str();
        while out.len() - begin < REPLY_CHUNK
            && let Some(local) = self.queue.local()
        {
            match local {
                Local::NoEncryption => out.push(reply::NO_ENCRYPTION),
                Local::Encryption => out.push(reply::ENCRYPTION),
                Local::Refusal(rejection) => write_refusal(now, rejection, code, out),
                Local::Missing => MISSING.write(out),
                Local::Undone => Reply { code, ..UNDONE }.write(out),
                Local::RolledBack => out.extend_from_slice(reply::ROLLBACK),
                Local::Ready(n) => {
                    out.extend_from_slice(reply::READY);
                    *n -= 1;
                    if *n > 0 {
                        continue;
                    }
                }
                Local::Empty(answer, n) => {
                    out.extend_from_slice(answer);
                    out.extend_from_slice(reply::READY);
                    *n -= 1;
                    if *n > 0 {
                        continue;
                    }
                }
                Local::Refused(rejection, n) => {
                    write_refusal(now, rejection, code, out);
                    out.extend_from_slice(reply::READY);
                    *n -= 1;
                    if *n > 0 {
                        continue;
                    }
                }
                Local::Fatal(bytes) => {
                    out.extend_from_slice(bytes);
                    self.stage = Stage::Finish;
                    self.ignore_flights(now);
                    return;
                }
            }
            self.queue.local_sent();
        }
        self.drain_if_idle();
    }

    fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Greeting { .. } => Phase::Idle,
            Stage::Securing { .. } => Phase::Secure,
            Stage::Dialling(Purpose::Startup { .. } | Purpose::Passthrough { .. }) => {
                Phase::Dial(Target::Backend)
            }
            Stage::Dialling(Purpose::Cancel { target, .. }) => Phase::Dial(*target),
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
                    if self.client_owes() {
                        Wait::Client(handshake)
                    } else {
                        Wait::Backend(handshake)
                    }
                }
                Some(head) if head.is_owed() && !self.replication => {
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
        self.peer = peer;
        match std::mem::replace(&mut self.stage, Stage::Relay) {
            Stage::Dialling(Purpose::Startup { len, permit }) => {
                self.client.expect_startup(len, permit.generation());
                let start = permit.start();
                let mut flight = Flight::new(Kind::Startup, Account::Permit(permit), start, false);
                flight.whole = true;
                self.queue.launch(flight);
            }
            Stage::Dialling(Purpose::Passthrough { permit }) => self.stage = Stage::Passing(permit),
            Stage::Dialling(Purpose::Cancel { len, .. }) => {
                self.lane().add(Counter::Cancels, 1);
                self.stage = Stage::Cancelling(len);
            }
            other => self.stage = other,
        }
        self.ledger.flush(now);
    }

    fn on_connect_failed(&mut self, now: Instant, fault: Option<Fault>) {
        match std::mem::replace(&mut self.stage, Stage::Finish) {
            Stage::Dialling(Purpose::Startup { permit, .. }) => match fault {
                Some(fault) => {
                    permit.record(now, Verdict::Failure(fault.into()));
                    self.connect_failed(fault);
                }
                None => {
                    permit.record(now, Verdict::Ignored);
                    self.local_fault();
                }
            },
            Stage::Dialling(Purpose::Passthrough { permit }) => {
                if fault.is_none() {
                    self.lane().add(Counter::LocalFaults, 1);
                }
                permit.record(now, fault.map_or(Verdict::Ignored, |fault| Verdict::Failure(fault.into())));
            }
            // A server that cannot be reached closes a cancel request without an answer, too.
            Stage::Dialling(Purpose::Cancel { .. }) => {
                if fault.is_none() {
                    self.lane().add(Counter::LocalFaults, 1);
                }
            }
            other => self.stage = other,
        }
    }

    fn on_queued(&mut self, queued: bool) {
        if let Stage::Dialling(Purpose::Startup { permit, .. } | Purpose::Passthrough { permit }) =
            &self.stage
        {
            permit.set_owed(!queued);
        }
    }

    fn on_full(&mut self, now: Instant, limit: u32) {
        match std::mem::replace(&mut self.stage, Stage::Finish) {
            Stage::Dialling(Purpose::Startup { permit, .. }) => {
                permit.record(now, Verdict::Ignored);
                self.full(limit);
            }
            // There is nothing to say to a client that talks to the server's own TLS.
            Stage::Dialling(Purpose::Passthrough { permit }) => permit.record(now, Verdict::Ignored),
            other => self.stage = other,
        }
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
        let starting = self.queue.peek().is_some_and(|head| head.kind == Kind::Startup);
        if starting && self.client_owes() {
            self.ignore_flights(now);
            // The server's own words after its authentication_timeout.
            let fatal = Reply {
                gravity: Gravity::Fatal,
                code: "57014",
                message: "canceling authentication due to timeout",
                detail: "",
                hint: "",
            };
            self.end_with(fatal.bytes());
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
                    self.end_with(SHUTDOWN.bytes());
                } else {
                    self.stage = Stage::Abort;
                }
            }
            _ => self.stage = Stage::Finish,
        }
    }
}

/// The server's own words when it is shut down.
const SHUTDOWN: Reply<'_> = Reply {
    gravity: Gravity::Fatal,
    code: "57P01",
    message: "terminating connection due to administrator command",
    detail: "",
    hint: "",
};

const MISSING: Reply<'_> = Reply {
    gravity: Gravity::Error,
    code: "26000",
    message: "prepared statement does not exist",
    detail: "Its Parse was rejected while the backend was open.",
    hint: "prepare it again",
};

const UNDONE: Reply<'_> = Reply {
    gravity: Gravity::Error,
    code: "57000",
    message: "there is nothing to commit",
    detail: "The transaction's BEGIN was rejected while the backend was open.",
    hint: "begin the transaction again",
};

fn write_refusal(now: Instant, rejection: &Rejection, code: &str, out: &mut Vec<u8>) {
    let error = Reply {
        gravity: Gravity::Error,
        code,
        message: &rejection.words,
        detail: &rejection.cause,
        hint: &rejection.hint(now).to_string(),
    };
    error.write(out);
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
