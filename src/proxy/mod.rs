//! The data plane: the only code that holds clients' and backends' sockets.
//!
//! The [`plane`] knows which [`listener`] serves which [`service`]; a listener accepts, a [`worker`] owns the connection's task, [`driver`] moves its bytes as the protocol's
//! session says, [`upstream`] dials, [`tls`] encrypts, `check` tests. Nothing in here knows what the bytes mean.

mod check;
pub mod driver;
pub mod listener;
#[cfg(test)]
mod memory;
pub mod plane;
pub mod service;
pub mod shutdown;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod upstream;
pub mod worker;
