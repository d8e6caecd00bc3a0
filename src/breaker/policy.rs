//! The numbers that a breaker decides by.

use std::time::Duration;

/// When a breaker trips, how long it stays open, and what closes it.
///
/// Valid by construction in [`crate::config`]: every count is at least 1, every duration above zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row that trip a closed breaker.
    pub failure_threshold: u32,
    /// How long a tripped breaker stays open before it lets a probe through.
    pub recovery_timeout: Duration,
    /// Successful probes that close a half-open breaker.
    pub success_threshold: u32,
    /// Probes let through at a time while half-open.
    pub probes: u32,
    /// How long a probe may hold its slot without reporting.
    pub probe_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            recovery_timeout: Duration::from_secs(30),
            success_threshold: 1,
            probes: 1,
            probe_timeout: Duration::from_secs(10),
        }
    }
}
