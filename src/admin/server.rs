//! The admin port: takes connections and speaks HTTP/1 on them.
//!
//! The port must answer when things go wrong, so nobody can hold it: a head that trickles in is cut off, and at
//! `CONNECTIONS_MAX` a new connection pushes the oldest one out instead of waiting behind it. An honest request
//! takes milliseconds and is never the oldest for long.
//!
//! Absent on purpose: `axum::serve`, which limits neither of them.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use indexmap::IndexMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::State;
use super::events;
use super::guard::{Guard, Peer};
use super::routes::router;
use crate::config::Endpoint;

/// Admin connections at a time.
const CONNECTIONS_MAX: usize = 64;

/// For a request's head, and for the pause between two requests on one connection.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request head, in bytes, and the most headers in it.
const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// How long an answer may lie unread before the connection is given up: a follower of the events that has stopped
/// reading would otherwise keep its seat for as long as its machine lives.
#[cfg(target_os = "linux")]
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// For requests under way when the server is shut down.
const GRACE: Duration = Duration::from_secs(1);

/// After a failed accept: out of descriptors is not cured by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin port that does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Held for its end.
        _file: SocketFile,
    },
}

/// A unix socket's file, removed when its listener ends, unless another process has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// Binds the admin port. A unix socket's file belongs to its owner alone (mode 0600); one that a dead process has
/// left behind is replaced.
///
/// # Errors
/// Whatever the system says, with the endpoint in the message: in use, not permitted, a name that does not
/// resolve.
pub async fn bind(endpoint: &Endpoint) -> io::Result<Bound> {
    let bound = match endpoint {
        Endpoint::Tcp { host, port } => bind_tcp(host, *port).await,
        Endpoint::Unix(path) => bind_unix(path),
    };
    bound.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {endpoint} for the admin API: {error}"))
    })
}

async fn bind_tcp(host: &str, port: u16) -> io::Result<Bound> {
    let listener = TcpListener::bind((host, port)).await?;
    // The host as it was written, because its name is one that clients may call it by.
    let endpoint = Endpoint::Tcp { host: host.into(), port: listener.local_addr()?.port() };
    Ok(Bound { listener: Listener::Tcp(listener), endpoint })
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    if is_abandoned(path) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let file = SocketFile { path: path.to_owned(), inode: std::fs::metadata(path)?.ino() };
    Ok(Bound {
        listener: Listener::Unix { listener, _file: file },
        endpoint: Endpoint::Unix(path.to_owned()),
    })
}

/// Whether a socket lies there that nobody listens on.
fn is_abandoned(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            // If it cannot be removed, the next start will find it abandoned.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// Answers requests until `shutdown`, then ends within about a second. Keep it running through a drain: `/readyz`
/// is what tells the load balancer to send no more clients.
pub async fn serve(bound: Bound, state: Arc<State>, shutdown: CancellationToken) {
    let guard = Guard::new(state.access.clone(), bound.endpoint);
    let router = router(state.clone(), guard);
    let feed = AbortOnDrop(tokio::spawn(events::keep(state.clone())).abort_handle());
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.tasks.join_next_with_id() => connections.forget(ended),
            accepted = accept(&bound.listener, &router, &shutdown) => match accepted {
                Ok(connection) => connections.add(connection),
                Err(error) => {
                    tracing::warn!(%error, "Admin API: a connection could not be accepted");
                    tokio::select! { () = shutdown.cancelled() => break, () = sleep(ACCEPT_PAUSE) => {} }
                }
            }
        }
    }
    drop(bound.listener);
    drop(feed);
    state.feed.close();
    while connections.tasks.join_next().await.is_some() {}
}

/// A task that does not outlive its owner.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Connection = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn accept(
    listener: &Listener,
    router: &Router,
    shutdown: &CancellationToken,
) -> io::Result<Connection> {
    let (router, shutdown) = (router.clone(), shutdown.clone());
    match listener {
        Listener::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            // Gone already, perhaps: then its first read says so.
            let _ = stream.set_nodelay(true);
            #[cfg(target_os = "linux")]
            let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_MAX));
            let local = stream.local_addr()?;
            Ok(Box::pin(connection(stream, Peer::Tcp { remote, local }, router, shutdown)))
        }
        Listener::Unix { listener, .. } => {
            let (stream, _) = listener.accept().await?;
            let credentials = stream.peer_cred().ok();
            let uid = credentials.as_ref().map(|credentials| credentials.uid());
            let pid = credentials.as_ref().and_then(|credentials| credentials.pid());
            Ok(Box::pin(connection(stream, Peer::Unix { uid, pid }, router, shutdown)))
        }
    }
}

pub(super) async fn connection<IO>(io: IO, peer: Peer, router: Router, shutdown: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        answer(router.clone(), peer, request.map(Body::new))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(io), service)
    );
    // An error here is a client that broke off or was cut off: its affair, and nothing to log.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(GRACE, connection).await;
        }
    }
}

async fn answer(
    router: Router,
    peer: Peer,
    mut request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(peer);
    router.oneshot(request).await
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: IndexMap<Id, AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: Connection) {
        if self.open.len() >= CONNECTIONS_MAX
            && let Some((_, oldest)) = self.open.shift_remove_index(0)
        {
            // No change is ever half done: a handler acts without awaiting anything in between.
            oldest.abort();
        }
        let task = self.tasks.spawn(connection);
        self.open.insert(task.id(), task);
    }

    fn forget(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.open.shift_remove(&id);
    }
}
