//! The threads of the data plane: each with a single-threaded runtime and its own connections.
//!
//! A connection stays on the worker that it was given to, so its task never moves between cores and its counters
//! need no locked instruction. Every worker accepts on every listener; one that has more connections than another
//! hands the new one over.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::driver::Driver;
use super::listener::{Closing, Listener, StdSocket, accept};
use super::service::{Service, Sessions};
use super::shutdown::Shutdown;
use crate::gate::Lane;
use crate::protocol::{postgres, redis};

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    runtimes: Vec<runtime::Handle>,
    crew: Arc<Crew>,
    /// Closed when the last thread has dropped its end.
    alive: mpsc::Receiver<Infallible>,
    shutdown: Shutdown,
}

/// The workers' pulse.
#[derive(Debug, Clone)]
pub struct Pulse {
    crew: Arc<Crew>,
    shutdown: Shutdown,
}

impl Pulse {
    /// Completes when every worker has answered, which one that is stuck never does. Says whether all are alive; those
    /// that have ended because they were to do not count.
    pub async fn beat(&self) -> bool {
        let workers = self.crew.inboxes.len();
        let (alive, mut answers) = mpsc::channel(workers);
        let asked = self.crew.inboxes.iter().filter(|inbox| inbox.send(Order::Beat(alive.clone())).is_ok());
        let asked = asked.count();
        drop(alive);
        let mut answered = 0;
        while answers.recv().await.is_some() {
            answered += 1;
        }
        (asked == workers && answered == workers) || self.shutdown.is_draining()
    }
}

/// What a worker thread knows of the others.
#[derive(Debug)]
pub(super) struct Crew {
    /// Connections of each worker.
    loads: Box<[AtomicUsize]>,
    inboxes: Vec<mpsc::UnboundedSender<Order>>,
}

/// What a worker is told to do.
#[derive(Debug)]
enum Order {
    /// Serve a connection that another worker has accepted.
    Serve(StdSocket, Arc<Service>),
    /// Accept as long as the port is open.
    Accept(Listener, Arc<Service>, Closing, TaskTrackerToken),
    /// Say that it is alive.
    Beat(mpsc::Sender<()>),
}

/// One worker's own view.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    index: usize,
    crew: Arc<Crew>,
    tracker: TaskTracker,
    pub(super) shutdown: Shutdown,
}

/// A connection's place on its worker; leaving it lightens the load.
struct Seat {
    crew: Arc<Crew>,
    index: usize,
}

impl Workers {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be had.
    pub fn start(count: usize) -> io::Result<Self> {
        let shutdown = Shutdown::default();
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let crew = Arc::new(Crew { loads: (0..count).map(|_| AtomicUsize::new(0)).collect(), inboxes });
        let (mut threads, mut runtimes) = (Vec::new(), Vec::new());
        let (living, alive) = mpsc::channel(1);
        for (index, inbox) in receivers.into_iter().enumerate() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let tracker = TaskTracker::new();
            let bench = Bench { index, crew: crew.clone(), tracker, shutdown: shutdown.clone() };
            let thread = std::thread::Builder::new().name(format!("worker-{}", index + 1)).spawn({
                let living = living.clone();
                move || {
                    runtime.block_on(bench.work(inbox));
                    // Connections end here, before the others are told that this thread has.
                    drop(runtime);
                    drop(living);
                }
            })?;
            threads.push(thread);
        }
        Ok(Self { threads, runtimes, crew, alive, shutdown })
    }

    /// A copy of a listener for each worker.
    ///
    /// # Errors
    /// If no descriptor is left for one of them.
    pub(super) fn copies(&self, listener: &Listener) -> io::Result<Vec<Listener>> {
        self.crew.inboxes.iter().map(|_| listener.try_clone()).collect()
    }

    /// Has every worker accept clients of `service` on its copy of a listener until `end`.
    pub(super) fn accept(&self, copies: Vec<Listener>, service: &Arc<Service>, end: &Closing) {
        for (inbox, copy) in self.crew.inboxes.iter().zip(copies) {
            // A worker that has ended accepts nobody.
            let _ = inbox.send(Order::Accept(copy, service.clone(), end.clone(), end.accepting()));
        }
    }

    /// Their pulse.
    pub fn pulse(&self) -> Pulse {
        Pulse { crew: self.crew.clone(), shutdown: self.shutdown.clone() }
    }

    /// Their runtimes, to count their tasks.
    pub fn runtimes(&self) -> Vec<runtime::Handle> {
        self.runtimes.clone()
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

impl Bench {
    async fn work(self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let drained = async {
            self.shutdown.drained().await;
            // Whoever was handed over before the drain began is in the inbox by now or has been seated.
            self.tracker.close();
            self.tracker.wait().await;
        };
        let receive = async {
            while let Some(order) = inbox.recv().await {
                match order {
                    Order::Serve(socket, service) => self.seat(socket, service),
                    // There is room for each worker's word.
                    Order::Beat(alive) => drop(alive.try_send(())),
                    Order::Accept(listener, service, end, accepting) => {
                        let accept = accept(listener, service, end, self.clone());
                        tokio::spawn(async move {
                            accept.await;
                            drop(accepting);
                        });
                    }
                }
            }
        };
        tokio::select! {
            () = self.shutdown.stopped() => {}
            () = drained => {}
            () = receive => {}
        }
    }

    /// Gives a new connection to the worker with the fewest, by preference this one: it keeps what it has accepted
    /// as long as it has at most an eighth more than that. Handing over costs more than a short connection's own work.
    pub(super) fn place(&self, socket: StdSocket, service: Arc<Service>) {
        let load = |index: usize| self.crew.loads[index].load(Ordering::Relaxed);
        let least = (0..self.crew.loads.len()).min_by_key(|&index| load(index)).unwrap_or(self.index);
        if load(self.index) <= load(least) + load(least) / 8 {
            self.seat(socket, service);
        } else {
            // A worker that is shutting down takes nobody; the connection is closed, as a listener's queue would be.
            let Ok(socket) = socket.unregister() else { return };
            let _ = self.crew.inboxes[least].send(Order::Serve(socket, service));
        }
    }

    /// This worker's way through the service's gate.
    pub(super) fn lane(&self, service: &Service) -> Lane {
        service.backend().gate.lane(self.index + 1)
    }

    fn seat(&self, socket: StdSocket, service: Arc<Service>) {
        let Ok(socket) = socket.into_socket() else { return };
        self.crew.loads[self.index].fetch_add(1, Ordering::Relaxed);
        let seat = Seat { crew: self.crew.clone(), index: self.index };
        let lane = self.lane(&service);
        match &service.sessions {
            Sessions::Redis(settings) => {
                let session = redis::Session::new(lane.clone(), settings.clone());
                let driver = Driver::new(session, lane, service, socket);
                self.tracker.spawn(serve(driver.run(), seat));
            }
            Sessions::Postgres(settings) => {
                let session = postgres::Session::new(lane.clone(), settings.clone());
                let driver = Driver::new(session, lane, service, socket);
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
