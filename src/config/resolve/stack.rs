//! Layers of values, and the nearest value of each setting among them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::breaker::{Factor, Mode, Share, Span};
use crate::config::proxy_protocol::Network;
use crate::config::raw::Speaks;
use crate::config::settings::Key;
use crate::config::value::{Value, Values, preset};
use crate::config::{Endpoint, LogFormat, Overrides, SqlState, tls, units};

/// The lists of error codes, of which a code can be in one only.
pub(super) const LISTS: [Key; 3] = [Key::FailureErrors, Key::SuccessErrors, Key::IgnoredErrors];

/// Layers of values, nearest first, over what holds already or else the presets.
pub(super) struct Stack<'a> {
    pub(super) layers: Vec<&'a Values>,
    pub(super) present: Option<&'a Values>,
    pub(super) speaks: Option<Speaks>,
}

impl Stack<'_> {
    /// The nearest value. None: it is required and was not given.
    fn get(&self, key: Key) -> Option<Value> {
        let layers = self.layers.iter().chain(self.present.iter());
        layers.into_iter().find_map(|layer| layer.get(&key)).cloned().or_else(|| preset(key, self.speaks))
    }

    pub(super) fn count(&self, key: Key) -> Option<u32> {
        if let Value::Count(n) = self.get(key)? { Some(n) } else { None }
    }

    /// Whether anyone said it, so that it is not the default.
    pub(super) fn is_written(&self, key: Key) -> bool {
        self.layers.iter().any(|layer| layer.contains_key(&key))
    }

    pub(super) fn limit(&self, key: Key) -> Option<Option<u32>> {
        if let Value::Limit(limit) = self.get(key)? { Some(limit) } else { None }
    }

    pub(super) fn share(&self, key: Key) -> Option<Option<Share>> {
        if let Value::Share(share) = self.get(key)? { Some(share) } else { None }
    }

    pub(super) fn factor(&self, key: Key) -> Option<Factor> {
        if let Value::Factor(factor) = self.get(key)? { Some(factor) } else { None }
    }

    pub(super) fn window(&self, key: Key) -> Option<Span> {
        if let Value::Window(span) = self.get(key)? { Some(span) } else { None }
    }

    pub(super) fn mode(&self, key: Key) -> Option<Mode> {
        if let Value::Mode(mode) = self.get(key)? { Some(mode) } else { None }
    }

    /// The thing of `all` that the nearest word names.
    pub(super) fn word<T: Copy>(&self, key: Key, all: &[T], label: impl Fn(T) -> &'static str) -> Option<T> {
        let Value::Word(word) = self.get(key)? else { return None };
        all.iter().copied().find(|&thing| label(thing) == word)
    }

    pub(super) fn span(&self, key: Key) -> Option<Option<Duration>> {
        if let Value::Span(span) = self.get(key)? { Some(span) } else { None }
    }

    pub(super) fn address(&self, key: Key) -> Option<Option<Endpoint>> {
        if let Value::Address(address) = self.get(key)? { Some(address) } else { None }
    }

    pub(super) fn text(&self, key: Key) -> Option<Arc<str>> {
        if let Value::Text(text) = self.get(key)? { Some(text) } else { None }
    }

    pub(super) fn path(&self, key: Key) -> Option<Option<PathBuf>> {
        if let Value::Path(path) = self.get(key)? { Some(path) } else { None }
    }

    pub(super) fn host(&self, key: Key) -> Option<Option<Arc<str>>> {
        if let Value::Host(host) = self.get(key)? { Some(host) } else { None }
    }

    pub(super) fn hosts(&self, key: Key) -> Option<Vec<Arc<str>>> {
        if let Value::Hosts(hosts) = self.get(key)? { Some(hosts) } else { None }
    }

    pub(super) fn commands(&self, key: Key) -> Option<Vec<Arc<str>>> {
        if let Value::Commands(names) = self.get(key)? { Some(names) } else { None }
    }

    pub(super) fn networks(&self, key: Key) -> Option<Vec<Network>> {
        if let Value::Networks(networks) = self.get(key)? { Some(networks) } else { None }
    }

    pub(super) fn switch(&self, key: Key) -> Option<bool> {
        if let Value::Switch(on) = self.get(key)? { Some(on) } else { None }
    }

    pub(super) fn tls_mode(&self, key: Key) -> Option<tls::Mode> {
        if let Value::TlsMode(mode) = self.get(key)? { Some(mode) } else { None }
    }

    pub(super) fn state(&self, key: Key) -> Option<SqlState> {
        if let Value::State(state) = self.get(key)? { Some(state) } else { None }
    }

    pub(super) fn format(&self, key: Key) -> Option<LogFormat> {
        if let Value::Format(format) = self.get(key)? { Some(format) } else { None }
    }

    /// The nearest list of each verdict. If two lists name the same code, the nearer one keeps it: a flag may
    /// ignore READONLY everywhere while one spec counts it as a failure.
    pub(super) fn overrides(&self) -> Option<Overrides> {
        let rank =
            |key: Key| self.layers.iter().position(|layer| layer.contains_key(&key)).unwrap_or(usize::MAX);
        let codes = |key: Key| if let Value::Codes(codes) = self.get(key)? { Some(codes) } else { None };
        let keep = |key: Key| -> Option<Vec<Arc<str>>> {
            let nearer: Vec<Arc<str>> = LISTS
                .iter()
                .filter(|&&other| rank(other) < rank(key))
                .flat_map(|&other| codes(other).unwrap_or_default())
                .collect();
            let fits = |code: &Arc<str>| match self.speaks {
                Some(Speaks::Postgres) => units::is_sqlstate_prefix(code),
                _ => true,
            };
            Some(codes(key)?.into_iter().filter(|code| fits(code) && !nearer.contains(code)).collect())
        };
        Some(Overrides {
            failure: keep(Key::FailureErrors)?,
            success: keep(Key::SuccessErrors)?,
            ignored: keep(Key::IgnoredErrors)?,
        })
    }
}
