//! What was written, before anyone asks what it means: specs, variables and the file, taken apart into settings
//! that remember where they stood.
//!
//! Unknown and misplaced keys are refused here, because only here is it known what may stand where. Values stay
//! text. Absent on purpose: precedence and meaning, see [`super::resolve`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Origin, Reason};
use super::settings::{Key, SETTINGS, Scope, Setting, VARIABLE_PREFIX, nearest, same};

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

    fn may_have(self, scope: Scope) -> bool {
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

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Settings of the process.
    pub process: Layer,
    /// The `[defaults]` table.
    pub defaults: Layer,
    /// The `[[backend]]` tables.
    pub backends: Vec<Declared>,
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

fn per_backend(key: &str, speaks: Speaks) -> Result<&'static Setting, Reason> {
    let known = || SETTINGS.iter().filter(|setting| speaks.may_have(setting.scope));
    match Setting::find(key) {
        Some(setting) if speaks.may_have(setting.scope) => Ok(setting),
        Some(setting) => Err(match setting.scope {
            Scope::Redis => Reason::OtherProtocol { protocol: "redis" },
            Scope::Postgres => Reason::OtherProtocol { protocol: "postgres" },
            _ => Reason::Misplaced { place: "the command line, the environment or the top of the file" },
        }),
        None => Err(unknown(key, known().map(Setting::dashed))),
    }
}

fn unknown(key: &str, known: impl Iterator<Item = String>) -> Reason {
    let known: Vec<String> = known.collect();
    let nearest = nearest(key, known.iter().map(String::as_str)).map(str::to_owned);
    Reason::UnknownKey { nearest, known: known.join(", ") }
}

/// A key in a message: on one line, and not longer than any real one.
fn printable(key: &str) -> String {
    let quoted = Reason::quote(key);
    if quoted.len() == key.len() + 2 { key.to_owned() } else { quoted }
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

impl File {
    /// Takes a file's text apart. What is wrong goes to `problems`, the rest is returned.
    pub fn parse(path: &Path, text: &str, problems: &mut Vec<Error>) -> Self {
        let mut reader = Reader { path, text, problems };
        let mut file = Self::default();
        match DeTable::parse(text) {
            Ok(root) => reader.root(root.get_ref(), &mut file),
            Err(error) => {
                // A syntax error of the TOML crate may quote the input: keep it to one line.
                let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
                reader.refuse(error.span().unwrap_or(0..0), None, Reason::Syntax { message });
            }
        }
        file
    }
}

const ADMIN_TABLE: [&str; 1] = ["listen"];
const TABLES: [&str; 2] = ["defaults", "backend"];

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Error>,
}

impl Reader<'_> {
    fn root(&mut self, root: &DeTable<'_>, file: &mut File) {
        for (key, value) in root {
            let name = key.get_ref().as_ref();
            match (name, value.get_ref()) {
                ("defaults", DeValue::Table(table)) => {
                    let settings = |name: &str| {
                        Setting::find(name).filter(|s| s.is_global() && s.is_per_backend()).ok_or_else(|| {
                            if Setting::find(name).is_some_and(|s| s.scope == Scope::Own)
                                || same(name, "protocol")
                            {
                                return Reason::Misplaced { place: "[[backend]]" };
                            }
                            let known = SETTINGS.iter().filter(|s| s.is_global() && s.is_per_backend());
                            unknown(name, known.map(|s| s.name.to_owned()))
                        })
                    };
                    self.layer(table, &settings, &mut file.defaults);
                }
                ("defaults", other) => self.wrong(key.span(), name, "a table", other),
                ("backend", DeValue::Array(tables)) => {
                    for table in tables.iter() {
                        match table.get_ref() {
                            DeValue::Table(entries) => {
                                let declared = self.backend(table.span(), entries);
                                file.backends.extend(declared);
                            }
                            other => self.wrong(table.span(), name, "a table", other),
                        }
                    }
                }
                ("backend", other) => self.wrong(key.span(), name, "an array of tables: [[backend]]", other),
                ("admin", DeValue::Table(table)) => self.admin(table, &mut file.process),
                _ => match Setting::find(name) {
                    Some(setting) if setting.scope == Scope::Process => {
                        self.entry(setting, name, key.span(), value, &mut file.process);
                    }
                    Some(_) => {
                        let place = "[defaults] or [[backend]]";
                        self.refuse(key.span(), Some(name), Reason::Misplaced { place });
                    }
                    None => {
                        let process = SETTINGS.iter().filter(|s| s.scope == Scope::Process).map(|s| s.name);
                        let reason = unknown(name, process.chain(TABLES).map(str::to_owned));
                        self.refuse(key.span(), Some(name), reason);
                    }
                },
            }
        }
    }

    fn admin(&mut self, table: &DeTable<'_>, layer: &mut Layer) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match Setting::find("admin") {
                Some(setting) if name == "listen" => {
                    self.entry(setting, "admin.listen", key.span(), value, layer)
                }
                _ => {
                    let reason = unknown(name, ADMIN_TABLE.iter().map(|&name| name.to_owned()));
                    self.refuse(key.span(), Some(name), reason);
                }
            }
        }
    }

    fn backend(&mut self, span: Range<usize>, table: &DeTable<'_>) -> Option<Declared> {
        let origin = self.at(span.clone());
        let speaks = match table.iter().find(|(key, _)| key.get_ref() == "protocol") {
            None => {
                self.refuse(span, Some("protocol"), Reason::Missing);
                return None;
            }
            Some((key, value)) => match value.get_ref() {
                DeValue::String(text) if text == "redis" => Speaks::Redis,
                DeValue::String(text) if text == "postgres" => Speaks::Postgres,
                DeValue::String(text) => {
                    let value = Reason::quote(text);
                    let reason = Reason::NotOneOf { value, expected: r#""redis", "postgres""# };
                    self.refuse(key.span(), Some("protocol"), reason);
                    return None;
                }
                other => {
                    self.wrong(key.span(), "protocol", "a string", other);
                    return None;
                }
            },
        };
        let mut settings = Layer::new();
        let find = |name: &str| {
            per_backend(name, speaks).map_err(|reason| match reason {
                Reason::UnknownKey { .. } => {
                    let known = SETTINGS.iter().filter(|setting| speaks.may_have(setting.scope));
                    unknown(name, known.map(|s| s.name.to_owned()).chain(["protocol".to_owned()]))
                }
                other => other,
            })
        };
        self.layer(table, &find, &mut settings);
        Some(Declared { speaks, settings, origin })
    }

    /// The settings of a table and of the `breaker` table in it.
    fn layer(
        &mut self,
        table: &DeTable<'_>,
        find: &dyn Fn(&str) -> Result<&'static Setting, Reason>,
        layer: &mut Layer,
    ) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match (name, value.get_ref()) {
                // Where a backend is described, [`Self::backend`] has read it already.
                ("protocol", _) if find("name").is_ok() => {}
                ("breaker", DeValue::Table(breaker)) => {
                    let find_breaker = |name: &str| match find(name) {
                        Ok(setting) if !setting.is_breaker() => {
                            Err(Reason::Misplaced { place: "the table around [breaker]" })
                        }
                        Err(Reason::UnknownKey { .. }) => {
                            let known = SETTINGS.iter().filter(|setting| setting.is_breaker());
                            Err(unknown(name, known.map(|s| s.name.to_owned())))
                        }
                        other => other,
                    };
                    for (key, value) in breaker {
                        self.setting(key, value, &find_breaker, layer);
                    }
                }
                ("breaker", other) => self.wrong(key.span(), name, "a table", other),
                _ => self.setting(key, value, find, layer),
            }
        }
    }

    fn setting(
        &mut self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        find: &dyn Fn(&str) -> Result<&'static Setting, Reason>,
        layer: &mut Layer,
    ) {
        match find(key.get_ref()) {
            Ok(setting) => self.entry(setting, key.get_ref(), key.span(), value, layer),
            Err(reason) => self.refuse(key.span(), Some(key.get_ref()), reason),
        }
    }

    fn entry(
        &mut self,
        setting: &Setting,
        name: &str,
        span: Range<usize>,
        value: &Spanned<DeValue<'_>>,
        layer: &mut Layer,
    ) {
        let value = match value.get_ref() {
            DeValue::String(text) => Written::One(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Written::One(number.as_str().to_owned()),
            DeValue::Array(items) => {
                let texts: Option<Vec<String>> =
                    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
                match texts {
                    Some(texts) => Written::Many(texts),
                    None => {
                        let (expected, found) = ("an array of strings", "an array of something else");
                        return self.refuse(span, Some(name), Reason::WrongType { expected, found });
                    }
                }
            }
            other => return self.wrong(span, name, setting.toml_type(), other),
        };
        let entry = Entry { value, key: Some(printable(name)), origin: self.at(span.clone()) };
        if layer.insert(setting.key, entry).is_some() {
            self.refuse(span, Some(name), Reason::Twice);
        }
    }

    fn wrong(&mut self, span: Range<usize>, key: &str, expected: &'static str, found: &DeValue<'_>) {
        self.refuse(span, Some(key), Reason::WrongType { expected, found: found.type_str() });
    }

    fn refuse(&mut self, span: Range<usize>, key: Option<&str>, reason: Reason) {
        let origin = self.at(span);
        self.problems.push(Error { origin, key: key.map(|key| printable(key).into()), reason });
    }

    fn at(&self, span: Range<usize>) -> Origin {
        let before = self.text.bytes().take(span.start).filter(|&b| b == b'\n').count();
        Origin::File { path: self.path.to_owned(), line: Some(before + 1) }
    }
}
