//! The event stream: its form, its bounds, and what a reader who does not read may cost.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures_util::StreamExt;

use super::super::events::{Feed, SUBSCRIBERS_MAX, TRANSITIONS_MAX, event, keep};
use super::*;

const EVENTS: &str = "/api/v1/events";

/// A hang becomes a failure after so long; nothing here depends on it otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reader of the stream, event by event.
struct Reader {
    stream: BodyDataStream,
    rest: String,
}

impl Reader {
    async fn open(state: &Arc<State>) -> Self {
        let mut request = request("GET", EVENTS, &[("host", "localhost:9900")], "");
        request.extensions_mut().insert(tcp_peer());
        let response = routes(state).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        Self { stream: response.into_body().into_data_stream(), rest: String::new() }
    }

    /// The next block, without the blank line that ends it; none at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.rest = rest;
                return Some(block);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("no event came");
            self.rest.push_str(std::str::from_utf8(&chunk?.unwrap()).unwrap());
        }
    }

    /// The data of the next event of this name.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            let block = self.block().await.expect("the stream has ended");
            if let Some(data) = block.strip_prefix(&format!("event: {name}\ndata: ")) {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

#[test]
fn an_event_is_a_name_and_one_line_of_json() {
    let bytes = event("snapshot", &json!({"text": "two\nlines"}));
    assert_eq!(bytes, "event: snapshot\ndata: {\"text\":\"two\\nlines\"}\n\n");
}

#[tokio::test]
async fn a_stream_begins_with_a_snapshot_of_the_apis_own_documents() {
    let state = state();
    trip_by_failures(&state, "cache");
    let mut reader = Reader::open(&state).await;
    assert_eq!(reader.block().await.unwrap(), "retry: 2000");
    let snapshot = reader.event("snapshot").await;
    assert_keys(&snapshot, &["at", "status", "metrics", "samples"]);
    let status = get(&state, &format!("{API}/status")).await.json();
    assert_eq!(snapshot["status"]["summary"], status["summary"]);
    let trip = |status: &Value| status["details"]["breakers"]["cache"]["last_trip"].clone();
    assert_eq!(trip(&snapshot["status"]), trip(&status));
    assert_eq!(snapshot["metrics"]["breakers"]["cache"]["failures_by_cause"]["refused"], 5);
}

#[tokio::test]
async fn a_transition_is_told_at_once_and_says_why() {
    let state = state();
    let keeper = tokio::spawn(keep(state.clone()));
    let mut reader = Reader::open(&state).await;
    // The keeper must have seen it closed before it can see it open.
    reader.event("snapshot").await;
    reader.event("snapshot").await;
    trip_by_failures(&state, "cache");
    let transition = reader.event("transition").await;
    assert_keys(&transition, &["at", "name", "from", "to", "breaker"]);
    assert_eq!((&transition["name"], &transition["from"]), (&json!("cache"), &json!("closed")));
    assert_eq!((&transition["to"], &transition["breaker"]["state"]), (&json!("open"), &json!("open")));
    assert_eq!(transition["breaker"]["last_trip"]["reason"], "connection refused, 5 consecutive failures");
    state.backends.get("cache").unwrap().gate.reset(Instant::now());
    assert_eq!(reader.event("transition").await["to"], "closed");
    keeper.abort();
}

#[tokio::test]
async fn the_seats_are_counted_and_given_back() {
    let state = state();
    let mut readers = Vec::new();
    for _ in 0..SUBSCRIBERS_MAX {
        readers.push(Reader::open(&state).await);
    }
    let refusal = get(&state, EVENTS).await.error(503);
    assert!(refusal.contains("close a dashboard"), "{refusal}");
    drop(readers.pop());
    Reader::open(&state).await;
}

#[tokio::test]
async fn streams_end_with_the_server() {
    let state = state();
    let mut reader = Reader::open(&state).await;
    reader.event("snapshot").await;
    state.feed.close();
    assert_eq!(reader.block().await, None);
}

/// Events whose living copies are counted.
struct Counted(Arc<AtomicUsize>, Vec<u8>);

impl Counted {
    fn bytes(alive: &Arc<AtomicUsize>, size: usize) -> Bytes {
        alive.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Self(alive.clone(), vec![b':'; size]))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_reader_who_never_reads_holds_one_snapshot_and_the_last_transitions() {
    let feed = Feed::new();
    let mut slow = feed.subscribe().unwrap();
    let mut other = feed.subscribe().unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    for _ in 0..1_000 {
        feed.publish_snapshot(Counted::bytes(&alive, 10));
        feed.publish_transition(Counted::bytes(&alive, 10));
        other.next().await.unwrap();
    }
    assert!(
        alive.load(Ordering::Relaxed) <= TRANSITIONS_MAX + 2,
        "{} events are held",
        alive.load(Ordering::Relaxed)
    );
    // It comes back to the newest, not to a thousand of the old.
    feed.publish_snapshot(Bytes::from_static(b"newest"));
    let mut skipped = 0;
    while slow.next().await.unwrap() != "newest" {
        skipped += 1;
    }
    assert!(skipped <= TRANSITIONS_MAX, "{skipped} old events were waiting");
}

#[tokio::test]
async fn a_socket_that_is_never_read_costs_no_memory() {
    let server = super::port::Running::on_any_port().await;
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    stuck.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    // More than the kernel's buffers can take, each time with a chance for the server to send it.
    let alive = Arc::new(AtomicUsize::new(0));
    for _ in 0..400 {
        server.state.feed.publish_snapshot(Counted::bytes(&alive, 100_000));
        tokio::task::yield_now().await;
    }
    assert!(alive.load(Ordering::Relaxed) <= 4, "{} snapshots are held", alive.load(Ordering::Relaxed));
    let mut other = server.connect().await;
    other.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    other.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    server.stop().await;
}

#[tokio::test]
async fn with_a_token_the_events_need_it() {
    let access = Access { hosts: Vec::new(), token: Token::new("s3cret") };
    let state = state_with(access);
    get(&state, EVENTS).await.error(401);
    let wrong = request("GET", EVENTS, &[("authorization", "Bearer other")], "");
    ask(&routes(&state), wrong, tcp_peer()).await.error(401);
    let mut right = request("GET", EVENTS, &[("authorization", "Bearer s3cret")], "");
    right.extensions_mut().insert(tcp_peer());
    assert_eq!(routes(&state).oneshot(right).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_history_names_each_backend_with_its_samples_in_columns() {
    let state = state();
    let keeper = tokio::spawn(keep(state.clone()));
    let mut reader = Reader::open(&state).await;
    reader.event("snapshot").await;
    reader.event("snapshot").await;
    trip_by_failures(&state, "db");
    reader.event("transition").await;
    let history = get(&state, "/api/v1/history").await.json();
    keeper.abort();
    assert_keys(&history, &["at", "version", "backends"]);
    let db = &history["backends"][1];
    assert_keys(db, &["name", "protocol", "listen", "upstream", "failure_threshold", "states", "samples"]);
    assert_eq!((&db["name"], &db["upstream"]), (&json!("db"), &json!("127.0.0.1:9900")));
    let states: Vec<_> = db["states"].as_array().unwrap().iter().map(|entered| &entered[1]).collect();
    assert_eq!(states, ["closed", "open"]);
    assert_keys(&db["samples"], &["at", "calls", "failures", "rejections", "in_flight", "p50_ms", "p99_ms"]);
}
