//! TLS on either leg: certificates from files, handshakes, and the encrypted stream.
//!
//! Certificates are read when the proxy starts and again when their files have changed: [`Store::reload`] looks at
//! once, and every handshake looks if nobody has for [`LOOK_EVERY`]. What cannot be used is logged, and the former
//! ones stay. Which server certificates are trusted is in [`verify`].
//!
//! Absent on purpose: session resumption towards clients, as in Postgres. A ticket would let a client in that
//! `tls_client_ca` no longer trusts, and it is written behind a handshake whose client may be gone already.

mod verify;

use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::socket::Socket;
use crate::config::tls::{Downstream, Identity, Upstream, UpstreamTls};
use crate::config::{self, Endpoint, Protocol};
use crate::protocol::postgres::encryption::{ALPN, Answer, SSL_REQUEST};

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

/// What the files held when they were last read.
#[derive(Debug)]
struct Loaded {
    server: Option<Arc<ServerConfig>>,
    /// What clients are shown, to compare.
    shown: Option<CertificateDer<'static>>,
    client: Option<Arc<ClientConfig>>,
    /// That clients and server see different certificates has been said.
    warned: AtomicBool,
}

/// The files as they were last looked at.
#[derive(Debug)]
struct Watch {
    looked: Instant,
    stamps: Vec<Stamp>,
    complaint: Option<String>,
}

/// What changes when a file does; none if it cannot be looked at.
type Stamp = Option<(SystemTime, u64, u64)>;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {path}: {why}")]
pub struct LoadError {
    /// The setting that names it.
    pub setting: &'static str,
    /// The file.
    pub path: Box<str>,
    /// What is wrong with it.
    pub why: Box<str>,
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

/// Every file that the configuration names.
fn files(tls: &config::Tls) -> impl Iterator<Item = &Path> {
    let downstream = tls.downstream.as_ref();
    let upstream = if let Upstream::Tls(upstream) = &tls.upstream { Some(upstream) } else { None };
    let identities = [downstream.map(|tls| &tls.identity), upstream.and_then(|tls| tls.identity.as_ref())];
    let pairs = identities.into_iter().flatten().flat_map(|identity| [&identity.cert, &identity.key]);
    let authorities =
        [downstream.and_then(|tls| tls.client_ca.as_ref()), upstream.and_then(|tls| tls.ca.as_ref())];
    pairs.chain(authorities.into_iter().flatten()).map(PathBuf::as_path)
}

fn stamps(tls: &config::Tls) -> Vec<Stamp> {
    let stamp = |path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len(), file.ino()))
    };
    files(tls).map(stamp).collect()
}

fn load(tls: &config::Tls, postgres: bool) -> Result<Loaded, LoadError> {
    let provider = Arc::new(ring::default_provider());
    let (server, shown) = match &tls.downstream {
        Some(downstream) => {
            let (config, shown) = server_config(downstream, postgres, &provider)?;
            (Some(Arc::new(config)), Some(shown))
        }
        None => (None, None),
    };
    let client = match &tls.upstream {
        Upstream::Tls(upstream) => Some(Arc::new(client_config(upstream, &provider)?)),
        Upstream::Plain | Upstream::Passthrough => None,
    };
    Ok(Loaded { server, shown, client, warned: AtomicBool::new(false) })
}

fn server_config(
    tls: &Downstream,
    postgres: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<(ServerConfig, CertificateDer<'static>), LoadError> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("tls_cert", &tls.identity.cert, error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities("tls_client_ca", path)?.0);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| refuse("tls_client_ca", path, error))?)
        }
    };
    let (chain, key) = identity("tls_cert", "tls_key", &tls.identity)?;
    let shown =
        chain.first().cloned().ok_or_else(|| refuse("tls_cert", &tls.identity.cert, NO_CERTIFICATE))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| refuse("tls_cert", &tls.identity.cert, error))?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if postgres {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok((config, shown))
}

fn client_config(tls: &UpstreamTls, provider: &Arc<CryptoProvider>) -> Result<ClientConfig, LoadError> {
    let ca = || tls.ca.as_deref().unwrap_or(Path::new("the system's authorities"));
    let (roots, pinned) = match (tls.verify, &tls.ca) {
        (config::tls::Verify::Nothing, _) => (RootCertStore::empty(), Vec::new()),
        (_, Some(path)) => authorities("upstream_ca", path)?,
        (_, None) => (system_authorities()?, Vec::new()),
    };
    let verifier = verify::ServerVerifier::new(tls.verify, roots, pinned, provider.clone())
        .map_err(|error| refuse("upstream_ca", ca(), error))?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("upstream_tls", ca(), error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(files) => {
            let (chain, key) = identity("upstream_cert", "upstream_key", files)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| refuse("upstream_cert", &files.cert, error))
        }
    }
}

const NO_CERTIFICATE: &str = "it holds no certificate in PEM form";

fn refuse(setting: &'static str, path: &Path, why: impl ToString) -> LoadError {
    LoadError { setting, path: path.display().to_string().into(), why: why.to_string().into() }
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(all) if all.is_empty() => Err(refuse(setting, path, NO_CERTIFICATE)),
        Ok(all) => Ok(all),
        Err(error) => Err(refuse(setting, path, error)),
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(cert: &'static str, key: &'static str, files: &Identity) -> Result<Pair, LoadError> {
    let chain = certificates(cert, &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| refuse(key, &files.key, error))?;
    Ok((chain, key))
}

/// The authorities in a file, and the certificates themselves: a server may show one of them.
fn authorities(
    setting: &'static str,
    path: &Path,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), LoadError> {
    let all = certificates(setting, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &all {
        roots.add(certificate.clone()).map_err(|error| refuse(setting, path, error))?;
    }
    Ok((roots, all))
}

fn system_authorities() -> Result<RootCertStore, LoadError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold what no longer parses; the rest of it is good.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = "the system has no trusted authorities; give upstream_ca";
        return Err(refuse("upstream_tls", Path::new("verify-ca and verify-full"), why));
    }
    Ok(roots)
}

/// An encrypted connection.
#[derive(Debug)]
pub struct Stream(TlsStream<Inner>);

impl Stream {
    /// The protocol that both sides agreed on in the handshake.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }

    /// The socket beneath.
    pub fn socket(&self) -> &Socket {
        &self.0.get_ref().0.socket
    }

    /// Whether encrypted bytes wait for the socket to take them.
    pub fn has_unsent(&self) -> bool {
        self.0.get_ref().1.wants_write()
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    /// Tells the peer that this is the end, if its socket takes that now.
    pub(super) fn farewell(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _: Poll<io::Result<()>> = self.poll_shutdown(&mut cx);
    }
}

/// The socket beneath a TLS connection, with what was read from it before the handshake began.
#[derive(Debug)]
struct Inner {
    socket: Socket,
    early: Vec<u8>,
    /// The peer has sent something.
    heard: bool,
}

impl AsyncRead for Inner {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            let before = buffer.filled().len();
            let poll = Pin::new(&mut this.socket).poll_read(cx, buffer);
            this.heard |= buffer.filled().len() > before;
            return poll;
        }
        let n = this.early.len().min(buffer.remaining());
        buffer.put_slice(&this.early[..n]);
        this.early.drain(..n);
        if this.early.is_empty() {
            this.early = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inner {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().socket), cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
