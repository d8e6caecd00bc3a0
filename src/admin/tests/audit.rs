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
    post(&state, &format!("{API}/observe/db"), "").await;
    for body in [r#"{"probes": 0}"#, r#"{"probes": 2, "recovery_timeout": "10s"}"#] {
        let patch = request("PATCH", &format!("{API}/config/db"), &[], body);
        ask(&routes(&state), patch, tcp_peer()).await;
    }

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
    assert_eq!(
        seen,
        [
            ("trip", "cache"),
            ("reset", "cache"),
            ("reset", "cache"),
            ("reset", "db"),
            ("mode", "db"),
            ("patch", "db")
        ]
    );
    assert!(lines.iter().all(|fields| fields["peer"] == "127.0.0.1:40000"));
    assert_eq!(lines[0]["hold"], "30s");
    assert_eq!(lines[4]["mode"], "observe");
    assert_eq!(lines[5]["changed"], "recovery_timeout = \"10s\", probes = 2");
}
