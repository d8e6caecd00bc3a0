//! The threads of the data plane: each with a single-threaded runtime and its own connections.
//!
//! A connection stays on the worker that it was given to, so its task never moves between cores and its counters
//! need no locked instruction. Every worker accepts on every listener; one that has more connections than another
//! hands the new one over.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tokio::runtime;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use super::driver::Driver;
use super::listener::{Listener, StdSocket, accept};
use super::tls;
use crate::backends::Backend;
use crate::config::Protocol;
use crate::gate::Lane;
use crate::protocol::{postgres, redis};

/// One backend as the data plane serves it.
#[derive(Debug)]
pub struct Service {
    backend: Arc<Backend>,
    sessions: Sessions,
    tls: Option<Arc<tls::Store>>,
}

/// What every session of a backend shares.
#[derive(Debug)]
enum Sessions {
    Redis(Arc<redis::Settings>),
    Postgres(Arc<postgres::Settings>),
}

impl Service {
    /// Prepares what the backend's sessions share.
    ///
    /// # Errors
    /// If a TLS file cannot be used.
    pub fn new(backend: Arc<Backend>) -> Result<Self, tls::LoadError> {
        let config = &backend.config;
        let (name, timeouts) = (config.name.clone(), &config.timeouts);
        let sessions = match &config.protocol {
            Protocol::Redis(redis) => Sessions::Redis(Arc::new(redis::Settings::new(name, redis, timeouts))),
            Protocol::Postgres(postgres) => {
                let settings = postgres::Settings::new(name, postgres, timeouts).with_tls(&config.tls);
                Sessions::Postgres(Arc::new(settings))
            }
        };
        let tls = tls::Store::new(config)?;
        Ok(Self { backend, sessions, tls })
    }

    /// Its certificates, if it has any.
    pub fn tls(&self) -> Option<&Arc<tls::Store>> {
        self.tls.as_ref()
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Closed when the last thread has dropped its end.
    alive: mpsc::Receiver<Infallible>,
    shutdown: Shutdown,
}

/// What a worker thread knows of the others.
#[derive(Debug)]
pub(super) struct Crew {
    /// Connections of each worker.
    loads: Box<[AtomicUsize]>,
    inboxes: Vec<mpsc::UnboundedSender<Handover>>,
}

/// A connection on its way to another worker.
#[derive(Debug)]
pub(super) struct Handover {
    socket: StdSocket,
    service: Arc<Service>,
}

/// One worker's own view.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    index: usize,
    crew: Arc<Crew>,
    tracker: TaskTracker,
    pub(super) shutdown: Shutdown,
}

/// The end of the data plane, in two steps.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: Arc<AtomicBool>,
    drain: CancellationToken,
    stop: CancellationToken,
}

/// One connection's ear for the beginning of the drain. Costs an atomic load a turn.
pub struct Drain {
    draining: Arc<AtomicBool>,
    begun: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: bool,
    told: bool,
}

/// A connection's place on its worker; leaving it lightens the load.
struct Seat {
    crew: Arc<Crew>,
    index: usize,
}

impl Workers {
    /// Starts `count` workers that accept on `listeners`.
    ///
    /// # Errors
    /// If a thread, a runtime or a copy of a listener cannot be had.
    pub fn start(count: usize, listeners: &[(Listener, Arc<Service>)]) -> io::Result<Self> {
        let shutdown = Shutdown::default();
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let crew = Arc::new(Crew { loads: (0..count).map(|_| AtomicUsize::new(0)).collect(), inboxes });
        let mut threads = Vec::new();
        let (living, alive) = mpsc::channel(1);
        for (index, inbox) in receivers.into_iter().enumerate() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let listeners = listeners
                .iter()
                .map(|(listener, service)| Ok((listener.try_clone()?, service.clone())))
                .collect::<io::Result<Vec<_>>>()?;
            let tracker = TaskTracker::new();
            let bench = Bench { index, crew: crew.clone(), tracker, shutdown: shutdown.clone() };
            let thread = std::thread::Builder::new().name(format!("worker-{}", index + 1)).spawn({
                let living = living.clone();
                move || {
                    runtime.block_on(bench.work(inbox, listeners));
                    // Connections end here, before the others are told that this thread has.
                    drop(runtime);
                    drop(living);
                }
            })?;
            threads.push(thread);
        }
        Ok(Self { threads, alive, shutdown })
    }

    /// The switch that ends them.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Completes when every worker has ended.
    pub async fn ended(&mut self) {
        // Nothing is ever sent: the answer is the end of the channel.
        let _ = self.alive.recv().await;
    }

    /// Blocks until every worker has ended. Call it after [`Shutdown::drain`] or [`Shutdown::stop`].
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("A worker thread panicked");
            }
        }
    }
}

impl Shutdown {
    /// Stops accepting and asks every connection to end as soon as no call and no transaction is open.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.cancel();
    }

    /// Ends every connection at once.
    pub fn stop(&self) {
        self.drain();
        self.stop.cancel();
    }

    /// Completes when the drain begins.
    pub(super) async fn drained(&self) {
        self.drain.cancelled().await;
    }

    /// A connection's ear for it.
    pub(super) fn ear(&self) -> Drain {
        Drain {
            draining: self.draining.clone(),
            begun: Box::pin(self.drain.clone().cancelled_owned()),
            registered: false,
            told: false,
        }
    }
}

impl Drain {
    /// Whether the drain has begun; true once only. The first call arranges for the task to be woken.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            // A task's waker stays good for its life, so asking once is enough.
            self.registered = true;
            let _: Poll<()> = self.begun.as_mut().poll(cx);
        }
        if self.told || !self.draining.load(Ordering::Acquire) {
            return false;
        }
        self.told = true;
        true
    }
}

impl Bench {
    async fn work(
        self,
        mut inbox: mpsc::UnboundedReceiver<Handover>,
        listeners: Vec<(Listener, Arc<Service>)>,
    ) {
        for (listener, service) in listeners {
            tokio::spawn(accept(listener, service, self.clone()));
        }
        let drained = async {
            self.shutdown.drained().await;
            // Whoever was handed over before the drain began is in the inbox by now or has been seated.
            self.tracker.close();
            self.tracker.wait().await;
        };
        let receive = async {
            while let Some(Handover { socket, service }) = inbox.recv().await {
                self.seat(socket, service);
            }
        };
        tokio::select! {
            () = self.shutdown.stop.cancelled() => {}
            () = drained => {}
            () = receive => {}
        }
    }

    /// Gives a new connection to the worker with the fewest, by preference this one.
    pub(super) fn place(&self, socket: StdSocket, service: Arc<Service>) {
        let load = |index: usize| self.crew.loads[index].load(Ordering::Relaxed);
        let least = (0..self.crew.loads.len()).min_by_key(|&index| load(index)).unwrap_or(self.index);
        if load(self.index) <= load(least) {
            self.seat(socket, service);
        } else {
            // A worker that is shutting down takes nobody; the connection is closed, as a listener's queue would be.
            let Ok(socket) = socket.unregister() else { return };
            let _ = self.crew.inboxes[least].send(Handover { socket, service });
        }
    }

    /// This worker's way through the service's gate.
    pub(super) fn lane(&self, service: &Service) -> Lane {
        service.backend.gate.lane(self.index + 1)
    }

    fn seat(&self, socket: StdSocket, service: Arc<Service>) {
        let Ok(socket) = socket.into_socket() else { return };
        self.crew.loads[self.index].fetch_add(1, Ordering::Relaxed);
        let seat = Seat { crew: self.crew.clone(), index: self.index };
        let backend = service.backend.clone();
        let lane = self.lane(&service);
        let drain = self.shutdown.ear();
        match &service.sessions {
            Sessions::Redis(settings) => {
                let session = redis::Session::new(lane.clone(), settings.clone());
                let driver = Driver::new(session, lane, backend, socket, drain).with_tls(service.tls.clone());
                self.tracker.spawn(serve(driver.run(), seat));
            }
            Sessions::Postgres(settings) => {
                let session = postgres::Session::new(lane.clone(), settings.clone());
                let driver = Driver::new(session, lane, backend, socket, drain).with_tls(service.tls.clone());
                self.tracker.spawn(serve(driver.run(), seat));
            }
        }
    }
}

async fn serve(connection: impl Future<Output = ()>, seat: Seat) {
    connection.await;
    drop(seat);
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crew.loads[self.index].fetch_sub(1, Ordering::Relaxed);
    }
}
