//! README.md and docs/ as data: their commands, their examples and their links.
//!
//! A fenced block of `sh` is all commands; in one of `console` a command follows `$ ` and the rest is output. What stands
//! behind the language says how it is to be taken:
//!
//! - nothing: each command is run;
//! - `open`: each command is run while both breakers are open, and prints what the block shows, numbers apart;
//! - `not-run: REASON`: nothing is run.

use std::path::PathBuf;
use std::{fmt, fs};

use crate::tools::repository;

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// The file, from the top of the repository, and the line of the fence.
    pub place: Place,
    /// The first word behind the fence.
    pub language: String,
    /// The rest behind the fence.
    pub how: String,
    /// What is in it.
    pub text: String,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub String, pub usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// A command, and what it is shown to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The command, of one or more lines.
    pub text: String,
    /// The lines that follow it in a block of `console`, empty ones left out.
    pub output: Vec<String>,
}

/// The documents: names from the top of the repository, and texts.
///
/// # Panics
/// If one cannot be read.
pub fn all() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/adr"] {
        let entries = fs::read_dir(repository().join(folder)).expect("a folder");
        let files = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        let mut files: Vec<_> = files.filter(|name| name.ends_with(".md")).collect();
        files.sort();
        names.extend(files.into_iter().map(|name| format!("{folder}/{name}")));
    }
    let read = |name: String| {
        let text = fs::read_to_string(repository().join(&name)).expect("a document");
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// The fenced blocks of a document.
///
/// # Panics
/// If the last one does not end.
pub fn blocks(name: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        open = match (open, fence) {
            (None, None) => None,
            (None, Some(info)) => {
                let (language, how) = info.split_once(' ').unwrap_or((info, ""));
                Some(Block {
                    place: Place(name.to_owned(), at + 1),
                    language: language.to_owned(),
                    how: how.trim().to_owned(),
                    text: String::new(),
                })
            }
            (Some(block), Some(_)) => {
                blocks.push(block);
                None
            }
            (Some(mut block), None) => {
                block.text += line;
                block.text.push('\n');
                Some(block)
            }
        };
    }
    assert!(open.is_none(), "a block of {name} has no end");
    blocks
}

impl Block {
    /// Why nothing of it is run, if so.
    pub fn not_run(&self) -> Option<&str> {
        self.how.strip_prefix("not-run: ")
    }

    /// Its commands, in their order.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut goes_on = false;
        for line in self.text.lines() {
            let console = self.language == "console";
            let begins = if console { line.strip_prefix("$ ") } else { Some(line) };
            match (begins, commands.last_mut()) {
                (_, Some(last)) if goes_on => last.text += &format!("\n{line}"),
                (Some(begin), _) if !begin.trim().is_empty() && !begin.starts_with('#') => {
                    commands.push(Command { text: begin.to_owned(), output: Vec::new() });
                }
                (None, Some(last)) if !line.trim().is_empty() => last.output.push(line.to_owned()),
                _ => continue,
            }
            let end = line.trim_end();
            goes_on = (begins.is_some() || goes_on) && (end.ends_with('\\') || end.ends_with('|'));
        }
        commands
    }
}

/// The relative links of a document that lead nowhere: to no file, or to no heading of one.
pub fn broken_links(name: &str, text: &str) -> Vec<String> {
    let folder = PathBuf::from(name).parent().expect("a folder").to_owned();
    let outside = without_blocks(text);
    let targets = outside.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let leads = |target: &str| {
        let (path, heading) = target.split_once('#').unwrap_or((target, ""));
        let file = repository().join(if path.is_empty() { PathBuf::from(name) } else { folder.join(path) });
        let known =
            || fs::read_to_string(&file).is_ok_and(|text| slugs(&text).iter().any(|slug| slug == heading));
        file.exists() && (heading.is_empty() || known())
    };
    let local = targets.filter(|target| !target.contains("://"));
    local.filter(|target| !leads(target)).map(str::to_owned).collect()
}

fn without_blocks(text: &str) -> String {
    let mut inside = false;
    let outside = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// What the headings of a document are called in addresses.
fn slugs(text: &str) -> Vec<String> {
    let outside = without_blocks(text);
    let headings = outside.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}
