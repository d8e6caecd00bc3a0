//! One backend as the data plane serves it: what its sessions share, and the way that its connections take.
//!
//! A service lives as long as its backend. A reload gives it another route and other settings: those of the sessions
//! hold from each session's next call on, the route from the next handshake or dial on.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::shutdown::Shutdown;
use super::tls;
use crate::backends::Backend;
use crate::config::{self, Protocol};
use crate::protocol::{postgres, redis};

/// One backend as the data plane serves it.
#[derive(Debug)]
pub struct Service {
    backend: Arc<Backend>,
    pub(super) sessions: Sessions,
    route: ArcSwap<Route>,
    shutdown: Shutdown,
}

/// What every session of a backend shares.
#[derive(Debug)]
pub(super) enum Sessions {
    Redis(Arc<redis::Settings>),
    Postgres(Arc<postgres::Settings>),
}

/// The way from a client to the server. Addresses and certificates change together or not at all.
#[derive(Debug)]
pub struct Route {
    /// Where to dial, and how long to wait.
    pub config: Arc<config::Backend>,
    /// Certificates for either leg, if it is encrypted.
    pub tls: Option<Arc<tls::Store>>,
}

impl Route {
    /// Reads the files that it takes.
    ///
    /// # Errors
    /// A TLS file that cannot be used.
    pub fn new(config: config::Backend) -> Result<Self, tls::LoadError> {
        let tls = tls::Store::new(&config)?;
        Ok(Self { config: Arc::new(config), tls })
    }
}

impl Service {
    /// Prepares what the backend's sessions share.
    pub fn new(backend: Arc<Backend>, route: Route) -> Self {
        let config = &route.config;
        let (name, timeouts) = (config.name.clone(), &config.timeouts);
        let sessions = match &config.protocol {
            Protocol::Redis(redis) => Sessions::Redis(Arc::new(redis::Settings::new(name, redis, timeouts))),
            Protocol::Postgres(postgres) => {
                Sessions::Postgres(Arc::new(postgres::Settings::new(name, postgres, timeouts, &config.tls)))
            }
        };
        Self { backend, sessions, route: ArcSwap::from_pointee(route), shutdown: Shutdown::default() }
    }

    /// Goes over to another route and its settings.
    pub fn adopt(&self, route: Route) {
        let config = route.config.clone();
        self.route.store(Arc::new(route));
        match (&self.sessions, &config.protocol) {
            (Sessions::Redis(settings), Protocol::Redis(redis)) => settings.adopt(redis, &config.timeouts),
            (Sessions::Postgres(settings), Protocol::Postgres(postgres)) => {
                settings.adopt(postgres, &config.timeouts, &config.tls);
            }
            // Another protocol is another backend.
            (Sessions::Redis(_), Protocol::Postgres(_)) | (Sessions::Postgres(_), Protocol::Redis(_)) => {}
        }
    }

    /// The way to take now.
    pub fn route(&self) -> Arc<Route> {
        self.route.load_full()
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The end of its connections.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}
