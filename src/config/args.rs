//! The command line.
//!
//! Flags that are settings are made from [`SETTINGS`], so that `--help` cannot fall behind the code. They are
//! kept as text: one place reads values, wherever they were written, and words its errors. Absent on purpose:
//! clap's own environment support; the environment is a separate, farther source.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgMatches, Args, Command as ClapCommand, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::settings::{Group, Key, Kind, SETTINGS};

const EXAMPLES: &str = "\
Specs:
  A spec is a comma-separated list of key=value: upstream (required), name, listen, and every setting that is
  marked \"per backend\", spelled like its flag without the dashes:
    name=cache,listen=127.0.0.1:6380,upstream=10.0.0.5:6379,failure-threshold=3
  Durations carry their unit: 250ms, 30s, 1m30s. The nearest word wins:
  spec > flag > environment > file > default.

Examples:
  fusewire --redis upstream=10.0.0.5:6379
  fusewire --redis name=cache,upstream=10.0.0.5:6379 --postgres name=db,upstream=10.0.0.6:5432 --recovery-timeout 10s
  fusewire run --config fusewire.toml
  fusewire check --config fusewire.toml
  fusewire classify postgres 53300
  fusewire status
  fusewire trip cache --for 30s";

/// The shortest pause of `status --watch`.
const WATCH_MIN: Duration = Duration::from_millis(100);

/// A circuit-breaker proxy for Redis and Postgres.
///
/// Point clients at fusewire instead of the server. When the server fails, calls are answered at once with an
/// error in the client's own protocol, until the server is back.
#[derive(Debug, Clone, Parser)]
#[command(name = "fusewire", version, max_term_width = 110, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    inputs: Inputs,
}

impl Cli {
    /// What is to be done; without a subcommand, `run`.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.inputs))
    }
}

/// What is to be done.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Proxies until it is told to stop; this is what happens without a subcommand too
    #[command(after_help = EXAMPLES)]
    Run(Inputs),
    /// Says whether the configuration is valid, and starts nothing
    ///
    /// Exits with 0 and one line for each backend if it is, otherwise with 1 and one line for each problem.
    #[command(after_help = EXAMPLES)]
    Check(Inputs),
    /// Prints which errors count as the backend's failures, and why
    ///
    /// The table shows what is built in; failure_errors, success_errors and ignored_errors of a backend go before
    /// it.
    Classify {
        /// Whose errors
        dialect: Dialect,
        /// Only the rows that decide about this error: its first word, or its SQLSTATE
        #[arg(conflicts_with = "commands")]
        code: Option<String>,
        /// How each command is treated instead: its replies, its deadline, its part in a half-open breaker, and what
        /// becomes of it while the breaker is open (Redis)
        #[arg(long)]
        commands: bool,
    },
    /// What a running fusewire is asked for.
    #[command(flatten)]
    Ask(Ask),
    /// Prints a completion script for a shell
    ///
    /// For bash: fusewire completions bash > /etc/bash_completion.d/fusewire
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Prints a manual page, of fusewire or of one of its commands
    ///
    /// To read it: fusewire man | man -l -
    Man {
        /// Which command
        command: Option<String>,
    },
}

/// What a running fusewire is asked for, over its admin API.
#[derive(Debug, Clone, Subcommand)]
pub enum Ask {
    /// Shows the breakers of a running fusewire, or one with why it tripped and what it has been through
    Status {
        /// Only this backend, with the outcomes behind its last trip and its history
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: Option<String>,
        /// Shows it again and again, every 2s or as often as is said, until Ctrl-C
        #[arg(short, long, value_name = "EVERY", num_args = 0..=1, require_equals = true,
            default_missing_value = "2s", value_parser = every)]
        watch: Option<Duration>,
        /// Where to ask.
        #[command(flatten)]
        target: Target,
    },
    /// Closes a breaker and forgets its run of failures
    Reset {
        /// Which backend's
        #[arg(value_parser = NonEmptyStringValueParser::new(), required_unless_present = "all")]
        name: Option<String>,
        /// Every backend's
        #[arg(long, conflicts_with = "name")]
        all: bool,
        /// Where to ask.
        #[command(flatten)]
        target: Target,
    },
    /// Opens a breaker
    Trip {
        /// Which backend's
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// For how long, such as 30s; then probes decide. Without it: until it is reset
        #[arg(long = "for", value_name = "DURATION")]
        lasting: Option<String>,
        /// Where to ask.
        #[command(flatten)]
        target: Target,
    },
    /// Has a breaker carry its decisions out
    Enforce(Named),
    /// Has a breaker decide and count, and reject nothing
    Observe(Named),
    /// Has a breaker let everything pass and decide nothing
    Disable(Named),
    /// Has the configuration read again; a mistake in it changes nothing
    Reload {
        /// Where to ask.
        #[command(flatten)]
        target: Target,
    },
}

/// One backend of a running fusewire.
#[derive(Debug, Clone, Args)]
pub struct Named {
    /// Which backend's
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// Where to ask.
    #[command(flatten)]
    pub target: Target,
}

/// Where a running fusewire is asked, and in which form it answers.
#[derive(Debug, Clone, Default, Args)]
pub struct Target {
    /// Where its admin API listens: host:port, [v6]:port or unix:/path [env: FUSEWIRE_ADMIN] [default:
    /// 127.0.0.1:9900]
    #[arg(long, value_name = "ADDRESS", help_heading = "Admin API")]
    pub admin: Option<String>,
    /// File with the admin API's token [env: FUSEWIRE_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Admin API")]
    pub token_file: Option<PathBuf>,
    /// Prints the answer as JSON
    #[arg(long)]
    pub json: bool,
}

fn every(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(every) if every >= WATCH_MIN => Ok(every),
        Ok(_) => Err("at least 100ms".to_owned()),
        Err(_) => Err("not a duration; write 500ms, 2s or 1m".to_owned()),
    }
}

/// A protocol's name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// Redis error replies
    Redis,
    /// Postgres SQLSTATEs
    Postgres,
}

/// What a configuration is made from on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Inputs {
    /// A Redis backend, as a spec such as upstream=10.0.0.5:6379; repeat it for more [env: FUSEWIRE_REDIS, specs
    /// separated by ; or white space]
    #[arg(long, value_name = "SPEC", help_heading = Group::Backends.heading())]
    pub redis: Vec<String>,
    /// A Postgres backend, as a spec such as upstream=10.0.0.6:5432; repeat it for more [env: FUSEWIRE_POSTGRES,
    /// specs separated by ; or white space]
    #[arg(long, value_name = "SPEC", help_heading = Group::Backends.heading())]
    pub postgres: Vec<String>,
    /// A TOML file [env: FUSEWIRE_CONFIG]
    #[arg(short, long, value_name = "FILE", help_heading = Group::Backends.heading())]
    pub config: Option<PathBuf>,
    /// The settings that were given as flags.
    #[command(flatten)]
    pub flags: Flags,
}

/// The settings that were given as flags, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(pub BTreeMap<Key, String>);

impl Args for Flags {
    fn augment_args(mut command: ClapCommand) -> ClapCommand {
        for setting in SETTINGS.iter().filter(|setting| setting.is_global()) {
            let arg = Arg::new(setting.name)
                .long(setting.dashed())
                .value_name(setting.kind.placeholder())
                .help(setting.help_text())
                .help_heading(setting.group.heading());
            // `--failure-threshold -1` is a value out of range, not an unknown flag.
            let number = matches!(
                setting.kind,
                Kind::Count { .. }
                    | Kind::Limit { .. }
                    | Kind::Share { .. }
                    | Kind::Factor { .. }
                    | Kind::Window { .. }
                    | Kind::Span { .. }
            );
            command = command.arg(arg.allow_negative_numbers(number));
        }
        command
    }

    fn augment_args_for_update(command: ClapCommand) -> ClapCommand {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS.iter().filter(|setting| setting.is_global()) {
            if let Some(text) = matches.get_one::<String>(setting.name) {
                self.0.insert(setting.key, text.clone());
            }
        }
        Ok(())
    }
}
