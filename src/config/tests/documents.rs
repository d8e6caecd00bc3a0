//! What the help, the documentation and the example say of the settings.

use clap::CommandFactory;

use super::super::settings::{Group, SETTINGS, Scope, Setting};
use super::*;

const DOCUMENTATION: &str = include_str!("../../../docs/CONFIGURATION.md");

const EXAMPLE: &str = include_str!("../../../deploy/fusewire.toml");

#[test]
fn help_mentions_every_setting() {
    for command in ["fusewire", "run", "check"] {
        let mut cli = Cli::command();
        let command =
            if command == "fusewire" { &mut cli } else { cli.find_subcommand_mut(command).unwrap() };
        let help = command.render_long_help().to_string();
        for setting in SETTINGS {
            match setting.scope {
                Scope::Own => assert!(help.contains(setting.name), "{}", setting.name),
                _ => {
                    let flag = format!("--{} <", setting.dashed());
                    assert!(help.contains(&flag), "{flag}");
                    assert!(help.contains(&setting.variable()), "{}", setting.variable());
                    assert!(help.contains(&format!("[default: {}]", setting.default_words())), "{flag}");
                }
            }
        }
    }
    Cli::command().debug_assert();
}

fn documented(setting: &Setting) -> String {
    let dash = "\u{2013}".to_owned();
    let code = |text: String| format!("`{}`", text.replace('|', "\\|"));
    let global = |text: String| if setting.is_global() { code(text) } else { dash.clone() };
    let spec = if setting.is_per_backend() { code(setting.dashed()) } else { dash.clone() };
    let cell = |text: String| text.replace('|', "\\|");
    let default = cell(setting.default_words());
    format!(
        "| {} | {} | {spec} | {} | {default} | {} | {} |",
        code(setting.name.to_owned()),
        global(format!("--{} {}", setting.dashed(), setting.kind.placeholder())),
        global(setting.variable()),
        cell(setting.kind.range()),
        cell(setting.help.to_owned()),
    )
}

#[test]
fn the_documentation_lists_every_setting_as_it_is() {
    let missing: Vec<String> =
        SETTINGS.iter().map(documented).filter(|row| !DOCUMENTATION.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "docs/CONFIGURATION.md lacks these rows:\n{}", missing.join("\n"));
    let rows = DOCUMENTATION.lines().filter(|line| line.starts_with("| `") && line.ends_with(" |")).count();
    assert_eq!(rows, SETTINGS.len(), "docs/CONFIGURATION.md has rows of settings that do not exist");
    for group in [Group::Breaker, Group::Timeouts, Group::Verdicts] {
        let word = group.heading().split_whitespace().next().unwrap();
        assert!(DOCUMENTATION.contains(&format!("## {word}")), "{word}");
    }
}

#[test]
fn the_documented_files_are_valid() {
    let files: Vec<&str> =
        DOCUMENTATION.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!files.is_empty());
    for text in files {
        let loaded = load_from(&[], &[], Some(text));
        assert!(loaded.is_ok(), "{loaded:?}\n{text}");
    }
}

/// What a text says as the configuration file.
fn written(text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fusewire.toml");
    std::fs::write(&path, text).unwrap();
    let args = ["--config", &path.to_string_lossy()];
    load_all(&inputs(&args), &Env::new()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn the_example_has_every_setting_with_its_range_its_default_and_a_reason() {
    for setting in SETTINGS {
        let (range, default) = (setting.kind.range(), setting.default_words());
        let bounds = format!("# Range: {range}. Default: {default}.");
        let at = EXAMPLE.lines().position(|line| {
            let name = line.trim_start_matches('#').split_once(" = ").map(|(name, _)| name);
            name == Some(setting.name)
        });
        let at = at.unwrap_or_else(|| panic!("deploy/fusewire.toml lacks {}", setting.name));
        let lines: Vec<&str> = EXAMPLE.lines().take(at).collect();
        let comment = lines.rsplit(|line| line.is_empty()).next().unwrap_or_default();
        assert!(comment.contains(&bounds.as_str()), "{}: {bounds}\n{comment:#?}", setting.name);
        if setting.scope != Scope::Own {
            assert!(comment.iter().any(|line| line.starts_with("# Why: ")), "{}", setting.name);
        }
        let words: Vec<&str> = comment.iter().flat_map(|line| line[1..].split_whitespace()).collect();
        let help = format!("{}.", setting.help);
        let help: Vec<&str> = help.split_whitespace().collect();
        assert!(words.windows(help.len()).any(|some| some == help), "{}: {}", setting.name, setting.help);
    }
}

#[test]
fn what_the_example_has_commented_out_are_the_defaults() {
    let mut plain = written(EXAMPLE);
    let is_setting = |line: &str| {
        let name = line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
        name.is_some_and(|name| SETTINGS.iter().any(|setting| setting.name == name))
    };
    let lines = EXAMPLE.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
    let said = written(&lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(plain.warnings, Vec::<String>::new());
    // One for each processor of this machine.
    plain.config.workers = said.config.workers;
    assert_eq!((plain.config, plain.log), (said.config, said.log));
}
