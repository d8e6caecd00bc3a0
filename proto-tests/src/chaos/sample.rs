//! What fusewire takes of its machine, at one moment.

use crate::Fusewire;

/// Figures of one scrape, so that they belong together.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Resident memory, in bytes.
    pub rss: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Tasks that are alive.
    pub tasks: u64,
    /// Connections of clients.
    pub clients: u64,
    /// Connections to servers.
    pub servers: u64,
    /// Calls that have not ended.
    pub in_flight: u64,
    /// Processor time used so far, in seconds.
    pub cpu: f64,
}

impl Sample {
    /// Asks fusewire.
    pub fn take(proxy: &Fusewire) -> Self {
        let scrape = proxy.metrics();
        let sum = |name: &str| -> f64 {
            scrape.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
        };
        Self {
            rss: sum("process_resident_memory_bytes") as u64,
            descriptors: sum("process_open_fds") as u64,
            tasks: sum("fusewire_tasks") as u64,
            clients: sum("fusewire_connections_active") as u64,
            servers: sum("fusewire_upstream_connections_active") as u64,
            in_flight: sum("circuit_breaker_calls_in_flight") as u64,
            cpu: sum("process_cpu_seconds_total"),
        }
    }
}
