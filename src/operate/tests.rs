//! What a person reads of an answer.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{api, show};

fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-01-01T00:01:40Z").unwrap()
}

fn breaker(more: &Value) -> Value {
    let mut breaker = json!({
        "name": "cache", "protocol": "redis", "state": "closed", "mode": "enforce", "slow_start": false,
        "since": "2026-01-01T00:00:00Z", "retry_after_ms": null, "last_trip": null,
        "metrics": {
            "total_calls": 12, "successful_calls": 7, "failed_calls": 5, "success_rate": "58.3%",
            "consecutive_failures": 0, "ignored_calls": 0, "rejected_calls": 3, "would_reject_calls": 0,
            "in_flight": 0, "probes": 0, "stale_verdicts": 0, "trips": 1,
        },
    });
    for (key, value) in more.as_object().unwrap() {
        breaker[key] = value.clone();
    }
    breaker
}

fn open() -> Value {
    breaker(&json!({
        "state": "open", "retry_after_ms": 12_400,
        "last_trip": {
            "condition": "consecutive_failures", "cause": "refused", "at": "2026-01-01T00:00:00Z",
            "reason": "connection refused, 5 consecutive failures",
            "evidence": [{
                "at": "2026-01-01T00:00:00Z", "kind": "connect", "verdict": "failure", "cause": "refused",
                "duration_ms": 0.25,
            }],
        },
    }))
}

#[test]
fn the_table_has_a_line_for_each_breaker_under_its_head() {
    let mut db = breaker(&json!({"slow_start": true}));
    db["name"] = json!("a-rather-long-name");
    // As text: an answer has its breakers in the order of the configuration, a `Value` may sort them.
    let status =
        format!(r#"{{"details": {{"breakers": {{"cache": {}, "a-rather-long-name": {db}}}}}}}"#, open());
    let text = show::table(&serde_json::from_str(&status).unwrap(), now());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    let state = lines[0].find("STATE").unwrap();
    assert!(lines[1][state..].starts_with("open        1m 40s  12.4s  enforce  12 "), "{text}");
    assert!(lines[1].ends_with("connection refused, 5 consecutive failures"), "{text}");
    assert!(lines[2].starts_with("a-rather-long-name  redis "), "{text}");
    assert!(lines[2][state..].starts_with("slow start  1m 40s  -  "), "{text}");
}

#[test]
fn a_story_shows_the_evidence_and_the_transitions() {
    let mut cache = open();
    cache["latency_ms"] = json!({"p50": 0.2, "p90": 0.4, "p99": 1.5});
    cache["check"] = json!({"when": "while_open", "last": {
        "at": "2026-01-01T00:01:30Z", "result": "failed", "cause": "refused", "duration_ms": 0.5,
    }});
    cache["bulkhead"] = json!({"connections": 7, "max_connections": 20, "calls": 3, "max_calls": null});
    cache["history"] = json!([{
        "at": "2026-01-01T00:00:00Z", "generation": 1, "from": "closed", "to": "open", "why": "x",
        "reason": "5 consecutive failures", "cause": "refused", "retry_after_ms": 30_000, "mode": "enforce",
    }]);
    let text = show::story(&serde_json::from_value(cache).unwrap(), now());
    assert!(text.starts_with("cache (redis): open for 1m 40s, mode enforce; retry after 12.4s\n"), "{text}");
    for words in [
        "12 (7 successful, 5 failed, 0 ignored, 0 in flight), 58.3% success",
        "p99 1.5 ms",
        "bulkhead    7 of 20 connections\n",
        "checks      while_open, the last at 2026-01-01T00:01:30Z: failed (refused), 0.5 ms\n",
        "Last trip at 2026-01-01T00:00:00Z: connection refused, 5 consecutive failures",
        "connect  failure  refused  0.25 ms",
        "closed  open  enforce  5 consecutive failures",
    ] {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
}

#[test]
fn an_open_breaker_without_an_end_waits_for_a_reset_and_a_half_open_one_for_nothing() {
    let text = |state: &str, retry: Value| {
        let breaker = breaker(&json!({"state": state, "retry_after_ms": retry}));
        show::outcome(&serde_json::from_value(breaker).unwrap())
    };
    assert_eq!(text("open", Value::Null), "cache (redis): open, mode enforce; until it is reset\n");
    assert_eq!(text("half_open", json!(0)), "cache (redis): half_open, mode enforce; retry now\n");
    assert_eq!(text("closed", Value::Null), "cache (redis): closed, mode enforce\n");
}

#[test]
fn an_answer_cannot_command_the_terminal() {
    let status = json!({"details": {"breakers": {"x": breaker(&json!({"name": "a\u{1b}[2Jb\nc"}))}}});
    let text = show::table(&serde_json::from_value(status).unwrap(), now());
    assert!(text.contains("a?[2Jb?c") && text.lines().count() == 2, "{text}");
}

#[test]
fn a_clock_that_is_behind_shows_no_age() {
    let status = json!({"details": {"breakers": {"x": breaker(&json!({}))}}});
    let early = now() - Duration::from_secs(3600);
    assert!(show::table(&serde_json::from_value(status).unwrap(), early).contains(" 0.0s "));
}

#[test]
fn names_cannot_leave_their_place_in_the_path() {
    assert_eq!(api::encoded("cache-1_a.b"), "cache-1_a.b");
    assert_eq!(api::encoded("../x?y#z é"), "..%2Fx%3Fy%23z%20%C3%A9");
}
