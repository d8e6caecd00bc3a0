//! The arrows of the architecture never turn round.
//!
//! `src/lib.rs` draws the map; this test holds the code to it, and holds the map itself to the arrows that may
//! not change: the core stays pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proto_tests::tools::repository;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Rust files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).flatten();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Code without comments and without its tests, which may look anywhere. String literals stay.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}

/// Tests, and what only the fuzzer calls, which is built for nobody else.
fn is_test(path: &Path) -> bool {
    path.components()
        .any(|part| ["tests", "tests.rs", "fuzz.rs"].iter().any(|name| part.as_os_str() == *name))
}

/// The top module that a file belongs to: `gate` for src/gate.rs, `protocol` for src/protocol/redis/session.rs.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(repository().join("src")).expect("a file of src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules after each `crate::`, braces included: `crate::{gate::Lane, metrics::Counter}` names both.
fn mentioned(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => top_level_items(list),
            None => vec![rest],
        };
        for name in names {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.insert(name[..end].to_owned());
        }
    }
    found
}

/// The items of a `{...}` list, nested lists kept whole.
fn top_level_items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(list[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// Which top module uses which.
fn arrows() -> Arrows {
    let mut arrows = Arrows::new();
    let files = sources(&repository().join("src"));
    for path in files.iter().filter(|path| !is_test(path)) {
        let from = module_of(path);
        if from == "lib" || from == "main" {
            continue;
        }
        let to = mentioned(&code(path)).into_iter().filter(|to| *to != from);
        arrows.entry(from.clone()).or_default().extend(to);
    }
    arrows
}

/// The table in the head of lib.rs: ``| [`gate`] | ... | breaker, metrics |``.
fn map() -> Arrows {
    let text = fs::read_to_string(repository().join("src/lib.rs")).expect("src/lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').collect();
        let name = cells[0].trim().trim_end_matches("`]").trim_start_matches("mod@").to_owned();
        let may_use = cells.last().expect("a last cell").split(',').map(|word| word.trim().to_owned());
        (name, may_use.filter(|word| word != "std" && !word.is_empty()).collect())
    })
    .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_code_obeys_the_map_in_lib_rs() {
    let map = map();
    assert!(map.len() >= 6, "the map in src/lib.rs was not understood: {map:?}");
    for (module, uses) in arrows() {
        let may = map.get(&module).unwrap_or_else(|| panic!("src/lib.rs does not say what `{module}` is"));
        let beyond: Vec<_> = uses.difference(may).collect();
        assert!(beyond.is_empty(), "`{module}` uses {beyond:?}; the map in src/lib.rs allows {may:?}");
    }
}

#[test]
fn the_map_keeps_the_core_pure() {
    let map = map();
    let within = |module: &str, most: &[&str]| {
        let beyond: Vec<String> = map[module].difference(&set(most)).cloned().collect();
        assert!(beyond.is_empty(), "`{module}` may not depend on {beyond:?}");
    };
    within("breaker", &[]);
    within("gate", &["breaker", "metrics"]);
    within("protocol", &["gate", "breaker", "config", "metrics"]);
    for (module, uses) in &map {
        if !["proxy", "run", "main"].contains(&module.as_str()) {
            assert!(!uses.contains("proxy"), "`{module}` may not depend on the data plane");
        }
        if !["run", "main"].contains(&module.as_str()) {
            assert!(!uses.contains("admin"), "`{module}` may not depend on the admin API");
        }
    }
}

#[test]
fn no_arrow_leads_back() {
    let arrows = arrows();
    for start in arrows.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = arrows[start].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module.clone()) {
                next.extend(arrows.get(module).into_iter().flatten());
            }
        }
        assert!(!reached.contains(start), "`{start}` depends on itself through {reached:?}");
    }
}

#[test]
fn the_breaker_uses_nothing_but_std() {
    for path in sources(&repository().join("src/breaker")).iter().filter(|path| !is_test(path)) {
        for line in code(path).lines() {
            let Some(used) = line.trim_start().trim_start_matches("pub ").strip_prefix("use ") else {
                continue;
            };
            let root = used.split("::").next().unwrap_or_default();
            let own = path.with_file_name(format!("{root}.rs")).is_file();
            assert!(own || ["std", "core", "super", "self"].contains(&root), "{}: {line}", path.display());
        }
    }
}

#[test]
fn the_pure_modules_have_no_clock_no_socket_and_no_await() {
    let forbidden = [
        "Instant::now(",
        "SystemTime::now(",
        ".await",
        "async fn",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "std::fs",
        "std::thread",
        "tokio::",
    ];
    for module in ["breaker", "protocol"] {
        for path in sources(&repository().join("src").join(module)).iter().filter(|path| !is_test(path)) {
            let code = code(path);
            for word in forbidden {
                assert!(!code.contains(word), "{} contains `{word}`", path.display());
            }
        }
    }
}

#[test]
fn the_parser_of_this_test_sees_every_form() {
    let code = "use crate::gate::{Lane, Permit};\nuse crate::{breaker::Cause, metrics::{Counter, Tally}, config};\n\
                fn f(x: &crate::proxy::Driver) { my_crate::other::g() }";
    assert_eq!(mentioned(code), set(&["gate", "breaker", "metrics", "config", "proxy"]));
}
