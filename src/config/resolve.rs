//! From what was written to what holds: spec > flag > environment > file > default.
//!
//! Two steps. Every value that was written is read, also the ones that a nearer one hides: a typo in a hidden
//! value is a trap for whoever removes the nearer one. Then the nearest value of each setting is taken, and
//! what only shows in combination (two backends on one address) is refused. Nothing after this place refuses a
//! setting. Absent on purpose: the file system and the process environment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Error, Origin, Reason};
use super::file::File;
use super::proxy_protocol::{Network, Version};
use super::raw::{Declared, Entry, Layer, Speaks};
use super::settings::{Key, SETTINGS, Setting};
use super::value::{Value, Values, preset, read};
use super::{
    AdminAccess, Backend, Config, Endpoint, Loaded, Log, LogFormat, Overrides, Postgres, Protocol,
    ProxyProtocol, Redis, SqlState, Timeouts, Tls, effective, tls, units,
};
use crate::breaker::{Bulkhead, Checks, Factor, Mode, Policy, Rates, Remedy, Share, Span, When};

/// All that was written, by nearness.
#[derive(Debug, Default)]
pub struct Sources {
    /// Specs of the command line.
    pub specs: Vec<Declared>,
    /// Specs of the environment.
    pub env_specs: Vec<Declared>,
    /// Flags.
    pub flags: Layer,
    /// Variables.
    pub env: Layer,
    /// The file.
    pub file: File,
}

/// Settles every setting.
///
/// # Errors
/// All that is wrong, `problems` first, in the order in which it was met; at least one.
pub fn resolve(sources: &Sources, problems: Vec<Error>) -> Result<Loaded, Vec<Error>> {
    let mut resolver = Resolver { problems, warnings: Vec::new() };
    let loaded = resolver.run(sources);
    match loaded {
        Some(loaded) if resolver.problems.is_empty() => Ok(Loaded { warnings: resolver.warnings, ..loaded }),
        _ => Err(resolver.problems),
    }
}

/// The policy of a backend whose settings are `present`, with some of them changed. Also what is suspicious about it.
///
/// # Errors
/// All that is wrong, `problems` first; at least one.
pub(super) fn change_policy(
    backend: &Backend,
    present: &Values,
    changes: &Layer,
    problems: Vec<Error>,
) -> Result<(Policy, Vec<String>), Vec<Error>> {
    let mut resolver = Resolver { problems, warnings: Vec::new() };
    let speaks = Some(effective::speaks(backend));
    let changes = resolver.read(changes, speaks);
    let stack = Stack { layers: vec![&changes], present: Some(present), speaks };
    match resolver.policy(&backend.name, &Origin::Request, &stack) {
        Some(policy) if resolver.problems.is_empty() => {
            let longest = policy.recovery_timeout_max;
            if !stack.is_written(Key::RecoveryTimeoutMax) && longest != backend.breaker.recovery_timeout_max {
                let (name, longest) = (&backend.name, Setting::words(longest));
                resolver
                    .warnings
                    .push(format!("backend '{name}': recovery_timeout_max follows, to {longest}"));
            }
            Ok((policy, resolver.warnings))
        }
        _ => Err(resolver.problems),
    }
}

/// A backend that one or more sources declare, with its own settings by nearness.
struct Merged {
    speaks: Speaks,
    name: Arc<str>,
    origin: Origin,
    specs: Vec<Values>,
    file: Values,
    listen_origin: (Origin, Option<String>),
    /// Also if its value was refused: then that is the problem, not that it is missing.
    upstream_written: bool,
}

struct Resolver {
    problems: Vec<Error>,
    warnings: Vec<String>,
}

impl Resolver {
    fn run(&mut self, sources: &Sources) -> Option<Loaded> {
        let flags = self.read(&sources.flags, None);
        let env = self.read(&sources.env, None);
        let process = self.read(&sources.file.process, None);
        let defaults = self.read(&sources.file.defaults, None);

        let merged = self.merge(sources);
        let mut backends = Vec::new();
        for one in &merged {
            let own = one.specs.iter().chain([&flags, &env, &one.file, &defaults]).collect();
            let stack = Stack { layers: own, present: None, speaks: Some(one.speaks) };
            if !one.upstream_written {
                self.refuse(&one.origin, Some("upstream"), Reason::Missing);
            } else if let Some(backend) = self.backend(one, &stack) {
                backends.push(backend);
            }
        }
        let stack = Stack { layers: vec![&flags, &env, &process], present: None, speaks: None };
        let admin = stack.address(Key::Admin)?;
        let token_file = stack.path(Key::AdminTokenFile)?;
        if let Some(admin) = &admin
            && !admin.is_local()
            && token_file.is_none()
            && !stack.switch(Key::AdminInsecure)?
        {
            let reason = Reason::Exposed { address: admin.to_string() };
            self.refuse(&Origin::Nowhere, Some(Key::Admin.name()), reason);
        }
        // An address that was refused has left its default behind, which must not be blamed on anyone.
        if !self.problems.iter().any(|problem| matches!(problem.reason, Reason::Address { .. })) {
            self.addresses(&merged, &backends, admin.as_ref());
        }
        if merged.is_empty() && self.problems.is_empty() {
            self.refuse(&Origin::Nowhere, None, Reason::NoBackend);
        }
        let config = Config {
            backends,
            admin,
            admin_access: AdminAccess { token_file, hosts: stack.hosts(Key::AdminHosts)? },
            drain_delay: stack.span(Key::DrainDelay)??,
            drain_timeout: stack.span(Key::DrainTimeout)??,
            workers: usize::try_from(stack.count(Key::Workers)?).ok()?,
        };
        let log =
            Log { format: stack.format(Key::LogFormat)?, level: stack.text(Key::LogLevel)?.to_string() };
        Some(Loaded { config, log, warnings: Vec::new() })
    }

    /// Reads all values of a layer; `speaks` is known where the layer is one backend's own.
    fn read(&mut self, layer: &Layer, speaks: Option<Speaks>) -> Values {
        let mut values = Values::new();
        for setting in SETTINGS {
            let Some(entry) = layer.get(&setting.key) else { continue };
            match read(setting, &entry.value, speaks) {
                Ok(value) => drop(values.insert(setting.key, value)),
                Err(reason) => self.refuse(&entry.origin, entry.key.as_deref(), reason),
            }
        }
        self.contradictions(layer, &values);
        values
    }

    /// A code that one place puts into two lists.
    fn contradictions(&mut self, layer: &Layer, values: &Values) {
        for (i, &key) in LISTS.iter().enumerate() {
            for &earlier in LISTS.iter().take(i) {
                let (Some(Value::Codes(codes)), Some(Value::Codes(others))) =
                    (values.get(&key), values.get(&earlier))
                else {
                    continue;
                };
                if let (Some(code), Some(entry)) =
                    (codes.iter().find(|code| others.contains(code)), layer.get(&key))
                {
                    let reason = Reason::TwoVerdicts { code: Reason::quote(code), other: earlier.name() };
                    self.refuse(&entry.origin, entry.key.as_deref(), reason);
                }
            }
        }
    }

    /// One backend for each name. A spec and a `[[backend]]` table of the same name and protocol are the same
    /// backend; two of one source are a mistake.
    fn merge(&mut self, sources: &Sources) -> Vec<Merged> {
        let mut all: Vec<Merged> = Vec::new();
        for (source, is_file) in
            [(&sources.specs, false), (&sources.env_specs, false), (&sources.file.backends, true)]
        {
            let before = all.len();
            let mut touched = Vec::new();
            for declared in source {
                let values = self.read(&declared.settings, Some(declared.speaks));
                let name: Arc<str> = match (declared.settings.get(&Key::Name), values.get(&Key::Name)) {
                    (None, _) => declared.speaks.name().into(),
                    (_, Some(Value::Text(name))) => name.clone(),
                    _ => continue, // Its name was refused.
                };
                let known = all.iter().position(|one| one.name == name);
                match known {
                    Some(i) if i < before && !touched.contains(&i) => {
                        let Some(one) = all.get_mut(i).filter(|one| one.speaks == declared.speaks) else {
                            self.same_name(declared, &name);
                            continue;
                        };
                        touched.push(i);
                        one.stack(declared, values, is_file);
                    }
                    Some(_) => self.same_name(declared, &name),
                    None => {
                        let mut one = Merged::new(declared, name);
                        one.stack(declared, values, is_file);
                        all.push(one);
                    }
                }
            }
        }
        all
    }

    fn same_name(&mut self, declared: &Declared, name: &str) {
        self.refuse(&declared.origin, Some("name"), Reason::SameName { name: Reason::quote(name) });
    }

    fn backend(&mut self, one: &Merged, stack: &Stack<'_>) -> Option<Backend> {
        let verdicts = stack.overrides()?;
        let protocol = match one.speaks {
            Speaks::Redis => Protocol::Redis(Redis {
                reject_code: stack.text(Key::RejectCode)?,
                cures: stack.commands(Key::Cures)?,
                unbounded_commands: stack.commands(Key::UnboundedCommands)?,
                verdicts,
                ignore_script_errors: stack.switch(Key::IgnoreScriptErrors)?,
            }),
            Speaks::Postgres => Protocol::Postgres(Postgres {
                reject_connect_code: stack.state(Key::RejectConnectCode)?,
                reject_query_code: stack.state(Key::RejectQueryCode)?,
                check_user: stack.text(Key::CheckUser)?,
                answer_empty_queries: stack.switch(Key::AnswerEmptyQueries)?,
                verdicts,
            }),
        };
        let tls = self.tls(one, stack)?;
        Some(Backend {
            tls,
            name: one.name.clone(),
            protocol,
            listen: stack.address(Key::Listen)??,
            upstream: stack.address(Key::Upstream)??,
            proxy_protocol: ProxyProtocol {
                from: stack.networks(Key::ProxyProtocolFrom)?,
                to: stack.word(Key::ProxyProtocolTo, &Version::ALL, Version::word)?,
            },
            breaker: self.policy(&one.name, &one.origin, stack)?,
            timeouts: Timeouts {
                connect: stack.span(Key::ConnectTimeout)??,
                response: stack.span(Key::ResponseTimeout)?,
                handshake: stack.span(Key::HandshakeTimeout)??,
                tcp_user: stack.span(Key::TcpUserTimeout)??,
                keepalive: stack.span(Key::Keepalive)??,
            },
        })
    }

    /// TLS, if its settings go together.
    fn tls(&mut self, one: &Merged, stack: &Stack<'_>) -> Option<Tls> {
        let parts = tls::Parts {
            speaks: one.speaks,
            listen: stack.address(Key::Listen)??,
            upstream: stack.address(Key::Upstream)??,
            cert: stack.path(Key::TlsCert)?,
            key: stack.path(Key::TlsKey)?,
            client_ca: stack.path(Key::TlsClientCa)?,
            // A default for all Postgres backends says nothing about Redis ones.
            required: one.speaks == Speaks::Postgres && stack.switch(Key::TlsRequired)?,
            mode: stack.tls_mode(Key::UpstreamTls)?,
            ca: stack.path(Key::UpstreamCa)?,
            server_name: stack.host(Key::UpstreamServerName)?,
            upstream_cert: stack.path(Key::UpstreamCert)?,
            upstream_key: stack.path(Key::UpstreamKey)?,
        };
        // A value that was refused has left its default behind, which must not be blamed on anyone.
        if self.problems.iter().any(|problem| !matches!(problem.reason, Reason::Tls { .. })) {
            return None;
        }
        parts
            .settle()
            .map_err(|(key, why)| self.refuse(&one.origin, Some(key.name()), Reason::Tls { why }))
            .ok()
    }

    /// The breaker's policy, and what in it is not as its author may think.
    fn policy(&mut self, name: &str, origin: &Origin, stack: &Stack<'_>) -> Option<Policy> {
        let recovery_timeout = stack.span(Key::RecoveryTimeout)??;
        let mut recovery_timeout_max = stack.span(Key::RecoveryTimeoutMax)??;
        if recovery_timeout_max < recovery_timeout {
            if stack.is_written(Key::RecoveryTimeoutMax) {
                let words = |span| humantime::format_duration(span).to_string();
                let (value, least) = (words(recovery_timeout_max), words(recovery_timeout));
                let reason = Reason::BelowRecoveryTimeout { value, least };
                self.refuse(origin, Some(Key::RecoveryTimeoutMax.name()), reason);
            }
            recovery_timeout_max = recovery_timeout;
        }
        let policy = Policy {
            mode: stack.mode(Key::Mode)?,
            failure_threshold: stack.limit(Key::FailureThreshold)?,
            rates: Rates {
                window: stack.window(Key::Window)?,
                min_calls: stack.count(Key::MinCalls)?,
                failure_rate: stack.share(Key::FailureRate)?,
                slow_call_rate: stack.share(Key::SlowCallRate)?,
                slow_call_duration: stack.span(Key::SlowCallDuration)??,
            },
            recovery_timeout,
            recovery_backoff: stack.factor(Key::RecoveryBackoff)?,
            recovery_timeout_max,
            recovery_jitter: stack.share(Key::RecoveryJitter)??,
            success_threshold: stack.count(Key::SuccessThreshold)?,
            probes: stack.count(Key::Probes)?,
            probe_timeout: stack.span(Key::ProbeTimeout)??,
            slow_start: stack.span(Key::SlowStart)?,
            checks: Checks {
                when: stack.word(Key::Check, &When::ALL, When::label)?,
                interval: stack.span(Key::CheckInterval)??,
                may: stack.word(Key::CheckMay, &Remedy::ALL, Remedy::label)?,
            },
            bulkhead: Bulkhead {
                connections: stack.limit(Key::MaxConnections)?,
                calls: stack.limit(Key::MaxCalls)?,
                wait: stack.span(Key::BulkheadWait)??,
            },
        };
        let idle = |key: Key, rate: &str| {
            stack
                .is_written(key)
                .then(|| format!("backend '{name}': {} has no effect without {rate}", key.name()))
        };
        if !policy.rates.are_on() {
            let rates = "failure_rate or slow_call_rate";
            self.warnings.extend([Key::Window, Key::MinCalls].into_iter().filter_map(|key| idle(key, rates)));
            if policy.failure_threshold.is_none() && policy.mode != Mode::Disabled {
                self.warnings.push(format!("backend '{name}': every trip condition is off"));
            }
        }
        if policy.rates.slow_call_rate.is_none() {
            self.warnings.extend(idle(Key::SlowCallDuration, "slow_call_rate"));
        }
        if policy.checks.when == When::Off {
            let keys = [Key::CheckInterval, Key::CheckMay, Key::CheckUser];
            self.warnings.extend(keys.into_iter().filter_map(|key| idle(key, "check")));
        }
        if policy.bulkhead.connections.is_none() && policy.bulkhead.calls.is_none() {
            self.warnings.extend(idle(Key::BulkheadWait, "max_connections or max_calls"));
        }
        if policy.checks.when == When::Always && policy.failure_threshold.is_none() {
            let why = "without failure_threshold no check trips";
            self.warnings
                .push(format!("backend '{name}': check = always has the effect of while_open: {why}"));
        }
        Some(policy)
    }

    /// No two may listen on one address, and none may dial itself.
    fn addresses(&mut self, merged: &[Merged], backends: &[Backend], admin: Option<&Endpoint>) {
        let origin = |backend: &Backend| {
            let one = merged.iter().find(|one| one.name == backend.name);
            one.map_or((Origin::Nowhere, None), |one| one.listen_origin.clone())
        };
        for (i, backend) in backends.iter().enumerate() {
            let address = backend.listen.to_string();
            let (place, key) = origin(backend);
            let key = key.as_deref().or(Some("listen"));
            if backend.listen.overlaps(&backend.upstream) {
                self.refuse(&place, key, Reason::Loop { address: backend.upstream.to_string() });
            }
            if let Some(other) = backends.iter().take(i).find(|other| other.listen.overlaps(&backend.listen))
            {
                let other = format!("backend '{}'", other.name);
                self.refuse(&place, key, Reason::SameListen { address, other });
            } else if admin.is_some_and(|admin| admin.overlaps(&backend.listen)) {
                self.refuse(&place, key, Reason::SameListen { address, other: "the admin API".to_owned() });
            }
        }
    }

    fn refuse(&mut self, origin: &Origin, key: Option<&str>, reason: Reason) {
        let error = Error { origin: origin.clone(), key: key.map(Box::from), reason };
        if !self.problems.contains(&error) {
            self.problems.push(error);
        }
    }
}

impl Merged {
    fn new(declared: &Declared, name: Arc<str>) -> Self {
        Self {
            speaks: declared.speaks,
            name,
            origin: declared.origin.clone(),
            specs: Vec::new(),
            file: Values::new(),
            listen_origin: (declared.origin.clone(), None),
            upstream_written: false,
        }
    }

    /// Puts the settings of a source below those of nearer ones.
    fn stack(&mut self, declared: &Declared, values: Values, is_file: bool) {
        let entry: Option<&Entry> = declared.settings.get(&Key::Listen);
        if let (Some(entry), None) = (entry, &self.listen_origin.1) {
            self.listen_origin = (entry.origin.clone(), entry.key.clone());
        }
        self.upstream_written |= declared.settings.contains_key(&Key::Upstream);
        if is_file { self.file = values } else { self.specs.push(values) }
    }
}

const LISTS: [Key; 3] = [Key::FailureErrors, Key::SuccessErrors, Key::IgnoredErrors];

/// Layers of values, nearest first, over what holds already or else the presets.
struct Stack<'a> {
    layers: Vec<&'a Values>,
    present: Option<&'a Values>,
    speaks: Option<Speaks>,
}

impl Stack<'_> {
    /// The nearest value. None: it is required and was not given.
    fn get(&self, key: Key) -> Option<Value> {
        let layers = self.layers.iter().chain(self.present.iter());
        layers.into_iter().find_map(|layer| layer.get(&key)).cloned().or_else(|| preset(key, self.speaks))
    }

    fn count(&self, key: Key) -> Option<u32> {
        if let Value::Count(n) = self.get(key)? { Some(n) } else { None }
    }

    /// Whether anyone said it, so that it is not the default.
    fn is_written(&self, key: Key) -> bool {
        self.layers.iter().any(|layer| layer.contains_key(&key))
    }

    fn limit(&self, key: Key) -> Option<Option<u32>> {
        if let Value::Limit(limit) = self.get(key)? { Some(limit) } else { None }
    }

    fn share(&self, key: Key) -> Option<Option<Share>> {
        if let Value::Share(share) = self.get(key)? { Some(share) } else { None }
    }

    fn factor(&self, key: Key) -> Option<Factor> {
        if let Value::Factor(factor) = self.get(key)? { Some(factor) } else { None }
    }

    fn window(&self, key: Key) -> Option<Span> {
        if let Value::Window(span) = self.get(key)? { Some(span) } else { None }
    }

    fn mode(&self, key: Key) -> Option<Mode> {
        if let Value::Mode(mode) = self.get(key)? { Some(mode) } else { None }
    }

    /// The thing of `all` that the nearest word names.
    fn word<T: Copy>(&self, key: Key, all: &[T], label: impl Fn(T) -> &'static str) -> Option<T> {
        let Value::Word(word) = self.get(key)? else { return None };
        all.iter().copied().find(|&thing| label(thing) == word)
    }

    fn span(&self, key: Key) -> Option<Option<Duration>> {
        if let Value::Span(span) = self.get(key)? { Some(span) } else { None }
    }

    fn address(&self, key: Key) -> Option<Option<Endpoint>> {
        if let Value::Address(address) = self.get(key)? { Some(address) } else { None }
    }

    fn text(&self, key: Key) -> Option<Arc<str>> {
        if let Value::Text(text) = self.get(key)? { Some(text) } else { None }
    }

    fn path(&self, key: Key) -> Option<Option<PathBuf>> {
        if let Value::Path(path) = self.get(key)? { Some(path) } else { None }
    }

    fn host(&self, key: Key) -> Option<Option<Arc<str>>> {
        if let Value::Host(host) = self.get(key)? { Some(host) } else { None }
    }

    fn hosts(&self, key: Key) -> Option<Vec<Arc<str>>> {
        if let Value::Hosts(hosts) = self.get(key)? { Some(hosts) } else { None }
    }

    fn commands(&self, key: Key) -> Option<Vec<Arc<str>>> {
        if let Value::Commands(names) = self.get(key)? { Some(names) } else { None }
    }

    fn networks(&self, key: Key) -> Option<Vec<Network>> {
        if let Value::Networks(networks) = self.get(key)? { Some(networks) } else { None }
    }

    fn switch(&self, key: Key) -> Option<bool> {
        if let Value::Switch(on) = self.get(key)? { Some(on) } else { None }
    }

    fn tls_mode(&self, key: Key) -> Option<tls::Mode> {
        if let Value::TlsMode(mode) = self.get(key)? { Some(mode) } else { None }
    }

    fn state(&self, key: Key) -> Option<SqlState> {
        if let Value::State(state) = self.get(key)? { Some(state) } else { None }
    }

    fn format(&self, key: Key) -> Option<LogFormat> {
        if let Value::Format(format) = self.get(key)? { Some(format) } else { None }
    }

    /// The nearest list of each verdict. If two lists name the same code, the nearer one keeps it: a flag may
    /// ignore READONLY everywhere while one spec counts it as a failure.
    fn overrides(&self) -> Option<Overrides> {
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
