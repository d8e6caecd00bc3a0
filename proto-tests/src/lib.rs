//! What the tests of the real binary are made of: private servers that can be killed and frozen, fake servers
//! that follow a script, raw clients, and the proxy itself as a process.
//!
//! | module | what it is |
//! |---|---|
//! | [`until`] | the one way to wait: poll for an event, give up with the last thing seen |
//! | [`tools`] | finding programs and ports; a missing program is a panic, never a skipped test |
//! | [`process`] | a child process that is never left behind |
//! | [`redis_server`], [`postgres_server`], [`pgbouncer`] | private real servers |
//! | [`disk`] | a file system that can be filled |
//! | [`fusewire`] | the proxy under test, with its admin API, metrics and log |
//! | [`fake`] | servers that follow a script |
//! | [`tls`] | certificates, and a client that speaks TLS |
//! | [`wire`], [`pgwire`] | clients that say exactly the bytes they are told |
//! | [`http`] | just enough HTTP for the admin API |
//! | [`prometheus`] | a real Prometheus that scrapes the proxy |
//! | [`browser`] | a headless Chromium for the dashboard |
//! | [`documents`] | README.md and docs/ as data |
//! | [`chaos`] | servers that fail in every way they know, and checkers that work through it |
//! | [`mutants`] | deliberate bugs and the tests that must catch them |
//! | [`tree`] | copies of the working tree, to put bugs into |
//! | [`payload`] | long reproducible byte streams and their checksums |
//!
//! Absent on purpose: the proxy's own code. Everything here goes through sockets, signals and files.

pub mod browser;
pub mod chaos;
pub mod disk;
pub mod documents;
pub mod fake;
pub mod fusewire;
pub mod http;
pub mod mutants;
pub mod payload;
pub mod pgbouncer;
pub mod pgwire;
pub mod postgres_server;
pub mod process;
pub mod prometheus;
pub mod redis_server;
pub mod tls;
pub mod tools;
pub mod tree;
pub mod until;
pub mod wire;

pub use browser::Browser;
pub use fake::{Fake, Step};
pub use fusewire::{Fusewire, Setup};
pub use pgbouncer::Pgbouncer;
pub use pgwire::Pg;
pub use postgres_server::{Options, Postgres, Release};
pub use prometheus::Prometheus;
pub use redis_server::Redis;
pub use tls::Authority;
pub use until::{eventually, within};
pub use wire::Client;
