//! fusewire's own tests of a backend, made over the way that its clients take, TLS included.
//!
//! A service's checker waits until its gate wants a check, makes one at a time, and hands the gate what it found. What
//! that does is the breaker's to say, what is asked and how an answer reads the protocol's. It ends with the service's
//! drain. Absent on purpose: credentials, and any count of a check among the calls.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::service::{Service, Sessions};
use super::socket::Socket;
use super::upstream::dial;
use crate::breaker::{Fault, Finding, Pace};
use crate::config::Protocol;
use crate::gate::{CheckDue, Checked};
use crate::metrics::Counter;
use crate::protocol::postgres::check::Answer;
use crate::protocol::{Target, postgres, proxy_protocol, redis};

/// How much a server may say while it ends a session that it has begun for a check.
const GOODBYE_BYTES: usize = 64 * 1024;

/// Makes checks of a service's backend whenever its gate wants them, until the service drains. One that is under way then
/// goes on to its end for as long as the drain may take: a server that is cut off in the middle of it logs that.
pub(super) async fn check_on(service: Arc<Service>) {
    let (shutdown, mut pace) = (service.shutdown(), Pace::new(RandomState::new().hash_one("check")));
    let gate = service.backend().gate.clone();
    let mut changes = gate.watch();
    // When the next one is made, and the interval that this was drawn for.
    let mut next: Option<(Instant, Duration)> = None;
    loop {
        let Some(due) = gate.check_due() else {
            next = None;
            tokio::select! {
                () = shutdown.drained() => return,
                // The gate outlives its checker.
                _ = changes.changed() => continue,
            }
        };
        let at = match next {
            Some((at, interval)) if interval == due.interval => at,
            _ => Instant::now() + pace.next(due.interval),
        };
        next = Some((at, due.interval));
        tokio::select! {
            biased;
            () = shutdown.drained() => return,
            () = sleep_until(at) => {}
            // What changes may be whether a check is wanted, or how often. The time does not begin anew: a breaker
            // that flaps faster than its checks would never be checked.
            _ = changes.changed() => continue,
        }
        next = None;
        let began = Instant::now();
        let (finding, session) = tokio::select! {
            checked = check(&service, due) => checked,
            () = shutdown.over() => return,
        };
        let at = Instant::now();
        if finding == Finding::Nothing {
            gate.lane(0).add(Counter::LocalFaults, 1);
        }
        let duration = at.duration_since(began);
        tracing::debug!(backend = %gate.name(), finding = finding.label(), ?duration, "Checked");
        // Until the next one has found something: what is left to do for this one, and that one itself.
        let ending = if session.is_some() { due.patience } else { Duration::ZERO };
        let lasting = ending + service.route().config.timeouts.connect + due.patience;
        gate.checked(due, Checked { at: at.into_std(), duration, finding }, lasting);
        if let Some(session) = session {
            tokio::select! {
                // The server has answered: whatever happens now says nothing about it.
                _ = timeout(due.patience, say_goodbye(session)) => {}
                () = shutdown.over() => return,
            }
        }
    }
}

/// Makes one. With what it has found comes the session, if the server has begun one: that is to be ended.
async fn check(service: &Service, due: CheckDue) -> (Finding, Option<Socket>) {
    let route = service.route();
    let (config, tls) = (&route.config, route.tls.as_deref());
    // It speaks for itself.
    let preface =
        config.proxy_protocol.to.map_or_else(Vec::new, |version| proxy_protocol::write(version, None));
    let mut socket = match dial(&config.upstream, Target::Backend, &config.timeouts, tls, &preface).await {
        Err(None) => return (Finding::Nothing, None),
        Err(Some(fault)) => return (Finding::Failed(fault.into()), None),
        Ok(upstream) => upstream.socket,
    };
    let asked = timeout(due.patience, ask(&mut socket, &service.sessions, &config.protocol)).await;
    match asked.unwrap_or(Err(Fault::Timeout)) {
        Ok(Answer { finding, session: true }) => (finding, Some(socket)),
        Ok(Answer { finding, session: false }) => {
            socket.farewell();
            (finding, None)
        }
        Err(fault) => {
            socket.farewell();
            (Finding::Failed(fault.into()), None)
        }
    }
}

/// Asks what the protocol asks.
async fn ask(socket: &mut Socket, sessions: &Sessions, protocol: &Protocol) -> Result<Answer, Fault> {
    match (sessions, protocol) {
        (Sessions::Postgres(settings), Protocol::Postgres(postgres)) => {
            let request = postgres::check::request(&postgres.check_user);
            let judge = |input: &[u8]| postgres::check::judge(input, &settings.verdicts());
            answer(socket, &request, postgres::check::ANSWER_MAX, judge).await
        }
        (Sessions::Redis(settings), _) => {
            let judge = |input: &[u8]| {
                let finding = redis::check::judge(input, &settings.verdicts())?;
                Some(Answer { finding, session: false })
            };
            answer(socket, redis::check::REQUEST, redis::check::ANSWER_MAX, judge).await
        }
        // Another protocol is another backend.
        (Sessions::Postgres(_), Protocol::Redis(_)) => {
            Ok(Answer { finding: Finding::Nothing, session: false })
        }
    }
}

/// Sends `request` and reads until `judge` has made up its mind about all that has come, at most `max` bytes.
async fn answer(
    socket: &mut Socket,
    request: &[u8],
    max: usize,
    judge: impl Fn(&[u8]) -> Option<Answer>,
) -> Result<Answer, Fault> {
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
async fn say_goodbye(mut socket: Socket) -> io::Result<()> {
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
    socket.farewell();
    Ok(())
}

#[cfg(test)]
mod tests;
