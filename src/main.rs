//! The program: arguments → configuration → run → exit code.
//!
//! Exit codes: 0 for an orderly end or a valid configuration, 1 for a mistake in the configuration, a failure to
//! start or a refusal of a running fusewire, 2 (by clap) for a command line that cannot be read, 3 for a fusewire
//! that cannot be reached. Absent on purpose: everything that a test would want to call; that is in the library.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use fusewire::admin::Access;
use fusewire::config::args::{Ask, Cli, Command, Dialect, Inputs};
use fusewire::config::settings::VARIABLE_PREFIX;
use fusewire::config::{self, Env, Loaded};
use fusewire::operate::{self, Failure};
use fusewire::proxy::tls::Store;
use fusewire::run::Start;
use fusewire::telemetry;

/// How long the end waits for the log to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Every connection begins with aligned blocks, which it serves without loss (docs/adr/0027).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().into_command() {
        Command::Run(inputs) => run(&inputs),
        Command::Check(inputs) => check(&inputs),
        Command::Classify { dialect: Dialect::Postgres, commands: true, .. } => {
            complain(
                "--commands is for Redis: Postgres statements are told apart by what they set, not by a list",
            );
            ExitCode::FAILURE
        }
        Command::Classify { dialect, code, commands } => {
            let text = match commands {
                true => fusewire::classify::commands(),
                false => fusewire::classify::listing(dialect, code.as_deref()),
            };
            // A closed pipe (`fusewire classify redis | head -3`) is no reason to fail.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Command::Ask(ask) => operate(&ask),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "fusewire", &mut script);
            let _ = io::stdout().write_all(&script);
            ExitCode::SUCCESS
        }
        Command::Man { command } => manual(command.as_deref()),
    }
}

fn operate(ask: &Ask) -> ExitCode {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    match operate::run(ask, &environment(), &mut stdout.lock(), terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ Failure::Unreached { .. }) => {
            complain(failure);
            ExitCode::from(3)
        }
        Err(failure) => {
            failure.to_string().lines().for_each(complain);
            ExitCode::FAILURE
        }
    }
}

fn manual(of: Option<&str>) -> ExitCode {
    let mut cli = Cli::command();
    // Fills in the names that the pages of the commands bear.
    cli.build();
    let page = match of {
        None => Some(&cli),
        Some(name) => cli.find_subcommand(name),
    };
    let Some(page) = page else {
        complain(format_args!("no command '{}'", of.unwrap_or_default()));
        return ExitCode::FAILURE;
    };
    let mut text = Vec::new();
    match clap_mangen::Man::new(page.clone()).render(&mut text) {
        Ok(()) => {
            let _ = io::stdout().write_all(&text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn run(inputs: &Inputs) -> ExitCode {
    let env = environment();
    let loaded = match config::load_all(inputs, &env) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    let (level, lines) = match telemetry::init(&loaded.log) {
        Ok(logging) => logging,
        Err(error) => return fail(&error),
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let ended = fusewire::run(Start { loaded, inputs: inputs.clone(), env, level });
    lines.flush(LAST_LINES);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn check(inputs: &Inputs) -> ExitCode {
    match config::load_all(inputs, &environment()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                complain(warning);
            }
            let mut unusable = false;
            for backend in &loaded.config.backends {
                if let Err(error) = Store::new(backend) {
                    complain(format_args!("backend '{}': {error}", backend.name));
                    unusable = true;
                }
            }
            if let Err(error) = Access::read(&loaded.config.admin_access) {
                complain(error);
                unusable = true;
            }
            if unusable {
                return ExitCode::FAILURE;
            }
            // A closed pipe (`fusewire check | head -1`) is no reason to fail.
            let _ = io::stdout().write_all(summary(&loaded).as_bytes());
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    }
}

fn summary(loaded: &Loaded) -> String {
    let backends = loaded.config.backends.iter().map(|backend| {
        let protocol = backend.protocol.label();
        format!("{protocol} backend '{}': {} -> {}\n", backend.name, backend.listen, backend.upstream)
    });
    backends.chain(["configuration is valid\n".to_owned()]).collect()
}

/// The part of the environment that concerns fusewire.
fn environment() -> Env {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let all = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    all.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect()
}

fn refuse(problems: &[config::Error]) -> ExitCode {
    for problem in problems {
        complain(problem);
    }
    ExitCode::FAILURE
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

/// One line on standard error, which may be closed.
fn complain(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "fusewire: {what}");
}
