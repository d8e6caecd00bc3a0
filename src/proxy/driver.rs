//! One client connection and its upstream connection, both moved from one task.
//!
//! Bytes are read into a scratch buffer that belongs to the worker, shown to the session, and written out from
//! there: an idle connection owns no buffer, a busy one copies nothing unless a socket is full. The two directions
//! never wait for each other; each stops reading while its own output is blocked.
//!
//! Absent on purpose: any knowledge of a protocol, and any timer armed per call (there is one coarse deadline per
//! connection, checked lazily).

mod side;
mod turn;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::{Instant as TokioInstant, Sleep, sleep, sleep_until, timeout};

use self::side::{Input, Side};
use self::turn::Turn;
use super::listener::Listener;
use super::service::Service;
use super::shutdown::Drain;
use super::socket::Socket;
use super::tls;
use super::upstream::{Upstream, dial};
use crate::breaker::{Fault, State};
use crate::gate::{Full, Lane, Place};
use crate::metrics::Counter;
use crate::protocol::proxy_protocol::{self, Ends, Header};
use crate::protocol::{HOLD_MAX, Phase, Plan, Session, Target, Wait};

/// A worker's read buffer: what a session may hold plus a read of good size.
const SCRATCH: usize = HOLD_MAX + 62 * 1024;
/// Rounds in one turn, however little they read.
const ROUNDS: usize = 16;
/// How long the last words to a client may take to be written.
const FINISH_WRITE: Duration = Duration::from_secs(10);
/// How long, and for how many bytes, a closing client is listened to. Without it the client's own write fails
/// before it has read the error (PROTOCOLS.md §1 rule 8).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
/// How long a backend may take to end the connection of a client that has left. A stopped one never does.
const PARTING: Duration = Duration::from_secs(10);
/// How soon a request that waits for others to end asks again.
const RETRY: Duration = Duration::from_millis(1);

thread_local! {
    static WORKBENCH: RefCell<Workbench> = RefCell::new(Workbench {
        scratch: vec![0; SCRATCH],
        plan: Plan::default(),
        replies: Vec::new(),
    });
}

/// The most that one side of a connection holds: what the session has left of a read, and output that its socket would
/// not take, which is that of one read and what was put into it.
#[cfg(test)]
pub(super) const SIDE_MAX: usize = 2 * SCRATCH + 2 * crate::protocol::REPLY_CHUNK;

#[cfg(test)]
thread_local! {
    static HEAVIEST: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The most that one side of a connection of this thread has held since this was last asked.
#[cfg(test)]
pub(super) fn heaviest_side() -> usize {
    HEAVIEST.take()
}

/// What a worker lends to the connection that it is moving.
struct Workbench {
    scratch: Vec<u8>,
    plan: Plan,
    replies: Vec<u8>,
}

/// A client connection under way.
pub struct Driver<S> {
    session: S,
    lane: Lane,
    service: Arc<Service>,
    client: Side,
    server: Option<Side>,
    turn: Turn,
    /// The server connection's, in the bulkhead.
    place: Option<Place>,
    /// When a request that waits for others to end is presented again.
    retry: Option<Pin<Box<Sleep>>>,
    /// The ends of the client's connection to whoever let it in, as that says.
    told: Option<Box<Ends>>,
    /// The breaker's next change, while the session wants to know it.
    change: Option<Change>,
    drain: Drain,
    timer: Option<Timer>,
    /// Since when the backend has been silent, and since when it has been the client's move: one that sends a byte now
    /// and then must not hold its place for ever.
    backend_since: Instant,
    client_since: Instant,
    backend_owes: bool,
}

/// An alarm clock. It has been polled since it was set, and a task's waker stays good for the task's life, so that it need
/// not be looked at before its time.
struct Timer {
    at: Instant,
    sleep: Pin<Box<Sleep>>,
}

/// The breaker's next change, and what to hear of the one after that with.
type Change = Pin<Box<dyn Future<Output = watch::Receiver<State>> + Send>>;

/// The client is gone: nobody is left to serve.
struct ClientGone;

/// Why the relay stopped.
enum Next {
    Dial(Target),
    Secure,
    Finish,
    Abort,
}

/// How far a turn has come.
enum Moved {
    /// Nothing is left: the task is woken when there is.
    All,
    /// More may be left.
    Some,
    /// Up to what cannot be done in passing.
    Until(Next),
    /// Nobody is there any more.
    InVain,
}

impl<S: Session> Driver<S> {
    /// A driver for a client that has just been accepted. Boxed, because a future keeps what it is made of twice, once
    /// as its argument and once as its own, and so does each future around it: an idle client would take four times this.
    pub fn new(session: S, lane: Lane, service: Arc<Service>, client: Socket) -> Box<Self> {
        if !Listener::OPTIONS_ARE_INHERITED {
            client.tune_downstream(&service.route().config.timeouts);
        }
        let drain = service.shutdown().ear();
        lane.add(Counter::Accepted, 1);
        let now = present();
        Box::new(Self {
            session,
            lane,
            service,
            client: Side::new(client),
            server: None,
            turn: Turn::default(),
            place: None,
            retry: None,
            told: None,
            change: None,
            drain,
            timer: None,
            backend_since: now,
            client_since: now,
            backend_owes: false,
        })
    }

    /// Moves the connection until it ends.
    pub async fn run(mut self: Box<Self>) {
        if self.expects_header() && !Box::pin(self.take_header()).await {
            return;
        }
        let mut immediate = self.service.route().tls.as_ref().is_some_and(|tls| tls.is_immediate());
        loop {
            let next = match std::mem::take(&mut immediate) {
                true => Ok(Next::Secure),
                false => poll_fn(|cx| self.poll_relay(cx)).await,
            };
            match next {
                Ok(Next::Dial(target)) => Box::pin(self.dial(target)).await,
                Ok(Next::Secure) if Box::pin(self.secure()).await => {}
                Ok(Next::Secure | Next::Finish) => return Box::pin(self.finish()).await,
                Ok(Next::Abort) => return self.client.socket.reset_on_close(),
                Err(ClientGone) => return,
            }
        }
    }

    /// Whether the client's connection begins with a PROXY protocol header.
    fn expects_header(&self) -> bool {
        let route = self.service.route();
        let proxy_protocol = &route.config.proxy_protocol;
        !proxy_protocol.from.is_empty()
            && proxy_protocol.expects(self.client.socket.ends().map(|ends| ends.source.ip()))
    }

    /// Reads that header, and keeps what comes behind it. Says whether it could.
    async fn take_header(&mut self) -> bool {
        let limit = self.service.route().config.timeouts.handshake;
        let drain = &mut self.drain;
        let socket = &mut self.client.socket;
        let mut input = Vec::new();
        let header = tokio::select! {
            header = timeout(limit, read_header(socket, &mut input)) => header.ok().flatten(),
            () = poll_fn(|cx| if drain.poll_begun(cx) { Poll::Ready(()) } else { Poll::Pending }) => return false,
        };
        self.lane.add(Counter::DownstreamBytes, input.len() as u64);
        let Some(header) = header else {
            // A balancer that only looks whether somebody is there has sent nothing.
            if !input.is_empty() {
                self.lane.add(Counter::ClientMalformed, 1);
                tracing::debug!(backend = %self.service.backend().name(), "A client sent no PROXY protocol header");
            }
            return false;
        };
        self.told = header.ends.map(Box::new);
        self.client.hold(input.get(header.len..).unwrap_or_default());
        self.client.again = true;
        self.client_since = present();
        true
    }

    /// Waits for a place among the backend's connections as long as it may.
    async fn take_place(&mut self) -> Result<Place, Full> {
        let wait = match self.lane.take_place() {
            Err(Full { wait, .. }) if !wait.is_zero() => wait,
            place => return place,
        };
        let gate = self.lane.gate().clone();
        let until = sleep(wait);
        tokio::pin!(until);
        self.session.on_queued(true);
        let drain = &mut self.drain;
        let lane = &self.lane;
        let place = loop {
            // Listened for before it is asked for, or a place that is freed in between would be missed.
            let room = gate.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let full = match lane.take_place() {
                Ok(place) => break Ok(place),
                Err(full) => full,
            };
            tokio::select! {
                () = room => {}
                () = &mut until => break Err(full),
                () = poll_fn(|cx| if drain.poll_begun(cx) { Poll::Ready(()) } else { Poll::Pending }) => {
                    break Err(full);
                }
            }
        };
        self.session.on_queued(false);
        place
    }

    async fn dial(&mut self, target: Target) {
        if target == Target::Backend {
            match self.take_place().await {
                Ok(place) => self.place = Some(place),
                Err(Full { limit, .. }) => {
                    self.lane.turned_away();
                    let now = present();
                    self.client_since = now;
                    return self.session.on_full(now, limit);
                }
            }
        }
        let route = self.service.route();
        let (config, tls) = (&route.config, route.tls.as_deref());
        let preface = match config.proxy_protocol.to {
            None => Vec::new(),
            Some(version) => proxy_protocol::write(
                version,
                self.told.as_deref().copied().or_else(|| self.client.socket.ends()),
            ),
        };
        let dialled = dial(&config.upstream, target, &config.timeouts, tls, &preface).await;
        let now = present();
        self.client_since = now;
        self.client.again = true;
        match dialled {
            Ok(Upstream { socket, peer }) => {
                self.lane.add(Counter::Connected, 1);
                if socket.tls().is_some() {
                    self.session.on_upstream_secured();
                }
                self.server = Some(Side::new(socket));
                self.session.on_connected(now, peer);
            }
            Err(fault) => {
                self.place = None;
                self.lane.add(Counter::ConnectFailed, 1);
                self.session.on_connect_failed(now, fault);
            }
        }
    }

    /// Encrypts the client's leg. Says whether it could; a client that fails is no verdict.
    async fn secure(&mut self) -> bool {
        let route = self.service.route();
        let Some(tls) = &route.tls else { return false };
        let limit = route.config.timeouts.handshake;
        let written = timeout(limit, poll_fn(|cx| self.poll_owed(cx))).await;
        if !matches!(written, Ok(Ok(()))) {
            return false;
        }
        let early = std::mem::take(&mut self.client.held).into_vec();
        let socket = std::mem::replace(&mut self.client.socket, Socket::Closed);
        let drain = &mut self.drain;
        let secured = tokio::select! {
            secured = timeout(limit, tls.accept(socket, early)) => secured.map_err(|_| None),
            () = poll_fn(|cx| if drain.poll_begun(cx) { Poll::Ready(()) } else { Poll::Pending }) => return false,
        };
        let error = match secured.and_then(|accepted| accepted.map_err(Some)) {
            Ok(socket) => {
                self.client.socket = socket;
                let now = present();
                self.client_since = now;
                let alpn = self.client.socket.tls().and_then(tls::Stream::alpn);
                self.session.on_secured(now, alpn);
                return true;
            }
            Err(Some(tls::Refused { silent: true, .. })) => return false,
            Err(Some(tls::Refused { error, socket, .. })) => {
                self.client.socket = socket;
                error
            }
            Err(None) => io::ErrorKind::TimedOut.into(),
        };
        self.lane.add(Counter::ClientTlsFailed, 1);
        tracing::debug!(backend = %route.config.name, %error, "A client's TLS handshake failed");
        false
    }

    /// Writes what is owed to the client, closes the upstream connection, and closes the client's in a way that
    /// lets it read the last words.
    async fn finish(mut self: Box<Self>) {
        self.hang_up();
        let written = timeout(FINISH_WRITE, poll_fn(|cx| self.poll_last_words(cx))).await;
        if !matches!(written, Ok(Ok(()))) || self.client.input != Input::Open {
            return;
        }
        let mut left = LINGER_BYTES;
        let drained = poll_fn(|cx| WORKBENCH.with_borrow_mut(|bench| self.poll_linger(cx, bench, &mut left)));
        // Whether the client went in time or not, it has had its chance to read.
        let _ = timeout(LINGER, drained).await;
    }

    /// A client that has ended its side is told of the end by the close that follows, unless that takes words.
    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_owed(cx))?;
        match self.client.input {
            Input::Ended(_) | Input::Over if self.client.socket.tls().is_none() => Poll::Ready(Ok(())),
            _ => self.client.socket.poll_shutdown(cx),
        }
    }

    /// Writes what the session owes the client.
    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        WORKBENCH.with_borrow_mut(|bench| {
            loop {
                self.client.flush(cx)?;
                if !self.client.backlog.is_empty() {
                    return Poll::Pending;
                }
                if !self.answer(cx, present(), bench)? {
                    return Poll::Ready(Ok(()));
                }
            }
        })
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, bench: &mut Workbench, left: &mut usize) -> Poll<()> {
        loop {
            match self.client.socket.poll_read(cx, &mut bench.scratch) {
                Poll::Ready(Ok(n)) if n > 0 && n <= *left => *left -= n,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, ClientGone>> {
        if !self.turn.begin(cx) {
            return Poll::Pending;
        }
        let moved = WORKBENCH.with_borrow_mut(|bench| self.relay(cx, bench));
        self.turn.end(cx, matches!(moved, Moved::Some));
        match moved {
            Moved::All | Moved::Some => Poll::Pending,
            Moved::Until(next) => Poll::Ready(Ok(next)),
            Moved::InVain => Poll::Ready(Err(ClientGone)),
        }
    }

    /// Moves what can move in one turn.
    fn relay(&mut self, cx: &mut Context<'_>, bench: &mut Workbench) -> Moved {
        self.client.quiet = false;
        if let Some(server) = &mut self.server {
            server.quiet = false;
        }
        let mut now = present();
        for round in 0..ROUNDS {
            // The second round mostly finds that nothing is left: it goes by the first one's time.
            if round > 1 {
                now = present();
            }
            let Ok(moved) = self.round(cx, now, bench) else { return Moved::InVain };
            match self.session.phase() {
                Phase::Idle | Phase::Relay => {}
                Phase::Dial(target) => return Moved::Until(Next::Dial(target)),
                Phase::Secure => return Moved::Until(Next::Secure),
                Phase::Finish => return Moved::Until(Next::Finish),
                Phase::Abort => return Moved::Until(Next::Abort),
            }
            let client_done = self.client.input == Input::Over && self.client.backlog.is_empty();
            if self.server.is_none() && client_done && !moved {
                return Moved::Until(Next::Finish);
            }
            let wait = match self.client.backlog.is_empty() && self.session.is_parting() {
                true if self.client_since + PARTING <= now => return Moved::Until(Next::Finish),
                true => Wait::Client(PARTING),
                false => self.session.wait(),
            };
            self.watch_owing(now, wait);
            if !moved && !self.poll_events(cx, now, wait) {
                return Moved::All;
            }
            if self.turn.is_over() {
                break;
            }
        }
        Moved::Some
    }

    /// Moves whatever can move, once. Errors are the client's.
    fn round(&mut self, cx: &mut Context<'_>, now: Instant, bench: &mut Workbench) -> io::Result<bool> {
        let mut moved = false;
        if self.client.flush(cx)? > 0 {
            (self.backend_since, self.client_since) = (now, now);
            moved = true;
        }
        if let Some(server) = &mut self.server
            && !server.backlog.is_empty()
        {
            // A backend that takes no more may still have something to say: its reading side decides.
            match server.flush(cx) {
                Ok(0) => {}
                Ok(_) => {
                    self.backend_since = now;
                    moved = true;
                }
                Err(_) => server.give_up_output(),
            }
        }
        moved |= self.pump_server(cx, now, bench)?;
        moved |= self.answer(cx, now, bench)?;
        if self.pump_client(cx, now, bench)? {
            moved = true;
            self.answer(cx, now, bench)?;
        }
        moved |= self.pass_on_ends(cx, now);
        #[cfg(test)]
        self.weigh();
        Ok(moved)
    }

    #[cfg(test)]
    fn weigh(&self) {
        let weight = self.client.weight().max(self.server.as_ref().map_or(0, Side::weight));
        HEAVIEST.set(HEAVIEST.get().max(weight));
    }

    /// Client to backend.
    fn pump_client(&mut self, cx: &mut Context<'_>, now: Instant, bench: &mut Workbench) -> io::Result<bool> {
        if !matches!(self.session.phase(), Phase::Idle | Phase::Relay)
            || self.server.as_ref().is_some_and(|server| !server.backlog.is_empty())
            || self.session.queued().is_some() && !self.client.again
        {
            return Ok(false);
        }
        let Some(read) = self.client.fill(cx, &mut bench.scratch, self.turn.most())? else {
            return Ok(false);
        };
        if read.fresh > 0 {
            self.turn.add(read.fresh);
            self.lane.add(Counter::DownstreamBytes, read.fresh as u64);
        }
        let input = &bench.scratch[..read.len];
        bench.plan.clear();
        self.session.on_client(now, input, read.drained, &mut bench.plan);
        if let Some(server) = &mut self.server
            && !server.output_over
            && server.backlog.write_plan(cx, &mut server.socket, input, &bench.plan).is_err()
        {
            server.give_up_output();
        }
        let consumed = bench.plan.consumed();
        self.client.hold(&input[consumed..]);
        Ok(read.fresh > 0 || consumed > 0)
    }

    /// Backend to client.
    fn pump_server(&mut self, cx: &mut Context<'_>, now: Instant, bench: &mut Workbench) -> io::Result<bool> {
        let Some(server) = &mut self.server else { return Ok(false) };
        if self.session.phase() != Phase::Relay || !self.client.backlog.is_empty() {
            return Ok(false);
        }
        let read = match server.fill(cx, &mut bench.scratch, self.turn.most()) {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(false),
            Err(error) => {
                server.input = Input::Ended(match error.kind() {
                    io::ErrorKind::TimedOut => Fault::Timeout,
                    // A server that wants another client certificate says so behind its handshake.
                    io::ErrorKind::InvalidData => Fault::Tls,
                    _ => Fault::Reset,
                });
                return Ok(true);
            }
        };
        if read.fresh > 0 {
            self.turn.add(read.fresh);
            self.lane.add(Counter::UpstreamBytes, read.fresh as u64);
            self.backend_since = now;
            self.client_since = now;
            self.client.again = !self.client.held.is_empty();
        }
        let input = &bench.scratch[..read.len];
        bench.plan.clear();
        self.session.on_server(now, input, &mut bench.plan);
        let consumed = bench.plan.consumed();
        server.hold(&input[consumed..]);
        self.client.backlog.write_plan(cx, &mut self.client.socket, input, &bench.plan)?;
        Ok(read.fresh > 0 || consumed > 0)
    }

    /// Local replies whose turn has come.
    fn answer(&mut self, cx: &mut Context<'_>, now: Instant, bench: &mut Workbench) -> io::Result<bool> {
        let mut answered = false;
        while self.client.backlog.is_empty() {
            bench.replies.clear();
            self.session.replies(now, &mut bench.replies);
            if bench.replies.is_empty() {
                break;
            }
            answered = true;
            let mut slices = [IoSlice::new(&bench.replies)];
            self.client.backlog.write(cx, &mut self.client.socket, &mut slices)?;
        }
        if answered {
            self.client_since = now;
            self.client.again = true;
            if let Some(server) = &mut self.server {
                server.again = true;
            }
        }
        Ok(answered)
    }

    /// Tells the session, and the other side, that a side has no more input.
    fn pass_on_ends(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        // What waits for its turn has come before the end.
        if let Input::Ended(_) = self.client.input
            && self.session.queued().is_none()
        {
            self.client.input = Input::Over;
            self.client_since = now;
            self.session.on_client_eof(now);
            moved = true;
        }
        let Some(server) = &mut self.server else { return moved };
        if let Input::Ended(fault) = server.input
            && self.client.backlog.is_empty()
            && (!server.again || server.held.is_empty())
        {
            server.input = Input::Over;
            self.session.on_server_eof(now, fault);
            return true;
        }
        if self.client.input == Input::Over
            && !server.output_over
            && server.backlog.is_empty()
            && self.session.may_forward_eof()
        {
            // If it fails, the connection is already gone. An encrypted one may have to wait: it is asked again.
            server.output_over = server.socket.poll_shutdown(cx).is_ready();
        }
        moved
    }

    /// Notes when the backend begins to owe a reply: its silence is measured from then.
    fn watch_owing(&mut self, now: Instant, wait: Wait) {
        let owes = matches!(wait, Wait::Backend(_));
        if owes && !self.backend_owes {
            self.backend_since = now;
        }
        self.backend_owes = owes;
    }

    /// Deadlines, shutdown, the breaker's changes. Returns whether the session was told of anything.
    fn poll_events(&mut self, cx: &mut Context<'_>, now: Instant, wait: Wait) -> bool {
        if self.drain.poll_begun(cx) {
            self.session.on_drain(now);
            return true;
        }
        if self.drain.poll_over(cx) {
            self.session.on_drain_over(now);
            return true;
        }
        if self.session.watches_breaker() {
            let gate = self.lane.gate();
            let change = self.change.get_or_insert_with(|| {
                let mut states = gate.watch();
                // It may have changed between the session's decision and now.
                states.mark_changed();
                next_change(states)
            });
            if let Poll::Ready(states) = change.as_mut().poll(cx) {
                self.change = Some(next_change(states));
                self.session.on_breaker_change(now);
                return true;
            }
        }
        self.poll_deadline(cx, now, wait) | self.poll_retry(cx, now)
    }

    /// Whether a request that waits for others to end is to be presented again.
    fn poll_retry(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(until) = self.session.queued() else { return false };
        let next = until.min(now + RETRY);
        let retry = self.retry.get_or_insert_with(|| Box::pin(sleep_until(next.into())));
        if retry.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.retry = None;
        self.client.again = true;
        true
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, now: Instant, wait: Wait) -> bool {
        let deadline = match wait {
            // While the client does not take what it asked for, the backend cannot be blamed for silence.
            Wait::Backend(limit) if self.client.backlog.is_empty() => self.backend_since.checked_add(limit),
            Wait::Client(limit) => self.client_since.checked_add(limit),
            Wait::Backend(_) | Wait::Nothing => None,
        };
        let Some(deadline) = deadline else {
            if self.timer.as_ref().is_some_and(|timer| timer.at <= now) {
                self.timer = None;
            }
            return false;
        };
        if deadline <= now {
            self.session.on_deadline(now);
            return true;
        }
        match &mut self.timer {
            // One that is set too early only looks again; one that is set too late must be moved.
            Some(timer) if timer.at > now && timer.at <= deadline => {}
            Some(timer) => timer.set(cx, deadline),
            None => {
                let mut timer = Timer { at: deadline, sleep: Box::pin(sleep_until(deadline.into())) };
                timer.set(cx, deadline);
                self.timer = Some(timer);
            }
        }
        false
    }
}

impl Timer {
    fn set(&mut self, cx: &mut Context<'_>, at: Instant) {
        self.at = at;
        self.sleep.as_mut().reset(at.into());
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.at = at.max(present() + Duration::from_millis(1));
            self.sleep.as_mut().reset(self.at.into());
        }
    }
}

impl<S> Driver<S> {
    fn hang_up(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.socket.farewell();
            self.lane.add(Counter::Disconnected, 1);
        }
        self.place = None;
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.hang_up();
        self.lane.add(Counter::Closed, 1);
    }
}

/// Reads a PROXY protocol header, and perhaps what comes behind it. None if it never comes.
async fn read_header(socket: &mut Socket, input: &mut Vec<u8>) -> Option<Header> {
    loop {
        let mut more = [0; 512];
        // A read may take no more than the driver can hold.
        let n = socket.read(&mut more).await.ok().filter(|&n| n > 0)?;
        input.extend_from_slice(&more[..n]);
        match proxy_protocol::read(input) {
            Ok(Some(header)) => return Some(header),
            Ok(None) => {}
            Err(_) => return None,
        }
    }
}

fn next_change(mut states: watch::Receiver<State>) -> Change {
    Box::pin(async move {
        // The gate outlives its connections, so the channel cannot be closed.
        let _ = states.changed().await;
        states
    })
}

/// The runtime's time, so that a test's virtual clock moves timers and measurements alike.
fn present() -> Instant {
    TokioInstant::now().into_std()
}

#[cfg(test)]
mod tests;
