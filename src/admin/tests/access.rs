//! Hosts, origins and tokens.

use super::*;

async fn status_of(router: &Router, method: &str, path: &str, headers: &[(&str, &str)], peer: Peer) -> u16 {
    ask(router, request(method, path, headers, ""), peer).await.status.as_u16()
}

#[tokio::test]
async fn only_own_hosts_are_answered() {
    let state = state();
    let router = routes(&state);
    let own = ["localhost:9900", "LOCALHOST", "127.0.0.1:9900", "127.8.8.8", "[::1]:9900", "localhost:1"];
    let foreign =
        ["evil.example:9900", "localhost.evil.example", "10.1.2.3:9900", "127.0.0.1.evil.example", "[::2]"];
    for path in ["/metrics", "/health", "/livez", "/nope", "/api/v1/circuit-breaker/status"] {
        for host in own {
            assert_ne!(status_of(&router, "GET", path, &[("host", host)], tcp_peer()).await, 403, "{host}");
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
    let router = router(state.clone(), guard(Access::default(), bound));
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
    let router = router(state.clone(), guard(access, bound));
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
    for origin in ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:9900", "file://"]
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
    let router = router(state.clone(), guard(access.clone(), loopback()));
    let answer = ask(&router, request("GET", "/metrics", &[], ""), tcp_peer()).await;
    answer.error(401);
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    for wrong in ["Bearer s3creT", "Bearer s3cret1", "Bearer s3cre", "Bearer ", "s3cret", "Basic s3cret"] {
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

/// The rules of a port.
fn guard(access: Access, bound: Endpoint) -> Guard {
    Guard::new(Arc::new(arc_swap::ArcSwap::from_pointee(access)), bound)
}

#[tokio::test]
async fn a_token_that_is_changed_holds_from_the_next_request_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let config = config::AdminAccess { token_file: Some(path.clone()), hosts: Vec::new() };
    let state = state_with(Access::read(&config).unwrap());
    let bear = async |token: &str| {
        let value = format!("Bearer {token}");
        let headers = [("authorization", value.as_str()), ("host", "localhost")];
        ask(&routes(&state), request("GET", "/health", &headers, ""), tcp_peer()).await.status
    };
    assert_eq!((bear("first").await.as_u16(), bear("second").await.as_u16()), (200, 401));
    std::fs::write(&path, "second").unwrap();
    state.set_access(Access::read(&config).unwrap());
    assert_eq!((bear("first").await.as_u16(), bear("second").await.as_u16()), (401, 200));
    for useless in ["", " \n"] {
        std::fs::write(&path, useless).unwrap();
        let error = Access::read(&config).unwrap_err().to_string();
        assert!(error.starts_with("admin_token_file: ") && error.ends_with("it holds no token"), "{error}");
    }
}
