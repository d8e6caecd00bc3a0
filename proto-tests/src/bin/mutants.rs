//! Puts each deliberate bug of `proto-tests/mutants.toml` into a copy of the tree and runs the tests that must catch
//! it. A bug that is not caught, does not compile or no longer applies is the command's failure.
//!
//! `mutants [WORD...]` runs those whose names contain one of the words. The copy is in `target/mutants`; the libraries
//! that are already built in `target` are used again, and the copy itself is not optimised, which builds faster.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use proto_tests::mutants::{self, Mutant};
use proto_tests::tools::repository;
use proto_tests::tree;

/// A test that runs longer hangs, which counts as caught: it would have been noticed.
const LIMIT: Duration = Duration::from_secs(240);
/// Seeds of the simulation, of which the first few show a bug of this list.
const SEEDS: &str = "500";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let chosen: Vec<Mutant> = mutants::all()
        .into_iter()
        .filter(|mutant| words.is_empty() || words.iter().any(|word| mutant.name.contains(word)))
        .collect();
    let copy = Copy::make().expect("a copy of the tree");
    let mut lost = Vec::new();

    let mut tests: Vec<String> = chosen.iter().flat_map(|mutant| mutant.caught_by.clone()).collect();
    tests.sort();
    tests.dedup();
    let Some(program) = copy.build() else {
        eprintln!("the tree does not build without a bug");
        return ExitCode::FAILURE;
    };
    for test in &tests {
        if run(&program, test) != Fate::Passed {
            lost.push(format!("`{test}` does not pass without a bug"));
        }
    }
    println!("{} tests pass without a bug", tests.len() - lost.len());

    for (at, mutant) in chosen.iter().enumerate() {
        let started = Instant::now();
        let found = copy.try_out(mutant);
        let seconds = started.elapsed().as_secs();
        let shown = found.as_ref().map_or_else(Clone::clone, |by| format!("caught by {by}"));
        println!("{}/{} {}: {shown} ({seconds} s)", at + 1, chosen.len(), mutant.name);
        io::stdout().flush().ok();
        lost.extend(found.err().map(|why| format!("{}: {why}", mutant.name)));
    }

    if lost.is_empty() && !chosen.is_empty() {
        println!("all {} mutants caught", chosen.len());
        return ExitCode::SUCCESS;
    }
    lost.iter().for_each(|line| eprintln!("{line}"));
    eprintln!("{} of {} mutants are not as they should be", lost.len(), chosen.len());
    ExitCode::FAILURE
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    Failed,
    Hung,
    /// There is no such test.
    Missing,
}

/// The tree that the bugs are put into.
struct Copy {
    root: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn make() -> io::Result<Self> {
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
        let root = target.join("mutants");
        tree::copy(&root)?;
        Ok(Self { root, target })
    }

    /// Which test caught it, or what went wrong.
    fn try_out(&self, mutant: &Mutant) -> Result<String, String> {
        let path = self.root.join(&mutant.file);
        let sound = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let broken = mutant.applied(&self.root)?;
        fs::write(&path, broken).map_err(|error| error.to_string())?;
        let outcome = match self.build() {
            Some(program) => all_fail(&program, mutant),
            None => Err("does not compile".to_owned()),
        };
        fs::write(&path, sound).map_err(|error| error.to_string())?;
        outcome
    }

    /// Builds the library's tests; the program.
    fn build(&self) -> Option<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--package", "fusewire", "--lib", "--no-run", "--message-format", "json"]);
        for setting in ["opt-level=0", "debug=false"] {
            cargo.args(["--config", &format!("profile.dev.package.fusewire.{setting}")]);
        }
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target).stdin(Stdio::null());
        let output = cargo.output().expect("cargo to start");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        programs.next().filter(|_| output.status.success())
    }
}

fn all_fail(program: &Path, mutant: &Mutant) -> Result<String, String> {
    for test in &mutant.caught_by {
        match run(program, test) {
            Fate::Failed | Fate::Hung => {}
            Fate::Passed => return Err(format!("NOT CAUGHT by `{test}`")),
            Fate::Missing => return Err(format!("there is no test `{test}`")),
        }
    }
    Ok(mutant.caught_by.join(", "))
}

fn run(program: &Path, test: &str) -> Fate {
    let mut child = Command::new(program)
        .args(["--exact", test])
        .env("FUSEWIRE_SEEDS", SEEDS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests to start");
    // Read while it runs: a full pipe would hold it up.
    let stdout = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.map(|mut pipe| pipe.read_to_end(&mut text));
        String::from_utf8_lossy(&text).contains("running 1 test")
    });
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child to wait for") {
            Some(status) => break status,
            None if started.elapsed() > LIMIT => {
                child.kill().ok();
                child.wait().ok();
                return Fate::Hung;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    match (reader.join().unwrap_or(false), status.success()) {
        (false, _) => Fate::Missing,
        (true, true) => Fate::Passed,
        (true, false) => Fate::Failed,
    }
}
