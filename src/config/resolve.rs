//! From what was written to what holds: spec > flag > environment > file > default.
//!
//! Two steps. Every value that was written is read, also the ones that a nearer one hides: a typo in a hidden
//! value is a trap for whoever removes the nearer one. Then the nearest value of each setting is taken, and
//! what only shows in combination (two backends on one address) is refused. Nothing after this place refuses a
//! setting. Absent on purpose: the file system and the process environment.

mod policy;
mod stack;

use std::sync::Arc;

use super::error::{Error, Origin, Reason};
use super::file::File;
use super::proxy_protocol::Version;
use super::raw::{Declared, Entry, Layer, Speaks};
use super::settings::{Key, SETTINGS};
use super::value::{Value, Values, read};
use super::{
    AdminAccess, Backend, Config, Endpoint, Loaded, Log, Postgres, Protocol, ProxyProtocol, Redis, Timeouts,
    Tls, tls,
};
pub(super) use policy::change_policy;
use stack::{LISTS, Stack};

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
