//! fusewire's own tests of a backend, made over the way that its clients take, TLS included.
//!
//! A service's checker waits until its gate wants a check, makes one at a time, and hands the gate what it found. What
//! that does is the breaker's to say, what is asked and how an answer reads the protocol's. Absent on purpose:
//! credentials, and any count of a check among the calls.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::service::{Service, Sessions};
use super::socket::Socket;
use super::upstream::dial;
use crate::breaker::{Fault, Finding, Pace};
use crate::config::Protocol;
use crate::gate::{CheckDue, Checked};
use crate::metrics::Counter;
use crate::protocol::{Target, postgres, proxy_protocol, redis};

/// How long a server may take to end a session that it has begun for a check, and how much it may say.
const GOODBYE: Duration = Duration::from_secs(1);
const GOODBYE_BYTES: usize = 64 * 1024;

/// A service's checker. Dropped, it makes no more checks.
#[derive(Debug)]
pub(super) struct Checker(AbortHandle);

impl Checker {
    /// To be called within the control plane's runtime.
    pub(super) fn start(service: Arc<Service>) -> Self {
        let seed = RandomState::new().hash_one("check");
        Self(tokio::spawn(check_on(service, Pace::new(seed))).abort_handle())
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes checks whenever the gate wants them.
async fn check_on(service: Arc<Service>, mut pace: Pace) {
    let gate = service.backend().gate.clone();
    let mut changes = gate.watch();
    // When the next one is made, and the interval that this was drawn for.
    let mut next: Option<(Instant, Duration)> = None;
    loop {
        let Some(due) = gate.check_due() else {
            next = None;
            // The gate outlives its checker.
            let _ = changes.changed().await;
            continue;
        };
        let at = match next {
            Some((at, interval)) if interval == due.interval => at,
            _ => Instant::now() + pace.next(due.interval),
        };
        next = Some((at, due.interval));
        tokio::select! {
            () = sleep_until(at) => {}
            // What changes may be whether a check is wanted, or how often. The time does not begin anew: a breaker
            // that flaps faster than its checks would never be checked.
            _ = changes.changed() => continue,
        }
        next = None;
        let began = Instant::now();
        let finding = check(&service, due).await;
        let at = Instant::now();
        if finding == Finding::Nothing {
            gate.lane(0).add(Counter::LocalFaults, 1);
        }
        let duration = at.duration_since(began);
        tracing::debug!(backend = %gate.name(), finding = finding.label(), ?duration, "Checked");
        let lasting = service.route().config.timeouts.connect + due.patience;
        gate.checked(due, Checked { at: at.into_std(), duration, finding }, lasting);
    }
}

/// Makes one.
async fn check(service: &Service, due: CheckDue) -> Finding {
    let route = service.route();
    let (config, tls) = (&route.config, route.tls.as_deref());
    // It speaks for itself.
    let preface =
        config.proxy_protocol.to.map_or_else(Vec::new, |version| proxy_protocol::write(version, None));
    match dial(&config.upstream, Target::Backend, &config.timeouts, tls, &preface).await {
        Err(None) => Finding::Nothing,
        Err(Some(fault)) => Finding::Failed(fault.into()),
        Ok(mut upstream) => {
            let by = Instant::now() + due.patience;
            let found = timeout_at(by, ask(&mut upstream.socket, &service.sessions, &config.protocol)).await;
            upstream.socket.farewell();
            found.unwrap_or(Finding::Failed(Fault::Timeout.into()))
        }
    }
}

/// Asks what the protocol asks.
async fn ask(socket: &mut Socket, sessions: &Sessions, protocol: &Protocol) -> Finding {
    let found = match (sessions, protocol) {
        (Sessions::Postgres(settings), Protocol::Postgres(postgres)) => {
            let request = postgres::check::request(&postgres.check_user);
            let judge = |input: &[u8]| postgres::check::judge(input, &settings.verdicts());
            match answer(socket, &request, postgres::check::ANSWER_MAX, judge).await {
                Ok(answer) => {
                    if answer.session {
                        say_goodbye(socket).await;
                    }
                    Ok(answer.finding)
                }
                Err(fault) => Err(fault),
            }
        }
        (Sessions::Redis(settings), _) => {
            let judge = |input: &[u8]| redis::check::judge(input, &settings.verdicts());
            answer(socket, redis::check::REQUEST, redis::check::ANSWER_MAX, judge).await
        }
        // Another protocol is another backend.
        (Sessions::Postgres(_), Protocol::Redis(_)) => return Finding::Nothing,
    };
    found.unwrap_or_else(|fault| Finding::Failed(fault.into()))
}

/// Sends `request` and reads until `judge` has made up its mind about all that has come, at most `max` bytes.
async fn answer<T>(
    socket: &mut Socket,
    request: &[u8],
    max: usize,
    judge: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, Fault> {
    let fault_of = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => Fault::Tls,
        _ => Fault::Reset,
    };
    socket.write_all(request).await.map_err(fault_of)?;
    socket.flush().await.map_err(fault_of)?;
    let mut input = Vec::new();
    loop {
        let mut more = [0; 1024];
        let room = (max - input.len()).min(more.len());
        let n = socket.read(&mut more[..room]).await.map_err(fault_of)?;
        input.extend_from_slice(&more[..n]);
        if let Some(found) = judge(&input) {
            return Ok(found);
        }
        if n == 0 {
            return Err(if input.len() < max { Fault::Eof } else { Fault::Malformed });
        }
    }
}

/// Ends a session that a server has begun, and hears it out: one that is cut off in its greeting logs it.
async fn say_goodbye(socket: &mut Socket) {
    let farewell = async {
        socket.write_all(postgres::check::GOODBYE).await?;
        socket.flush().await?;
        let mut left = GOODBYE_BYTES;
        let mut heard = [0; 1024];
        while let Ok(n @ 1..) = socket.read(&mut heard).await {
            left = left.saturating_sub(n);
            if left == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // The server has answered: whatever happens now says nothing about it.
    let _ = timeout(GOODBYE, farewell).await;
}

#[cfg(test)]
mod tests;
