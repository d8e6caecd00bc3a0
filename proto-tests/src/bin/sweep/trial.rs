//! Running a module's tests against one mutant.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Of computing, in seconds: this does not pass while something else has the processor. More than ten times what the tests
/// of any module need.
const COMPUTING: u32 = 40;
/// In KiB: a mutant that allocates without end shall end itself and not the machine.
const MEMORY: u32 = 8 << 20;
/// How many tests of a hundred go into each round, the quickest first: most mutants are caught by those.
const ROUNDS: [usize; 3] = [50, 35, 15];

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A test failed.
    Caught,
    /// The tests would not end.
    Hung,
    /// Every test passed.
    Missed,
    /// The compiler does not take it.
    Unviable,
    /// It needs a build of its own, which was not asked for.
    Untried,
}

impl Fate {
    pub(crate) const WORDS: [&'static str; 5] = ["caught", "timeout", "missed", "unviable", "untried"];

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Hung => "timeout",
            Self::Missed => "missed",
            Self::Unviable => "unviable",
            Self::Untried => "untried",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The tests of one module, the quick ones first.
#[derive(Debug)]
pub(crate) struct Trial {
    program: PathBuf,
    rounds: Vec<Vec<String>>,
}

impl Trial {
    /// Runs each test by itself to see how long it takes.
    ///
    /// # Panics
    /// If one fails without a mutant.
    pub(crate) fn of(program: &Path, module: &str) -> Self {
        let mut timed: Vec<(Duration, String)> = tests(program, module)
            .into_iter()
            .map(|test| {
                let started = Instant::now();
                let status = run(program, std::slice::from_ref(&test), 0);
                assert!(status.success(), "`{test}` does not pass without a mutant");
                (started.elapsed(), test)
            })
            .collect();
        timed.sort();
        println!("{module} has {} tests", timed.len());
        let mut rest = timed.iter().map(|(_, test)| test.clone());
        let round = |share: usize| rest.by_ref().take((timed.len() * share).div_ceil(100)).collect();
        Self { program: program.into(), rounds: ROUNDS.map(round).into() }
    }

    /// All of them at once, for a program that is one mutant.
    pub(crate) fn of_mutant(program: &Path, module: &str) -> Self {
        Self { program: program.into(), rounds: vec![tests(program, module)] }
    }

    /// Whether they notice this mutant.
    pub(crate) fn run(&self, number: usize) -> Fate {
        for tests in self.rounds.iter().filter(|tests| !tests.is_empty()) {
            let status = run(&self.program, tests, number);
            match status.signal() {
                Some(24 | 9) => return Fate::Hung,
                _ if !status.success() => return Fate::Caught,
                _ => {}
            }
        }
        Fate::Missed
    }
}

/// The tests of a module, or of the one around it if it has none of its own.
fn tests(program: &Path, module: &str) -> Vec<String> {
    let output = Command::new(program).args(["--list", module]).output().expect("the tests to start");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A filter is looked for anywhere in a path: `redis::` is in `fuzz::redis::`, too.
    let named = text.lines().filter_map(|line| line.strip_suffix(": test"));
    let own: Vec<String> = named.filter(|test| test.starts_with(module)).map(str::to_owned).collect();
    match module.trim_end_matches("::").rsplit_once("::") {
        Some((around, _)) if own.is_empty() => tests(program, &format!("{around}::")),
        _ => own,
    }
}

fn run(program: &Path, tests: &[String], number: usize) -> ExitStatus {
    let mut shell = Command::new("sh");
    let limits = format!("ulimit -t {COMPUTING}; ulimit -v {MEMORY}; exec \"$@\"");
    shell.args(["-c", &limits, "sh"]).arg(program).args(["--exact", "--test-threads", "1"]).args(tests);
    shell.env("FUSEWIRE_MUTANT", number.to_string());
    // What a failed property looks like at its smallest is of no interest here.
    shell.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().expect("the tests to start")
}
