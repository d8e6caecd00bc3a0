//! The commands that ask a running fusewire: what they print, what they change, and with which code they end.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use proto_tests::tools::{free_port, run};
use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Redis, Setup, eventually, fusewire};
use serde_json::Value;
use tempfile::TempDir;

/// Runs a command against `admin`; its exit code, standard output and standard error.
fn ask_at(admin: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = fusewire::command(args);
    let Output { status, stdout, stderr } = run(command.env("FUSEWIRE_ADMIN", admin));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// What a command that succeeds prints.
#[track_caller]
fn ask(proxy: &Fusewire, args: &[&str]) -> String {
    let (code, stdout, stderr) = ask_at(&proxy.admin().to_string(), args);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
    stdout
}

fn dead() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn status_is_a_table_and_tells_why_a_breaker_tripped() {
    let redis = Redis::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "")
        .redis("dead", dead(), "failure-threshold=2,recovery-timeout=1h")
        .start();
    Client::connect(proxy.addr("cache")).call(&["PING"]);
    for _ in 0..2 {
        Client::connect(proxy.addr("dead")).call(&["PING"]).error();
    }
    proxy.await_state("dead", "open");

    let table = ask(&proxy, &["status"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME ") && lines[1].starts_with("cache  redis "), "{table}");
    assert!(lines[2].contains(" open ") && lines[2].ends_with("connection refused, 2 consecutive failures"));

    let story = ask(&proxy, &["status", "dead"]);
    assert!(story.starts_with("dead (redis): open for "), "{story}");
    assert_eq!(story.matches(" failure  refused ").count(), 2, "{story}");
    let transitions = story.split_once("\nTransitions\n").expect("transitions").1;
    assert!(transitions.contains("closed  open  enforce  2 consecutive failures"), "{story}");

    let all: Value = serde_json::from_str(&ask(&proxy, &["status", "--json"])).expect("JSON");
    assert_eq!(all["details"]["breakers"]["dead"]["state"], "open");
    let one: Value = serde_json::from_str(&ask(&proxy, &["status", "dead", "--json"])).expect("JSON");
    assert_eq!((&one["state"], &one["history"][0]["to"]), (&"open".into(), &"open".into()));
    proxy.stop();
}

#[test]
fn breakers_are_tripped_reset_and_switched_by_hand() {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").redis("other", redis.addr(), "").start();
    let ping = |name: &str| Client::connect(proxy.addr(name)).call(&["PING"]);
    let is = |name: &str, words: &str| assert!(ask(&proxy, &["status", name]).contains(words), "{words}");

    assert_eq!(ask(&proxy, &["trip", "cache"]), "cache (redis): open, mode enforce; until it is reset\n");
    assert!(ping("cache").error().starts_with("CIRCUITOPEN"));
    assert!(ask(&proxy, &["trip", "cache", "--for", "1h"]).contains("; retry after "));
    assert_eq!(
        ask(&proxy, &["observe", "cache"]).split(';').next(),
        Some("cache (redis): open, mode observe")
    );
    assert_eq!(ping("cache"), Reply::simple("PONG"));
    ask(&proxy, &["enforce", "cache"]);
    assert!(ping("cache").error().starts_with("CIRCUITOPEN"));
    assert_eq!(ask(&proxy, &["reset", "cache"]), "cache (redis): closed, mode enforce\n");
    assert_eq!(ping("cache"), Reply::simple("PONG"));
    assert_eq!(ask(&proxy, &["disable", "cache"]), "cache (redis): closed, mode disabled\n");
    is("cache", "mode disabled");

    ask(&proxy, &["trip", "other"]);
    let table = ask(&proxy, &["reset", "--all"]);
    assert!(table.starts_with("NAME ") && !table.contains(" open "), "{table}");
    is("other", "other (redis): closed");
    proxy.stop();
}

#[test]
fn refusals_are_one_line_and_code_1_and_nobody_there_is_code_3() {
    let proxy = Setup::default().redis("cache", dead(), "").start();
    let admin = proxy.admin().to_string();
    for (args, words) in [
        (&["status", "nope"][..], &["no backend 'nope'", "cache"][..]),
        (&["trip", "../reset-all"], &["no backend '../reset-all'"]),
        (&["trip", "cache", "--for", "30"], &["'30' is not a duration"]),
        (&["status", "--admin", "nowhere"], &["--admin", "port"]),
        (&["status", "--token-file", "/no/such/file"], &["/no/such/file"]),
    ] {
        let (code, stdout, stderr) = ask_at(&admin, args);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{args:?}: {stderr}");
        words.iter().for_each(|word| assert!(stderr.contains(word), "{args:?}: no `{word}` in {stderr}"));
    }
    for args in [&["reset"][..], &["reset", "cache", "--all"], &["trip"], &["status", "--watch=1ms"]] {
        assert_eq!(ask_at(&admin, args).0, Some(2), "{args:?}");
    }
    proxy.stop();

    let (code, _, stderr) = ask_at(&admin, &["status"]);
    assert_eq!((code, stderr.lines().count()), (Some(3), 1), "{stderr}");
    assert!(stderr.contains(&admin) && stderr.contains("refused"), "{stderr}");
    // So is a server that speaks something else.
    let redis = Redis::start();
    let (code, _, stderr) = ask_at(&redis.addr().to_string(), &["status"]);
    assert_eq!((code, stderr.lines().count()), (Some(3), 1), "{stderr}");
    // And one that hangs up.
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    let hang_up = std::thread::spawn(move || drop(listener.accept()));
    assert_eq!(ask_at(&at, &["reset", "--all"]).0, Some(3));
    hang_up.join().expect("a connection");
}

#[test]
fn a_unix_socket_and_a_token_are_enough_to_operate_it() {
    let dir = TempDir::with_prefix("fusewire-operator-").expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    fs::write(path("token"), "s3cret\n").expect("a token");
    fs::write(path("wrong"), "other\n").expect("a token");
    let token = path("token");
    let proxy = Setup::default().redis("cache", dead(), "").args(&["--admin-token-file", &token]).start();
    let admin = proxy.admin().to_string();
    let (code, _, stderr) = ask_at(&admin, &["status"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("token") && stderr.contains("--token-file"), "{stderr}");
    assert_eq!(ask_at(&admin, &["status", "--token-file", &path("wrong")]).0, Some(1));
    assert!(ask(&proxy, &["status", "--token-file", &token]).contains("cache"));
    proxy.stop();

    let socket = format!("unix:{}", path("admin"));
    let spec = format!("name=cache,listen={},upstream={}", dead(), dead());
    let mut command = fusewire::command(&["run", "--redis", &spec, "--admin", &socket]);
    let mut child = proto_tests::process::Process::start(command.stderr(std::process::Stdio::null()));
    eventually("an answer over the unix socket", || match ask_at(&socket, &["status"]) {
        (Some(0), table, _) if table.contains("cache") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(ask_at(&socket, &["trip", "cache"]).1.starts_with("cache (redis): open"));
    child.child().kill().expect("a running process");
}

#[test]
fn a_reload_says_what_has_changed_or_what_is_wrong() {
    let dir = TempDir::with_prefix("fusewire-operator-").expect("a temporary directory");
    let file = dir.path().join("fusewire.toml");
    let listen = dead();
    let write = |more: &str| {
        let text = format!(
            "[[backend]]\nprotocol = \"redis\"\nname = \"cache\"\nlisten = \"{listen}\"\nupstream = \"127.0.0.1:1\"\n{more}\n"
        );
        fs::write(&file, text).expect("a file");
    };
    write("");
    let proxy = Setup::default().args(&["--config", &file.to_string_lossy()]).start();
    assert_eq!(ask(&proxy, &["reload"]), "nothing has changed\n");
    write("failure_threshold = 3");
    assert_eq!(ask(&proxy, &["reload"]), "changed: cache\n");
    write("failure_treshold = 3\nprobes = 0");
    let (code, _, stderr) = ask_at(&proxy.admin().to_string(), &["reload"]);
    assert_eq!((code, stderr.lines().count()), (Some(1), 3), "{stderr}");
    assert!(stderr.contains("toml:6: failure_treshold") && stderr.contains("failure_threshold"), "{stderr}");
    proxy.stop();
}

#[test]
fn watching_survives_a_restart_and_ends_with_its_reader() {
    use std::io::{BufRead, BufReader};
    let proxy = Setup::default().redis("cache", dead(), "").start();
    let mut command = fusewire::command(&["status", "--watch=100ms", "--admin", &proxy.admin().to_string()]);
    let mut watcher = proto_tests::process::Process::start(command.stdout(std::process::Stdio::piped()));
    let mut lines =
        BufReader::new(watcher.child().stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut see =
        |words: &str| assert!(lines.any(|line| line.contains(words)), "the watcher ended before {words}");
    see(" closed ");
    ask(&proxy, &["trip", "cache"]);
    see(" open ");
    proxy.stop();
    see("no answer from the admin API");
    drop(lines);
    assert!(watcher.child().wait().expect("an end").success());
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let Output { status, stdout, .. } = fusewire::once(&["completions", shell]);
        let script = String::from_utf8_lossy(&stdout).into_owned();
        assert!(
            status.success() && script.contains("observe") && script.contains("recovery-timeout"),
            "{shell}"
        );
    }
    let script = fusewire::once(&["completions", "bash"]).stdout;
    let syntax = proto_tests::tools::run_with_input(std::process::Command::new("bash").arg("-n"), &script);
    assert!(syntax.status.success() && syntax.stderr.is_empty(), "{syntax:?}");
    for (args, words) in [
        (&["man"][..], &[".TH fusewire 1", "fusewire\\-status(1)", "recovery\\-timeout"][..]),
        (&["man", "status"], &[".TH fusewire-status 1", "\\-\\-watch"]),
    ] {
        let Output { status, stdout, .. } = fusewire::once(args);
        let page = String::from_utf8_lossy(&stdout).into_owned();
        assert!(status.success(), "{args:?}");
        words.iter().for_each(|word| assert!(page.contains(word), "{args:?}: no `{word}` in\n{page}"));
    }
    assert_eq!(fusewire::once(&["man", "nope"]).status.code(), Some(1));
}
