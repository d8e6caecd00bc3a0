//! Tries every change that `cargo mutants` would make to some files, with one build for all of them.
//!
//! `sweep [--apart] FILE...` takes paths as `cargo mutants --file` does. `cargo mutants` says what it would change; [`weave`]
//! puts all of it into a copy of the tree, in `target/sweep`; what the compiler refuses is taken out again; and then the
//! tests of the module that a mutant is in run once for each, and must fail. The few that cannot be woven (in constants, in
//! functions that return `impl Trait`) are tried with `--apart` only, with a build for each. A missed mutant makes the
//! command fail; `target/sweep-outcomes.txt` lists all.

mod copy;
mod trial;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use copy::{Build, Copy};
use trial::{Fate, Trial};
use weave::{Mutant, Woven, can_weave, weave};

/// Added to the library: the number of the mutant to be, and an end at the first panic, or each caught mutant would
/// cost the time of all the tests after it.
const CHOICE: &str = r#"
#[doc(hidden)]
pub fn mutant() -> usize {
    static NUMBER: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
        std::panic::set_hook(Box::new(|_| std::process::exit(101)));
        std::env::var("FUSEWIRE_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    });
    *NUMBER
}
"#;

fn main() -> ExitCode {
    let (options, files): (Vec<String>, Vec<String>) = env::args().skip(1).partition(|arg| arg == "--apart");
    let mutants = list(&files);
    let copy = Copy::make().expect("a copy of the tree");
    let sources: BTreeMap<&str, String> =
        mutants.iter().map(|mutant| (mutant.file.as_str(), copy.read(&mutant.file))).collect();
    let (together, apart): (Vec<&Mutant>, Vec<&Mutant>) =
        mutants.iter().partition(|mutant| can_weave(mutant, &sources[mutant.file.as_str()]));
    println!("{} mutants, {} of them in one build", mutants.len(), together.len());

    let mut fates: BTreeMap<usize, Fate> = BTreeMap::new();
    let program = build_together(&copy, &sources, together.clone(), &mut fates);
    let viable: Vec<&Mutant> =
        together.into_iter().filter(|mutant| !fates.contains_key(&mutant.number)).collect();
    let modules: BTreeSet<String> = viable.iter().map(|mutant| module(&mutant.file)).collect();
    let plans: BTreeMap<String, Trial> =
        modules.into_iter().map(|module| (module.clone(), Trial::of(&program, &module))).collect();
    fates.extend(try_all(&viable, &plans));
    sources.iter().for_each(|(file, source)| copy.write(file, source));

    fates.extend(apart.iter().map(|mutant| (mutant.number, Fate::Untried)));
    for mutant in apart.into_iter().filter(|_| !options.is_empty()) {
        let source = &sources[mutant.file.as_str()];
        copy.write(&mutant.file, &mutant.applied(source));
        let fate = match copy.build() {
            Build::Program(program) => Trial::of_mutant(&program, &module(&mutant.file)).run(0),
            Build::Errors(_) => Fate::Unviable,
        };
        copy.write(&mutant.file, source);
        say(mutant, &fate);
        fates.insert(mutant.number, fate);
    }
    report(&copy, &mutants, &fates)
}

/// What `cargo mutants` would do to these files; `.cargo/mutants.toml` says what is left out, and why.
fn list(files: &[String]) -> Vec<Mutant> {
    let mut cargo = Command::new("cargo");
    cargo.args(["mutants", "--list", "--json", "--package", "fusewire"]).stdin(Stdio::null());
    files.iter().for_each(|file| {
        cargo.args(["--file", file]);
    });
    let output = cargo.stderr(Stdio::inherit()).output().expect("cargo to start");
    assert!(output.status.success(), "cargo mutants --list: {}", output.status);
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("a list in JSON");
    let read = |(at, entry): (usize, &serde_json::Value)| {
        Mutant::read(at + 1, entry).unwrap_or_else(|| panic!("a mutant that cannot be read: {entry}"))
    };
    entries.iter().enumerate().map(read).collect()
}

/// The program with all of these that the compiler takes; the others become unviable.
fn build_together(
    copy: &Copy,
    sources: &BTreeMap<&str, String>,
    mut mutants: Vec<&Mutant>,
    fates: &mut BTreeMap<usize, Fate>,
) -> std::path::PathBuf {
    let root = copy.read("src/lib.rs");
    copy.write("src/lib.rs", &format!("{root}{CHOICE}"));
    loop {
        let mut woven: BTreeMap<&str, Woven> = BTreeMap::new();
        for (file, source) in sources {
            let of_it: Vec<&Mutant> = mutants.iter().copied().filter(|mutant| mutant.file == *file).collect();
            let text = weave(source, &of_it, "crate::mutant()");
            copy.write(file, &text.text);
            woven.insert(file, text);
        }
        let errors = match copy.build() {
            Build::Program(program) => {
                copy.write("src/lib.rs", &root);
                return program;
            }
            Build::Errors(errors) => errors,
        };
        let mut refused = BTreeSet::new();
        for error in &errors {
            let at = error.places.iter().find_map(|(file, line)| woven.get(file.as_str())?.mutant_at(*line));
            refused.insert(at.unwrap_or_else(|| panic!("an error outside the mutants:\n{}", error.text)));
        }
        println!("the compiler refuses {} mutants", refused.len());
        assert!(!refused.is_empty(), "the build fails without an error");
        mutants.retain(|mutant| !refused.contains(&mutant.number));
        fates.extend(refused.into_iter().map(|number| (number, Fate::Unviable)));
    }
}

/// The tests that a mutant in this file has to fail: those of its module.
fn module(file: &str) -> String {
    let path = file.strip_prefix("src/").unwrap_or(file);
    let module =
        path.rsplit_once('/').map_or_else(|| path.trim_end_matches(".rs"), |(directory, _)| directory);
    module.replace('/', "::") + "::"
}

fn try_all(mutants: &[&Mutant], plans: &BTreeMap<String, Trial>) -> BTreeMap<usize, Fate> {
    let (next, fates) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let fate = plans[&module(&mutant.file)].run(mutant.number);
                    say(mutant, &fate);
                    fates.lock().expect("no thread has panicked").insert(mutant.number, fate);
                }
            });
        }
    });
    fates.into_inner().expect("no thread has panicked")
}

fn say(mutant: &Mutant, fate: &Fate) {
    if *fate == Fate::Missed {
        println!("missed {}", mutant.name);
    }
}

fn report(copy: &Copy, mutants: &[Mutant], fates: &BTreeMap<usize, Fate>) -> ExitCode {
    let lines: Vec<String> =
        mutants.iter().map(|mutant| format!("{} {}\n", fates[&mutant.number], mutant.name)).collect();
    fs::write(copy.root.with_file_name("sweep-outcomes.txt"), lines.concat()).expect("a file of outcomes");
    let mut sums: BTreeMap<(&str, &'static str), usize> = BTreeMap::new();
    for mutant in mutants {
        for place in [mutant.file.as_str(), "all"] {
            *sums.entry((place, fates[&mutant.number].word())).or_default() += 1;
        }
    }
    let places: BTreeSet<&str> = sums.keys().map(|(place, _)| *place).collect();
    for place in places {
        let of = |word| sums.get(&(place, word)).copied().unwrap_or(0);
        let [caught, hung, missed, unviable, untried] = Fate::WORDS.map(of);
        let others = format!("{unviable} do not compile, {untried} not tried");
        println!("{place}: {caught} caught, {hung} by a time-out, {missed} missed, {others}");
    }
    if fates.values().any(|fate| *fate == Fate::Missed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
