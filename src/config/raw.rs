//! What was written, before anyone asks what it means: specs and variables, taken apart into settings that
//! remember where they stood. [`super::file`] does the same for the file.
//!
//! Unknown and misplaced keys are refused here, because only here is it known what may stand where. Values stay
//! text. Absent on purpose: precedence and meaning, see [`super::resolve`].

use std::collections::BTreeMap;

use super::error::{Error, Origin, Reason};
use super::settings::{Key, SETTINGS, Scope, Setting, VARIABLE_PREFIX};
use super::spelling::nearest;

/// The environment, or the part of it that begins with `FUSEWIRE_`.
pub type Env = BTreeMap<String, String>;

/// Settings from one place, each at most once.
pub type Layer = BTreeMap<Key, Entry>;

/// A setting as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: Written,
    /// Its key as it was written; none where the origin names it.
    pub key: Option<String>,
    /// Where it stood.
    pub origin: Origin,
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Text, or a TOML integer.
    One(String),
    /// A TOML array of strings.
    Many(Vec<String>),
}

/// Which protocol a backend was declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Redis.
    Redis,
    /// Postgres.
    Postgres,
}

impl Speaks {
    /// `redis` or `postgres`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// Whether a backend of this protocol has settings of this scope.
    pub(super) fn may_have(self, scope: Scope) -> bool {
        match scope {
            Scope::Own | Scope::Backend => true,
            Scope::Redis => self == Self::Redis,
            Scope::Postgres => self == Self::Postgres,
            Scope::Process => false,
        }
    }
}

/// One spec or one `[[backend]]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its protocol.
    pub speaks: Speaks,
    /// Its settings.
    pub settings: Layer,
    /// Where it begins.
    pub origin: Origin,
}

/// Takes a spec apart: `name=cache,listen=127.0.0.1:6380,upstream=10.0.0.5:6379`. `nth` counts from 1.
pub fn spec(
    holder: &'static str,
    nth: usize,
    speaks: Speaks,
    text: &str,
    problems: &mut Vec<Error>,
) -> Declared {
    let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let name = parts().filter_map(|part| part.split_once('=')).find(|(key, _)| key.trim() == "name");
    let which = match name {
        Some((_, name)) if is_name(name.trim()) => format!("name={}", name.trim()),
        _ => format!("#{nth}"),
    };
    let origin = Origin::Spec { holder, which };
    let mut declared = Declared { speaks, settings: Layer::new(), origin: origin.clone() };
    for part in parts() {
        let Some((key, value)) = part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            let reason = Reason::NotAPair { part: Reason::quote(part) };
            problems.push(Error { origin: origin.clone(), key: None, reason });
            continue;
        };
        let found = match per_backend(key, speaks) {
            Err(reason) => Err(reason),
            Ok(_) if value.is_empty() => Err(Reason::Empty),
            Ok(setting) => Ok(setting),
        };
        let entry = |setting: &Setting| Entry {
            value: Written::One(value.to_owned()),
            key: Some(setting.dashed()),
            origin: origin.clone(),
        };
        let refused = match found {
            Ok(setting) => declared.settings.insert(setting.key, entry(setting)).map(|_| Reason::Twice),
            Err(reason) => Some(reason),
        };
        if let Some(reason) = refused {
            problems.push(Error { origin: origin.clone(), key: Some(printable(key).into()), reason });
        }
    }
    declared
}

/// The setting of a key in what describes one backend.
pub(super) fn per_backend(key: &str, speaks: Speaks) -> Result<&'static Setting, Reason> {
    let known = || SETTINGS.iter().filter(|setting| speaks.may_have(setting.scope));
    match Setting::find(key) {
        Some(setting) if speaks.may_have(setting.scope) => Ok(setting),
        Some(setting) => Err(match setting.scope {
            Scope::Redis => Reason::OtherProtocol { protocol: "redis" },
            Scope::Postgres => Reason::OtherProtocol { protocol: "postgres" },
            _ => Reason::Misplaced {
                place: "on the command line, in the environment or at the top of the file",
            },
        }),
        None => Err(unknown(key, known().map(Setting::dashed))),
    }
}

/// Why a key is refused that is none of the known ones.
pub(super) fn unknown(key: &str, known: impl Iterator<Item = String>) -> Reason {
    let known: Vec<String> = known.collect();
    let nearest = nearest(key, known.iter().map(String::as_str)).map(str::to_owned);
    Reason::UnknownKey { nearest, known: known.join(", ") }
}

/// A key in a message: on one line, and not longer than any real one.
pub(super) fn printable(key: &str) -> String {
    let quoted = Reason::quote(key);
    if quoted == format!("\"{key}\"") { key.to_owned() } else { quoted }
}

/// Whether this may name a backend.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// The variables that are settings, and what to warn of. Empty variables count as unset: that is what a compose
/// file makes of one that is not given.
pub fn environment(env: &Env, problems: &mut Vec<Error>) -> (Layer, Vec<String>) {
    let mut layer = Layer::new();
    let mut warnings = Vec::new();
    let known: Vec<(String, &Setting)> =
        SETTINGS.iter().filter(|setting| setting.is_global()).map(|s| (s.variable(), s)).collect();
    for (name, value) in
        env.iter().filter(|(name, value)| name.starts_with(VARIABLE_PREFIX) && !value.is_empty())
    {
        let origin = Origin::Variable(printable(name));
        if let Some((_, setting)) = known.iter().find(|(variable, _)| variable == name) {
            layer.insert(setting.key, Entry { value: Written::One(value.clone()), key: None, origin });
        } else if !OTHER_VARIABLES.contains(&name.as_str()) && !is_service_link(name) {
            let suffix = |name: &str| name.trim_start_matches(VARIABLE_PREFIX).to_owned();
            let suffixes: Vec<String> = known
                .iter()
                .map(|(v, _)| suffix(v))
                .chain(OTHER_VARIABLES.iter().map(|v| suffix(v)))
                .collect();
            match nearest(&suffix(name), suffixes.iter().map(String::as_str)) {
                Some(near) => {
                    let nearest = format!("{VARIABLE_PREFIX}{near}");
                    problems.push(Error { origin, key: None, reason: Reason::UnknownVariable { nearest } });
                }
                None => warnings.push(format!("{origin} is not a setting and has no effect")),
            }
        }
    }
    (layer, warnings)
}

/// Holds Redis specs, separated by `;` or white space.
pub const REDIS_VARIABLE: &str = "FUSEWIRE_REDIS";
/// Holds Postgres specs, separated by `;` or white space.
pub const POSTGRES_VARIABLE: &str = "FUSEWIRE_POSTGRES";
/// Holds the path of the file.
pub const CONFIG_VARIABLE: &str = "FUSEWIRE_CONFIG";

const OTHER_VARIABLES: [&str; 3] = [REDIS_VARIABLE, POSTGRES_VARIABLE, CONFIG_VARIABLE];

/// Kubernetes puts the addresses of every service into the environment of every pod. A service that is called
/// `fusewire` yields `FUSEWIRE_PORT=tcp://10.0.0.1:6380`, and that must not keep its own pods from starting.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The specs in a variable.
pub fn specs(holder: &'static str, speaks: Speaks, env: &Env, problems: &mut Vec<Error>) -> Vec<Declared> {
    let text = env.get(holder).map_or("", String::as_str);
    let specs = text.split(|c: char| c == ';' || c.is_whitespace()).filter(|spec| !spec.is_empty());
    specs.enumerate().map(|(i, text)| spec(holder, i + 1, speaks, text, problems)).collect()
}
