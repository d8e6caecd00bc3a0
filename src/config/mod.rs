//! The configuration, valid by construction: whoever holds a [`Config`] need not check it again.
//!
//! [`args`] is what the command line says, [`raw`] and [`file`] what was written in specs, environment and file,
//! [`resolve`] merges them all (spec > flag > environment > file > default) and is the only place that
//! refuses a setting's value. [`settings`] is the table they all share.
//!
//! ```
//! use clap::Parser;
//! use fusewire::config::{self, args::{Cli, Command}};
//!
//! let cli = Cli::parse_from(["fusewire", "--redis", "upstream=10.0.0.5:6379,failure-threshold=3"]);
//! let Command::Run(inputs) = cli.into_command() else { unreachable!() };
//! let env = [("FUSEWIRE_RECOVERY_TIMEOUT".to_owned(), "10s".to_owned())].into();
//!
//! let config = config::load(&inputs, &env)?;
//! let cache = &config.backends[0];
//! assert_eq!(&*cache.name, "redis");
//! assert_eq!(cache.listen.to_string(), "127.0.0.1:6380");
//! assert_eq!(cache.breaker.failure_threshold, Some(3));
//! assert_eq!(cache.breaker.recovery_timeout.as_secs(), 10);
//! # Ok::<(), config::Error>(())
//! ```

pub mod args;
pub mod effective;
mod endpoint;
mod error;
pub mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod patch;
pub mod proxy_protocol;
pub mod raw;
pub mod resolve;
pub mod settings;
mod spelling;
#[cfg(test)]
mod tests;
pub mod tls;
mod units;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::breaker::Policy;

pub use error::{Error, Origin, Reason};
pub use patch::{Patched, patch};
pub use proxy_protocol::ProxyProtocol;
pub use raw::Env;
pub use tls::Tls;

use args::Inputs;
use file::File;
use raw::{Entry, Speaks, Written};
use resolve::Sources;

/// Reads the whole configuration. Apart from the file it depends on its arguments only; that makes a reload the
/// same call again.
///
/// # Errors
/// The first thing that is wrong, fit for one line; [`load_all`] has all of them.
pub fn load(inputs: &Inputs, env: &Env) -> Result<Config, Error> {
    match load_all(inputs, env) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => Err(problems.into_iter().next().unwrap_or(Error {
            origin: Origin::Nowhere,
            key: None,
            reason: Reason::NoBackend,
        })),
    }
}

/// Reads the whole configuration with what surrounds it.
///
/// # Errors
/// Everything that is wrong; at least one.
pub fn load_all(inputs: &Inputs, env: &Env) -> Result<Loaded, Vec<Error>> {
    let mut problems = Vec::new();
    let sources_of = |holder, speaks, specs: &[String], problems: &mut Vec<Error>| {
        specs
            .iter()
            .enumerate()
            .map(|(i, text)| raw::spec(holder, i + 1, speaks, text, problems))
            .collect::<Vec<_>>()
    };
    let mut specs = sources_of("--redis", Speaks::Redis, &inputs.redis, &mut problems);
    specs.extend(sources_of("--postgres", Speaks::Postgres, &inputs.postgres, &mut problems));
    let mut env_specs = raw::specs(raw::REDIS_VARIABLE, Speaks::Redis, env, &mut problems);
    env_specs.extend(raw::specs(raw::POSTGRES_VARIABLE, Speaks::Postgres, env, &mut problems));
    let flag = |(key, text): (&settings::Key, &String)| {
        let origin = Origin::Flag(format!("--{}", key.name().replace('_', "-")));
        (*key, Entry { value: Written::One(text.clone()), key: None, origin })
    };
    let flags = inputs.flags.0.iter().map(flag).collect();
    let (env_layer, warnings) = raw::environment(env, &mut problems);
    let variable = env.get(raw::CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let file = match inputs.config.clone().or(variable) {
        None => File::default(),
        Some(path) => match std::fs::read_to_string(&path) {
            Ok(text) => File::parse(&path, &text, &mut problems),
            Err(error) => {
                let reason = Reason::Unreadable { error: error.to_string() };
                problems.push(Error { origin: Origin::File { path, line: None }, key: None, reason });
                File::default()
            }
        },
    };
    let sources = Sources { specs, env_specs, flags, env: env_layer, file };
    let loaded = resolve::resolve(&sources, problems)?;
    let warnings = warnings.into_iter().chain(loaded.warnings).collect();
    Ok(Loaded { warnings, ..loaded })
}

/// A configuration with what does not concern the proxy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What to run.
    pub config: Config,
    /// How to log.
    pub log: Log,
    /// What is suspicious but no mistake, one line each.
    pub warnings: Vec<String>,
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Form of a line.
    pub format: LogFormat,
    /// A level, or filter directives; checked.
    pub level: String,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Everything that `fusewire run` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// At least one; names are unique, listen addresses too.
    pub backends: Vec<Backend>,
    /// Where the admin API listens; none: no admin API.
    pub admin: Option<Endpoint>,
    /// Who may use it.
    pub admin_access: AdminAccess,
    /// How long SIGTERM goes on accepting clients before the drain.
    pub drain_delay: Duration,
    /// How long SIGTERM waits for calls and transactions to finish.
    pub drain_timeout: Duration,
    /// Worker threads of the data plane, at least 1.
    pub workers: usize,
}

/// Who may use the admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// The file that holds the token which requests must bear; none: no token is asked for.
    pub token_file: Option<PathBuf>,
    /// Names by which it may be called besides its own.
    pub hosts: Vec<Arc<str>>,
}

/// One backend: a name, a protocol, an address to listen on, an address to dial, and one breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The name in logs, metrics, the API and rejections: 1 to 64 of `[A-Za-z0-9_.-]`.
    pub name: Arc<str>,
    /// What is spoken there, with the settings that only this protocol has.
    pub protocol: Protocol,
    /// Where clients connect.
    pub listen: Endpoint,
    /// Where the server is.
    pub upstream: Endpoint,
    /// Who says who a client is.
    pub proxy_protocol: ProxyProtocol,
    /// When the breaker trips and closes.
    pub breaker: Policy,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Which legs are encrypted, and how.
    pub tls: Tls,
}

/// A protocol and its own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2 and RESP3.
    Redis(Redis),
    /// The Postgres frontend/backend protocol, version 3.
    Postgres(Postgres),
}

impl Protocol {
    /// `redis` or `postgres`, the metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
        }
    }
}

/// Redis settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// The first word of a rejection; upper-case letters.
    pub reject_code: Arc<str>,
    /// Commands that pass whatever the breaker says: `NAME`, `NAME|SUBCOMMAND` or `PREFIX*`, in upper case.
    pub cures: Vec<Arc<str>>,
    /// Commands whose reply has no deadline, in the same form.
    pub unbounded_commands: Vec<Arc<str>>,
    /// Overrides of the verdict table.
    pub verdicts: Overrides,
    /// Whether the errors of scripts say nothing about the backend.
    pub ignore_script_errors: bool,
}

impl Default for Redis {
    /// As the table of settings has it.
    fn default() -> Self {
        Self {
            reject_code: "CIRCUITOPEN".into(),
            cures: vec!["SCRIPT|KILL".into(), "FUNCTION|KILL".into()],
            unbounded_commands: Vec::new(),
            verdicts: Overrides::default(),
            ignore_script_errors: false,
        }
    }
}

/// Postgres settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// SQLSTATE of a refused connection.
    pub reject_connect_code: SqlState,
    /// SQLSTATE of a refused query.
    pub reject_query_code: SqlState,
    /// The user that a check names in its startup packet.
    pub check_user: Arc<str>,
    /// Empty queries are answered while others are refused.
    pub answer_empty_queries: bool,
    /// Overrides of the verdict table.
    pub verdicts: Overrides,
}

/// Rows that a user puts before the built-in verdict table: prefixes of error codes. The longest match wins; an
/// own row beats a built-in one of the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Codes that are failures.
    pub failure: Vec<Arc<str>>,
    /// Codes that count as success.
    pub success: Vec<Arc<str>>,
    /// Codes that say nothing.
    pub ignored: Vec<Arc<str>>,
}

/// Five of `[0-9A-Z]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// Refused connections: `cannot_connect_now`; libpq tries its next host on this one only.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// Refused queries: `operator_intervention`; pools keep the connection.
    pub const OPERATOR_INTERVENTION: Self = Self(*b"57000");

    /// Parses five digits or upper-case letters.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 5] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()).then_some(Self(bytes))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

/// How long things may take. Every duration is above zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For one logical connect: name resolution and all addresses in turn. Default 3 s.
    pub connect: Duration,
    /// For the backend's silence while it owes a reply. None: as long as it likes. Default 30 s for Redis,
    /// none for Postgres queries.
    pub response: Option<Duration>,
    /// For a client to get through its handshake, and for a backend to answer each step of it. Default 30 s.
    pub handshake: Duration,
    /// TCP_USER_TIMEOUT of upstream connections: unacknowledged data for so long is a dead peer. Default 30 s.
    pub tcp_user: Duration,
    /// Idle time before TCP keepalive probes on both sides. Default 30 s, then every 10 s, 3 times.
    pub keepalive: Duration,
}

/// An address to listen on or to dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A host name or address and a port. A host that is an address literal is stored without brackets.
    Tcp {
        /// Host name, IPv4 or IPv6 address.
        host: Arc<str>,
        /// Port; 0 only for listening (any free one).
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp { host: addr.ip().to_string().into(), port: addr.port() }
    }
}
