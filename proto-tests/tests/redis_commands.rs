//! No command of a real server is mistreated in silence: each is on the list of `fusewire classify redis --commands`, and
//! what the server says of it (its flags) goes with the row.
//!
//! A server that is newer than the list fails this test by its new commands. Then the command's documentation says what
//! is to be done: one reply and nothing special is a name in `src/protocol/redis/commands.rs`, anything else is work.

use std::collections::BTreeMap;

use proto_tests::Redis;
use proto_tests::fusewire::once;
use proto_tests::wire::Reply;

/// A row of the list, by its columns.
#[derive(Debug, Clone)]
struct Row {
    replies: String,
    state: String,
    deadline: String,
    probe: String,
    open: String,
}

impl Row {
    /// Whether it is treated like GET.
    fn is_plain(&self) -> bool {
        (
            self.replies.as_str(),
            self.state.as_str(),
            self.deadline.as_str(),
            self.probe.as_str(),
            self.open.as_str(),
        ) == ("1", "-", "response", "decides", "rejected")
    }
}

/// The list, by name.
fn list() -> BTreeMap<String, Row> {
    let output = once(&["classify", "redis", "--commands"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let head = text.lines().next().expect("a heading");
    let titles = ["command", "group", "replies", "connection state", "deadline", "probe", "while open"];
    let starts: Vec<usize> = titles.iter().map(|title| head.find(title).expect("a column")).collect();
    let column = |line: &str, at: usize| {
        let end = starts.get(at + 1).copied().unwrap_or(line.len());
        line[starts[at]..end].trim_end().to_owned()
    };
    let row = |line: &str| Row {
        replies: column(line, 2),
        state: column(line, 3),
        deadline: column(line, 4),
        probe: column(line, 5),
        open: column(line, 6),
    };
    text.lines().skip(1).map(|line| (column(line, 0), row(line))).collect()
}

/// A command as the server describes it; subcommands as `NAME|SUB`.
#[derive(Debug)]
struct Described {
    name: String,
    flags: Vec<String>,
    is_container: bool,
}

impl Described {
    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|had| had == flag)
    }
}

fn describe(reply: &Reply, all: &mut Vec<Described>) {
    let word = |reply: &Reply| match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Line(_, text) => text.clone(),
        other => panic!("no word: {other:?}"),
    };
    let Reply::Many(_, parts) = reply else { panic!("no command: {reply:?}") };
    let Reply::Many(_, flags) = &parts[2] else { panic!("no flags: {reply:?}") };
    let subcommands = match parts.get(9) {
        Some(Reply::Many(_, subcommands)) => subcommands.as_slice(),
        _ => &[],
    };
    all.push(Described {
        name: word(&parts[0]).to_ascii_uppercase(),
        flags: flags.iter().map(word).collect(),
        is_container: !subcommands.is_empty(),
    });
    subcommands.iter().for_each(|subcommand| describe(subcommand, all));
}

fn described() -> Vec<Described> {
    let redis = Redis::start();
    let Reply::Many(_, commands) = redis.client().call(&["COMMAND"]) else { panic!("no COMMAND") };
    let mut all = Vec::new();
    commands.iter().for_each(|command| describe(command, &mut all));
    all
}

/// The row of a command: its own, its container's, or that of its module.
fn row_of<'a>(list: &'a BTreeMap<String, Row>, name: &str) -> Option<&'a Row> {
    let container = name.split('|').next().unwrap_or(name);
    // So many subcommands of CLIENT change the connection that each must have been looked at.
    if let Some(row) = list.get(name).or_else(|| list.get(container).filter(|_| container != "CLIENT")) {
        return Some(row);
    }
    let module = format!("{}.*", name.split('.').next().unwrap_or(name));
    list.get(&module).filter(|_| name.contains('.'))
}

/// Wait for something other than the server, by other means than the flag `blocking` says (Redis 7.0).
const WAIT_UNFLAGGED: [&str; 3] = ["WAIT", "WAITAOF", "MIGRATE"];
/// Succeeds while loading only if all that it runs does: its replies are what is judged.
const LOADING_AND_CONCLUSIVE: [&str; 1] = ["EXEC"];
/// Not for scripts, and nothing special all the same: one reply, at once, that is the server's own work.
const NOSCRIPT_AND_PLAIN: [&str; 10] = [
    "BGREWRITEAOF",
    "BGSAVE",
    "CLUSTER",
    "FAILOVER",
    "FUNCTION",
    "MODULE",
    "REPLICAOF",
    "SCRIPT",
    "SLAVEOF",
    "HOTKEYS",
];
/// Part of the topic, but no subscription.
const PUBSUB_WITH_ONE_REPLY: [&str; 3] = ["PUBLISH", "SPUBLISH", "PUBSUB"];

/// What is wrong with the list in the eyes of this server.
fn complaints(list: &BTreeMap<String, Row>, commands: &[Described]) -> Vec<String> {
    let mut wrong = Vec::new();
    for command in commands {
        let name = command.name.as_str();
        let container = name.split('|').next().unwrap_or(name);
        if name.ends_with("|HELP") || command.is_container && name == "CLIENT" {
            continue;
        }
        let Some(row) = row_of(list, name) else {
            wrong.push(format!("{name} {:?}: not on the list", command.flags));
            continue;
        };
        let own = row.deadline.starts_with("own");
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{name} {:?}: {what}; {row:?}", command.flags));
            }
        };
        must(
            !command.is("blocking") || own && row.probe == "by PING",
            "blocking, so it needs its own deadline and must be no probe",
        );
        must(
            !own || command.is("blocking") || WAIT_UNFLAGGED.contains(&name),
            "not blocking, so the server owes its reply at once",
        );
        if !command.is_container {
            let answered_while_loading = command.is("loading") && command.is("stale");
            must(
                !answered_while_loading || row.probe != "decides" || LOADING_AND_CONCLUSIVE.contains(&name),
                "answered while loading, so its success shows nothing",
            );
            must(
                answered_while_loading || command.is("allow_busy") || row.probe != "goes along",
                "not answered while loading or busy, so its success shows something",
            );
            must(
                !command.is("allow_busy") || row.probe != "decides",
                "answered by a busy server, so its success shows nothing",
            );
        }
        must(
            !command.is("pubsub")
                || row.replies.contains("argument")
                || PUBSUB_WITH_ONE_REPLY.contains(&container),
            "about subscriptions, so it may have several replies",
        );
        must(
            !(command.is("noscript") || command.is("no_multi") || command.is("no_auth"))
                || !row.is_plain()
                || NOSCRIPT_AND_PLAIN.contains(&container),
            "not for scripts or transactions, or before AUTH: it may do something to its connection",
        );
    }
    wrong
}

#[test]
fn every_command_of_a_real_server_is_listed_and_its_flags_go_with_its_row() {
    let wrong = complaints(&list(), &described());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each rule can see what it is for: lists with one mistake, and the complaint that is due.
#[test]
fn a_list_with_a_mistake_is_complained_of() {
    let (list, commands) = (list(), described());
    let plain = list["GET"].clone();
    for (name, complaint) in [
        ("BLPOP", "blocking, so"),
        ("INFO", "answered while loading"),
        ("FUNCTION|STATS", "answered by a busy server"),
        ("SUBSCRIBE", "about subscriptions"),
        ("RESET", "not for scripts"),
    ] {
        let mut mistaken = list.clone();
        mistaken.insert(name.to_owned(), plain.clone());
        let wrong = complaints(&mistaken, &commands);
        assert!(
            wrong.iter().any(|wrong| wrong.starts_with(name) && wrong.contains(complaint)),
            "{name}: {wrong:#?}"
        );
    }
    for (name, other, complaint) in
        [("GET", "BLPOP", "not blocking"), ("GET", "INFO", "not answered while loading or busy")]
    {
        let mut mistaken = list.clone();
        mistaken.insert(name.to_owned(), list[other].clone());
        let wrong = complaints(&mistaken, &commands);
        assert!(
            wrong.iter().any(|wrong| wrong.starts_with(name) && wrong.contains(complaint)),
            "{name}: {wrong:#?}"
        );
    }
    for name in ["GETEX", "CLIENT|NO-EVICT"] {
        let mut mistaken = list.clone();
        mistaken.remove(name).expect("it is listed");
        let wrong = complaints(&mistaken, &commands);
        assert!(
            wrong.iter().any(|wrong| wrong.starts_with(name) && wrong.contains("not on the list")),
            "{wrong:#?}"
        );
    }
}

#[test]
fn postgres_has_no_list_of_commands() {
    let output = once(&["classify", "postgres", "--commands"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--commands is for Redis"), "{output:?}");
    assert_eq!(once(&["classify", "redis", "OOM", "--commands"]).status.code(), Some(2));
}
