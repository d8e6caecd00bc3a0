//! The admin API: every route, what it refuses, and that its figures agree with each other.

use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Redis, Setup, http};

const API: &str = "/api/v1/circuit-breaker";

/// One healthy backend and one that nobody serves.
fn start() -> (Redis, Fusewire) {
    let redis = Redis::start();
    let dead = format!("127.0.0.1:{}", proto_tests::tools::free_port());
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "recovery-timeout=1h")
        .postgres("db", dead, "failure-threshold=1,recovery-timeout=1h")
        .start();
    (redis, proxy)
}

fn open_db(proxy: &Fusewire) {
    proto_tests::Pg::refused(proxy.addr("db"));
    proxy.await_state("db", "open");
}

#[test]
fn status_has_the_shape_that_dashboards_read() {
    let (_redis, proxy) = start();
    open_db(&proxy);
    let mut client = Client::connect(proxy.addr("cache"));
    (0..4).for_each(|_| assert_eq!(client.call(&["PING"]), Reply::simple("PONG")));
    let status = proxy.get(&format!("{API}/status")).json();
    assert_eq!(status["summary"]["healthy_circuits"], 1, "{status:#}");
    assert_eq!(status["summary"]["degraded_circuits"], 0, "{status:#}");
    assert_eq!(status["summary"]["failed_circuits"], 1, "{status:#}");
    let global = &status["details"]["global"];
    assert_eq!(global["total_circuits"], 2, "{status:#}");
    assert_eq!(global["open_circuits"], 1, "{status:#}");
    assert_eq!(global["half_open_circuits"], 0, "{status:#}");
    assert_eq!(global["closed_circuits"], 1, "{status:#}");
    let breakers = &status["details"]["breakers"];
    assert_eq!(breakers["cache"]["state"], "closed", "{status:#}");
    assert_eq!(breakers["cache"]["metrics"]["success_rate"], "100.0%", "{status:#}");
    assert!(breakers["cache"]["metrics"]["successful_calls"].as_u64() >= Some(4), "{status:#}");
    assert_eq!(breakers["db"]["state"], "open", "{status:#}");
    assert_eq!(breakers["db"]["metrics"]["failed_calls"], 1, "{status:#}");
    assert_eq!(breakers["db"]["metrics"]["success_rate"], "0.0%", "{status:#}");

    let one = proxy.status("db");
    assert_eq!(one["name"], "db");
    assert_eq!(one["state"], breakers["db"]["state"]);
    for figure in ["total_calls", "successful_calls", "failed_calls", "consecutive_failures"] {
        assert!(one["metrics"][figure].is_u64(), "{figure} in {one:#}");
    }
    assert!(one.to_string().contains("connection refused"), "why it tripped is in the status: {one:#}");
    let detailed = proxy.get(&format!("{API}/metrics")).json();
    assert!(detailed.to_string().contains("\"db\""), "{detailed:#}");
    proxy.stop();
}

#[test]
fn reset_closes_one_and_reset_all_closes_all() {
    let (_redis, proxy) = start();
    open_db(&proxy);
    proxy.post(&format!("{API}/trip/cache"));
    assert_eq!(proxy.state("cache"), "open");
    proxy.post(&format!("{API}/reset/db"));
    assert_eq!((proxy.state("cache").as_str(), proxy.state("db").as_str()), ("open", "closed"));
    open_db(&proxy);
    proxy.post(&format!("{API}/reset-all"));
    assert_eq!((proxy.state("cache").as_str(), proxy.state("db").as_str()), ("closed", "closed"));
    assert_eq!(Client::connect(proxy.addr("cache")).call(&["PING"]), Reply::simple("PONG"));
    proxy.stop();
}

#[test]
fn a_trip_by_hand_rejects_and_says_so() {
    let (_redis, proxy) = start();
    proxy.post(&format!("{API}/trip/cache"));
    let reply = Client::connect(proxy.addr("cache")).call(&["PING"]);
    assert!(reply.error().starts_with("CIRCUITOPEN backend 'cache' is open (a manual trip)"), "{reply:?}");
    assert_eq!(proxy.figure("cache", "failed_calls"), 0);
    assert_eq!(proxy.metric("circuit_breaker_state", &[("backend", "cache")]), 2.0);
    proxy.stop();
}

#[test]
fn unknown_names_and_paths_are_404_with_json() {
    let (_redis, proxy) = start();
    for (method, path) in [
        ("GET", "/api/v1/circuit-breaker/status/nobody"),
        ("POST", "/api/v1/circuit-breaker/reset/nobody"),
        ("POST", "/api/v1/circuit-breaker/trip/nobody"),
        ("GET", "/api/v1/nothing"),
    ] {
        let response = proxy.request(method, path);
        assert_eq!(response.status, 404, "{method} {path}: {response:?}");
        assert!(response.json()["error"].is_string() || response.json()["error"].is_object(), "{response:?}");
    }
    proxy.stop();
}

#[test]
fn changes_are_post_and_reads_are_get() {
    let (_redis, proxy) = start();
    for path in ["/reset/cache", "/reset-all", "/trip/cache"] {
        for method in ["GET", "PUT", "DELETE"] {
            let response = proxy.request(method, &format!("{API}{path}"));
            assert_eq!(response.status, 405, "{method} {path}: {response:?}");
        }
    }
    for path in ["/metrics", "/health", "/livez", "/readyz", &format!("{API}/status")] {
        let response = proxy.request("POST", path);
        assert_eq!(response.status, 405, "POST {path}: {response:?}");
    }
    assert_eq!(proxy.state("cache"), "closed", "none of these may have changed anything");
    proxy.stop();
}

#[test]
fn a_foreign_page_can_neither_read_nor_change() {
    let (_redis, proxy) = start();
    let path = format!("{API}/trip/cache");
    let headers: [&[(&str, &str)]; 3] =
        [&[("Host", "evil.example")], &[("Origin", "http://evil.example")], &[("Origin", "null")]];
    for headers in headers {
        let response = http::request(proxy.admin(), "POST", &path, headers, "").expect("an answer");
        assert!((400..500).contains(&response.status), "{headers:?}: {response:?}");
    }
    // DNS rebinding: a foreign name that points here.
    let response =
        http::request(proxy.admin(), "GET", &format!("{API}/status"), &[("Host", "evil.example")], "")
            .expect("an answer");
    assert!((400..500).contains(&response.status), "{response:?}");
    assert_eq!(proxy.state("cache"), "closed");
    proxy.stop();
}

#[test]
fn health_names_the_breakers_and_readiness_does_not_depend_on_them() {
    let (_redis, proxy) = start();
    open_db(&proxy);
    let health = proxy.request("GET", "/health").json();
    assert!(health["circuit_breakers"].is_object(), "{health:#}");
    assert!(health["circuit_breakers"].to_string().contains("1"), "{health:#}");
    for path in ["/livez", "/readyz"] {
        assert_eq!(proxy.get(path).status, 200);
    }
    proxy.stop();
}

#[test]
fn prometheus_agrees_with_the_status() {
    let (_redis, proxy) = start();
    open_db(&proxy);
    let mut client = Client::connect(proxy.addr("cache"));
    (0..10).for_each(|_| assert_eq!(client.call(&["PING"]), Reply::simple("PONG")));
    for _ in 0..3 {
        proto_tests::Pg::refused(proxy.addr("db"));
    }
    let exposition = proxy.get("/metrics");
    assert!(exposition.headers["content-type"].starts_with("text/plain"), "{:?}", exposition.headers);
    for family in
        ["state", "calls_total", "failures_total", "trips_total", "rejections_total", "call_duration_seconds"]
    {
        let name = format!("circuit_breaker_{family}");
        assert!(exposition.body.contains(&format!("# HELP {name} ")), "no help for {name}");
        assert!(exposition.body.contains(&format!("# TYPE {name} ")), "no type for {name}");
    }
    assert_eq!(proxy.metric("circuit_breaker_state", &[("backend", "cache"), ("protocol", "redis")]), 0.0);
    assert_eq!(proxy.metric("circuit_breaker_state", &[("backend", "db"), ("protocol", "postgres")]), 2.0);
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &[("backend", "db")]), 1.0);
    assert_eq!(proxy.metric("circuit_breaker_rejections_total", &[("backend", "db")]), 3.0);
    assert_eq!(proxy.metric("circuit_breaker_trips_total", &[("backend", "db")]), 1.0);
    let calls = proxy.metric("circuit_breaker_calls_total", &[("backend", "cache")]);
    assert!(calls >= 10.0, "{calls} calls");
    let timed = proxy.metric("circuit_breaker_call_duration_seconds_count", &[("backend", "cache")]);
    assert!(timed >= 10.0, "{timed} timed calls");
    proxy.stop();
}

#[test]
fn the_dashboard_is_one_page_that_loads_nothing_from_elsewhere() {
    let (_redis, proxy) = start();
    let page = proxy.get("/");
    assert!(page.headers["content-type"].starts_with("text/html"), "{:?}", page.headers);
    assert!(page.body.contains("fusewire"));
    for foreign in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.body.contains(foreign), "the page loads `{foreign}`");
    }
    proxy.stop();
}
