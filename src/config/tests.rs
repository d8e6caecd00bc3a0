//! What becomes of words on the command line, in the environment and in files.

mod admin;
mod breaker;
mod defaults;
mod documents;
mod endpoints;
mod files;
mod lists;
mod mistakes;
mod patch;
mod precedence;
mod properties;
mod tls;

use clap::Parser;

use super::args::{Cli, Command};
use super::raw::Env;
use super::*;

/// A configuration file that exists for the length of a test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fusewire-config-{}-{nth}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn inputs(args: &[&str]) -> Inputs {
    match Cli::try_parse_from(["fusewire"].iter().chain(args)).unwrap().into_command() {
        Command::Run(inputs) | Command::Check(inputs) => inputs,
        _ => panic!("no inputs in {args:?}"),
    }
}

fn env(variables: &[(&str, &str)]) -> Env {
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn load_from(args: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Loaded, Vec<String>> {
    let file = file.map(TempFile::new);
    let mut args = args.to_vec();
    if let Some(file) = &file {
        args.extend(["--config", file.path()]);
    }
    load_all(&inputs(&args), &env(variables)).map_err(|problems| {
        let shown = |text: String| match &file {
            Some(file) => text.replace(file.path(), "f.toml"),
            None => text,
        };
        problems.iter().map(|problem| shown(problem.to_string())).collect()
    })
}

fn loaded(args: &[&str]) -> Config {
    load_from(args, &[], None).unwrap().config
}

fn problems(args: &[&str]) -> Vec<String> {
    load_from(args, &[], None).unwrap_err()
}

fn file_problems(text: &str) -> Vec<String> {
    load_from(&[], &[], Some(text)).unwrap_err()
}
