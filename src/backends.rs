//! The backends by name: what the data plane listens for and the admin API looks at.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
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
                let (name, policy) = (backend.name.clone(), backend.breaker.clone());
                let gate = Gate::with_seed(name, policy, config.workers, seed(), now);
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

/// A number that no other process has: the keys of a hash map are the randomness that the standard library has.
fn seed() -> u64 {
    RandomState::new().hash_one("jitter")
}
