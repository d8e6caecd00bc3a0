//! `fusewire run`: binds, starts the workers, the timers and the admin API, and ends on a signal.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::backends::Backends;
use crate::config::{Config, Endpoint};
use crate::gate::Gate;
use crate::proxy::listener::{Listener, SocketFiles};
use crate::proxy::tls::LoadError;
use crate::proxy::worker::{Service, Workers};

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
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
    /// A certificate, key or authority cannot be used.
    #[error("backend '{backend}': {error}")]
    Tls {
        /// The backend's name.
        backend: Arc<str>,
        /// The setting, the file and the reason.
        error: LoadError,
    },
    /// The admin API cannot be listened for; the message names the address.
    #[error("{0}")]
    Admin(io::Error),
    /// The system refuses a thread, a descriptor or a signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT. A first signal drains, a second one stops at once; both are a clean end.
///
/// # Errors
/// If an address is taken or the system refuses what it takes to start. Backends that are down are no error.
pub fn run(config: Config) -> Result<(), RunError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (workers, _files) = runtime.block_on(control(config))?;
    workers.join();
    Ok(())
}

/// The control plane, from the start to the end of the drain.
async fn control(config: Config) -> Result<(Workers, SocketFiles), RunError> {
    // Installed first: a signal during the start must not kill the process half-way.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut files = SocketFiles::default();
    let backends = Arc::new(Backends::new(&config, Instant::now()));
    let listeners = listen(&backends, &mut files)?;
    let admin = match &config.admin {
        Some(endpoint) => Some(admin::bind(endpoint).await.map_err(RunError::Admin)?),
        None => None,
    };

    announce(&listeners)?;
    if let Some(bound) = &admin {
        tracing::info!(listen = %bound.endpoint(), "Admin API listening");
    }
    let mut workers = Workers::start(config.workers, &listeners)?;
    drop(listeners);
    for backend in backends.iter() {
        tokio::spawn(keep_time(backend.gate.clone()));
    }
    let state = admin::State::new(backends, admin::Access::default());
    let admin_over = CancellationToken::new();
    if let Some(bound) = admin {
        tokio::spawn(admin::serve(bound, state.clone(), admin_over.clone()));
    }
    state.set_readiness(Readiness::Ready);

    let first = either(&mut terminate, &mut interrupt).await;
    tracing::info!(signal = first, timeout = ?config.drain_timeout, "Draining");
    state.set_readiness(Readiness::Draining);
    workers.shutdown().drain();
    tokio::select! {
        () = workers.ended() => tracing::info!("Drained"),
        () = sleep(config.drain_timeout) => tracing::warn!("Drain timeout: closing what is left"),
        second = either(&mut terminate, &mut interrupt) => {
            tracing::warn!(signal = second, "Second signal: closing what is left");
        }
    }
    workers.shutdown().stop();
    admin_over.cancel();
    Ok((workers, files))
}

/// Binds every backend's address.
fn listen(backends: &Backends, files: &mut SocketFiles) -> Result<Vec<(Listener, Arc<Service>)>, RunError> {
    let mut listeners = Vec::new();
    for backend in backends.iter() {
        let config = &backend.config;
        let refused =
            |error| RunError::Listen { endpoint: config.listen.clone(), backend: config.name.clone(), error };
        let service = Service::new(backend.clone())
            .map_err(|error| RunError::Tls { backend: config.name.clone(), error })?;
        let service = Arc::new(service);
        for listener in Listener::bind(&config.listen, files).map_err(refused)? {
            listeners.push((listener, service.clone()));
        }
    }
    Ok(listeners)
}

/// One line for each address, once all of them are bound.
fn announce(listeners: &[(Listener, Arc<Service>)]) -> io::Result<()> {
    for (listener, service) in listeners {
        let config = &service.backend().config;
        tracing::info!(
            backend = %config.name,
            protocol = config.protocol.label(),
            listen = %listener.endpoint()?,
            upstream = %config.upstream,
            "Listening"
        );
    }
    Ok(())
}

/// A backend's timer: half-open is entered when its time has come, traffic or none.
async fn keep_time(gate: Arc<Gate>) {
    loop {
        match gate.deadline() {
            None => gate.alarm.notified().await,
            Some(deadline) => tokio::select! {
                () = sleep_until(deadline.into()) => gate.tick(Instant::now()),
                () = gate.alarm.notified() => {}
            },
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
