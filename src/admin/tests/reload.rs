//! Asking for another configuration.

use super::*;
use crate::admin::{Desk, Reloaded};

/// A state whose process answers every request with `result`.
fn answering(result: Result<Reloaded, Vec<String>>) -> Arc<State> {
    let (desk, mut orders) = Desk::new();
    let plain = state();
    let state = State::new(plain.backends.clone(), Access::default(), Some(desk), Vec::new());
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            assert_eq!(order.peer, "127.0.0.1:40000");
            order.answer(result.clone());
        }
    });
    state
}

#[tokio::test]
async fn what_has_changed_is_the_answer() {
    let done = Reloaded { added: vec!["cache".to_owned()], ..Reloaded::default() };
    let answer = post(&answering(Ok(done)), "/api/v1/config/reload", "").await;
    assert_eq!(answer.status, 200);
    let keys = ["added", "removed", "changed", "settings", "needs_restart", "warnings"];
    assert_keys(&answer.json(), &keys);
    assert_eq!(answer.json()["added"], json!(["cache"]));
}

#[tokio::test]
async fn what_is_wrong_is_listed() {
    let answer = post(&answering(Err(vec!["a:1: b: c".to_owned()])), "/api/v1/config/reload", "").await;
    assert_eq!(answer.status, 422);
    assert_keys(&answer.json(), &["error", "problems"]);
    assert_eq!(answer.json()["problems"], json!(["a:1: b: c"]));
}

#[tokio::test]
async fn a_process_that_is_ending_says_so() {
    let (desk, orders) = Desk::new();
    drop(orders);
    let state = State::new(state().backends.clone(), Access::default(), Some(desk), Vec::new());
    let error = post(&state, "/api/v1/config/reload", "").await.error(409);
    assert!(error.contains("cannot be read again"), "{error}");
}

#[tokio::test]
async fn a_backend_that_came_with_a_reload_is_followed_by_the_feed() {
    let state = state();
    tokio::spawn(crate::admin::events::keep(state.clone()));
    let fresh = backend("fresh", Protocol::Redis(redis()));
    let config = Config {
        backends: vec![fresh],
        admin: None,
        admin_access: config::AdminAccess::default(),
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        workers: 1,
    };
    let mut subscriber = state.feed.subscribe().unwrap();
    tokio::task::yield_now().await;
    let new = state.backends.apply(&config, Instant::now());
    assert_eq!(new.len(), 1);
    assert!(state.backends.get("cache").is_none());
    tokio::task::yield_now().await;
    trip_by_failures(&state, "fresh");
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), subscriber.next()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&event).into_owned();
        if text.starts_with("event: transition") {
            assert!(text.contains("\"name\":\"fresh\"") && text.contains("\"to\":\"open\""), "{text}");
            break;
        }
    }
}
