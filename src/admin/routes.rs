//! Paths to answers. Reads are GET, changes are POST (or PATCH, of settings), every refusal is JSON.
//!
//! Absent on purpose: sockets. The router is a function from request to response, given the `Peer` as an
//! extension; a request without one is refused.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, Request, State as Shared};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Error;
use super::guard::{Guard, Peer};
use super::view::{Breaker, Health, Metrics, Status, Summary};
use super::{Readiness, State, dashboard, events, settings};
use crate::backends::Backend;
use crate::breaker::{self, Mode};
use crate::clock::Moment;
use crate::gate::Snapshot;
use crate::metrics::publish::{self, Reading, Use};

/// The largest request body: `{"for":"30s"}` and room to spare.
const BODY_MAX: usize = 4096;

/// From a request's head to its answer; a body that trickles in more slowly is not waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest manual trip with an end. What shall last longer had better last until a reset.
const HOLD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) type Answer<T> = Result<T, Error>;
pub(super) type Name = Result<Path<String>, PathRejection>;
type All = Shared<Arc<State>>;

pub(super) fn router(state: Arc<State>, guard: Guard) -> Router {
    let guard = Arc::new(guard);
    Router::new()
        .route("/", get(dashboard::page))
        .route("/assets/{*name}", get(dashboard::asset))
        .route("/api/v1", get(index))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/history", get(events::history))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/v1/circuit-breaker/status", get(status))
        .route("/api/v1/circuit-breaker/status/{name}", get(status_of))
        .route("/api/v1/circuit-breaker/metrics", get(detailed))
        .route("/api/v1/circuit-breaker/reset/{name}", post(reset))
        .route("/api/v1/circuit-breaker/reset-all", post(reset_all))
        .route("/api/v1/circuit-breaker/trip/{name}", post(trip))
        .route("/api/v1/circuit-breaker/enforce/{name}", post(enforce))
        .route("/api/v1/circuit-breaker/observe/{name}", post(observe))
        .route("/api/v1/circuit-breaker/disable/{name}", post(disable))
        .route("/api/v1/circuit-breaker/config", get(settings::all))
        .route("/api/v1/circuit-breaker/config/{name}", get(settings::one).patch(settings::patch))
        .route("/api/v1/config/reload", post(reload))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(move |request, next| frame(guard.clone(), request, next)))
        .with_state(state)
}

/// What holds for every request: the guard, the time limit up to the head of the answer, and that no cache may keep
/// what does not say otherwise.
async fn frame(guard: Arc<Guard>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let verdict = match parts.extensions.get::<Peer>() {
        Some(peer) => guard.check(peer, &parts),
        None => Err(Error::forbidden("the origin of the request is unknown")),
    };
    let mut response = match verdict {
        Err(error) => error.into_response(),
        Ok(()) => {
            let answer = next.run(Request::from_parts(parts, body));
            tokio::time::timeout(REQUEST_TIMEOUT, answer).await.unwrap_or_else(|_| {
                Error::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response()
            })
        }
    };
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn index() -> Json<Value> {
    Json(json!({
        "name": "fusewire",
        "version": env!("CARGO_PKG_VERSION"),
        "get": [
            "/health",
            "/livez",
            "/readyz",
            "/metrics",
            "/api/v1/circuit-breaker/status",
            "/api/v1/circuit-breaker/status/{name}",
            "/api/v1/circuit-breaker/metrics",
            "/api/v1/circuit-breaker/config",
            "/api/v1/circuit-breaker/config/{name}",
            "/api/v1/history",
        ],
        "stream": ["/api/v1/events"],
        "post": [
            "/api/v1/circuit-breaker/reset/{name}",
            "/api/v1/circuit-breaker/reset-all",
            "/api/v1/circuit-breaker/trip/{name}?for=30s",
            "/api/v1/circuit-breaker/enforce/{name}",
            "/api/v1/circuit-breaker/observe/{name}",
            "/api/v1/circuit-breaker/disable/{name}",
            "/api/v1/config/reload",
        ],
        "patch": ["/api/v1/circuit-breaker/config/{name}"],
    }))
}

async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

async fn readyz(Shared(state): All) -> (StatusCode, Json<Value>) {
    let (status, word) = match state.readiness() {
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Readiness::Ready => (StatusCode::OK, "ready"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (status, Json(json!({ "status": word })))
}

/// 200 as long as fusewire itself is up: an orchestrator must not restart it because a database is down.
async fn health(Shared(state): All) -> Json<Health> {
    let now = state.clock.read().now;
    let all = state.backends.all();
    Json(Health::new(Summary::new(all.iter().map(|backend| backend.gate.snapshot(now).state))))
}

async fn metrics(Shared(state): All) -> impl IntoResponse {
    let moment = state.clock.read();
    let all = state.backends.all();
    let snapshots: Vec<_> = all.iter().map(|backend| (backend, backend.gate.snapshot(moment.now))).collect();
    let readings: Vec<_> =
        snapshots.iter().map(|(backend, snapshot)| reading(backend, snapshot, &moment)).collect();
    let text = publish::render(&readings, &state.configuration(), state.tasks());
    ([(header::CONTENT_TYPE, publish::CONTENT_TYPE)], text)
}

fn reading<'a>(backend: &Backend, snapshot: &'a Snapshot, moment: &Moment) -> Reading<'a> {
    Reading {
        backend: &snapshot.name,
        protocol: backend.protocol(),
        state: snapshot.state,
        mode: snapshot.mode,
        consecutive_failures: snapshot.consecutive_failures,
        open_until: snapshot.deadline.map(|at| moment.unix_seconds(at)),
        trips: &snapshot.trips_by_condition,
        failures: &snapshot.failures,
        bulkhead: [
            Use { limit: snapshot.bulkhead.connections, used: u64::from(snapshot.connections) },
            Use { limit: snapshot.bulkhead.calls, used: snapshot.totals.commands_in_flight() },
        ],
        checks: &snapshot.checks,
        last_check: snapshot.last_check.as_ref().map_or(0.0, |check| check.duration.as_secs_f64()),
        totals: &snapshot.totals,
    }
}

async fn status(Shared(state): All) -> Json<Status> {
    Json(whole_status(&state))
}

async fn status_of(Shared(state): All, name: Name) -> Answer<Json<Breaker>> {
    let backend = find(&state, name)?;
    Ok(Json(view(&backend, &state.clock.read()).1))
}

async fn detailed(Shared(state): All) -> Json<Metrics> {
    Json(whole_metrics(&state))
}

async fn reset(Shared(state): All, Extension(peer): Extension<Peer>, name: Name) -> Answer<Json<Breaker>> {
    let backend = find(&state, name)?;
    let moment = state.clock.read();
    audit_reset(&backend, &peer);
    backend.gate.reset(moment.now);
    Ok(Json(view(&backend, &moment).1))
}

async fn reset_all(Shared(state): All, Extension(peer): Extension<Peer>) -> Json<Status> {
    let now = state.clock.read().now;
    for backend in state.backends.all().iter() {
        audit_reset(backend, &peer);
        backend.gate.reset(now);
    }
    Json(whole_status(&state))
}

fn audit_reset(backend: &Backend, peer: &Peer) {
    let name = &**backend.name();
    tracing::info!(action = "reset", backend = name, %peer, "Admin API: reset of '{name}' by {peer}");
}

async fn trip(
    Shared(state): All,
    Extension(peer): Extension<Peer>,
    name: Name,
    query: Result<Query<Hold>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<Breaker>> {
    let backend = find(&state, name)?;
    let hold = hold(query?.0, &body?)?;
    let moment = state.clock.read();
    let name = &**backend.name();
    if backend.gate.mode() == Mode::Disabled {
        let message = format!("the breaker of '{name}' is disabled; enforce or observe it first");
        return Err(Error::new(StatusCode::CONFLICT, message));
    }
    let lasting =
        hold.map_or_else(|| "until reset".to_owned(), |d| humantime::format_duration(d).to_string());
    tracing::info!(
        action = "trip",
        backend = name,
        %peer,
        hold = lasting,
        "Admin API: trip of '{name}' ({lasting}) by {peer}"
    );
    backend.gate.trip(moment.now, hold);
    Ok(Json(view(&backend, &moment).1))
}

async fn enforce(Shared(state): All, Extension(peer): Extension<Peer>, name: Name) -> Answer<Json<Breaker>> {
    set_mode(&state, &peer, name, Mode::Enforce)
}

async fn observe(Shared(state): All, Extension(peer): Extension<Peer>, name: Name) -> Answer<Json<Breaker>> {
    set_mode(&state, &peer, name, Mode::Observe)
}

async fn disable(Shared(state): All, Extension(peer): Extension<Peer>, name: Name) -> Answer<Json<Breaker>> {
    set_mode(&state, &peer, name, Mode::Disabled)
}

fn set_mode(state: &State, peer: &Peer, name: Name, mode: Mode) -> Answer<Json<Breaker>> {
    let backend = find(state, name)?;
    let moment = state.clock.read();
    let (name, mode_label) = (&**backend.name(), mode.label());
    tracing::info!(
        action = "mode",
        backend = name,
        mode = mode_label,
        %peer,
        "Admin API: mode {mode_label} for '{name}' by {peer}"
    );
    backend.gate.set_mode(moment.now, mode);
    Ok(Json(view(&backend, &moment).1))
}

/// The same as SIGHUP, with an answer: what has changed, or all that is wrong, and then nothing has.
async fn reload(Shared(state): All, Extension(peer): Extension<Peer>) -> Answer<Response> {
    let busy = || Error::new(StatusCode::CONFLICT, "the configuration cannot be read again at the moment");
    let desk = state.desk.as_ref().ok_or_else(busy)?;
    match desk.reload(peer.to_string()).await.ok_or_else(busy)? {
        Ok(done) => Ok(Json(done).into_response()),
        Err(problems) => {
            let error = "the configuration is not valid: nothing has changed";
            let body = Json(json!({ "error": error, "problems": problems }));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
        }
    }
}

/// How long a manual trip lasts, from the query or the body. An unknown key is refused: `?four=30s` would
/// otherwise open a breaker until somebody notices.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    #[serde(rename = "for")]
    lasting: Option<String>,
}

fn hold(query: Hold, body: &[u8]) -> Answer<Option<Duration>> {
    let body = if body.trim_ascii().is_empty() {
        Hold::default()
    } else {
        serde_json::from_slice(body).map_err(|error| {
            Error::bad_request(format!("the body is not of the form {{\"for\":\"30s\"}}: {error}"))
        })?
    };
    let text = match (query.lasting, body.lasting) {
        (None, None) => return Ok(None),
        (Some(text), None) | (None, Some(text)) => text,
        (Some(_), Some(_)) => {
            return Err(Error::bad_request(
                "'for' stands in the query and in the body; one of them is enough",
            ));
        }
    };
    match humantime::parse_duration(&text) {
        Err(_) => Err(Error::bad_request(format!("'{text}' is not a duration; write 250ms, 30s or 5m"))),
        Ok(hold) if hold.is_zero() => Err(Error::bad_request("'for' must be above zero")),
        Ok(hold) if hold > HOLD_MAX => {
            Err(Error::bad_request("'for' is at most a year; leave it out to trip until a reset"))
        }
        Ok(hold) => Ok(Some(hold)),
    }
}

async fn not_found(uri: Uri) -> Error {
    Error::new(StatusCode::NOT_FOUND, format!("nothing here: {}", uri.path()))
}

/// The router adds Allow.
async fn wrong_method(method: Method, uri: Uri) -> Error {
    Error::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {}; see Allow", uri.path()))
}

pub(super) fn find(state: &State, name: Name) -> Answer<Arc<Backend>> {
    let Path(name) = name?;
    state.backends.get(&name).ok_or_else(|| {
        let all = state.backends.all();
        let known: Vec<_> = all.iter().map(|backend| &**backend.name()).collect();
        Error::new(StatusCode::NOT_FOUND, format!("no backend '{name}'; there are: {}", known.join(", ")))
    })
}

pub(super) fn view(backend: &Backend, moment: &Moment) -> (breaker::State, Breaker) {
    let snapshot = backend.gate.snapshot(moment.now);
    (snapshot.state, Breaker::new(backend, &snapshot, moment))
}

pub(super) fn whole_status(state: &State) -> Status {
    let moment = state.clock.read();
    Status::new(state.backends.all().iter().map(|backend| view(backend, &moment)))
}

pub(super) fn whole_metrics(state: &State) -> Metrics {
    let moment = state.clock.read();
    let all = state.backends.all();
    let views = all.iter().map(|backend| {
        let snapshot = backend.gate.snapshot(moment.now);
        (backend.as_ref(), snapshot, backend.gate.history())
    });
    Metrics::new(views, &moment)
}
