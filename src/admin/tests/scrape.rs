//! `/metrics` after scripted calls.

use super::*;
use crate::breaker::Mode;

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

#[tokio::test]
async fn the_mode_and_what_it_would_reject_are_shown() {
    let state = state();
    let (lane, now) = (lane(&state, "cache"), Instant::now());
    lane.gate().set_mode(now, Mode::Observe);
    lane.gate().trip(now, None);
    (0..3).for_each(|_| call(&lane, now, Duration::ZERO, Verdict::Success));
    let (scrape, _) = scrape(&state).await;
    let on = "backend=\"cache\",protocol=\"redis\"";
    let mode = |mode: &str| scrape.get(&format!("circuit_breaker_mode{{{on},mode=\"{mode}\"}}"));
    assert_eq!((mode("enforce"), mode("observe"), mode("disabled")), (0.0, 1.0, 0.0));
    assert_eq!(scrape.get(&format!("circuit_breaker_would_reject_total{{{on}}}")), 3.0);
    assert_eq!(scrape.get(&format!("circuit_breaker_rejections_total{{{on},reason=\"open\"}}")), 0.0);
    assert_eq!(scrape.get(&format!("circuit_breaker_state{{{on}}}")), 2.0);
}
