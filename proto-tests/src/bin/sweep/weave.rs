//! Many mutants in one source file: each function gets a copy of its body for each of its mutants, and a number that is
//! read when the program starts says which copy runs.
//!
//! Absent on purpose: any understanding of the text. `cargo mutants --list --json` says where each function stands, which
//! span a mutant replaces and by what.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

/// One change that `cargo mutants` would make.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    /// What chooses it when the program runs; from 1.
    pub(crate) number: usize,
    /// As `cargo mutants` calls it: `src/gate/word.rs:50:5: replace word_of -> u64 with 0`.
    pub(crate) name: String,
    /// From the top of the repository.
    pub(crate) file: String,
    span: Span,
    replacement: String,
    function: Option<Function>,
}

#[derive(Debug, Clone)]
struct Function {
    span: Span,
    returns: String,
}

/// Lines and columns from 1, in characters; the end is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: (usize, usize),
    end: (usize, usize),
}

impl Mutant {
    /// One entry of the list.
    pub(crate) fn read(number: usize, entry: &Value) -> Option<Self> {
        let text = |name: &str| Some(entry[name].as_str()?.to_owned());
        let function = entry["function"].as_object().and_then(|function| {
            let returns = function["return_type"].as_str()?.to_owned();
            Some(Function { span: Span::read(&function["span"])?, returns })
        });
        let (name, file, replacement) = (text("name")?, text("file")?, text("replacement")?);
        Some(Self { number, name, file, span: Span::read(&entry["span"])?, replacement, function })
    }

    /// The file with this change only.
    pub(crate) fn applied(&self, source: &str) -> String {
        let at = self.span.within(source);
        format!("{} {} {}", &source[..at.start], self.replacement, &source[at.end..])
    }

    /// The body of its function, if there can be several copies of it: a constant is evaluated before the program runs, and
    /// `impl Trait` is one type whichever copy runs.
    fn body(&self, source: &str) -> Option<Range<usize>> {
        let function = self.function.as_ref().filter(|function| !function.returns.contains("impl "))?;
        let whole = function.span.within(source);
        let mut open = whole.start;
        for line in source[whole.clone()].split_inclusive('\n') {
            let code = line.trim_start();
            if !code.starts_with("//") && !code.starts_with('#') {
                break;
            }
            open += line.len();
        }
        let head = &source[open..whole.end];
        let brace = head.find('{')?;
        if head[..brace].contains("const fn ") {
            return None;
        }
        let close = whole.end - 1;
        assert!(source[close..].starts_with('}'), "{}: where does the function end?", self.name);
        Some(open + brace + 1..close)
    }
}

impl Span {
    fn read(value: &Value) -> Option<Self> {
        let place = |place: &Value| {
            let part = |name: &str| usize::try_from(place[name].as_u64()?).ok();
            Some((part("line")?, part("column")?))
        };
        Some(Self { start: place(&value["start"])?, end: place(&value["end"])? })
    }

    /// The bytes that it stands for.
    fn within(self, source: &str) -> Range<usize> {
        let byte = |(line, column): (usize, usize)| {
            let before: usize = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
            before + source[before..].chars().take(column - 1).map(char::len_utf8).sum::<usize>()
        };
        byte(self.start)..byte(self.end)
    }
}

/// A file with mutants in it.
#[derive(Debug)]
pub(crate) struct Woven {
    /// What the compiler gets.
    pub(crate) text: String,
    /// The lines of each mutant's copy, from 1.
    lines: Vec<(Range<usize>, usize)>,
}

impl Woven {
    /// The mutant whose copy has this line.
    pub(crate) fn mutant_at(&self, line: usize) -> Option<usize> {
        self.lines.iter().find(|(lines, _)| lines.contains(&line)).map(|(_, number)| *number)
    }
}

/// Whether it can be woven into this file.
pub(crate) fn can_weave(mutant: &Mutant, source: &str) -> bool {
    mutant.body(source).is_some()
}

/// The file with all of these mutants, that can all be woven. `chosen` is the expression that gives the number of the
/// mutant to be.
pub(crate) fn weave(source: &str, mutants: &[&Mutant], chosen: &str) -> Woven {
    // What is put in, by place. A function within another has its own place, and the outer one's copies have it sound.
    let mut opens: BTreeMap<usize, Vec<&Mutant>> = BTreeMap::new();
    let mut closes: Vec<usize> = Vec::new();
    for mutant in mutants {
        let body = mutant.body(source).expect("one that can be woven");
        let inside = opens.entry(body.start).or_default();
        if inside.is_empty() {
            closes.push(body.end);
        }
        inside.push(mutant);
    }
    let mut places: Vec<usize> = opens.keys().copied().chain(closes.iter().copied()).collect();
    places.sort_unstable();
    let (mut text, mut lines, mut done) = (String::new(), Vec::new(), 0);
    for place in places {
        text.push_str(&source[done..place]);
        done = place;
        let Some(inside) = opens.get(&place) else {
            text.push_str("}}");
            continue;
        };
        text.push_str(&format!("match {chosen} {{\n"));
        for mutant in inside {
            let (body, at) = (mutant.body(source).expect("as above"), mutant.span.within(source));
            let first = text.matches('\n').count() + 1;
            let (before, after) = (&source[body.start..at.start], &source[at.end..body.end]);
            text.push_str(&format!("{} => {{{before} {} {after}}}\n", mutant.number, mutant.replacement));
            lines.push((first..text.matches('\n').count() + 1, mutant.number));
        }
        text.push_str("_ => {");
    }
    text.push_str(&source[done..]);
    Woven { text, lines }
}
