//! What the fuzzer does to the admin port: any bytes on a connection.
//!
//! Whatever comes, the connection ends in time, what is answered is HTTP, and nothing has changed that no POST or PATCH has asked
//! for.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::guard::{Guard, Peer};
use super::routes::router;
use super::server::{HEAD_TIMEOUT, connection};
use super::{Access, State};
use crate::backends::Backends;
use crate::config::{self, Endpoint, Env, args::Inputs};

/// What a client on this machine may say on one connection.
pub(crate) fn requests(now: Instant, data: &[u8]) {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    });
    RUNTIME.block_on(talk(now, data));
}

async fn talk(now: Instant, data: &[u8]) {
    let inputs = Inputs {
        redis: vec!["name=cache,upstream=h:1".to_owned()],
        postgres: vec!["name=db,upstream=h:2".to_owned()],
        ..Inputs::default()
    };
    let config = config::load(&inputs, &Env::new()).expect("a valid configuration");
    let backends = Arc::new(Backends::new(&config, now));
    let state = State::new(backends, Access::default(), None, Vec::new());
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: 9900 };
    let router = router(state.clone(), Guard::new(state.access.clone(), endpoint));
    let before = books(&state, now);

    let (mut client, server) = duplex(64 * 1024);
    let remote = std::net::SocketAddr::from(([127, 0, 0, 1], 40_000));
    let peer = Peer::Tcp { remote, local: std::net::SocketAddr::from(([127, 0, 0, 1], 9900)) };
    let served = tokio::spawn(connection(server, peer, router, CancellationToken::new()));
    let mut answer = Vec::new();
    let whole = async {
        // A server that has heard enough hangs up, and need not hear the rest.
        let _ = client.write_all(data).await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut answer).await;
    };
    // A follower of the events is told them for as long as it likes.
    let follows = data.windows(6).any(|six| six == b"events");
    let ended = timeout(3 * HEAD_TIMEOUT + Duration::from_secs(60), whole).await;
    assert!(ended.is_ok() || follows, "the connection never ends");
    drop(client);
    served.abort();
    assert!(!served.await.is_err_and(|error| error.is_panic()), "a panic, printed above");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    let asks = |word: &[u8]| data.windows(word.len()).any(|found| found == word);
    if !asks(b"POST") && !asks(b"PATCH") {
        assert_eq!(books(&state, now), before, "changed without being asked to");
    }
}

/// What only a change could change.
fn books(state: &State, now: Instant) -> Vec<String> {
    let backends = ["cache", "db"].map(|name| state.backends.get(name).expect("a backend"));
    let book = |gate: &crate::gate::Gate| {
        let snapshot = gate.snapshot(now);
        format!("{:?} {:?} {} {}", snapshot.state, snapshot.mode, snapshot.generation, snapshot.trips)
    };
    backends.iter().map(|backend| book(&backend.gate)).collect()
}
