//! The backends by name: what the data plane listens for and the admin API looks at.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Config};
use crate::gate::Gate;

/// One backend at run time: its settings and its gate.
#[derive(Debug)]
pub struct Backend {
    /// Its settings.
    pub config: config::Backend,
    /// Its breaker and figures.
    pub gate: Arc<Gate>,
}

/// All backends, in the order of the configuration.
#[derive(Debug)]
pub struct Backends {
    all: Vec<Arc<Backend>>,
}

impl Backends {
    /// A closed gate for each configured backend.
    pub fn new(config: &Config, now: Instant) -> Self {
        let all = config
            .backends
            .iter()
            .map(|backend| {
                let gate = Gate::new(backend.name.clone(), backend.breaker.clone(), config.workers, now);
                Arc::new(Backend { config: backend.clone(), gate })
            })
            .collect();
        Self { all }
    }

    /// The backend of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Backend>> {
        self.all.iter().find(|backend| &*backend.config.name == name)
    }

    /// All, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.all.iter()
    }
}
