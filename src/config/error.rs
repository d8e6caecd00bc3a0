//! What is wrong with a configuration, in one line: where it was written, which key, why, and what was meant.
//!
//! Messages never repeat what may be a secret: a value that looks like a URL or has a `user@` in it is left out.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a spec on the command line or in the environment: the flag or variable that holds it, and the name of
    /// the backend that it describes, or its place among its like when it has none.
    Spec {
        /// `--redis` or `FUSEWIRE_REDIS`.
        holder: &'static str,
        /// `'cache'` or `#2`.
        which: String,
    },
    /// A flag, with its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A line of the configuration file, from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line; none if it is about the file as a whole.
        line: Option<usize>,
    },
    /// A request to the admin API.
    Request,
    /// Nowhere: the default, or the configuration as a whole.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec { holder, which } => write!(f, "{holder} {which}"),
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Request => f.write_str("request"),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong, and where.
///
/// Its text is one line: `fusewire.toml:12: failure_threshold: "0" is out of range: 1 to 1000000`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Where it was written.
    pub origin: Origin,
    /// The key as it was written; none where the origin is the key already (a flag, a variable).
    pub key: Option<Box<str>>,
    /// Why it is refused.
    #[source]
    pub reason: Reason,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        write!(f, "{}", self.reason)
    }
}

/// Why a value, a key or a whole configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum Reason {
    #[error("unknown key{}", hint(.nearest, .known))]
    UnknownKey { nearest: Option<String>, known: String },
    #[error("unknown variable; did you mean {nearest}?")]
    UnknownVariable { nearest: String },
    #[error("it belongs {place}")]
    Misplaced { place: &'static str },
    #[error("it is given twice")]
    Twice,
    #[error("{part} is not key=value; an address is written upstream=host:port")]
    NotAPair { part: String },
    #[error("it has no value")]
    Empty,
    #[error("{number} has no unit; write {number}s or {number}ms", number = .number.trim_matches('"'))]
    NoUnit { number: String },
    #[error("{value} is not a duration such as 250ms, 30s or 1m30s")]
    NotADuration { value: String },
    #[error("{value} is out of range: {range}")]
    OutOfRange { value: String, range: String },
    #[error("{value} is not a share such as 0.5 or 50%")]
    NotAShare { value: String },
    #[error("{value} is not a number such as 1.5, with two decimals at most")]
    NotAFactor { value: String },
    #[error("{value} is not a window such as 100calls or 10s")]
    NotAWindow { value: String },
    #[error(
        "{number} has no unit; write {number}calls or {number}s",
        number = .number.trim_matches('"')
    )]
    NoWindowUnit { number: String },
    #[error("{value} is below recovery_timeout, which is {least}")]
    BelowRecoveryTimeout { value: String, least: String },
    #[error("{value} is not a whole number")]
    NotANumber { value: String },
    #[error("{value}: {why}")]
    Address { value: String, why: &'static str },
    #[error("{value} is not a name: it takes 1 to 64 of A-Z a-z 0-9 _ . -")]
    NotAName { value: String },
    #[error("{value} is not a host name or address, without port")]
    NotAHost { value: String },
    #[error("{value} is not a user: it takes 1 to 63 printable ASCII characters")]
    NotAUser { value: String },
    #[error("{value} is not an address, a network such as 10.0.0.0/8, or unix")]
    NotANetwork { value: String },
    #[error("{address} can be reached from other machines; give admin_token_file, or admin_insecure = true")]
    Exposed { address: String },
    #[error("{value} is not one of {expected}")]
    NotOneOf { value: String, expected: &'static str },
    #[error("{value} is not a Redis error code: it takes 1 to 32 upper-case letters")]
    NotARedisCode { value: String },
    #[error("{value} would send clients elsewhere instead of refusing them")]
    RedirectCode { value: String },
    #[error("{value} is not an SQLSTATE: it takes five digits or upper-case letters")]
    NotAnSqlState { value: String },
    #[error("{value} is an SQLSTATE of success or warning, not of an error")]
    NotAnErrorState { value: String },
    #[error("{value} cannot be an error code of {protocol} or the beginning of one")]
    NotACode { value: String, protocol: &'static str },
    #[error("{value} is not the name of a Redis command: NAME, NAME|SUBCOMMAND or PREFIX*")]
    NotACommand { value: String },
    #[error("{code} is also in {other}; a code has one verdict")]
    TwoVerdicts { code: String, other: &'static str },
    #[error(
        "{value} is not a log level (off, error, warn, info, debug, trace) or a list of filter directives"
    )]
    NotALevel { value: String },
    #[error("it is a setting of {protocol} backends")]
    OtherProtocol { protocol: &'static str },
    #[error("it must be {expected}, not {found}")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("{why}")]
    Tls { why: &'static str },
    #[error("it is required")]
    Missing,
    #[error("another backend is named {name} as well; give each its own name=...")]
    SameName { name: String },
    #[error("{address} is also the listen address of {other}")]
    SameListen { address: String, other: String },
    #[error("{address} is the backend's own listen address: it would dial itself")]
    Loop { address: String },
    #[error("no backend; give --redis upstream=HOST:PORT, --postgres upstream=HOST:PORT or --config FILE")]
    NoBackend,
    #[error("cannot be read: {error}")]
    Unreadable { error: String },
    #[error("not valid TOML: {message}")]
    Syntax { message: String },
}

fn hint(nearest: &Option<String>, known: &str) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => format!("; known are {known}"),
    }
}

impl Reason {
    /// A value fit for a message: in quotes, on one line, not too long, and without what may be a credential.
    pub fn quote(value: &str) -> String {
        const LONGEST: usize = 80;
        if value.contains('@') || value.contains("://") {
            return "the value (not shown: it may hold a credential)".to_owned();
        }
        if value.chars().count() > LONGEST {
            let start: String = value.chars().take(LONGEST).collect();
            return format!("{start:?}...");
        }
        format!("{value:?}")
    }
}
