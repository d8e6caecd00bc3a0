//! `fusewire classify`: the verdict tables and the list of commands as text, for people and for docs/VERDICTS.md and
//! docs/COMMANDS.md.
//!
//! Absent on purpose: any verdict of its own. What it prints are the rows that the sessions decide by.

use std::fmt::Write as _;

use crate::config::args::Dialect;
use crate::config::{Overrides, Redis};
use crate::protocol::{postgres, redis};

/// One line of a listing.
struct Line<'a> {
    code: &'a str,
    when: &'static str,
    verdict: &'static str,
    why: &'static str,
}

/// The built-in table of a protocol, or the rows of it that decide about `code`: a Redis error or its first word,
/// a SQLSTATE.
pub fn listing(dialect: Dialect, code: Option<&str>) -> String {
    let overrides = Overrides::default();
    match dialect {
        Dialect::Redis => {
            let table = redis::classify::Table::new(&overrides);
            match code {
                Some(code) => print([table.row(code.as_bytes())].into_iter().map(redis_line)),
                None => print(table.rows().chain([table.row(b"")]).map(redis_line)),
            }
        }
        Dialect::Postgres => {
            let table = postgres::classify::Table::new(&overrides);
            match code {
                Some(code) => print(table.explain(&code.to_ascii_uppercase()).map(postgres_line)),
                None => print(table.rows().map(postgres_line)),
            }
        }
    }
}

/// How each command of Redis is treated, by group, with the default settings.
pub fn commands() -> String {
    let rows = redis::commands::treatments(&Redis::default().cures);
    let head = ["command", "group", "replies", "connection state", "deadline", "probe", "while open"];
    let rows = rows
        .iter()
        .map(|row| [row.name, row.group, row.replies, row.state, row.deadline, row.probe, row.open]);
    let mut text = String::new();
    for [name, group, replies, state, deadline, probe, open] in [head].into_iter().chain(rows) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<21} {group:<13} {replies:<30} {state:<24} {deadline:<27} {probe:<11} {open}"
        );
    }
    text
}

fn redis_line(row: &redis::classify::Row) -> Line<'_> {
    Line { code: row.code.as_str(), when: "any", verdict: row.class.label(), why: row.why }
}

fn postgres_line(row: &postgres::classify::Row) -> Line<'_> {
    Line { code: row.code.as_str(), when: row.when.label(), verdict: row.class.label(), why: row.why }
}

fn print<'a>(lines: impl Iterator<Item = Line<'a>>) -> String {
    let mut text = format!("{:<26} {:<17} {:<8} {}\n", "code", "severity", "verdict", "why");
    for Line { code, when, verdict, why } in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{code:<26} {when:<17} {verdict:<8} {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_explained_by_the_row_that_decides() {
        let loading = listing(Dialect::Redis, Some("LOADING"));
        assert!(loading.lines().nth(1).is_some_and(|line| line.contains(" failure ")), "{loading}");
        let own = listing(Dialect::Redis, Some("BUSYKEY Target key name already exists."));
        assert!(own.lines().nth(1).is_some_and(|line| line.contains(" success ")), "{own}");
        let unique = listing(Dialect::Postgres, Some("23505"));
        assert!(unique.contains(" success "), "{unique}");
        let starting = listing(Dialect::Postgres, Some("57p03"));
        assert!(starting.lines().nth(1).is_some_and(|line| line.contains(" failure ")), "{starting}");
    }

    #[test]
    fn the_documentation_shows_the_commands_as_they_are() {
        let (page, table) = (include_str!("../docs/COMMANDS.md"), commands());
        assert!(page.contains(&table), "docs/COMMANDS.md lacks this table:\n{table}");
    }

    #[test]
    fn the_documentation_shows_the_tables_as_they_are() {
        let page = include_str!("../docs/VERDICTS.md");
        for dialect in [Dialect::Redis, Dialect::Postgres] {
            let table = listing(dialect, None);
            assert!(page.contains(&table), "docs/VERDICTS.md lacks this table:\n{table}");
        }
    }
}
