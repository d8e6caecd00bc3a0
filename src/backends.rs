//! The backends by name: what the data plane listens for and the admin API looks at.
//!
//! A backend is the same one as long as its name and its protocol are: a reload gives it other settings, and its
//! breaker and its figures go on.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::breaker::Policy;
use crate::config::{self, Config};
use crate::gate::Gate;

/// One backend at run time: its settings and its gate.
#[derive(Debug)]
pub struct Backend {
    config: ArcSwap<config::Backend>,
    /// Settings that are not as the configuration has them.
    patched: Mutex<BTreeSet<&'static str>>,
    /// Its breaker and figures.
    pub gate: Arc<Gate>,
}

impl Backend {
    /// A backend with a gate that exists.
    pub fn new(config: config::Backend, gate: Arc<Gate>) -> Self {
        Self { config: ArcSwap::from_pointee(config), patched: Mutex::default(), gate }
    }

    /// Its name, which never changes.
    pub fn name(&self) -> &Arc<str> {
        self.gate.name()
    }

    /// Its present settings.
    pub fn config(&self) -> Arc<config::Backend> {
        self.config.load_full()
    }

    /// `redis` or `postgres`, which never changes.
    pub fn protocol(&self) -> &'static str {
        self.config.load().protocol.label()
    }

    /// Whether a configured backend is this one.
    pub fn is(&self, config: &config::Backend) -> bool {
        *self.name() == config.name && self.protocol() == config.protocol.label()
    }

    /// Takes other settings of the same backend. The breaker's reach every connection at once.
    pub fn adopt(&self, config: Arc<config::Backend>, now: Instant) {
        if self.config.load().breaker != config.breaker {
            self.gate.set_policy(now, config.breaker.clone());
        }
        self.patched.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.config.store(config);
    }

    /// Goes over to another policy, which differs from the present one in `keys`, until it adopts a configuration.
    pub fn patch(&self, policy: Policy, keys: &[&'static str], now: Instant) {
        self.gate.set_policy(now, policy.clone());
        self.config.store(Arc::new(config::Backend { breaker: policy, ..(*self.config()).clone() }));
        self.patched.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    /// The TOML keys of what [`Backend::patch`] has changed, by the alphabet.
    pub fn patched(&self) -> Vec<&'static str> {
        self.patched.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// All backends, in the order of the configuration.
#[derive(Debug)]
pub struct Backends {
    all: watch::Sender<Arc<[Arc<Backend>]>>,
    workers: usize,
}

impl Backends {
    /// A closed gate for each configured backend.
    pub fn new(config: &Config, now: Instant) -> Self {
        let backends = Self { all: watch::Sender::new(Arc::new([])), workers: config.workers };
        backends.apply(config, now);
        backends
    }

    /// Goes over to another configuration: backends that are in it keep their breakers and figures, others are begun
    /// or forgotten. Returns those that are new.
    pub fn apply(&self, config: &Config, now: Instant) -> Vec<Arc<Backend>> {
        let before = self.all();
        let mut new = Vec::new();
        let all = config.backends.iter().map(|config| {
            if let Some(backend) = before.iter().find(|backend| backend.is(config)) {
                backend.adopt(Arc::new(config.clone()), now);
                return backend.clone();
            }
            let (name, policy) = (config.name.clone(), config.breaker.clone());
            let gate = Gate::with_seed(name, policy, self.workers, seed(), now);
            let backend = Arc::new(Backend::new(config.clone(), gate));
            new.push(backend.clone());
            backend
        });
        let all = all.collect();
        self.all.send_replace(all);
        new
    }

    /// The backend of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Backend>> {
        self.all.borrow().iter().find(|backend| &**backend.name() == name).cloned()
    }

    /// All at this moment, in the order of the configuration.
    pub fn all(&self) -> Arc<[Arc<Backend>]> {
        self.all.borrow().clone()
    }

    /// The present ones, followed by those of each other configuration.
    pub fn watch(&self) -> watch::Receiver<Arc<[Arc<Backend>]>> {
        self.all.subscribe()
    }
}

/// A number that no other process has: the keys of a hash map are the randomness that the standard library has.
fn seed() -> u64 {
    RandomState::new().hash_one("jitter")
}
