//! fusewire: a circuit-breaker proxy for Redis and Postgres.
//!
//! The map, from the outside in, and who may know whom. Arrows never turn round; a test checks it.
//!
//! | module | what it is | may use |
//! |---|---|---|
//! | [`config`] | args, environment and file → valid settings | breaker |
//! | [`breaker`] | pure state machine over verdicts | std |
//! | [`metrics`] | tallies and their way to Prometheus | breaker |
//! | [`gate`] | one backend's breaker, shared | breaker, metrics |
//! | [`backends`] | the backends by name | config, gate, breaker |
//! | [`protocol`] | pure sessions: bytes in, decisions out | gate, breaker, metrics, config |
//! | [`proxy`] | the data plane's sockets: listen, accept, dial, move bytes | protocol, backends, gate, metrics, breaker, config |
//! | [`clock`] | monotonic time → dates | std |
//! | [`admin`] | the operators' HTTP API | backends, gate, breaker, metrics, config, clock |
//! | [`classify`] | the verdict tables as text | protocol, config |
//! | [`operate`] | what operators ask a running fusewire from the command line | config |
//! | [`telemetry`] | logs | config |
//! | [`mod@run`] | from a configuration to a running proxy, and to another one | proxy, admin, backends, gate, config, telemetry |

pub mod admin;
pub mod backends;
pub mod breaker;
pub mod classify;
pub mod clock;
pub mod config;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod gate;
pub mod metrics;
pub mod operate;
pub mod protocol;
pub mod proxy;
pub mod run;
pub mod telemetry;

pub use run::{RunError, run};
