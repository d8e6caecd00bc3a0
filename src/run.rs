//! From a configuration to a running proxy, and back to an exit.

use crate::config::Config;

/// Why the proxy could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {}

/// Logs each backend.
///
/// # Errors
/// None.
pub fn run(config: Config) -> Result<(), RunError> {
    for backend in &config.backends {
        tracing::info!(
            backend = %backend.name,
            protocol = backend.protocol.label(),
            listen = %backend.listen,
            upstream = %backend.upstream,
            "Backend configured"
        );
    }
    Ok(())
}
