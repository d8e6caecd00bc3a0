//! The TOML file, taken apart into settings that remember their lines.
//!
//! The tables are walked by hand instead of being deserialised: a key is looked up in the one table of settings,
//! it may be written with `-` or `_`, and a mistake names its line and does not hide the next one. Absent on
//! purpose: values, see [`super::resolve`], and reading from the disk.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Origin, Reason};
use super::raw::{Declared, Entry, Layer, Speaks, Written, per_backend, printable, unknown};
use super::settings::{SETTINGS, Scope, Setting};
use super::spelling::same;

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

/// Keys of `[admin]`, and the settings that they are elsewhere.
const ADMIN_TABLE: [(&str, &str); 4] = [
    ("listen", "admin"),
    ("token_file", "admin_token_file"),
    ("insecure", "admin_insecure"),
    ("hosts", "admin_hosts"),
];
const TABLES: [&str; 2] = ["defaults", "backend"];

/// The setting of a key in `[defaults]`.
fn for_all(key: &str) -> Result<&'static Setting, Reason> {
    let known = || SETTINGS.iter().filter(|setting| setting.is_global() && setting.is_per_backend());
    match Setting::find(key) {
        Some(setting) if setting.is_global() && setting.is_per_backend() => Ok(setting),
        Some(setting) if setting.scope == Scope::Process => {
            Err(Reason::Misplaced { place: "at the top of the file" })
        }
        Some(_) => Err(Reason::Misplaced { place: "in [[backend]]" }),
        None if same(key, "protocol") => Err(Reason::Misplaced { place: "in [[backend]]" }),
        None => Err(unknown(key, known().map(|setting| setting.name.to_owned()))),
    }
}

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
                    self.layer(table, &for_all, &mut file.defaults);
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
                        let place = "in [defaults] or [[backend]]";
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
            let known = ADMIN_TABLE.iter().find(|(own, _)| same(own, name));
            match known.and_then(|(_, elsewhere)| Setting::find(elsewhere)) {
                Some(setting) => {
                    self.entry(setting, &format!("admin.{name}"), key.span(), value, layer);
                }
                None => {
                    let reason = unknown(name, ADMIN_TABLE.iter().map(|(own, _)| (*own).to_owned()));
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
                            Err(Reason::Misplaced { place: "in the table around [breaker]" })
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
        key: &Spanned<Cow<'_, str>>,
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
            DeValue::Boolean(switch) if setting.kind.takes_boolean() => Written::One(switch.to_string()),
            DeValue::Float(number) if setting.kind.takes_fraction() => {
                Written::One(number.as_str().to_owned())
            }
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
            other => return self.wrong(span, name, setting.kind.toml_type(), other),
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
