//! TLS on either leg: certificates, and handshakes.
//!
//! Certificates are read when the proxy starts and again when their files have changed: [`Store::reload`] looks at
//! once, and every handshake looks if nobody has for [`LOOK_EVERY`]. What cannot be used is logged, and the former
//! ones stay. How files are read is in `files`, which server certificates are trusted in [`verify`], and what comes of a
//! handshake in `stream`.
//!
//! Absent on purpose: session resumption towards clients, as in Postgres. A ticket would let a client in that
//! `tls_client_ca` no longer trusts, and it is written behind a handshake whose client may be gone already.

mod files;
mod stream;
mod verify;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub use self::files::LoadError;
use self::files::{Loaded, Stamp, load, stamps};
use self::stream::Inner;
pub use self::stream::Stream;
use super::socket::Socket;
use crate::config::tls::Upstream;
use crate::config::{self, Endpoint, Protocol};
use crate::protocol::postgres::encryption::{Answer, SSL_REQUEST};

/// How often handshakes look for changed files.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One backend's certificates.
#[derive(Debug)]
pub struct Store {
    name: Arc<str>,
    config: config::Tls,
    asks_first: bool,
    server_name: Option<ServerName<'static>>,
    loaded: ArcSwap<Loaded>,
    watch: Mutex<Watch>,
    quiet_until: Mutex<Option<Instant>>,
}

/// The files as they were last looked at.
#[derive(Debug)]
struct Watch {
    looked: Instant,
    stamps: Vec<Stamp>,
    complaint: Option<String>,
}

/// A client that did not get through its handshake.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: io::Error,
    /// Its connection, on which nothing but an alert has been sent.
    pub socket: Socket,
    /// It closed without a byte: a load balancer's health check.
    pub silent: bool,
}

/// What came of the wish to encrypt an upstream connection.
#[derive(Debug)]
pub enum Secured {
    /// It is encrypted.
    Yes(Socket),
    /// The server has no TLS and none is insisted upon.
    No(Socket),
    /// The same, but the connection is of no use any more: dial again and do not ask.
    Redial,
}

impl Store {
    /// Reads a backend's files. None: it has no TLS of its own on either leg.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn new(backend: &config::Backend) -> Result<Option<Arc<Self>>, LoadError> {
        let config = backend.tls.clone();
        if config.downstream.is_none() && !matches!(config.upstream, Upstream::Tls(_)) {
            return Ok(None);
        }
        let stamps = stamps(&config);
        let postgres = matches!(backend.protocol, Protocol::Postgres(_));
        let loaded = load(&config, postgres)?;
        let server_name = match (&config.upstream, &backend.upstream) {
            (Upstream::Tls(tls), Endpoint::Tcp { host, .. }) => {
                let name = tls.server_name.as_deref().unwrap_or(host);
                // The configuration has been checked for it.
                ServerName::try_from(name).ok().map(|name| name.to_owned())
            }
            _ => None,
        };
        Ok(Some(Arc::new(Self {
            name: backend.name.clone(),
            config,
            asks_first: postgres,
            server_name,
            loaded: ArcSwap::from_pointee(loaded),
            watch: Mutex::new(Watch { looked: Instant::now(), stamps, complaint: None }),
            quiet_until: Mutex::new(None),
        })))
    }

    /// Whether clients begin with a handshake, without asking.
    pub fn is_immediate(&self) -> bool {
        !self.asks_first && self.config.downstream.is_some()
    }

    /// Reads the files again if they have changed. Says whether they had.
    ///
    /// # Errors
    /// A file that cannot be used; what was read before stays in use.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut watch)
    }

    fn look(&self, watch: &mut Watch) -> Result<bool, LoadError> {
        watch.looked = Instant::now();
        // Taken first: what changes while it is read is read again.
        let stamps = stamps(&self.config);
        if stamps == watch.stamps {
            return Ok(false);
        }
        self.loaded.store(Arc::new(load(&self.config, self.asks_first)?));
        watch.stamps = stamps;
        watch.complaint = None;
        Ok(true)
    }

    /// The certificates to use now.
    fn current(&self) -> Arc<Loaded> {
        if let Ok(mut watch) = self.watch.try_lock()
            && watch.looked.elapsed() >= LOOK_EVERY
        {
            self.look_and_tell(&mut watch);
        }
        self.loaded.load_full()
    }

    fn look_and_tell(&self, watch: &mut MutexGuard<'_, Watch>) {
        match self.look(watch) {
            Ok(false) => {}
            Ok(true) => tracing::info!(backend = %self.name, "TLS certificates read again"),
            Err(error) => {
                // A certificate that is replaced before its key does not fit for a moment: say it once.
                let complaint = error.to_string();
                if watch.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(backend = %self.name, %error, "Changed TLS files cannot be used");
                    watch.complaint = Some(complaint);
                }
            }
        }
    }

    /// Encrypts a client's connection; `early` is what has been read of its handshake.
    ///
    /// # Errors
    /// The handshake's; the client has been sent an alert where there is one.
    pub async fn accept(&self, socket: Socket, early: Vec<u8>) -> Result<Socket, Refused> {
        let current = self.current();
        let Some(config) = &current.server else {
            return Err(Refused { error: io::ErrorKind::Unsupported.into(), socket, silent: false });
        };
        let heard = !early.is_empty();
        match TlsAcceptor::from(config.clone()).accept(Inner { socket, early, heard }).into_fallible().await {
            Ok(stream) => Ok(Socket::Tls(Box::new(Stream(stream.into())))),
            Err((error, inner)) => Err(Refused { error, silent: !inner.heard, socket: inner.socket }),
        }
    }

    /// Encrypts a connection to the server as far as the configuration wants it.
    ///
    /// # Errors
    /// The handshake's, or that the server has no TLS.
    pub async fn connect(&self, mut socket: Socket) -> io::Result<Secured> {
        let Upstream::Tls(settings) = &self.config.upstream else { return Ok(Secured::No(socket)) };
        if self.asks_first {
            match ask(&mut socket).await? {
                Answer::Willing => {}
                Answer::Unwilling if settings.optional => return Ok(Secured::No(socket)),
                Answer::Error if settings.optional => return Ok(Secured::Redial),
                Answer::Unwilling | Answer::Error => {
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "the server has no TLS"));
                }
            }
        }
        let current = self.current();
        let (Some(config), Some(name)) = (&current.client, &self.server_name) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let inner = Inner { socket, early: Vec::new(), heard: false };
        let stream = TlsConnector::from(config.clone()).connect(name.clone(), inner).await?;
        self.compare(&current, stream.get_ref().1.peer_certificates());
        Ok(Secured::Yes(Socket::Tls(Box::new(Stream(stream.into())))))
    }

    /// Tells the operator why the server's handshake failed: verdicts and clients only hear that it did. Often at
    /// most every [`LOOK_EVERY`], because a fleet of clients fails with the same words.
    pub fn complain(&self, error: &io::Error) {
        let now = Instant::now();
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet_until.is_none_or(|until| until <= now) {
            *quiet_until = now.checked_add(LOOK_EVERY);
            tracing::warn!(backend = %self.name, %error, "TLS handshake with the server failed");
        }
    }

    /// Says once if clients see another certificate than ours: channel binding cannot work then.
    fn compare(&self, current: &Loaded, server: Option<&[CertificateDer<'_>]>) {
        if self.asks_first
            && let (Some(shown), Some([theirs, ..])) = (&current.shown, server)
            && shown != theirs
            && !current.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                backend = %self.name,
                "tls_cert is not the server's own certificate: clients that use SCRAM over TLS cannot log in \
                 unless they disable channel binding (channel_binding=disable)"
            );
        }
    }
}

/// Asks a Postgres server for TLS.
async fn ask(socket: &mut Socket) -> io::Result<Answer> {
    socket.write_all(&SSL_REQUEST).await?;
    // Not a byte more: what follows belongs to the handshake (CVE-2021-23222).
    socket.read_u8().await.map(Answer::of)
}

#[cfg(test)]
mod tests;
