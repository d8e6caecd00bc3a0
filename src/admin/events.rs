//! The live feed: a server-sent event for each second and for each change of a breaker's state.
//!
//! A subscriber owns no queue. Snapshots stand in a place for one, and whoever reads slowly finds the newest there
//! when it comes back; of transitions the last few are kept, once for all subscribers. A browser tab that was left
//! in a sleeping laptop therefore costs a socket and nothing else.
//!
//! Absent on purpose: replay (`Last-Event-ID`). Each snapshot says everything, and `/api/v1/history` has the last
//! minutes.

mod history;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::history::{History, Past, Sample};
use super::State;
use super::error::Error;
use super::routes::{view, whole_metrics, whole_status};
use super::view::{Breaker, Metrics, Status};
use crate::backends::Backend;
use crate::breaker;
use crate::gate::Snapshot;

/// Subscribers at a time. Half of the port's connections, so that dashboards alone can never fill it.
pub(super) const SUBSCRIBERS_MAX: usize = 32;

/// Transitions that are kept for those who have not read them yet.
pub(super) const TRANSITIONS_MAX: usize = 32;

/// Between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// How soon an `EventSource` tries again after a break.
const OPENING: &str = "retry: 2000\n\n";

/// What is told, and to whom.
#[derive(Debug)]
pub(super) struct Feed {
    snapshots: watch::Sender<Bytes>,
    transitions: broadcast::Sender<Bytes>,
    seats: Arc<Semaphore>,
    history: Mutex<History>,
    over: CancellationToken,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            snapshots: watch::Sender::new(Bytes::new()),
            transitions: broadcast::Sender::new(TRANSITIONS_MAX),
            seats: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            history: Mutex::new(History::default()),
            over: CancellationToken::new(),
        }
    }

    /// Puts a snapshot in the place of the one before.
    pub(super) fn publish_snapshot(&self, event: Bytes) {
        self.snapshots.send_replace(event);
    }

    /// Tells a transition to everybody who is listening.
    pub(super) fn publish_transition(&self, event: Bytes) {
        // Nobody is listening: then nobody missed it.
        let _ = self.transitions.send(event);
    }

    /// Ends every stream: the server is shutting down.
    pub(super) fn close(&self) {
        self.over.cancel();
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat in the audience.
    ///
    /// # Errors
    /// 503 when every seat is taken.
    pub(super) fn subscribe(&self) -> Result<Subscriber, Error> {
        let seat = self.seats.clone().try_acquire_owned().map_err(|_| {
            let message =
                format!("{SUBSCRIBERS_MAX} clients follow the events already; close a dashboard or wait");
            Error::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        Ok(Subscriber {
            snapshots: self.snapshots.subscribe(),
            transitions: self.transitions.subscribe(),
            over: self.over.clone(),
            _seat: seat,
        })
    }
}

/// One reader's place in the feed.
pub(super) struct Subscriber {
    snapshots: watch::Receiver<Bytes>,
    transitions: broadcast::Receiver<Bytes>,
    over: CancellationToken,
    _seat: OwnedSemaphorePermit,
}

impl Subscriber {
    /// The next event, transitions first; none when the server shuts down. Asked for only when the reader has
    /// taken the one before, which is what makes a slow reader skip.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = self.over.cancelled() => return None,
                transition = self.transitions.recv() => match transition {
                    Ok(event) => return Some(event),
                    // Too slow for some of them. The next snapshot has the states that they led to.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                fresh = self.snapshots.changed() => {
                    fresh.ok()?;
                    return Some(self.snapshots.borrow_and_update().clone());
                }
            }
        }
    }
}

/// `GET /api/v1/events`.
pub(super) async fn events(Shared(state): Shared<Arc<State>>) -> Result<Response, Error> {
    let subscriber = state.feed.subscribe()?;
    let first = [Bytes::from_static(OPENING.as_bytes()), snapshot_event(&state)];
    let later = stream::unfold(subscriber, |mut subscriber| async move {
        subscriber.next().await.map(|event| (event, subscriber))
    });
    let body = Body::from_stream(stream::iter(first).chain(later).map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// `GET /api/v1/history`.
pub(super) async fn history(Shared(state): Shared<Arc<State>>) -> Json<Past> {
    let moment = state.clock.read();
    Json(state.feed.history().past(&state.backends, &moment))
}

/// Samples the backends and publishes, until it is dropped.
pub(super) async fn keep(state: Arc<State>) {
    let mut timer = interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut configurations = state.backends.watch();
    let mut changes = FuturesUnordered::new();
    configurations.mark_changed();
    loop {
        tokio::select! {
            biased;
            Ok(()) = configurations.changed() => {
                let all = configurations.borrow_and_update().clone();
                changes = all.iter().map(|backend| next_change(backend.clone(), backend.gate.watch())).collect();
                state.feed.history().retain(&all);
                // What has changed while nobody watched shows as soon as it is looked for.
                all.iter().for_each(|backend| note_state(&state, backend));
            }
            _ = timer.tick() => sample(&state),
            Some((backend, watcher)) = changes.next() => {
                note_state(&state, &backend);
                changes.push(next_change(backend, watcher));
            }
        }
    }
}

type Watcher = watch::Receiver<breaker::State>;

async fn next_change(backend: Arc<Backend>, mut watcher: Watcher) -> (Arc<Backend>, Watcher) {
    if watcher.changed().await.is_err() {
        // The gate is gone, and so will never change again.
        std::future::pending::<()>().await;
    }
    (backend, watcher)
}

/// One second's figures into the history and, if anybody is listening, a snapshot to all.
fn sample(state: &Arc<State>) {
    let moment = state.clock.read();
    for backend in state.backends.all().iter() {
        let snapshot = backend.gate.snapshot(moment.now);
        state.feed.history().add(&snapshot, &moment);
    }
    if state.feed.snapshots.receiver_count() > 0 {
        state.feed.publish_snapshot(snapshot_event(state));
    }
}

/// Tells a backend's new state, if it is one: two quick changes may end where they began.
fn note_state(state: &Arc<State>, backend: &Backend) {
    let moment = state.clock.read();
    let snapshot: Snapshot = backend.gate.snapshot(moment.now);
    let Some(from) = state.feed.history().enter(&snapshot, &moment) else { return };
    let transition = Transition {
        at: moment.unix_seconds(snapshot.since),
        name: &snapshot.name,
        from,
        to: snapshot.state.label(),
        breaker: view(backend, &moment).1,
    };
    state.feed.publish_transition(event("transition", &transition));
}

/// A `transition` event: one breaker, as `/api/v1/circuit-breaker/status/{name}` shows it after the change.
#[derive(Serialize)]
struct Transition<'a> {
    at: f64,
    name: &'a str,
    from: &'static str,
    to: &'static str,
    breaker: Breaker,
}

/// A `snapshot` event: the API's two documents and the figures of the last second.
#[derive(Serialize)]
struct Everything<'a> {
    at: f64,
    status: Status,
    metrics: Metrics,
    samples: std::collections::BTreeMap<&'a str, &'a Sample>,
}

fn snapshot_event(state: &State) -> Bytes {
    let at = state.clock.read();
    let (status, metrics) = (whole_status(state), whole_metrics(state));
    let history = state.feed.history();
    event("snapshot", &Everything { at: at.unix_seconds(at.now), status, metrics, samples: history.last() })
}

/// An event in the form of the HTML standard §9.2.5. JSON holds no line break, so the data is one line.
pub(super) fn event(name: &str, data: &impl Serialize) -> Bytes {
    let mut text = format!("event: {name}\ndata: ").into_bytes();
    match serde_json::to_writer(&mut text, data) {
        Ok(()) => text.extend_from_slice(b"\n\n"),
        // Our own structures cannot fail to be JSON; if one did, an empty comment would be the harmless event.
        Err(error) => {
            tracing::error!(%error, "Admin API: an event could not be written");
            text = b":\n\n".to_vec();
        }
    }
    text.into()
}
