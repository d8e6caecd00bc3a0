//! Everything that reads what strangers write, as functions of bytes: what `proto-tests/fuzz.sh` runs under a
//! coverage-guided fuzzer, and what the test below replays from the kept corpora (ADR 0021).
//!
//! Only built for tests and with the feature `fuzzing`; it is no part of the proxy. A target panics when a promise is
//! broken and returns otherwise.

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::proxy_protocol::Version;
use crate::protocol::proxy_protocol::{Ends, HEADER_MAX, read, write};
use crate::{admin, config, protocol};

/// What the fuzzer runs.
pub type Target = fn(&[u8]);

/// What can be fuzzed, by the names of the corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("redis_replies", redis_replies),
    ("redis_requests", redis_requests),
    ("redis_sessions", redis_sessions),
    ("postgres_messages", postgres_messages),
    ("postgres_requests", postgres_requests),
    ("postgres_sessions", postgres_sessions),
    ("proxy_headers", proxy_headers),
    ("config_file", config_file),
    ("config_specs", config_specs),
    ("admin_requests", admin_requests),
];

/// A Redis server's frames.
pub fn redis_replies(data: &[u8]) {
    protocol::redis::fuzz::replies(data);
}

/// A Redis client's requests.
pub fn redis_requests(data: &[u8]) {
    protocol::redis::fuzz::requests(data);
}

/// A whole Redis session.
pub fn redis_sessions(data: &[u8]) {
    protocol::redis::fuzz::sessions(Instant::now(), data);
}

/// A Postgres server's messages.
pub fn postgres_messages(data: &[u8]) {
    protocol::postgres::fuzz::messages(data);
}

/// A Postgres client's first packet, and its statements.
pub fn postgres_requests(data: &[u8]) {
    protocol::postgres::fuzz::requests(data);
}

/// A whole Postgres session.
pub fn postgres_sessions(data: &[u8]) {
    protocol::postgres::fuzz::sessions(Instant::now(), data);
}

/// A header of the PROXY protocol: more bytes do not change what has been decided, and what has been read is read again as
/// the same when it is written.
pub fn proxy_headers(data: &[u8]) {
    let whole = read(data);
    for len in 0..data.len().min(300) {
        match read(&data[..len]) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "after {len} bytes"),
        }
    }
    let Ok(Some(header)) = whole else { return };
    assert!(header.len <= data.len().min(HEADER_MAX));
    let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    let told = |ends: Option<Ends>| ends.map(|ends| (plain(ends.source), plain(ends.destination)));
    for version in [Version::V1, Version::V2] {
        let written = write(version, header.ends);
        let again = read(&written).expect("a header").expect("a whole header");
        assert_eq!((again.len, told(again.ends)), (written.len(), told(header.ends)), "{version:?}");
    }
}

/// A configuration file.
pub fn config_file(data: &[u8]) {
    config::fuzz::file(data);
}

/// Specs of backends.
pub fn config_specs(data: &[u8]) {
    config::fuzz::specs(data);
}

/// A connection to the admin port.
pub fn admin_requests(data: &[u8]) {
    admin::fuzz::requests(Instant::now(), data);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::{Path, PathBuf};

    use super::TARGETS;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("proto-tests/fuzz")
    }

    /// The corpora, and what once broke a promise: `found/` keeps it for good.
    #[test]
    fn every_kept_input_keeps_the_promises() {
        for (name, target) in TARGETS {
            let mut played = 0;
            for kept in ["corpus", "found"] {
                let files = fs::read_dir(folder().join(kept).join(name)).into_iter().flatten().flatten();
                for path in files.map(|entry| entry.path()) {
                    let data = fs::read(&path).expect("a kept input");
                    let outcome = catch_unwind(|| target(&data));
                    assert!(outcome.is_ok(), "{} breaks a promise, see above", path.display());
                    played += 1;
                }
            }
            assert!(played > 0, "{name} has no corpus");
        }
    }

    #[test]
    fn every_target_has_a_program_of_its_name() {
        let programs: BTreeSet<String> = fs::read_dir(folder().join("targets"))
            .expect("the programs")
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
            .collect();
        let targets = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(programs, targets);
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("the manifest");
        assert!(targets.iter().all(|name| manifest.contains(&format!("name = \"{name}\""))));
    }
}
