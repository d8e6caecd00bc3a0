//! The API as its callers see it: through the router, and through real sockets where sockets matter.

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

/// `cache` (Redis) and `db` (Postgres), both closed, both without a call.
fn state_with(access: Access) -> Arc<State> {
    let redis = config::Redis { reject_code: "CIRCUITOPEN".into(), verdicts: Overrides::default() };
    let postgres = config::Postgres {
        reject_connect_code: SqlState::CANNOT_CONNECT_NOW,
        reject_query_code: SqlState::OPERATOR_INTERVENTION,
        verdicts: Overrides::default(),
    };
    let config = Config {
        backends: vec![backend("cache", Protocol::Redis(redis)), backend("db", Protocol::Postgres(postgres))],
        admin: None,
        drain_timeout: Duration::from_secs(1),
        workers: 1,
    };
    State::new(Arc::new(Backends::new(&config, Instant::now())), access)
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
    assert_keys(cache, &["name", "protocol", "state", "since", "retry_after_ms", "metrics", "last_trip"]);
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
            "generation",
            "since",
            "calls",
            "failures_by_cause",
            "rejections",
            "trips",
            "probes",
            "latency_ms",
            "connections",
            "bytes",
            "local_faults",
        ],
    );
    assert_eq!(cache["generation"], 1);
    assert_eq!(cache["failures_by_cause"]["LOADING"], 1);
    assert_eq!(cache["failures_by_cause"]["refused"], 4);
    assert_eq!(cache["failures_by_cause"]["tls"], 0);
    assert_eq!(cache["rejections"], json!({"total": 3, "open": 1, "half_open": 0, "session": 2}));
    assert_eq!(
        cache["trips"],
        json!({"total": 1, "by_condition": {"consecutive_failures": 1, "probe_failed": 0, "manual": 0}})
    );
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
async fn an_unknown_backend_is_a_404_that_names_the_known_ones() {
    let state = state();
    for answer in [
        get(&state, &format!("{API}/status/nope")).await,
        post(&state, &format!("{API}/reset/nope"), "").await,
        post(&state, &format!("{API}/trip/nope"), "").await,
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
    for path in ["/reset/cache", "/reset-all", "/trip/cache"] {
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
    let index = get(&state, "/").await.json();
    for (method, status) in [("get", 200), ("post", 200)] {
        for path in index[method].as_array().unwrap() {
            let path = path.as_str().unwrap().replace("{name}", "cache");
            state.set_readiness(Readiness::Ready);
            let answer =
                if method == "get" { get(&state, &path).await } else { post(&state, &path, "").await };
            assert_eq!(answer.status, status, "{path}");
        }
    }
}

mod access {
    //! Hosts, origins and tokens.

    use super::*;

    async fn status_of(
        router: &Router,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        peer: Peer,
    ) -> u16 {
        ask(router, request(method, path, headers, ""), peer).await.status.as_u16()
    }

    #[tokio::test]
    async fn only_own_hosts_are_answered() {
        let state = state();
        let router = routes(&state);
        let own = ["localhost:9900", "LOCALHOST", "127.0.0.1:9900", "127.8.8.8", "[::1]:9900", "localhost:1"];
        let foreign = [
            "evil.example:9900",
            "localhost.evil.example",
            "10.1.2.3:9900",
            "127.0.0.1.evil.example",
            "[::2]",
        ];
        for path in ["/metrics", "/health", "/livez", "/nope", "/api/v1/circuit-breaker/status"] {
            for host in own {
                assert_ne!(
                    status_of(&router, "GET", path, &[("host", host)], tcp_peer()).await,
                    403,
                    "{host}"
                );
            }
            for host in foreign {
                let answer = ask(&router, request("GET", path, &[("host", host)], ""), tcp_peer()).await;
                answer.error(403);
            }
        }
        let reset = format!("{API}/reset-all");
        assert_eq!(status_of(&router, "POST", &reset, &[("host", "evil.example")], tcp_peer()).await, 403);
    }

    #[tokio::test]
    async fn an_absolute_target_outranks_the_host_header() {
        let state = state();
        let router = routes(&state);
        let target = "http://evil.example/metrics";
        let status = status_of(&router, "GET", target, &[("host", "localhost")], tcp_peer()).await;
        assert_eq!(status, 403);
    }

    #[tokio::test]
    async fn two_hosts_or_none_that_can_be_read_are_refused_and_no_host_is_not() {
        let state = state();
        let router = routes(&state);
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(status_of(&router, "GET", "/livez", &two, tcp_peer()).await, 400);
        assert_eq!(status_of(&router, "GET", "/livez", &[("host", "a b")], tcp_peer()).await, 400);
        assert_eq!(status_of(&router, "GET", "/livez", &[], tcp_peer()).await, 200);
    }

    #[tokio::test]
    async fn the_address_and_the_name_that_it_is_bound_to_are_its_own() {
        let state = state();
        let bound = Endpoint::Tcp { host: "fusewire.internal".into(), port: 9900 };
        let router = router(state.clone(), Guard::new(Access::default(), bound));
        let local = "10.0.0.7:9900".parse().unwrap();
        let peer = Peer::Tcp { remote: "10.0.0.9:5000".parse().unwrap(), local };
        for (host, status) in [
            ("10.0.0.7:9900", 200),
            ("fusewire.internal:9900", 200),
            ("10.0.0.8:9900", 403),
            ("other.internal", 403),
        ] {
            assert_eq!(status_of(&router, "GET", "/livez", &[("host", host)], peer).await, status, "{host}");
        }
    }

    #[tokio::test]
    async fn bound_to_every_address_it_answers_to_addresses_but_not_to_names() {
        let access = Access { hosts: vec!["fusewire".into()], token: None };
        let state = state_with(access.clone());
        let bound = Endpoint::Tcp { host: "0.0.0.0".into(), port: 9900 };
        let router = router(state.clone(), Guard::new(access, bound));
        for (host, status) in [("192.0.2.1:9900", 200), ("evil.example", 403), ("Fusewire:9900", 200)] {
            assert_eq!(
                status_of(&router, "GET", "/livez", &[("host", host)], tcp_peer()).await,
                status,
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn a_page_of_another_origin_changes_nothing() {
        let state = state();
        let router = routes(&state);
        let trip = format!("{API}/trip/cache");
        let host = ("host", "localhost:9900");
        for origin in
            ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:9900", "file://"]
        {
            let request = request("POST", &trip, &[host, ("origin", origin)], "");
            ask(&router, request, tcp_peer()).await.error(403);
        }
        assert_eq!(get(&state, "/health").await.json()["status"], "healthy");
        // Reading is harmless: without CORS headers the page never sees the answer.
        let read = [host, ("origin", "http://evil.example")];
        assert_eq!(status_of(&router, "GET", "/health", &read, tcp_peer()).await, 200);
        let own = [host, ("origin", "http://LOCALHOST:9900")];
        assert_eq!(status_of(&router, "POST", &trip, &own, tcp_peer()).await, 200);
    }

    #[tokio::test]
    async fn a_unix_socket_takes_any_host_but_no_foreign_origin() {
        let state = state();
        let router = routes(&state);
        let peer = Peer::Unix { uid: Some(0), pid: Some(1) };
        assert_eq!(status_of(&router, "GET", "/livez", &[("host", "whatever")], peer).await, 200);
        let trip = format!("{API}/trip/cache");
        let foreign = [("host", "whatever"), ("origin", "http://evil.example")];
        assert_eq!(status_of(&router, "POST", &trip, &foreign, peer).await, 403);
    }

    #[tokio::test]
    async fn a_request_from_nowhere_is_refused() {
        let state = state();
        let response = routes(&state).oneshot(request("GET", "/livez", &[], "")).await.unwrap();
        assert_eq!(response.status(), 403);
    }

    #[tokio::test]
    async fn with_a_token_only_its_bearer_gets_more_than_the_probes() {
        let access = Access { hosts: Vec::new(), token: Token::new("s3cret\n") };
        let state = state_with(access.clone());
        let router = router(state.clone(), Guard::new(access.clone(), loopback()));
        let answer = ask(&router, request("GET", "/metrics", &[], ""), tcp_peer()).await;
        answer.error(401);
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        for wrong in ["Bearer s3creT", "Bearer s3cret1", "Bearer s3cre", "Bearer ", "s3cret", "Basic s3cret"]
        {
            let headers = [("authorization", wrong)];
            assert_eq!(status_of(&router, "GET", "/health", &headers, tcp_peer()).await, 401, "{wrong}");
            let reset = format!("{API}/reset-all");
            assert_eq!(status_of(&router, "POST", &reset, &headers, tcp_peer()).await, 401, "{wrong}");
        }
        let right = [("authorization", "bearer s3cret")];
        assert_eq!(status_of(&router, "GET", "/metrics", &right, tcp_peer()).await, 200);
        assert_eq!(status_of(&router, "GET", "/livez", &[], tcp_peer()).await, 200);
        assert!(!format!("{access:?}").contains("s3cret"));
        assert!(Token::new(" \n").is_none());
    }
}

mod scrape {
    //! `/metrics` after scripted calls.

    use super::*;

    async fn scrape(state: &Arc<State>) -> (Scrape, String) {
        let answer = get(state, "/metrics").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
        (Scrape::parse(&answer.text), answer.text)
    }

    /// The lines about backends, in a fixed order.
    fn backend_lines(text: &str) -> Vec<&str> {
        let mut lines: Vec<_> = text.lines().filter(|line| line.contains("backend=")).collect();
        lines.sort_unstable();
        lines
    }

    #[tokio::test]
    async fn the_figures_are_those_of_the_calls() {
        let state = state();
        let (lane, now) = (lane(&state, "cache"), Instant::now());
        let on = "backend=\"cache\",protocol=\"redis\"";
        for _ in 0..3 {
            call(&lane, now, Duration::from_micros(100), Verdict::Success);
        }
        call(&lane, now, Duration::from_micros(100), Verdict::Ignored);
        let late = lane.admit(now, CallKind::Command).unwrap();
        let open = lane.admit(now, CallKind::Command).unwrap();
        for fault in [Fault::Refused, Fault::Refused, Fault::Timeout, Fault::Eof] {
            call(&lane, now, Duration::from_millis(20), Verdict::Failure(fault.into()));
        }
        let (before, _) = scrape(&state).await;
        assert_eq!(before.get(&format!("circuit_breaker_consecutive_failures{{{on}}}")), 4.0);
        assert_eq!(before.get(&format!("circuit_breaker_state{{{on}}}")), 0.0);

        call(&lane, now, Duration::from_millis(20), Verdict::Failure(Cause::Reply(Code::new("LOADING"))));
        for _ in 0..7 {
            assert!(lane.admit(now + Duration::from_secs(1), CallKind::Command).is_err());
        }
        late.record(now, Verdict::Success);

        let (after, text) = scrape(&state).await;
        let get = |name: &str, label: &str| after.get(&format!("{name}{{{on}{label}}}"));
        assert_eq!(get("circuit_breaker_state", ""), 2.0);
        assert_eq!(get("circuit_breaker_calls_total", ",result=\"success\""), 4.0);
        assert_eq!(get("circuit_breaker_calls_total", ",result=\"failure\""), 5.0);
        assert_eq!(get("circuit_breaker_calls_total", ",result=\"ignored\""), 1.0);
        assert_eq!(get("circuit_breaker_failures_total", ",reason=\"refused\""), 2.0);
        assert_eq!(get("circuit_breaker_failures_total", ",reason=\"timeout\""), 1.0);
        assert_eq!(get("circuit_breaker_failures_total", ",reason=\"LOADING\""), 1.0);
        assert_eq!(get("circuit_breaker_failures_total", ",reason=\"dns\""), 0.0);
        assert_eq!(get("circuit_breaker_trips_total", ",condition=\"consecutive_failures\""), 1.0);
        assert_eq!(get("circuit_breaker_trips_total", ",condition=\"manual\""), 0.0);
        assert_eq!(get("circuit_breaker_rejections_total", ",reason=\"open\""), 7.0);
        assert_eq!(get("circuit_breaker_stale_verdicts_total", ""), 1.0);
        assert_eq!(get("circuit_breaker_consecutive_failures", ""), 0.0);
        assert_eq!(get("circuit_breaker_calls_in_flight", ""), 1.0);
        assert!(get("circuit_breaker_open_until_seconds", "") > 1e9);
        assert_eq!(get("circuit_breaker_call_duration_seconds_count", ""), 9.0);
        // The stale one took no time.
        assert_eq!(get("circuit_breaker_call_duration_seconds_bucket", ",le=\"0.00005\""), 1.0);
        assert_eq!(get("circuit_breaker_call_duration_seconds_bucket", ",le=\"0.0001\""), 4.0);
        assert_eq!(get("circuit_breaker_call_duration_seconds_bucket", ",le=\"0.012\""), 4.0);
        assert_eq!(get("circuit_breaker_call_duration_seconds_bucket", ",le=\"0.025\""), 9.0);
        assert_eq!(get("circuit_breaker_call_duration_seconds_sum", ""), 0.1003);
        let other = "circuit_breaker_calls_total{backend=\"db\",protocol=\"postgres\",result=\"failure\"}";
        assert_eq!(after.get(other), 0.0);

        // The same again, to the letter: a scrape adds nothing.
        let (_, again) = scrape(&state).await;
        assert_eq!(backend_lines(&again), backend_lines(&text));
        open.record(now, Verdict::Success);
    }

    #[tokio::test]
    async fn probes_and_a_manual_trip_are_counted() {
        let state = state();
        let lane = lane(&state, "db");
        let now = Instant::now();
        lane.gate().trip(now, Some(Duration::from_secs(1)));
        let due = now + Duration::from_secs(1);
        let probe = lane.admit(due, CallKind::Query).unwrap();
        assert!(lane.admit(due, CallKind::Query).is_err());
        let on = "backend=\"db\",protocol=\"postgres\"";
        let (half_open, _) = scrape(&state).await;
        assert_eq!(half_open.get(&format!("circuit_breaker_state{{{on}}}")), 1.0);
        assert_eq!(half_open.get(&format!("circuit_breaker_open_until_seconds{{{on}}}")), 0.0);
        assert_eq!(half_open.get(&format!("circuit_breaker_probes_total{{{on}}}")), 1.0);
        let rejected = format!("circuit_breaker_rejections_total{{{on},reason=\"half_open\"}}");
        assert_eq!(half_open.get(&rejected), 1.0);
        probe.record(due, refused());
        let (open, _) = scrape(&state).await;
        for condition in ["manual", "probe_failed"] {
            let series = format!("circuit_breaker_trips_total{{{on},condition=\"{condition}\"}}");
            assert_eq!(open.get(&series), 1.0, "{condition}");
        }
    }
}

mod audit {
    //! One line for each change, with what, which and who.

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_change_is_logged_and_no_read_is() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let state = state();
        get(&state, &format!("{API}/status")).await;
        post(&state, &format!("{API}/trip/nope"), "").await;
        post(&state, &format!("{API}/trip/cache?for=30s"), "").await;
        post(&state, &format!("{API}/reset/cache"), "").await;
        post(&state, &format!("{API}/reset-all"), "").await;

        let bytes = log.0.lock().unwrap().clone();
        let lines: Vec<Value> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].clone())
            .filter(|fields| fields["action"].is_string())
            .collect();
        let seen: Vec<_> = lines
            .iter()
            .map(|fields| (fields["action"].as_str().unwrap(), fields["backend"].as_str().unwrap()))
            .collect();
        assert_eq!(seen, [("trip", "cache"), ("reset", "cache"), ("reset", "cache"), ("reset", "db")]);
        assert!(lines.iter().all(|fields| fields["peer"] == "127.0.0.1:40000"));
        assert_eq!(lines[0]["hold"], "30s");
    }
}

mod port {
    //! Real sockets: what only a server can get wrong.

    use super::*;

    struct Running {
        endpoint: Endpoint,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
        state: Arc<State>,
    }

    impl Running {
        async fn start(endpoint: &Endpoint) -> Self {
            let bound = bind(endpoint).await.unwrap();
            let (endpoint, shutdown, state) = (bound.endpoint().clone(), CancellationToken::new(), state());
            let task = tokio::spawn(serve(bound, state.clone(), shutdown.clone()));
            Self { endpoint, shutdown, task, state }
        }

        async fn on_any_port() -> Self {
            Self::start(&Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }).await
        }

        async fn connect(&self) -> TcpStream {
            let Endpoint::Tcp { host, port } = &self.endpoint else { panic!("not TCP") };
            TcpStream::connect((&**host, *port)).await.unwrap()
        }

        async fn stop(self) {
            self.shutdown.cancel();
            self.task.await.unwrap();
        }
    }

    /// Sends `request` and reads to the end of the connection; empty if it was cut off without an answer.
    async fn exchange<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, request: &str) -> String {
        io.write_all(request.as_bytes()).await.unwrap();
        to_end(io).await
    }

    async fn to_end<IO: AsyncRead + Unpin>(io: &mut IO) -> String {
        let mut answer = Vec::new();
        // A reset ends it as well as an end of file does.
        let _ = io.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn it_answers_over_tcp_and_knows_hosts_methods_and_paths() {
        let server = Running::on_any_port().await;
        let cases = [
            ("GET /livez", "localhost", "HTTP/1.1 200 OK"),
            ("GET /livez", "evil.example", "HTTP/1.1 403 Forbidden"),
            ("GET /nope", "localhost", "HTTP/1.1 404 Not Found"),
            ("GET /api/v1/circuit-breaker/trip/cache", "localhost", "HTTP/1.1 405 Method Not Allowed"),
            ("POST /api/v1/circuit-breaker/trip/cache", "localhost", "HTTP/1.1 200 OK"),
        ];
        for (line, host, expected) in cases {
            let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = exchange(&mut server.connect().await, &request).await;
            assert!(answer.starts_with(expected), "{line}: {answer}");
        }
        let status = get(&server.state, &format!("{API}/status/cache")).await.json();
        assert_eq!(status["state"], "open");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_health_check_of_the_old_kind_is_answered() {
        let server = Running::on_any_port().await;
        let answer = exchange(&mut server.connect().await, "GET /health HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn silent_connections_in_any_number_do_not_hold_the_port() {
        let server = Running::on_any_port().await;
        let mut silent = Vec::new();
        for _ in 0..200 {
            let mut stream = server.connect().await;
            stream.write_all(b"GET /livez HTT").await.unwrap();
            silent.push(stream);
        }
        // Sooner than their heads time out, or it would prove nothing.
        let soon = super::super::server::HEAD_TIMEOUT / 2;
        let mut stream = server.connect().await;
        let answer =
            tokio::time::timeout(soon, exchange(&mut stream, LIVEZ)).await.expect("the port is held");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let oldest = tokio::time::timeout(soon, to_end(&mut silent[0])).await;
        assert_eq!(oldest.expect("the oldest was not pushed out"), "");
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_cut_off() {
        let server = Running::on_any_port().await;
        let mut stream = server.connect().await;
        let cut_off = exchange(&mut stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n");
        // Time is paused and runs ahead when everybody waits: an hour passes at once unless a timeout comes first.
        tokio::time::timeout(Duration::from_secs(3600), cut_off).await.expect("the connection was left open");
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_after_its_answer() {
        let server = Running::on_any_port().await;
        let mut stream = server.connect().await;
        let answer = exchange(&mut stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = tokio::time::timeout(Duration::from_secs(3600), answer).await.expect("it was left open");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_not_waited_for() {
        let server = Running::on_any_port().await;
        let mut stream = server.connect().await;
        let head = "POST /api/v1/circuit-breaker/trip/cache HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{";
        let answer = tokio::time::timeout(Duration::from_secs(3600), exchange(&mut stream, head));
        let answer = answer.await.expect("the connection was left open");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(get(&server.state, "/health").await.json()["status"], "healthy");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_head_without_measure_is_refused() {
        let server = Running::on_any_port().await;
        let many = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(200));
        let answer = exchange(&mut server.connect().await, &many).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let mut stream = server.connect().await;
        let long = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nA: {}", "b".repeat(1 << 20));
        // Refused before it has been read, so writing may fail.
        let _ = stream.write_all(long.as_bytes()).await;
        assert!(!to_end(&mut stream).await.starts_with("HTTP/1.1 200"));
        server.stop().await;
    }

    #[tokio::test]
    async fn shutdown_does_not_wait_for_idle_connections() {
        let server = Running::on_any_port().await;
        let mut idle = server.connect().await;
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let mut silent = server.connect().await;
        silent.write_all(b"GET").await.unwrap();
        server.stop().await;
        to_end(&mut idle).await;
        to_end(&mut silent).await;
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let server = Running::on_any_port().await;
        let error = bind(&server.endpoint).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&server.endpoint.to_string()), "{error}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_unix_socket_answers_belongs_to_its_owner_and_leaves_nothing_behind() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let endpoint = Endpoint::Unix(path.clone());
        let server = Running::start(&endpoint).await;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let answer = exchange(&mut stream, &LIVEZ.replace("localhost", "whatever")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let error = bind(&endpoint).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "a living socket is not taken over");
        server.stop().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_the_dead_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Running::start(&Endpoint::Unix(path)).await.stop().await;

        let file = dir.path().join("precious");
        std::fs::write(&file, "data").unwrap();
        assert!(bind(&Endpoint::Unix(file.clone())).await.is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
    }
}
