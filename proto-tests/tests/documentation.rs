//! README.md and docs/ tell the truth, as far as a machine can judge: their commands run, their examples are valid, their
//! links lead somewhere.

use std::collections::BTreeSet;
use std::process::Command;

use proto_tests::documents::{self, Block};
use proto_tests::fusewire;
use proto_tests::tools::{run, tool};

/// Why a command may be left out. A new reason has to be put here, and thought about.
const REASONS: [&str; 5] = [
    "builds, for minutes",
    "is what runs this test",
    "needs a container engine",
    "needs systemd as init",
    "changes the system",
];

fn blocks() -> Vec<Block> {
    documents::all().iter().flat_map(|(name, text)| documents::blocks(name, text)).collect()
}

#[test]
fn the_commands_of_the_documents_run_as_written() {
    let mut unshare = Command::new(tool("unshare"));
    // Without root, a user namespace gives the rights over a network.
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare.args(["--net", "--mount", "--", env!("CARGO_BIN_EXE_documents")]);
    unshare.env("FUSEWIRE_BIN", fusewire::binary());
    let output = run(&mut unshare);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let last = said.lines().last().unwrap_or_default();
    let count = last.strip_suffix(" commands were run").and_then(|count| count.parse::<usize>().ok());
    assert!(count.is_some_and(|count| count >= 25), "{said}");
}

#[test]
fn a_command_that_is_not_run_has_a_good_reason() {
    for block in blocks() {
        let commands = block.language == "sh" || block.language == "console";
        match block.not_run() {
            Some(reason) => assert!(commands && REASONS.contains(&reason), "{}: {reason}", block.place),
            None => assert!(block.how.is_empty() || (commands && block.how == "open"), "{}", block.place),
        }
        // Else a command could hide from all this.
        assert!(
            !["", "bash", "shell", "shell-session"].contains(&block.language.as_str()),
            "{}",
            block.place
        );
        if commands {
            assert!(!block.commands().is_empty(), "{} has no command", block.place);
        }
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let broken: BTreeSet<_> = documents::all()
        .iter()
        .flat_map(|(name, text)| {
            documents::broken_links(name, text).into_iter().map(move |link| format!("{name}: {link}"))
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_readme_leads_to_every_document() {
    let documents = documents::all();
    let readme = &documents[0].1;
    for (name, _) in documents.iter().filter(|(name, _)| name.starts_with("docs/") && !name.contains("adr/"))
    {
        assert!(readme.contains(&format!("]({name})")), "README.md does not mention {name}");
    }
}
