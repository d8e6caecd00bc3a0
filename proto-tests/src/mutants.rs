//! Deliberate bugs and the tests that must catch them: `proto-tests/mutants.toml`.
//!
//! A bug is a piece of a source file and what takes its place. The piece must stand in the file exactly once, so a list
//! that the code has left behind is an error and not a bug that was never tried.

use std::fs;
use std::path::Path;

use crate::tools::repository;

/// One deliberate bug.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// What is wrong with it, in a few words.
    pub name: String,
    /// The file, from the top of the repository.
    pub file: String,
    /// What is looked for.
    pub find: String,
    /// What takes its place.
    pub replace: String,
    /// The library's tests that must fail, by their whole paths.
    pub caught_by: Vec<String>,
}

/// The list.
///
/// # Panics
/// If it cannot be read.
pub fn all() -> Vec<Mutant> {
    let text =
        fs::read_to_string(repository().join("proto-tests/mutants.toml")).expect("the list of mutants");
    let table: toml::Table = text.parse().expect("a list in TOML");
    let list = table["mutant"].as_array().expect("[[mutant]]");
    let read = |mutant: &toml::Value| {
        let field = |name: &str| {
            let value = mutant.get(name).and_then(toml::Value::as_str);
            value.unwrap_or_else(|| panic!("{mutant} has no `{name}`")).to_owned()
        };
        let tests = mutant.get("caught_by").and_then(toml::Value::as_array).into_iter().flatten();
        Mutant {
            name: field("name"),
            file: field("file"),
            find: field("find"),
            replace: field("replace"),
            caught_by: tests.filter_map(|test| test.as_str().map(str::to_owned)).collect(),
        }
    };
    list.iter().map(read).collect()
}

impl Mutant {
    /// The file with the bug in it.
    ///
    /// # Errors
    /// In a sentence, if the piece is not in the file or stands there more than once.
    pub fn applied(&self, root: &Path) -> Result<String, String> {
        let text = fs::read_to_string(root.join(&self.file))
            .map_err(|error| format!("mutant '{}': {}: {error}", self.name, self.file))?;
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            n => Err(format!(
                "mutant '{}' no longer applies: its text stands {n} times in {}; the code has moved, and the list must follow",
                self.name, self.file
            )),
        }
    }
}
