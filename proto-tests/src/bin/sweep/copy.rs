//! The tree that the mutants are put into, and its builds.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use proto_tests::tools::repository;
use proto_tests::tree;
use serde_json::Value;

/// A copy of the tree.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) root: PathBuf,
    target: PathBuf,
}

/// What became of a build.
#[derive(Debug)]
pub(crate) enum Build {
    /// The library's tests.
    Program(PathBuf),
    /// What the compiler would not take.
    Errors(Vec<Complaint>),
}

/// One error of the compiler.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// The files and lines that it is about, the most important first.
    pub(crate) places: Vec<(String, usize)>,
    /// As it is shown.
    pub(crate) text: String,
}

impl Copy {
    /// A fresh one, in `target/sweep`.
    pub(crate) fn make() -> io::Result<Self> {
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
        let root = target.join("sweep");
        tree::copy(&root)?;
        Ok(Self { root, target })
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.root.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Builds the library's tests, optimised as the libraries are that are already built.
    pub(crate) fn build(&self) -> Build {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--package", "fusewire", "--lib", "--no-run", "--message-format", "json"]);
        cargo.args(["--config", "profile.dev.package.fusewire.debug=false"]);
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target).stdin(Stdio::null());
        let output = cargo.stderr(Stdio::null()).output().expect("cargo to start");
        let text = String::from_utf8_lossy(&output.stdout);
        let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let program = messages.iter().find_map(|message| message["executable"].as_str());
        match program.filter(|_| output.status.success()) {
            Some(program) => Build::Program(program.into()),
            None => {
                Build::Errors(messages.iter().filter_map(|message| complaint(&message["message"])).collect())
            }
        }
    }
}

fn complaint(message: &Value) -> Option<Complaint> {
    let spans =
        message["spans"].as_array().filter(|spans| message["level"] == "error" && !spans.is_empty())?;
    let (primary, others): (Vec<&Value>, Vec<&Value>) =
        spans.iter().partition(|span| span["is_primary"] == true);
    let mut places = Vec::new();
    for span in primary.into_iter().chain(others) {
        let mut span = span;
        while span.is_object() {
            let line = span["line_start"].as_u64().and_then(|line| usize::try_from(line).ok());
            places.extend(span["file_name"].as_str().map(str::to_owned).zip(line));
            // Of an error within a macro, the place that calls the macro, too.
            span = &span["expansion"]["span"];
        }
    }
    Some(Complaint { places, text: message["rendered"].as_str().unwrap_or_default().to_owned() })
}
