//! The table of settings: each one stands here once, with its name, its default, its bounds and its meaning.
//!
//! Flags, spec keys, `FUSEWIRE_*` variables, TOML keys, `--help` and the rows of `docs/CONFIGURATION.md` are all
//! made from it, so a setting that is added here exists everywhere. Absent on purpose: values. What was written
//! is in [`super::raw`], what it means in [`super::resolve`].

mod kind;

use std::fmt::Write as _;
use std::time::Duration;

use super::spelling::same;
pub use kind::Kind;

/// Names one setting in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Each is explained by its row of `SETTINGS`.
pub enum Key {
    Name,
    Listen,
    Upstream,
    ProxyProtocolFrom,
    ProxyProtocolTo,
    Mode,
    FailureThreshold,
    FailureRate,
    SlowCallRate,
    SlowCallDuration,
    Window,
    MinCalls,
    RecoveryTimeout,
    RecoveryBackoff,
    RecoveryTimeoutMax,
    RecoveryJitter,
    SuccessThreshold,
    Probes,
    ProbeTimeout,
    SlowStart,
    Check,
    CheckInterval,
    CheckMay,
    CheckUser,
    MaxConnections,
    MaxCalls,
    BulkheadWait,
    ConnectTimeout,
    ResponseTimeout,
    UnboundedCommands,
    HandshakeTimeout,
    TcpUserTimeout,
    Keepalive,
    TlsCert,
    TlsKey,
    TlsClientCa,
    TlsRequired,
    UpstreamTls,
    UpstreamCa,
    UpstreamServerName,
    UpstreamCert,
    UpstreamKey,
    RejectCode,
    Cures,
    RejectConnectCode,
    RejectQueryCode,
    AnswerEmptyQueries,
    FailureErrors,
    SuccessErrors,
    IgnoredErrors,
    IgnoreScriptErrors,
    Admin,
    AdminTokenFile,
    AdminInsecure,
    AdminHosts,
    DrainDelay,
    DrainTimeout,
    Workers,
    LogFormat,
    LogLevel,
}

/// Whom a setting concerns, which also says where it may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One backend only; it can have no default for all: name and addresses.
    Own,
    /// Each backend; what is given for all is the default of each.
    Backend,
    /// Redis backends.
    Redis,
    /// Postgres backends.
    Postgres,
    /// The process.
    Process,
}

/// What holds when nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// It must be said.
    Required,
    /// The same for every backend, in the notation of a spec; empty for an empty list.
    Same(&'static str),
    /// By protocol.
    Each {
        /// For Redis backends.
        redis: &'static str,
        /// For Postgres backends.
        postgres: &'static str,
    },
    /// One worker for each processor this process may use.
    Processors,
}

/// Headings of `--help`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What is proxied.
    Backends,
    /// When a breaker trips and closes.
    Breaker,
    /// How fusewire tests a backend by itself.
    Checks,
    /// How much a backend is asked at a time.
    Bulkhead,
    /// How long things may take.
    Timeouts,
    /// Which legs are encrypted, and how.
    Tls,
    /// What a refused client reads.
    Rejections,
    /// Which replies count as what.
    Verdicts,
    /// The process as a whole.
    Process,
    /// What is logged, and how.
    Logging,
}

impl Group {
    /// The heading in `--help` and in the documentation.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Backends => "Backends",
            Self::Breaker => "Breaker (per backend; given as a flag: the default of all)",
            Self::Checks => "Checks (per backend; given as a flag: the default of all)",
            Self::Bulkhead => "Bulkhead (per backend; given as a flag: the default of all)",
            Self::Timeouts => "Timeouts (per backend; given as a flag: the default of all)",
            Self::Tls => "TLS (per backend; given as a flag: the default of all)",
            Self::Rejections => "Rejections (per backend; given as a flag: the default of all)",
            Self::Verdicts => "Verdicts (per backend; given as a flag: the default of all)",
            Self::Process => "Process",
            Self::Logging => "Logging",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The setting.
    pub key: Key,
    /// Its TOML key; with `-` for `_` its flag and its key in a spec.
    pub name: &'static str,
    /// Whom it concerns.
    pub scope: Scope,
    /// Where it stands in `--help`.
    pub group: Group,
    /// The form of its value.
    pub kind: Kind,
    /// What holds when nothing is said.
    pub preset: Preset,
    /// What it means, in one sentence without its default.
    pub help: &'static str,
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// An upper bound keeps `now + duration` from overflowing, and catches `30M`, which is thirty months.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

const fn span(min: Duration, max: Duration) -> Kind {
    Kind::Span { min, max, off: false }
}

macro_rules! settings {
    ($($key:ident $name:literal $scope:ident $group:ident $kind:expr, $preset:expr, $help:literal;)*) => {
        /// Every setting, in the order of the documentation.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            key: Key::$key,
            name: $name,
            scope: Scope::$scope,
            group: Group::$group,
            kind: $kind,
            preset: $preset,
            help: $help,
        }),*];

        impl Key {
            /// Its TOML key; with `-` for `_` its flag and its key in a spec.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$key => $name),* }
            }
        }
    };
}

settings! {
    Name "name" Own Backends Kind::Name, Preset::Each { redis: "redis", postgres: "postgres" },
        "The backend's name in logs, metrics, the admin API and rejections";
    Listen "listen" Own Backends Kind::Listen,
        Preset::Each { redis: "127.0.0.1:6380", postgres: "127.0.0.1:6432" },
        "Where clients connect; port 0 takes any free one";
    Upstream "upstream" Own Backends Kind::Upstream, Preset::Required,
        "Where the server is; a host name is looked up anew for each connection";

    ProxyProtocolFrom "proxy_protocol_from" Backend Backends Kind::Networks, Preset::Same(""),
        "Networks whose connections begin with a PROXY protocol header, version 1 or 2, that says who the client is; unix is those over a unix socket";
    ProxyProtocolTo "proxy_protocol_to" Backend Backends Kind::Choice("off|v1|v2"), Preset::Same("off"),
        "Version of the PROXY protocol in which the server is told who the client is";

    Mode "mode" Backend Breaker Kind::Mode, Preset::Same("enforce"),
        "enforce rejects calls while the breaker is open; observe only counts what it would reject; disabled never trips";
    FailureThreshold "failure_threshold" Backend Breaker Kind::Limit { max: 1_000_000 }, Preset::Same("5"),
        "Failures in a row that trip a closed breaker";
    FailureRate "failure_rate" Backend Breaker Kind::Share { zero: false }, Preset::Same("off"),
        "Share of failures among the calls in the window that trips a closed breaker";
    SlowCallRate "slow_call_rate" Backend Breaker Kind::Share { zero: false }, Preset::Same("off"),
        "Share of slow calls, failed or not, among the calls in the window that trips a closed breaker";
    SlowCallDuration "slow_call_duration" Backend Breaker span(MS, HOUR), Preset::Same("1s"),
        "A call that takes longer is slow, for slow_call_rate; so is a probe, which then opens the breaker again";
    Window "window" Backend Breaker
        Kind::Window { calls: 100_000, min: Duration::from_millis(100), max: HOUR }, Preset::Same("100calls"),
        "What the rates are taken of: the last so many calls, or those of the last while";
    MinCalls "min_calls" Backend Breaker Kind::Count { max: 1_000_000 }, Preset::Same("20"),
        "With fewer calls in the window the rates decide nothing; a smaller count window is enough when it is full";
    RecoveryTimeout "recovery_timeout" Backend Breaker span(MS, WEEK), Preset::Same("30s"),
        "How long a tripped breaker stays open before it lets a probe through";
    RecoveryBackoff "recovery_backoff" Backend Breaker Kind::Factor { max: 10 }, Preset::Same("1"),
        "What each further trip multiplies the recovery timeout by; every recovery timeout spent closed takes one back";
    RecoveryTimeoutMax "recovery_timeout_max" Backend Breaker span(MS, WEEK), Preset::Same("5m"),
        "Longest recovery timeout, back-off and jitter included; by default never below recovery_timeout";
    RecoveryJitter "recovery_jitter" Backend Breaker Kind::Share { zero: true }, Preset::Same("0"),
        "Share of the recovery timeout that is added at random, at most, so that many proxies do not probe in step";
    SuccessThreshold "success_threshold" Backend Breaker Kind::Count { max: 1_000_000 }, Preset::Same("1"),
        "Successful probes that close a half-open breaker";
    Probes "probes" Backend Breaker Kind::Count { max: 10_000 }, Preset::Same("1"),
        "Probes let through at a time while half-open; all other calls are rejected";
    ProbeTimeout "probe_timeout" Backend Breaker span(MS, WEEK), Preset::Same("10s"),
        "How long a probe may hold its slot without reporting";
    SlowStart "slow_start" Backend Breaker Kind::Span { min: MS, max: HOUR, off: true }, Preset::Same("off"),
        "For how long after a recovery only a growing share of calls is let through, from 1% to all of them";

    Check "check" Backend Checks Kind::Choice("off|while_open|always"), Preset::Same("off"),
        "When fusewire tests the server by itself (Redis: PING; Postgres: a startup up to the first answer): while_open is while the breaker is not closed; always trips it too, after failure_threshold failed checks in a row";
    CheckInterval "check_interval" Backend Checks span(Duration::from_millis(10), HOUR), Preset::Same("5s"),
        "From one check to the next on average, each a quarter sooner or later at random; connect_timeout and probe_timeout bound a check";
    CheckMay "check_may" Backend Checks Kind::Choice("half_open|close"), Preset::Same("half_open"),
        "What a successful check may do to an open breaker: half_open lets a call through as a probe at once, close counts as a successful probe itself";
    CheckUser "check_user" Postgres Checks Kind::User, Preset::Same("fusewire_check"),
        "User that a check names; it needs no password, and need not exist unless the server trusts it";

    MaxConnections "max_connections" Backend Bulkhead Kind::Limit { max: 1_000_000 }, Preset::Same("off"),
        "Connections to the server at a time; a client beyond them is told what the server says when it has no more";
    MaxCalls "max_calls" Backend Bulkhead Kind::Limit { max: 1_000_000 }, Preset::Same("off"),
        "Commands and queries in flight at a time; one beyond them is rejected";
    BulkheadWait "bulkhead_wait" Backend Bulkhead span(Duration::ZERO, HOUR), Preset::Same("0s"),
        "How long what is beyond max_connections or max_calls waits for a place before it is rejected";

    ConnectTimeout "connect_timeout" Backend Timeouts span(MS, HOUR), Preset::Same("3s"),
        "For one connection to the server: looking up its name and trying all its addresses";
    ResponseTimeout "response_timeout" Backend Timeouts Kind::Span { min: MS, max: WEEK, off: true },
        Preset::Each { redis: "30s", postgres: "off" },
        "How long the server may be silent while it owes a reply; blocking commands get their own timeout on top";
    UnboundedCommands "unbounded_commands" Redis Timeouts Kind::Commands, Preset::Same(""),
        "Commands that may take any time, such as a module's; scripts, SAVE and DEBUG may anyhow";
    HandshakeTimeout "handshake_timeout" Backend Timeouts span(MS, HOUR), Preset::Same("30s"),
        "For a client to get through its handshake, and for the server to answer each step of it";
    TcpUserTimeout "tcp_user_timeout" Backend Timeouts span(MS, DAY), Preset::Same("30s"),
        "How long sent data may go unacknowledged by the server's machine (TCP_USER_TIMEOUT)";
    Keepalive "keepalive" Backend Timeouts span(SECOND, Duration::from_secs(9 * 3600)), Preset::Same("30s"),
        "Idle time before TCP keepalive packets, on both sides; towards the server at most half of tcp_user_timeout; in whole seconds";

    TlsCert "tls_cert" Backend Tls Kind::Path, Preset::Same(""),
        "Certificate chain that clients are shown, a PEM file; with it Redis clients must and Postgres clients may use TLS";
    TlsKey "tls_key" Backend Tls Kind::Path, Preset::Same(""),
        "Private key of tls_cert, a PEM file";
    TlsClientCa "tls_client_ca" Backend Tls Kind::Path, Preset::Same(""),
        "Authorities, a PEM file: clients that use TLS must show a certificate that one of them has signed";
    TlsRequired "tls_required" Postgres Tls Kind::Switch, Preset::Same("false"),
        "Whether clients without TLS are refused; cancel requests pass, because libpq sent them without until 17";
    UpstreamTls "upstream_tls" Backend Tls Kind::TlsMode, Preset::Same("disable"),
        "TLS to the server, in libpq's words; require and prefer verify nothing";
    UpstreamCa "upstream_ca" Backend Tls Kind::Path, Preset::Same(""),
        "Authorities that verify-ca and verify-full trust instead of the system's, a PEM file";
    UpstreamServerName "upstream_server_name" Backend Tls Kind::Host, Preset::Same(""),
        "Name that the server's certificate must bear, sent as SNI, if it is not the host of upstream";
    UpstreamCert "upstream_cert" Backend Tls Kind::Path, Preset::Same(""),
        "Certificate chain that a server is shown which asks for one, a PEM file";
    UpstreamKey "upstream_key" Backend Tls Kind::Path, Preset::Same(""),
        "Private key of upstream_cert, a PEM file";

    RejectCode "reject_code" Redis Rejections Kind::RedisCode, Preset::Same("CIRCUITOPEN"),
        "First word of the error that answers a rejected command";
    Cures "cures" Redis Rejections Kind::Commands, Preset::Same("SCRIPT|KILL+FUNCTION|KILL"),
        "Commands that are let through on a live connection while the breaker is open, because they can end the outage";
    RejectConnectCode "reject_connect_code" Postgres Rejections Kind::SqlState, Preset::Same("57P03"),
        "SQLSTATE of a refused connection; libpq tries its next host on 57P03 only";
    RejectQueryCode "reject_query_code" Postgres Rejections Kind::SqlState, Preset::Same("57000"),
        "SQLSTATE of a refused query; pools keep their connection on 57000";
    AnswerEmptyQueries "answer_empty_queries" Postgres Rejections Kind::Switch, Preset::Same("false"),
        "Whether empty queries are answered while others are refused: pools that test connections with one keep them";

    FailureErrors "failure_errors" Backend Verdicts Kind::Codes, Preset::Same(""),
        "Error codes, or prefixes of them, that are failures of the backend";
    SuccessErrors "success_errors" Backend Verdicts Kind::Codes, Preset::Same(""),
        "Error codes, or prefixes of them, that show the backend working";
    IgnoredErrors "ignored_errors" Backend Verdicts Kind::Codes, Preset::Same(""),
        "Error codes, or prefixes of them, that say nothing about the backend";
    IgnoreScriptErrors "ignore_script_errors" Redis Verdicts Kind::Switch, Preset::Same("false"),
        "Whether errors of EVAL, FCALL and their like say nothing about the backend, whatever their code: a script can return any";

    Admin "admin" Process Process Kind::Admin, Preset::Same("127.0.0.1:9900"),
        "Where the admin API, the metrics and the dashboard listen";
    AdminTokenFile "admin_token_file" Process Process Kind::Path, Preset::Same(""),
        "File with the token that admin requests must bear; read again on a reload";
    AdminInsecure "admin_insecure" Process Process Kind::Switch, Preset::Same("false"),
        "Whether the admin API may listen where other machines reach it, without a token";
    AdminHosts "admin_hosts" Process Process Kind::Hosts, Preset::Same(""),
        "Names by which the admin API may be called besides localhost and its own address, without port";
    DrainDelay "drain_delay" Process Process span(Duration::ZERO, HOUR), Preset::Same("0s"),
        "How long SIGTERM goes on accepting clients with /readyz at 503, so that load balancers look elsewhere first";
    DrainTimeout "drain_timeout" Process Process span(Duration::ZERO, HOUR), Preset::Same("30s"),
        "How long SIGTERM waits for calls and transactions to finish";
    Workers "workers" Process Process Kind::Count { max: 1024 }, Preset::Processors,
        "Worker threads of the data plane";

    LogFormat "log_format" Process Logging Kind::Format, Preset::Same("text"),
        "Form of a log line on standard error";
    LogLevel "log_level" Process Logging Kind::Level, Preset::Same("info"),
        "Least level that is logged, or filter directives such as info,fusewire::proxy=debug";
}

impl Setting {
    /// The row of a key that a person wrote, with `-` or `_`.
    pub fn find(written: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| same(setting.name, written))
    }

    /// As a long flag without its dashes, and as a key of a spec: `failure-threshold`.
    pub fn dashed(&self) -> String {
        self.name.replace('_', "-")
    }

    /// As an environment variable: `FUSEWIRE_FAILURE_THRESHOLD`.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// Whether it may be given for all backends or for the process: as a flag and in the environment.
    pub fn is_global(&self) -> bool {
        self.scope != Scope::Own
    }

    /// Whether it may stand in a spec or in a `[[backend]]` table.
    pub fn is_per_backend(&self) -> bool {
        self.scope != Scope::Process
    }

    /// Whether it may stand in a `[backend.breaker]` table.
    pub fn is_breaker(&self) -> bool {
        matches!(self.group, Group::Breaker | Group::Checks | Group::Bulkhead) && self.scope == Scope::Backend
    }

    /// The default, in words.
    pub fn default_words(&self) -> String {
        match self.preset {
            Preset::Required => "required".to_owned(),
            Preset::Same("") => "none".to_owned(),
            Preset::Same(text) => text.to_owned(),
            Preset::Each { redis, postgres } => format!("{redis} (Redis), {postgres} (Postgres)"),
            Preset::Processors => "one for each processor".to_owned(),
        }
    }

    /// The help text of its flag: meaning, whom it concerns, range, default, variable.
    pub fn help_text(&self) -> String {
        let mut text = self.help.to_owned();
        match self.scope {
            Scope::Redis => text.push_str(" (Redis backends)"),
            Scope::Postgres => text.push_str(" (Postgres backends)"),
            Scope::Own | Scope::Backend | Scope::Process => {}
        }
        // Writing to a string cannot fail.
        let _ = write!(text, " [default: {}]", self.default_words());
        if !matches!(self.kind, Kind::Format | Kind::Mode | Kind::Choice(_)) {
            let _ = write!(text, " [range: {}]", self.kind.range());
        }
        let _ = write!(text, " [env: {}]", self.variable());
        text
    }
}

/// What the names of all environment variables of fusewire begin with.
pub const VARIABLE_PREFIX: &str = "FUSEWIRE_";
