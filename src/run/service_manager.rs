//! What systemd is told, and what it hands over: sd_notify(3), the watchdog, and sockets that it listens on.
//!
//! Without `NOTIFY_SOCKET` and `LISTEN_FDS` in the environment all of it is silence. Absent on purpose: a thread of its
//! own. The watchdog must stop when the control plane does.

use std::env;
use std::io;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time::{interval, timeout};

use crate::proxy::listener::Listener;
use crate::proxy::worker::Pulse;

/// Ready to serve.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reading the configuration again; [`ready`] ends it.
pub(super) fn reloading() {
    // systemd tells this reload from the one before by its time (Type=notify-reload).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "The service manager cannot be told of a reload"),
    }
}

/// On the way out.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "The service manager cannot be told");
    }
}

/// Feeds the watchdog, if there is one, as long as every worker answers. One that does not for half of the watchdog's
/// time is stuck: then systemd is not told, and restarts the process.
pub(super) async fn watch(pulse: Pulse) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    // Twice in the time it waits, as sd_watchdog_enabled(3) advises.
    let half = (patience / 2).max(Duration::from_millis(1));
    let mut timer = interval(half);
    loop {
        timer.tick().await;
        match timeout(half, pulse.beat()).await {
            Ok(true) => tell(&[NotifyState::Watchdog]),
            Ok(false) => tracing::error!("A worker thread has ended: the watchdog is not fed"),
            Err(_) => tracing::error!(?half, "A worker thread does not answer: the watchdog is not fed"),
        }
    }
}

/// The sockets that were handed over, each with its name (`FileDescriptorName=` in the socket unit), which is that of
/// the backend to serve there. To be called before there is a second thread.
///
/// # Errors
/// If one of them is neither a TCP nor a unix listener.
pub(super) fn sockets() -> io::Result<Vec<(String, Listener)>> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let mut names = names.split(':');
    let mut sockets = Vec::new();
    for at in 0..handed.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let listener = match handed.take_tcp_listener(at) {
            Ok(listener) => listener.map(Listener::Tcp),
            Err(_) => handed.take_unix_listener(at)?.map(Listener::Unix),
        };
        if let Some(listener) = listener {
            listener.set_nonblocking()?;
            sockets.push((name, listener));
        }
    }
    Ok(sockets)
}
