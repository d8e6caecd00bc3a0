//! The settings in force, and changing a breaker's until the next reload.

use super::*;

async fn patch(state: &Arc<State>, name: &str, body: &'static str) -> Answer {
    let request = request("PATCH", &format!("{API}/config/{name}"), &[("host", "localhost:9900")], body);
    ask(&routes(state), request, tcp_peer()).await
}

#[tokio::test]
async fn what_holds_is_told_in_the_words_of_the_file() {
    let state = state();
    let one = get(&state, &format!("{API}/config/cache")).await;
    assert_eq!(one.status, 200);
    assert_keys(&one.json(), &["name", "protocol", "settings", "patched"]);
    let settings = &one.json()["settings"];
    assert_eq!(settings["failure_threshold"], 5);
    assert_eq!(settings["recovery_timeout"], "30s");
    assert_eq!(settings["failure_rate"], "off");
    assert_eq!(settings["reject_code"], "CIRCUITOPEN");
    assert_eq!(settings["reject_query_code"], Value::Null);
    post(&state, &format!("{API}/observe/cache"), "").await;
    let all = get(&state, &format!("{API}/config")).await.json();
    assert_keys(&all, &["backends"]);
    assert_keys(&all["backends"], &["cache", "db"]);
    assert_eq!(all["backends"]["cache"]["settings"]["mode"], "observe", "what holds, not what was written");
    assert_eq!(all["backends"]["db"]["settings"]["reject_query_code"], "57000");
}

#[tokio::test]
async fn a_change_holds_at_once_and_a_reload_takes_it_back() {
    let state = state();
    post(&state, &format!("{API}/observe/cache"), "").await;
    let answer = patch(&state, "cache", r#"{"failure_threshold": 2, "recovery_timeout": "1h"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_keys(&answer.json(), &["name", "protocol", "settings", "patched", "warnings"]);
    assert_eq!(answer.json()["patched"], json!(["failure_threshold", "recovery_timeout"]));
    assert_eq!(answer.json()["settings"]["failure_threshold"], 2);
    let mode = &get(&state, &format!("{API}/status/cache")).await.json()["mode"];
    assert_eq!(mode, "observe", "a mode that was set by hand stays");
    let lane = lane(&state, "cache");
    (0..2).for_each(|_| call(&lane, Instant::now(), Duration::from_micros(1), refused()));
    assert_eq!(get(&state, &format!("{API}/status/cache")).await.json()["state"], "open");

    // Two changes add up.
    patch(&state, "cache", r#"{"probes": 3}"#).await;
    let settings = get(&state, &format!("{API}/config/cache")).await.json();
    assert_eq!(settings["patched"], json!(["failure_threshold", "probes", "recovery_timeout"]));
    assert_eq!(settings["settings"]["failure_threshold"], 2);

    let backend = state.backends.get("cache").unwrap();
    backend.adopt(Arc::new(super::backend("cache", Protocol::Redis(redis()))), Instant::now());
    let settings = get(&state, &format!("{API}/config/cache")).await.json();
    assert_eq!(settings["patched"], json!([]));
    assert_eq!(settings["settings"]["failure_threshold"], 5);
    assert_eq!(get(&state, &format!("{API}/status/cache")).await.json()["state"], "open", "the state stays");
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_is_explained() {
    let state = state();
    let before = get(&state, &format!("{API}/config/cache")).await.text;
    let answer = patch(&state, "cache", r#"{"probes": 2, "failure_treshold": 3, "min_calls": 0}"#).await;
    assert_eq!(answer.status, 422);
    assert_keys(&answer.json(), &["error", "problems"]);
    let problems = answer.json()["problems"].to_string();
    assert!(problems.contains("did you mean failure_threshold?"), "{problems}");
    assert!(problems.contains("min_calls") && !problems.contains("probes"), "{problems}");
    for body in ["", "{}", "[]", "7", "{\"probes\": 2", "null", "\"probes\""] {
        let error = patch(&state, "cache", body).await.error(400);
        assert!(error.contains("failure_threshold"), "{error}");
    }
    patch(&state, "nope", r#"{"probes": 2}"#).await.error(404);
    patch(&state, "", r#"{"probes": 2}"#).await.error(404);
    post(&state, &format!("{API}/config/cache"), r#"{"probes": 2}"#).await.error(405);
    let from_a_page = [("host", "localhost:9900"), ("origin", "http://evil.example")];
    let path = format!("{API}/config/cache");
    let foreign = request("PATCH", &path, &from_a_page, r#"{"probes": 2}"#);
    ask(&routes(&state), foreign, tcp_peer()).await.error(403);
    assert_eq!(get(&state, &format!("{API}/config/cache")).await.text, before);
}
