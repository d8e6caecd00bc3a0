//! The forms that a setting's value can have, and how they are described to whoever writes one.
//!
//! Absent on purpose: how a value is read, which is in [`crate::config::value`].

use std::time::Duration;

use crate::config::tls;
use crate::config::units::words;

/// The form of a setting's value, with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1 to 64 of `[A-Za-z0-9_.-]`.
    Name,
    /// An address to listen on.
    Listen,
    /// An address to dial.
    Upstream,
    /// A whole number from 1.
    Count {
        /// The largest.
        max: u32,
    },
    /// A whole number from 1, or `off`.
    Limit {
        /// The largest.
        max: u32,
    },
    /// A share of calls or time, as a fraction or in percent, all of it included.
    Share {
        /// Whether it may be nothing; if not, `off` may stand in its place.
        zero: bool,
    },
    /// A multiplier from 1, with two decimals at most.
    Factor {
        /// The largest.
        max: u32,
    },
    /// How far back a window reaches: so many calls, or a duration.
    Window {
        /// The most calls.
        calls: u32,
        /// The shortest duration.
        min: Duration,
        /// The longest duration.
        max: Duration,
    },
    /// `enforce`, `observe` or `disabled`.
    Mode,
    /// One of these words, between `|`.
    Choice(&'static str),
    /// 1 to 63 printable characters of ASCII.
    User,
    /// A duration, bounds included.
    Span {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
        /// Whether `off` may stand in its place.
        off: bool,
    },
    /// The path of a file; empty or `off` for none.
    Path,
    /// A DNS name or an address; empty or `off` for none.
    Host,
    /// Names and addresses.
    Hosts,
    /// Networks of addresses, or `unix`.
    Networks,
    /// `true` or `false`.
    Switch,
    /// How a server is spoken to: libpq's words for `sslmode`.
    TlsMode,
    /// Upper-case letters.
    RedisCode,
    /// Five digits or upper-case letters.
    SqlState,
    /// Prefixes of error codes.
    Codes,
    /// Names of Redis commands.
    Commands,
    /// An address to listen on, or `off`.
    Admin,
    /// `text` or `json`.
    Format,
    /// A log level or filter directives.
    Level,
}

impl Kind {
    /// What a TOML value must be, in words.
    pub fn toml_type(self) -> &'static str {
        match self {
            Kind::Count { .. } => "an integer",
            Kind::Limit { .. } => "an integer or \"off\"",
            Kind::Share { .. } => "a number such as 0.5 or a string such as \"50%\"",
            Kind::Factor { .. } => "a number such as 1.5",
            Kind::Window { .. } => "a string such as \"100calls\" or \"10s\"",
            Kind::Codes | Kind::Commands | Kind::Hosts | Kind::Networks => "an array of strings",
            Kind::Span { .. } => "a string such as \"30s\"",
            Kind::Switch => "true or false",
            _ => "a string",
        }
    }

    /// Whether a TOML boolean is such a value.
    pub fn takes_boolean(self) -> bool {
        matches!(self, Kind::Switch | Kind::TlsMode)
    }

    /// Whether a TOML float can be such a value.
    pub fn takes_fraction(self) -> bool {
        matches!(self, Kind::Share { .. } | Kind::Factor { .. })
    }

    /// The placeholder of such a value in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Name => "NAME",
            Kind::Listen | Kind::Upstream => "ADDR",
            Kind::Count { .. } => "N",
            Kind::Limit { .. } => "N|off",
            Kind::Share { zero: true } => "SHARE",
            Kind::Share { zero: false } => "SHARE|off",
            Kind::Factor { .. } => "FACTOR",
            Kind::Window { .. } => "CALLS|DURATION",
            Kind::Mode => "enforce|observe|disabled",
            Kind::Choice(words) => words,
            Kind::User => "USER",
            Kind::Span { off: false, .. } => "DURATION",
            Kind::Span { off: true, .. } => "DURATION|off",
            Kind::Path => "FILE",
            Kind::Host => "NAME",
            Kind::Hosts => "NAME+NAME...",
            Kind::Networks => "NET+NET...",
            Kind::Switch => "true|false",
            Kind::TlsMode => "MODE",
            Kind::RedisCode => "WORD",
            Kind::SqlState => "SQLSTATE",
            Kind::Codes => "CODE+CODE...",
            Kind::Commands => "NAME+NAME...",
            Kind::Admin => "ADDR|off",
            Kind::Format => "text|json",
            Kind::Level => "LEVEL",
        }
    }

    /// The values there are, in words: `1 to 1000000`, `1ms to 7days, with its unit`.
    pub fn range(self) -> String {
        match self {
            Kind::Name => "1 to 64 of A-Z a-z 0-9 _ . -".to_owned(),
            Kind::Listen | Kind::Upstream => "host:port, [v6]:port or unix:/path".to_owned(),
            Kind::Count { max } => format!("1 to {max}"),
            Kind::Limit { max } => format!("1 to {max}, or off"),
            Kind::Share { zero: true } => "0 to 1, or 0% to 100%".to_owned(),
            Kind::Share { zero: false } => "above 0 up to 1, above 0% up to 100%, or off".to_owned(),
            Kind::Factor { max } => format!("1 to {max}"),
            Kind::Window { calls, min, max } => {
                format!("1call to {calls}calls, or {} to {}", words(min), words(max))
            }
            Kind::Mode => "enforce, observe or disabled".to_owned(),
            Kind::Choice(words) => words.replace('|', ", "),
            Kind::User => "1 to 63 printable ASCII characters".to_owned(),
            Kind::Span { min, max, off } => {
                let off = if off { ", or off" } else { "" };
                format!("{} to {}{off}", words(min), words(max))
            }
            Kind::Path => "a path, or off".to_owned(),
            Kind::Host => "a DNS name or an address, or off".to_owned(),
            Kind::Hosts => "names joined by + (an array in TOML)".to_owned(),
            Kind::Networks => {
                "addresses, networks such as 10.0.0.0/8, or unix, joined by + (an array in TOML)".to_owned()
            }
            Kind::Switch => "true or false".to_owned(),
            Kind::TlsMode => tls::Mode::WORDS.to_owned(),
            Kind::RedisCode => "1 to 32 of A-Z".to_owned(),
            Kind::SqlState => "5 of 0-9 A-Z, not of class 00, 01 or 02".to_owned(),
            Kind::Codes => "codes joined by + (an array in TOML)".to_owned(),
            Kind::Commands => {
                "NAME, NAME|SUBCOMMAND or PREFIX*, joined by + (an array in TOML), or off".to_owned()
            }
            Kind::Admin => "host:port, [v6]:port, unix:/path or off".to_owned(),
            Kind::Format => "text or json".to_owned(),
            Kind::Level => "off, error, warn, info, debug, trace, or directives".to_owned(),
        }
    }
}
