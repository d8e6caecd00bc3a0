//! One value at a time: from text to a number, a duration, an address or a list, within its bounds.
//!
//! Absent on purpose: where the value stood and which of several holds; that is [`super::resolve`]'s.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::Reason;
use super::proxy_protocol::Network;
use super::raw::{self, Speaks, Written};
use super::settings::{Key, Kind, Preset, SETTINGS, Setting};
use super::{Endpoint, LogFormat, SqlState, tls, units};
use crate::breaker::{Factor, Mode, Share, Span};

/// A value that was read. Which form a setting has follows from its [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(Arc<str>),
    Count(u32),
    /// None: off.
    Limit(Option<u32>),
    /// None: off.
    Share(Option<Share>),
    Factor(Factor),
    Window(Span),
    Mode(Mode),
    /// One of the setting's words.
    Word(&'static str),
    /// None: off.
    Span(Option<Duration>),
    /// None: off.
    Address(Option<Endpoint>),
    /// None: off.
    Path(Option<PathBuf>),
    /// None: off.
    Host(Option<Arc<str>>),
    Hosts(Vec<Arc<str>>),
    Networks(Vec<Network>),
    Switch(bool),
    TlsMode(tls::Mode),
    State(SqlState),
    Codes(Vec<Arc<str>>),
    Commands(Vec<Arc<str>>),
    Format(LogFormat),
}

/// Values that were read from one place.
pub(super) type Values = BTreeMap<Key, Value>;

/// What holds when nothing is said. None: something must be said.
pub(super) fn preset(key: Key, speaks: Option<Speaks>) -> Option<Value> {
    let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
    let text = match (setting.preset, speaks) {
        (Preset::Required, _) => return None,
        (Preset::Processors, _) => {
            let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
            return Some(Value::Count(u32::try_from(processors).unwrap_or(1).min(1024)));
        }
        (Preset::Same(text), _) => text,
        (Preset::Each { postgres, .. }, Some(Speaks::Postgres)) => postgres,
        (Preset::Each { redis, .. }, _) => redis,
    };
    read(setting, &Written::One(text.to_owned()), speaks).ok()
}

/// Words that make a Redis client go elsewhere, to an address that it reads in the rest of the error.
const REDIRECTS: [&str; 3] = ["MOVED", "ASK", "REDIRECT"];

/// Reads a value; `speaks` is known where it was written for one backend.
///
/// # Errors
/// Why it is refused.
pub(super) fn read(setting: &Setting, written: &Written, speaks: Option<Speaks>) -> Result<Value, Reason> {
    let text = match (written, setting.kind) {
        (_, Kind::Codes) => return read_codes(written, speaks),
        (_, Kind::Hosts) => return read_hosts(written),
        (_, Kind::Commands) => return read_commands(written),
        (_, Kind::Networks) => return read_networks(written),
        (Written::One(text), _) => text.trim(),
        (Written::Many(_), _) => {
            return Err(Reason::WrongType { expected: setting.kind.toml_type(), found: "array" });
        }
    };
    let quoted = || Reason::quote(text);
    match setting.kind {
        Kind::Name if raw::is_name(text) => Ok(Value::Text(text.into())),
        Kind::Name => Err(Reason::NotAName { value: quoted() }),
        Kind::Admin if text == "off" => Ok(Value::Address(None)),
        Kind::Listen | Kind::Admin => Ok(Value::Address(Some(text.parse()?))),
        Kind::Upstream => match text.parse()? {
            Endpoint::Tcp { port: 0, .. } => {
                Err(Reason::Address { value: quoted(), why: "nothing answers on port 0" })
            }
            address => Ok(Value::Address(Some(address))),
        },
        Kind::Count { max } => units::count(text, max).map(Value::Count),
        Kind::Limit { .. } if text == "off" => Ok(Value::Limit(None)),
        Kind::Limit { max } => match units::count(text, max) {
            Ok(n) => Ok(Value::Limit(Some(n))),
            Err(reason) => Err(ranged(setting, reason)),
        },
        Kind::Share { zero: false } if text == "off" => Ok(Value::Share(None)),
        Kind::Share { zero } => match units::share(text)? {
            Some(share) if zero || share != Share::NONE => Ok(Value::Share(Some(share))),
            _ => Err(Reason::OutOfRange { value: quoted(), range: setting.kind.range() }),
        },
        Kind::Factor { max } => match units::factor(text, max)? {
            Some(factor) => Ok(Value::Factor(factor)),
            None => Err(Reason::OutOfRange { value: quoted(), range: setting.kind.range() }),
        },
        Kind::Window { calls, min, max } => match units::window(text, calls, min, max) {
            Ok(span) => Ok(Value::Window(span)),
            Err(reason) => Err(ranged(setting, reason)),
        },
        Kind::Mode => match Mode::ALL.into_iter().find(|mode| mode.label() == text) {
            Some(mode) => Ok(Value::Mode(mode)),
            None => Err(Reason::NotOneOf { value: quoted(), expected: "enforce, observe, disabled" }),
        },
        Kind::Choice(words) => match words.split('|').find(|&word| word == text) {
            Some(word) => Ok(Value::Word(word)),
            None => Err(Reason::NotOneOf { value: quoted(), expected: words }),
        },
        Kind::User if (1..=63).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
            Ok(Value::Text(text.into()))
        }
        Kind::User => Err(Reason::NotAUser { value: quoted() }),
        Kind::Span { off: true, .. } if text == "off" => Ok(Value::Span(None)),
        Kind::Span { min, max, .. } => match units::duration(text, min, max) {
            Ok(span) => Ok(Value::Span(Some(span))),
            Err(reason) => Err(ranged(setting, reason)),
        },
        Kind::Path if matches!(text, "" | "off") => Ok(Value::Path(None)),
        Kind::Path => Ok(Value::Path(Some(text.into()))),
        Kind::Host if matches!(text, "" | "off") => Ok(Value::Host(None)),
        Kind::Host => Ok(Value::Host(Some(text.into()))),
        Kind::Switch => match text {
            "true" => Ok(Value::Switch(true)),
            "false" => Ok(Value::Switch(false)),
            _ => Err(Reason::NotOneOf { value: quoted(), expected: "true, false" }),
        },
        Kind::TlsMode => tls::Mode::parse(text)
            .map(Value::TlsMode)
            .ok_or_else(|| Reason::NotOneOf { value: quoted(), expected: tls::Mode::WORDS }),
        Kind::RedisCode if REDIRECTS.contains(&text) => Err(Reason::RedirectCode { value: quoted() }),
        Kind::RedisCode if (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase()) => {
            Ok(Value::Text(text.into()))
        }
        Kind::RedisCode => Err(Reason::NotARedisCode { value: quoted() }),
        Kind::SqlState => match SqlState::parse(text) {
            Some(_) if ["00", "01", "02"].iter().any(|class| text.starts_with(class)) => {
                Err(Reason::NotAnErrorState { value: quoted() })
            }
            Some(state) => Ok(Value::State(state)),
            None => Err(Reason::NotAnSqlState { value: quoted() }),
        },
        Kind::Codes => read_codes(written, speaks),
        Kind::Hosts => read_hosts(written),
        Kind::Commands => read_commands(written),
        Kind::Networks => read_networks(written),
        Kind::Format => match text {
            "text" => Ok(Value::Format(LogFormat::Text)),
            "json" => Ok(Value::Format(LogFormat::Json)),
            _ => Err(Reason::NotOneOf { value: quoted(), expected: "text, json" }),
        },
        Kind::Level if is_level(text) => Ok(Value::Text(text.into())),
        Kind::Level => Err(Reason::NotALevel { value: quoted() }),
    }
}

/// A value out of range is told the setting's whole range: that it may be `off` too, or so many calls.
fn ranged(setting: &Setting, reason: Reason) -> Reason {
    match reason {
        Reason::OutOfRange { value, .. } => Reason::OutOfRange { value, range: setting.kind.range() },
        reason => reason,
    }
}

fn read_hosts(written: &Written) -> Result<Value, Reason> {
    let hosts: Vec<&str> = match written {
        Written::One(text) => text.split(['+', '|']).map(str::trim).filter(|host| !host.is_empty()).collect(),
        Written::Many(texts) => texts.iter().map(|text| text.trim()).collect(),
    };
    let is_host = |host: &&str| {
        (1..=253).contains(&host.len())
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match hosts.iter().find(|host| !is_host(host)) {
        Some(host) => Err(Reason::NotAHost { value: Reason::quote(host) }),
        None => Ok(Value::Hosts(hosts.into_iter().map(Arc::from).collect())),
    }
}

fn read_networks(written: &Written) -> Result<Value, Reason> {
    let texts: Vec<&str> = match written {
        Written::One(text) => text.split(['+', '|']).map(str::trim).filter(|text| !text.is_empty()).collect(),
        Written::Many(texts) => texts.iter().map(|text| text.trim()).collect(),
    };
    let network =
        |text: &str| Network::parse(text).ok_or_else(|| Reason::NotANetwork { value: Reason::quote(text) });
    texts.into_iter().map(network).collect::<Result<_, _>>().map(Value::Networks)
}

fn read_codes(written: &Written, speaks: Option<Speaks>) -> Result<Value, Reason> {
    let codes = match written {
        Written::One(text) => units::codes(text),
        Written::Many(texts) => texts.iter().map(|text| text.trim().to_owned()).collect(),
    };
    let (fits, protocol): (fn(&str) -> bool, _) = match speaks {
        Some(Speaks::Redis) => (units::is_redis_code, "Redis"),
        Some(Speaks::Postgres) => (units::is_sqlstate_prefix, "Postgres"),
        // Given for all backends: each takes what can be a code of its protocol.
        None => (units::is_redis_code, "Redis or Postgres"),
    };
    match codes.iter().find(|code| !fits(code)) {
        Some(code) => Err(Reason::NotACode { value: Reason::quote(code), protocol }),
        None => Ok(Value::Codes(codes.into_iter().map(Arc::from).collect())),
    }
}

/// `off` is none, as in the file an empty array is.
fn read_commands(written: &Written) -> Result<Value, Reason> {
    let names: Vec<&str> = match written {
        Written::One(text) if text.trim() == "off" => Vec::new(),
        Written::One(text) => text.split('+').map(str::trim).filter(|name| !name.is_empty()).collect(),
        Written::Many(texts) => texts.iter().map(|text| text.trim()).collect(),
    };
    let read = |name: &&str| {
        units::redis_command(name).ok_or_else(|| Reason::NotACommand { value: Reason::quote(name) })
    };
    let commands: Result<Vec<_>, _> = names.iter().map(read).collect();
    Ok(Value::Commands(commands?.into_iter().map(Arc::from).collect()))
}

/// A bare word must be a level: the filter crate takes `inof` for a module of that name and then logs nothing.
fn is_level(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let words = text.split(',').map(str::trim);
    let mut bare = words.filter(|word| !word.contains(['=', '[']));
    bare.all(|word| LEVELS.contains(&word)) && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}
