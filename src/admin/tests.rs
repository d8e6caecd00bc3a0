//! The API as its callers see it: through the router, and through real sockets where sockets matter.

mod access;
mod audit;
mod dashboard;
mod events;
mod port;
mod reload;
mod scrape;
mod settings;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::guard::{Guard, Peer};
use super::routes::router;
use super::{Access, Readiness, State, Token, bind, serve};
use crate::backends::Backends;
use crate::breaker::{CallKind, Cause, Code, Fault, Policy, Verdict};
use crate::config::{self, Config, Endpoint, Overrides, Protocol, SqlState, Timeouts};
use crate::gate::Lane;
use crate::metrics::Counter;
use crate::metrics::tests::Scrape;

const API: &str = "/api/v1/circuit-breaker";

fn loopback() -> Endpoint {
    Endpoint::Tcp { host: "127.0.0.1".into(), port: 9900 }
}

fn backend(name: &str, protocol: Protocol) -> config::Backend {
    config::Backend {
        name: name.into(),
        protocol,
        listen: loopback(),
        upstream: loopback(),
        proxy_protocol: config::ProxyProtocol::default(),
        tls: config::Tls::default(),
        breaker: Policy::default(),
        timeouts: Timeouts {
            connect: Duration::from_secs(3),
            response: None,
            handshake: Duration::from_secs(30),
            tcp_user: Duration::from_secs(30),
            keepalive: Duration::from_secs(30),
        },
    }
}

fn redis() -> config::Redis {
    config::Redis::default()
}

/// `cache` (Redis) and `db` (Postgres), both closed, both without a call.
fn state_with(access: Access) -> Arc<State> {
    let postgres = config::Postgres {
        reject_connect_code: SqlState::CANNOT_CONNECT_NOW,
        reject_query_code: SqlState::OPERATOR_INTERVENTION,
        check_user: "fusewire_check".into(),
        answer_empty_queries: false,
        verdicts: Overrides::default(),
    };
    let config = Config {
        backends: vec![
            backend("cache", Protocol::Redis(redis())),
            backend("db", Protocol::Postgres(postgres)),
        ],
        admin: None,
        admin_access: config::AdminAccess::default(),
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(1),
        workers: 1,
    };
    State::new(Arc::new(Backends::new(&config, Instant::now())), access, None, Vec::new())
}

fn state() -> Arc<State> {
    state_with(Access::default())
}

fn lane(state: &State, name: &str) -> Lane {
    state.backends.get(name).unwrap().gate.lane(1)
}

/// One call, from `now` on, that takes `duration`.
fn call(lane: &Lane, now: Instant, duration: Duration, verdict: Verdict) {
    lane.admit(now, CallKind::Command).unwrap().record(now + duration, verdict);
}

fn refused() -> Verdict {
    Verdict::Failure(Fault::Refused.into())
}

/// Five failures: open, as by the default policy.
fn trip_by_failures(state: &State, name: &str) {
    let lane = lane(state, name);
    let start = Instant::now() - Duration::from_millis(2);
    (0..5).for_each(|_| call(&lane, start, Duration::from_micros(1_500), refused()));
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&self.text).unwrap()
    }

    /// The one sentence of a refusal, which has this status and nothing but the sentence.
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let json = self.json();
        assert_eq!(keys(&json), ["error"]);
        json["error"].as_str().unwrap().to_owned()
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The keys of an object, compared without regard to their order.
fn assert_keys(value: &Value, expected: &[&str]) {
    let (mut keys, mut expected) = (keys(value), expected.to_vec());
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

fn tcp_peer() -> Peer {
    Peer::Tcp { remote: "127.0.0.1:40000".parse().unwrap(), local: "127.0.0.1:9900".parse().unwrap() }
}

async fn ask(router: &Router, mut request: Request<Body>, peer: Peer) -> Answer {
    request.extensions_mut().insert(peer);
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::from(body)).unwrap()
}

fn routes(state: &Arc<State>) -> Router {
    router(state.clone(), Guard::new(state.access.clone(), loopback()))
}

async fn get(state: &Arc<State>, path: &str) -> Answer {
    ask(&routes(state), request("GET", path, &[("host", "localhost:9900")], ""), tcp_peer()).await
}

async fn post(state: &Arc<State>, path: &str, body: &'static str) -> Answer {
    ask(&routes(state), request("POST", path, &[("host", "localhost:9900")], body), tcp_peer()).await
}

#[tokio::test]
async fn status_has_exactly_the_promised_keys() {
    let state = state();
    let (lane, now) = (lane(&state, "cache"), Instant::now());
    for _ in 0..4 {
        call(&lane, now, Duration::from_micros(80), Verdict::Success);
    }
    call(&lane, now, Duration::from_micros(80), refused());
    call(&lane, now, Duration::from_micros(80), Verdict::Ignored);
    let open = lane.admit(now, CallKind::Command).unwrap();

    let answer = get(&state, &format!("{API}/status")).await;
    assert_eq!(answer.status, 200);
    let status = answer.json();
    assert_keys(&status, &["summary", "details"]);
    assert_eq!(
        status["summary"],
        json!({"healthy_circuits": 2, "degraded_circuits": 0, "failed_circuits": 0})
    );
    assert_keys(&status["details"], &["global", "breakers"]);
    assert_eq!(
        status["details"]["global"],
        json!({"total_circuits": 2, "open_circuits": 0, "half_open_circuits": 0, "closed_circuits": 2})
    );
    assert_keys(&status["details"]["breakers"], &["cache", "db"]);
    let cache = &status["details"]["breakers"]["cache"];
    assert_keys(
        cache,
        &[
            "name",
            "protocol",
            "state",
            "mode",
            "slow_start",
            "since",
            "retry_after_ms",
            "metrics",
            "last_trip",
            "check",
            "bulkhead",
        ],
    );
    assert_eq!(cache["check"], json!({"when": "off", "last": null}));
    let bulkhead = json!({"connections": 0, "max_connections": null, "calls": 1, "max_calls": null});
    assert_eq!(cache["bulkhead"], bulkhead);
    assert_eq!((&cache["mode"], &cache["slow_start"]), (&json!("enforce"), &json!(false)));
    assert_eq!(cache["name"], "cache");
    assert_eq!(cache["protocol"], "redis");
    assert_eq!(cache["state"], "closed");
    assert_eq!(cache["retry_after_ms"], Value::Null);
    assert_eq!(cache["last_trip"], Value::Null);
    assert_eq!(
        cache["metrics"],
        json!({
            "total_calls": 6,
            "successful_calls": 4,
            "failed_calls": 1,
            "success_rate": "80.0%",
            "consecutive_failures": 1,
            "ignored_calls": 1,
            "rejected_calls": 0,
            "would_reject_calls": 0,
            "in_flight": 1,
            "probes": 0,
            "stale_verdicts": 0,
            "trips": 0,
        })
    );
    assert_eq!(status["details"]["breakers"]["db"]["metrics"]["success_rate"], "100.0%");
    assert_eq!(status["details"]["breakers"]["db"]["protocol"], "postgres");
    open.record(now, Verdict::Success);
}

#[tokio::test]
async fn an_open_breaker_says_why_and_how_long() {
    let state = state();
    trip_by_failures(&state, "cache");
    let lane = lane(&state, "cache");
    assert!(lane.admit(Instant::now(), CallKind::Command).is_err());

    let answer = get(&state, &format!("{API}/status/cache")).await;
    let cache = answer.json();
    assert_eq!(cache["state"], "open");
    let retry_after = cache["retry_after_ms"].as_u64().unwrap();
    assert!((1..=30_000).contains(&retry_after), "{retry_after}");
    assert_eq!(cache["metrics"]["rejected_calls"], 1);
    assert_eq!(cache["metrics"]["failed_calls"], 5);
    assert_eq!(cache["metrics"]["success_rate"], "0.0%");
    let trip = &cache["last_trip"];
    assert_keys(trip, &["condition", "cause", "reason", "at", "evidence"]);
    assert_eq!(trip["condition"], "consecutive_failures");
    assert_eq!(trip["cause"], "refused");
    assert_eq!(trip["reason"], "connection refused, 5 consecutive failures");
    assert!(humantime::parse_rfc3339(trip["at"].as_str().unwrap()).is_ok());
    let evidence = trip["evidence"].as_array().unwrap();
    assert_eq!(evidence.len(), 5);
    assert_keys(&evidence[0], &["at", "kind", "verdict", "cause", "duration_ms"]);
    assert_eq!(evidence[0]["kind"], "command");
    assert_eq!(evidence[0]["verdict"], "failure");
    assert_eq!(evidence[0]["cause"], "refused");
    assert_eq!(evidence[0]["duration_ms"], 1.5);

    let status = get(&state, &format!("{API}/status")).await.json();
    assert_eq!(
        status["summary"],
        json!({"healthy_circuits": 1, "degraded_circuits": 0, "failed_circuits": 1})
    );
    assert_eq!(status["details"]["global"]["open_circuits"], 1);
    assert_eq!(status["details"]["breakers"]["cache"]["last_trip"], cache["last_trip"]);
}

#[tokio::test]
async fn a_half_open_breaker_is_degraded() {
    let state = state();
    let gate = &state.backends.get("db").unwrap().gate;
    gate.trip(Instant::now(), Some(Duration::from_nanos(1)));
    let db = get(&state, &format!("{API}/status/db")).await.json();
    assert_eq!(db["state"], "half_open");
    assert_eq!(db["retry_after_ms"], 0);
    let status = get(&state, &format!("{API}/status")).await.json();
    assert_eq!(status["summary"]["degraded_circuits"], 1);
    assert_eq!(status["details"]["global"]["half_open_circuits"], 1);
    let health = get(&state, "/health").await.json();
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn one_failure_among_many_never_reads_as_all_well() {
    let state = state();
    let (lane, now) = (lane(&state, "cache"), Instant::now());
    lane.passed(1_000_000);
    lane.succeeded(now, lane.closed().unwrap(), CallKind::Command, Duration::from_micros(9), 1_000_000);
    call(&lane, now, Duration::ZERO, refused());
    let cache = get(&state, &format!("{API}/status/cache")).await.json();
    assert_eq!(cache["metrics"]["success_rate"], "99.9%");
}

#[tokio::test]
async fn the_detailed_view_breaks_the_figures_down() {
    let state = state();
    let (lane, now) = (lane(&state, "cache"), Instant::now());
    for _ in 0..100 {
        call(&lane, now, Duration::from_micros(75), Verdict::Success);
    }
    call(&lane, now, Duration::from_micros(75), Verdict::Failure(Cause::Reply(Code::new("LOADING"))));
    lane.add(Counter::Accepted, 3);
    lane.add(Counter::Closed, 1);
    lane.add(Counter::UpstreamBytes, 77);
    lane.add(Counter::RejectedSession, 2);
    (0..4).for_each(|_| call(&lane, now, Duration::from_micros(75), refused()));
    assert!(lane.admit(now, CallKind::Command).is_err());

    let metrics = get(&state, &format!("{API}/metrics")).await.json();
    assert_keys(&metrics, &["breakers"]);
    assert_keys(&metrics["breakers"], &["cache", "db"]);
    let cache = &metrics["breakers"]["cache"];
    assert_keys(
        cache,
        &[
            "name",
            "protocol",
            "state",
            "mode",
            "slow_start",
            "generation",
            "since",
            "calls",
            "failures_by_cause",
            "rejections",
            "trips",
            "probes",
            "checks",
            "latency_ms",
            "connections",
            "bytes",
            "local_faults",
            "history",
        ],
    );
    assert_eq!(cache["generation"], 1);
    assert_eq!(cache["failures_by_cause"]["LOADING"], 1);
    assert_eq!(cache["failures_by_cause"]["refused"], 4);
    assert_eq!(cache["failures_by_cause"]["tls"], 0);
    assert_eq!(
        cache["rejections"],
        json!({
            "total": 3, "open": 1, "half_open": 0, "slow_start": 0, "max_calls": 0, "max_connections": 0,
            "session": 2, "would_reject": 0,
        })
    );
    assert_eq!(cache["trips"]["total"], 1);
    assert_eq!(cache["trips"]["by_condition"]["consecutive_failures"], 1);
    assert_eq!(cache["trips"]["by_condition"]["failure_rate"], 0);
    let history = cache["history"].as_array().unwrap();
    assert_eq!(history.len(), 1);
    assert_keys(
        &history[0],
        &["at", "generation", "from", "to", "why", "reason", "cause", "retry_after_ms", "mode"],
    );
    assert_eq!((&history[0]["from"], &history[0]["to"]), (&json!("closed"), &json!("open")));
    assert_eq!(history[0]["why"], "consecutive_failures");
    assert_eq!(history[0]["reason"], "5 consecutive failures");
    assert_eq!(history[0]["cause"], "refused");
    assert_eq!(history[0]["retry_after_ms"], 30_000);
    assert_eq!(history[0]["mode"], "enforce");
    assert!(humantime::parse_rfc3339(history[0]["at"].as_str().unwrap()).is_ok());
    assert_eq!(metrics["breakers"]["db"]["history"], json!([]));
    assert_eq!(cache["latency_ms"]["p50"], json!(0.075));
    assert_eq!(cache["connections"]["accepted"], 3);
    assert_eq!(cache["connections"]["active"], 2);
    assert_eq!(cache["bytes"], json!({"from_downstream": 0, "from_upstream": 77}));
    assert_eq!(metrics["breakers"]["db"]["latency_ms"]["p99"], Value::Null);
}

#[tokio::test]
async fn health_stays_200_whatever_the_breakers_do() {
    let state = state();
    for (tripped, word) in [(None, "healthy"), (Some("cache"), "degraded"), (Some("db"), "unhealthy")] {
        if let Some(name) = tripped {
            trip_by_failures(&state, name);
        }
        let health = get(&state, "/health").await;
        assert_eq!(health.status, 200);
        let health = health.json();
        assert_keys(&health, &["status", "version", "circuit_breakers"]);
        assert_eq!(health["status"], word);
        assert_keys(
            &health["circuit_breakers"],
            &["healthy_circuits", "degraded_circuits", "failed_circuits"],
        );
    }
}

#[tokio::test]
async fn readiness_follows_the_process_and_no_breaker() {
    let state = state();
    assert_eq!(get(&state, "/readyz").await.status, 503);
    state.set_readiness(Readiness::Ready);
    trip_by_failures(&state, "cache");
    trip_by_failures(&state, "db");
    assert_eq!(get(&state, "/readyz").await.status, 200);
    state.set_readiness(Readiness::Draining);
    let draining = get(&state, "/readyz").await;
    assert_eq!(draining.status, 503);
    assert_eq!(draining.json(), json!({"status": "draining"}));
    assert_eq!(get(&state, "/livez").await.status, 200);
}

#[tokio::test]
async fn reset_closes_one_breaker_and_answers_with_it() {
    let state = state();
    trip_by_failures(&state, "cache");
    trip_by_failures(&state, "db");
    let answer = post(&state, &format!("{API}/reset/cache"), "").await;
    assert_eq!(answer.status, 200);
    let cache = answer.json();
    assert_eq!((&cache["name"], &cache["state"]), (&json!("cache"), &json!("closed")));
    assert_eq!(cache["retry_after_ms"], Value::Null);
    assert_eq!(cache["last_trip"]["cause"], "refused", "history outlives a reset");
    assert_eq!(get(&state, &format!("{API}/status/db")).await.json()["state"], "open");
}

#[tokio::test]
async fn reset_all_closes_every_breaker() {
    let state = state();
    trip_by_failures(&state, "cache");
    trip_by_failures(&state, "db");
    let status = post(&state, &format!("{API}/reset-all"), "").await.json();
    assert_eq!(status["summary"]["healthy_circuits"], 2);
    assert_eq!(status["details"]["breakers"]["cache"]["state"], "closed");
    assert_eq!(status["details"]["breakers"]["db"]["state"], "closed");
}

#[tokio::test]
async fn trip_opens_until_a_reset_or_for_a_time() {
    let state = state();
    let path = format!("{API}/trip/cache");
    let cache = post(&state, &path, "").await.json();
    assert_eq!(cache["state"], "open");
    assert_eq!(cache["retry_after_ms"], Value::Null);
    assert_eq!(cache["last_trip"]["condition"], "manual");
    assert_eq!(cache["last_trip"]["cause"], Value::Null);
    assert_eq!(cache["last_trip"]["evidence"], json!([]));

    let by_query = post(&state, &format!("{path}?for=90s"), "").await.json();
    assert_eq!(by_query["retry_after_ms"], 90_000);
    let by_body = post(&state, &path, r#"{"for":"2m"}"#).await.json();
    assert_eq!(by_body["retry_after_ms"], 120_000);
    let without = post(&state, &path, "{}").await.json();
    assert_eq!(without["retry_after_ms"], Value::Null);
}

#[tokio::test]
async fn a_trip_that_is_not_understood_changes_nothing() {
    let state = state();
    let path = format!("{API}/trip/cache");
    let cases = [
        ("?for=soon", "", "duration"),
        ("?for=0s", "", "above zero"),
        ("?for=2000years", "", "a year"),
        ("?for=584554531000years", "", "duration"),
        ("?four=30s", "", "four"),
        ("?for=1s", r#"{"for":"1s"}"#, "body"),
        ("", r#"{"four":"1s"}"#, "four"),
        ("", "30s", "form"),
        ("", r#"{"for":30}"#, "form"),
    ];
    for (query, body, hint) in cases {
        let error = post(&state, &format!("{path}{query}"), body).await.error(400);
        assert!(error.contains(hint), "{query} {body}: {error}");
    }
    let too_large = "                ".repeat(300);
    let too_large = post(&state, &path, too_large.leak()).await;
    too_large.error(413);
    assert_eq!(get(&state, &format!("{API}/status/cache")).await.json()["state"], "closed");
}

#[tokio::test]
async fn the_mode_is_set_by_hand_and_a_reset_leaves_it() {
    let state = state();
    let lane = lane(&state, "cache");
    trip_by_failures(&state, "cache");
    let cache = post(&state, &format!("{API}/observe/cache"), "").await.json();
    assert_eq!((&cache["mode"], &cache["state"]), (&json!("observe"), &json!("open")));
    drop(lane.admit(Instant::now(), CallKind::Command).expect("observing"));
    let cache = post(&state, &format!("{API}/reset/cache"), "").await.json();
    assert_eq!((&cache["mode"], &cache["state"]), (&json!("observe"), &json!("closed")));
    assert_eq!(cache["metrics"]["would_reject_calls"], 1);
    assert_eq!(cache["metrics"]["rejected_calls"], 0);

    post(&state, &format!("{API}/trip/cache"), "").await;
    let cache = post(&state, &format!("{API}/disable/cache"), "").await.json();
    assert_eq!((&cache["mode"], &cache["state"]), (&json!("disabled"), &json!("closed")));
    let error = post(&state, &format!("{API}/trip/cache"), "").await.error(409);
    assert_eq!(error, "the breaker of 'cache' is disabled; enforce or observe it first");

    let cache = post(&state, &format!("{API}/enforce/cache"), "").await.json();
    assert_eq!((&cache["mode"], &cache["state"]), (&json!("enforce"), &json!("closed")));
    let metrics = get(&state, &format!("{API}/metrics")).await.json();
    let history = metrics["breakers"]["cache"]["history"].as_array().unwrap().clone();
    let whys: Vec<_> = history.iter().map(|change| change["why"].as_str().unwrap()).collect();
    assert_eq!(whys, ["consecutive_failures", "reset", "manual", "disabled"]);
    assert_eq!(get(&state, &format!("{API}/status/db")).await.json()["mode"], "enforce");
}

#[tokio::test]
async fn an_unknown_backend_is_a_404_that_names_the_known_ones() {
    let state = state();
    for answer in [
        get(&state, &format!("{API}/status/nope")).await,
        post(&state, &format!("{API}/reset/nope"), "").await,
        post(&state, &format!("{API}/trip/nope"), "").await,
        post(&state, &format!("{API}/observe/nope"), "").await,
    ] {
        assert_eq!(answer.error(404), "no backend 'nope'; there are: cache, db");
    }
    get(&state, &format!("{API}/status/%FF")).await.error(404);
}

#[tokio::test]
async fn an_unknown_path_is_a_404_in_json() {
    let state = state();
    for path in ["/nope", "/api/v1/circuit-breaker", "/api/v1/circuit-breaker/status/", "/metrics/"] {
        get(&state, path).await.error(404);
    }
}

#[tokio::test]
async fn the_wrong_method_is_a_405_that_names_the_right_one_and_changes_nothing() {
    let state = state();
    let paths =
        ["/reset/cache", "/reset-all", "/trip/cache", "/disable/cache", "/observe/cache", "/enforce/cache"];
    for path in paths {
        let answer = get(&state, &format!("{API}{path}")).await;
        answer.error(405);
        assert_eq!(answer.headers[header::ALLOW], "POST");
    }
    for path in ["/metrics", "/health", "/readyz", "/api/v1/circuit-breaker/status/cache"] {
        let answer = post(&state, path, "").await;
        answer.error(405);
        assert_eq!(answer.headers[header::ALLOW], "GET,HEAD");
    }
    assert_eq!(get(&state, "/health").await.json()["status"], "healthy");
}

#[tokio::test]
async fn answers_are_not_cached() {
    let state = state();
    for path in ["/health", "/nope"] {
        assert_eq!(get(&state, path).await.headers[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn the_index_lists_routes_that_exist() {
    let state = state();
    let index = get(&state, "/api/v1").await.json();
    for (method, status) in [("get", 200), ("post", 200)] {
        for path in index[method].as_array().unwrap() {
            let path = path.as_str().unwrap().replace("{name}", "cache");
            state.set_readiness(Readiness::Ready);
            let answer =
                if method == "get" { get(&state, &path).await } else { post(&state, &path, "").await };
            // In these tests nobody reads the configuration again.
            let status = if path == "/api/v1/config/reload" { 409 } else { status };
            assert_eq!(answer.status, status, "{path}");
        }
    }
}
