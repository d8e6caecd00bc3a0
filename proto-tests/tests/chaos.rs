//! The short form of proto-tests/chaos.sh: every fault once, and that the checkers see what is done behind their backs.

use std::fs;
use std::process::Command;

/// A chaos command in a network namespace of its own where that can be had.
fn chaos(args: &[&str]) -> (bool, String) {
    let fusewire = proto_tests::fusewire::binary();
    let program = env!("CARGO_BIN_EXE_chaos");
    let is_root = proto_tests::process::is_root();
    let mut command = if is_root {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh", program]);
        command
    } else {
        Command::new(program)
    };
    let log = tempfile::NamedTempFile::new().expect("a file");
    let out = log.reopen().expect("a file");
    let err = out.try_clone().expect("a file");
    let status =
        command.args(args).env("FUSEWIRE_BIN", fusewire).stdout(out).stderr(err).status().expect("chaos");
    (status.success(), fs::read_to_string(log.path()).expect("its output"))
}

#[test]
fn no_fault_of_any_server_breaks_a_promise() {
    let (kept, said) = chaos(&["--for", "1s", "--span", "600ms", "--seed", "7", "--brief"]);
    println!("{said}");
    assert!(kept, "{said}");
    for fault in proto_tests::chaos::faults::FAULTS.iter().filter(|fault| !fault.is_long) {
        let needs_root = fault.name.contains("black-holed");
        assert!(said.contains(fault.name) || needs_root && !proto_tests::process::is_root(), "{said}");
    }
}

#[test]
fn the_checkers_see_what_is_done_behind_their_backs() {
    let (kept, said) = chaos(&["--sabotage"]);
    assert!(!kept, "{said}");
    let lost = |line: &str| line.starts_with("BROKEN: bank: ") && line.ends_with("is gone");
    assert!(said.lines().any(lost), "the commit that a standby lacked is missing: {said}");
    for seen in [
        "increments in database 0",
        "is in database 1",
        "Pair: ",
        "db: note",
        "db: balances and journal differ",
    ] {
        assert!(said.contains("BROKEN: ") && said.contains(seen), "{seen} is missing: {said}");
    }
}
