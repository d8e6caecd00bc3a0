//! The data plane's ports: which listener serves which backend, and how that changes under load.
//!
//! A change is prepared first (files read, addresses bound), and what fails there changes nothing. Then it is carried
//! out, which cannot fail. An address that stays configured keeps its listening socket, whatever backend it serves from
//! then on, so that no client in its queue is lost.
//!
//! Absent on purpose: rebinding an address that overlaps one of the present ones (`127.0.0.1:6380` → `0.0.0.0:6380`).
//! The system lets nobody listen on both, and giving up the one for the other might end with neither.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::check::check_on;
use super::listener::{Closing, Listener, SocketFile};
use super::service::{Route, Service};
use super::tls::LoadError;
use super::worker::{Pulse, Workers};
use crate::backends::Backends;
use crate::config::{self, Config, Endpoint};

/// How long workers may take to let go of an address.
const CLOSING: Duration = Duration::from_secs(1);

/// Why a configuration cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// An address cannot be listened on.
    #[error("cannot listen on {endpoint} for backend '{backend}': {error}")]
    Listen {
        /// The address.
        endpoint: Endpoint,
        /// The backend's name.
        backend: Arc<str>,
        /// The system's reason.
        error: io::Error,
    },
    /// A socket was handed over for a backend that does not exist.
    #[error("the service manager passes a socket named '{name}'; FileDescriptorName= is one of: {known}")]
    Handed {
        /// Its name.
        name: String,
        /// The backends.
        known: String,
    },
    /// A certificate, key or authority cannot be used.
    #[error("backend '{backend}': {error}")]
    Tls {
        /// The backend's name.
        backend: Arc<str>,
        /// The setting, the file and the reason.
        error: LoadError,
    },
}

/// The ports, and the workers that serve them.
#[derive(Debug)]
pub struct Plane {
    workers: Workers,
    ports: Vec<Port>,
    /// The services' checkers.
    checkers: TaskTracker,
    /// Listeners that were bound by another process, by the name of the backend that they are for.
    handed: Vec<(String, Listener)>,
}

/// An address and the backend that is served there.
#[derive(Debug)]
struct Port {
    socket: Bound,
    service: Arc<Service>,
    end: Closing,
}

/// An address as it was configured, and what is bound there.
#[derive(Debug)]
struct Bound {
    endpoint: Endpoint,
    /// The backend that it was bound for.
    owner: Arc<str>,
    listeners: Vec<Listener>,
    /// Held for its end.
    _file: Option<SocketFile>,
}

/// A port whose socket has been taken away.
struct Former {
    service: Arc<Service>,
    end: Closing,
    endpoint: Endpoint,
}

/// A configuration that can be served.
#[derive(Debug)]
pub struct Prepared {
    routes: Vec<(Route, Copies)>,
    fresh: Vec<Bound>,
}

/// What the workers will accept a backend's clients on: their copies of each of its listeners. None for a backend that stays
/// where it is.
type Copies = Vec<Vec<Listener>>;

impl Plane {
    /// A plane without ports.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(workers: usize) -> io::Result<Self> {
        Ok(Self {
            workers: Workers::start(workers)?,
            ports: Vec::new(),
            checkers: TaskTracker::new(),
            handed: Vec::new(),
        })
    }

    /// Takes listeners that another process has bound, each with the name of the backend that is to be served there,
    /// whatever address that has in the configuration. To be called before the first [`Plane::prepare`].
    ///
    /// # Errors
    /// A name that no backend has.
    pub fn hand_over(&mut self, handed: Vec<(String, Listener)>, config: &Config) -> Result<(), Refused> {
        let known = |name: &str| config.backends.iter().any(|backend| &*backend.name == name);
        if let Some((name, _)) = handed.iter().find(|(name, _)| !known(name)) {
            let names: Vec<&str> = config.backends.iter().map(|backend| &*backend.name).collect();
            return Err(Refused::Handed { name: name.clone(), known: names.join(", ") });
        }
        self.handed = handed;
        Ok(())
    }

    /// The workers' pulse.
    pub fn pulse(&self) -> Pulse {
        self.workers.pulse()
    }

    /// The workers' runtimes, to count their tasks.
    pub fn runtimes(&self) -> Vec<Handle> {
        self.workers.runtimes()
    }

    /// Takes hold of what a configuration needs beyond the present one.
    ///
    /// # Errors
    /// The first address or file that cannot be had. Nothing has changed then.
    pub fn prepare(&mut self, config: &Config) -> Result<Prepared, Refused> {
        let mut prepared = Prepared { routes: Vec::new(), fresh: Vec::new() };
        for backend in &config.backends {
            let name = &backend.name;
            let refused = |error| Refused::Tls { backend: name.clone(), error };
            let route = Route::new(backend.clone()).map_err(refused)?;
            let refused =
                |error| Refused::Listen { endpoint: backend.listen.clone(), backend: name.clone(), error };
            let copies = match self.ports.iter().find(|port| port.socket.is_for(backend)) {
                Some(port) if port.service.backend().is(backend) => Copies::new(),
                Some(port) => self.copies(&port.socket).map_err(refused)?,
                None => {
                    let bound = self.bind(backend).map_err(refused)?;
                    let copies = self.copies(&bound).map_err(refused)?;
                    prepared.fresh.push(bound);
                    copies
                }
            };
            prepared.routes.push((route, copies));
        }
        Ok(prepared)
    }

    /// Binds a backend's address, if no listener was handed over for it.
    fn bind(&mut self, backend: &config::Backend) -> io::Result<Bound> {
        let (endpoint, owner) = (backend.listen.clone(), backend.name.clone());
        let mine = self.handed.extract_if(.., |(handed, _)| **handed == *owner);
        let handed: Vec<Listener> = mine.map(|(_, listener)| listener).collect();
        let (listeners, file) = if handed.is_empty() { Listener::bind(&endpoint)? } else { (handed, None) };
        Ok(Bound { endpoint, owner, listeners, _file: file })
    }

    fn copies(&self, bound: &Bound) -> io::Result<Copies> {
        bound.listeners.iter().map(|listener| self.workers.copies(listener)).collect()
    }

    /// Serves what was prepared and nothing else. The connections of a backend that is no more are drained within
    /// `drain_timeout`. To be called when `backends` has gone over to the same configuration. Completes when the
    /// addresses that were given up are free.
    pub async fn commit(&mut self, prepared: Prepared, backends: &Backends, drain_timeout: Duration) {
        let listened: Vec<Endpoint> =
            prepared.routes.iter().map(|(route, _)| route.config.listen.clone()).collect();
        let mut sockets = prepared.fresh;
        let mut former = Vec::new();
        for Port { socket, service, end } in std::mem::take(&mut self.ports) {
            former.push(Former { service, end, endpoint: socket.endpoint.clone() });
            sockets.push(socket);
        }
        let (mut opened, mut closing) = (Vec::new(), Vec::new());
        for (route, copies) in prepared.routes {
            let config = route.config.clone();
            let Some(backend) = backends.get(&config.name) else { continue };
            let Some(at) = sockets.iter().position(|socket| socket.is_for(&config)) else { continue };
            let socket = sockets.swap_remove(at);
            let known = former.iter().position(|port| Arc::ptr_eq(port.service.backend(), &backend));
            let (service, end) = match known.map(|at| former.swap_remove(at)) {
                Some(port) => {
                    port.service.adopt(route);
                    let stays = port.endpoint == socket.endpoint;
                    if !stays {
                        port.end.close(listened.contains(&port.endpoint));
                        closing.push(port.end.clone());
                    }
                    (port.service, stays.then_some(port.end))
                }
                None => {
                    let service = Arc::new(Service::new(backend, route));
                    self.checkers.spawn(check_on(service.clone()));
                    (service, None)
                }
            };
            let end = end.unwrap_or_else(|| {
                opened.push((self.ports.len(), copies));
                Closing::default()
            });
            for listener in &socket.listeners {
                listener.tune(&config.timeouts);
            }
            self.ports.push(Port { socket, service, end });
        }
        for Former { service, end, endpoint } in former {
            end.close(listened.contains(&endpoint));
            closing.push(end);
            service.shutdown().drain();
            tokio::spawn(async move {
                sleep(drain_timeout).await;
                service.shutdown().finish();
            });
        }
        for (at, copies) in opened {
            self.ports[at].open(&self.workers, copies);
        }
        drop(sockets);
        let over = async {
            for end in closing {
                end.over().await;
            }
        };
        // A worker that takes longer is busy, and no reason to keep whoever asked for the reload.
        let _ = timeout(CLOSING, over).await;
    }

    /// Stops accepting and asks every connection to end as soon as no call and no transaction is open. No check begins.
    pub fn drain(&mut self) {
        self.workers.shutdown().drain();
        for port in &mut self.ports {
            // As long as one copy of a listener is left, the system takes clients in that nobody will serve.
            port.socket.listeners.clear();
            port.service.shutdown().drain();
        }
        self.checkers.close();
    }

    /// The time for that is over: every connection says its last words, and a check is cut off.
    pub fn finish(&self) {
        self.ports.iter().for_each(|port| port.service.shutdown().finish());
    }

    /// Ends everything at once.
    pub fn stop(&self) {
        self.workers.shutdown().stop();
    }

    /// Completes when every connection has ended, and every check that was under way, after [`Plane::drain`].
    pub async fn ended(&mut self) {
        self.workers.ended().await;
        self.checkers.wait().await;
    }

    /// Blocks until every worker has ended. Call it after [`Plane::stop`].
    pub fn join(self) {
        self.workers.join();
    }
}

impl Bound {
    /// Whether a configured backend is to be served here. Port 0 is any free port, and so the one that it has.
    fn is_for(&self, backend: &config::Backend) -> bool {
        let any = matches!(self.endpoint, Endpoint::Tcp { port: 0, .. });
        self.endpoint == backend.listen && (!any || self.owner == backend.name)
    }
}

impl Port {
    fn open(&self, workers: &Workers, copies: Copies) {
        let config = self.service.backend().config();
        for (listener, copies) in self.socket.listeners.iter().zip(copies) {
            let endpoint = listener.endpoint().unwrap_or_else(|_| self.socket.endpoint.clone());
            workers.accept(copies, &self.service, &self.end);
            tracing::info!(
                backend = %config.name,
                protocol = config.protocol.label(),
                listen = %endpoint,
                upstream = %config.upstream,
                "Listening"
            );
        }
    }
}
