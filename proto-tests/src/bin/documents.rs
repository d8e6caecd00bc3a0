//! Runs the commands of README.md and docs/ as they are written.
//!
//! They name fixed ports and the servers 10.0.0.5 and 10.0.0.6. So this wants a network and a file system view of its own:
//!
//! ```sh
//! unshare --net --mount target/debug/documents
//! ```
//!
//! There it has a Redis at 10.0.0.5:6379, a Postgres at 10.0.0.6:5432 and, unless the command itself starts one, a fusewire as
//! the README starts it.

use std::fs;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proto_tests::documents::{self, Block};
use proto_tests::process::{Process, Signal};
use proto_tests::tools::{output_of, repository, run, tool};
use proto_tests::until::check;
use proto_tests::{Postgres, Redis, eventually, fusewire, http};
use rustix::process::{Pid, kill_process_group};
use tempfile::TempDir;

fn main() {
    own_network();
    let documents = documents::all();
    let mut blocks: Vec<Block> =
        documents.iter().flat_map(|(name, text)| documents::blocks(name, text)).collect();
    blocks.retain(|block| block.not_run().is_none());
    let mut stage = Stage::new(&blocks);
    let mut done = 0;
    for block in &blocks {
        match block.language.as_str() {
            "sh" | "console" => done += stage.play(block),
            "toml" => stage.check(block),
            _ => {}
        }
    }
    println!("{done} commands were run");
}

/// Loopback with the servers' addresses, and a /run to make sockets in.
///
/// # Panics
/// If this is the network of the machine.
fn own_network() {
    let links = output_of(Command::new(tool("ip")).args(["-o", "link"]));
    assert_eq!(
        links.lines().count(),
        1,
        "not a network of its own: unshare --net --mount {:?}",
        std::env::args()
    );
    output_of(Command::new(tool("ip")).args(["link", "set", "lo", "up"]));
    for addr in ["10.0.0.5/32", "10.0.0.6/32"] {
        output_of(Command::new(tool("ip")).args(["addr", "add", addr, "dev", "lo"]));
    }
    output_of(Command::new(tool("mount")).args(["-t", "tmpfs", "tmpfs", "/run"]));
    fs::create_dir("/run/fusewire").expect("a directory");
}

/// What the documents take for granted.
struct Stage {
    dir: TempDir,
    redis: Redis,
    postgres: Postgres,
    ways: Vec<Way>,
    /// The command with which the README starts fusewire.
    start: String,
    proxy: Option<Process>,
}

impl Stage {
    fn new(blocks: &[Block]) -> Self {
        let dir = TempDir::with_prefix("fusewire-documents-").expect("a temporary directory");
        let link = |from: &Path, to: &str| {
            let to = dir.path().join(to);
            fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
            symlink(from, to).expect("a link");
        };
        // A clean clone that has been built, and fusewire on PATH.
        link(&fusewire::binary(), "target/release/fusewire");
        link(&fusewire::binary(), "bin/fusewire");
        for folder in ["deploy", "docs", "proto-tests"] {
            link(&repository().join(folder), folder);
        }
        let (redis, postgres) = (Redis::start(), Postgres::start());
        postgres.sql("CREATE ROLE app LOGIN");
        postgres.sql("CREATE DATABASE shop OWNER app");
        let example = blocks.iter().find(|block| block.language == "toml").expect("a configuration");
        fs::write(dir.path().join("fusewire.toml"), &example.text).expect("a file");
        let readme = blocks.iter().filter(|block| block.place.0 == "README.md");
        let start = readme
            .flat_map(Block::commands)
            .map(|command| command.text)
            .find(|text| starts_a_proxy(text))
            .expect("the README starts fusewire");
        let mut stage = Self { dir, redis, postgres, ways: Vec::new(), start, proxy: None };
        stage.open_the_ways();
        stage
    }

    fn open_the_ways(&mut self) {
        let ways = [("10.0.0.5:6379", self.redis.addr()), ("10.0.0.6:5432", self.postgres.addr())];
        self.ways = ways.map(|(from, to)| Way::new(from.parse().expect("an address"), to)).into();
    }

    /// Runs the commands of a block; how many.
    fn play(&mut self, block: &Block) -> usize {
        let commands = block.commands();
        if block.how == "open" {
            self.have_both_open();
        }
        for command in &commands {
            println!("{}: {}", block.place, command.text);
            if starts_a_proxy(&command.text) {
                self.stop();
                self.proxy = Some(self.started(&command.text));
                self.stop();
            } else if command.text.contains("curl -sN") || command.text.contains("--watch") {
                self.have_a_proxy();
                self.listen_to(&command.text);
            } else {
                self.have_a_proxy();
                let output = run(&mut self.shell(&command.text));
                let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                if block.how == "open" {
                    let said = without_numbers(&said);
                    for line in &command.output {
                        // Without a terminal redis-cli leaves this out.
                        let line = without_numbers(line.trim_start_matches("(error) "));
                        assert!(said.contains(&line), "`{line}` is not in {said}");
                    }
                } else {
                    assert!(
                        output.status.success() && !said.contains("\"error\""),
                        "{}: {said}",
                        output.status
                    );
                }
            }
        }
        if block.how == "open" {
            self.open_the_ways();
        }
        if self.proxy.is_some() {
            post("reset-all");
            post("enforce/cache");
        }
        commands.len()
    }

    /// Has an example judged by `fusewire check`.
    fn check(&self, block: &Block) {
        println!("{}: an example of a configuration", block.place);
        let file = self.dir.path().join("example.toml");
        fs::write(&file, &block.text).expect("a file");
        output_of(&mut fusewire::command(&["check", "--config", file.to_str().expect("a path")]));
    }

    fn shell(&self, text: &str) -> Command {
        let path = std::env::var("PATH").expect("PATH");
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", text]).current_dir(self.dir.path());
        shell.env("PATH", format!("{}:{path}", self.dir.path().join("bin").display())).env("TOKEN", "secret");
        shell
    }

    fn started(&self, text: &str) -> Process {
        let mut process = Process::start(self.shell(&format!("exec {text}")).stdin(Stdio::null()));
        eventually("fusewire", || {
            assert_eq!(process.ended(), None, "it ended");
            let ready =
                http::request(admin(), "GET", "/readyz", &[], "").map_err(|error| error.to_string())?;
            check(ready.status == 200, ready)
        });
        process
    }

    fn have_a_proxy(&mut self) {
        if self.proxy.is_none() {
            self.proxy = Some(self.started(&self.start));
        }
    }

    fn stop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            proxy.signal(Signal::TERM);
            assert!(proxy.wait().success());
        }
    }

    /// Both servers are gone, and have been asked for often enough.
    fn have_both_open(&mut self) {
        self.have_a_proxy();
        self.ways.clear();
        for (name, ask) in
            [("cache", "redis-cli -p 6380 PING"), ("db", "psql -h 127.0.0.1 -p 6432 -U app shop")]
        {
            eventually("an open breaker", || {
                run(&mut self.shell(ask));
                let path = format!("/api/v1/circuit-breaker/status/{name}");
                let status =
                    http::request(admin(), "GET", &path, &[], "").map_err(|error| error.to_string())?;
                check(status.json()["state"] == "open", status)
            });
        }
    }

    /// A command that goes on for ever says something when a breaker trips.
    fn listen_to(&self, text: &str) {
        let mut shell = self.shell(text);
        let mut child = shell.process_group(0).stdout(Stdio::piped()).spawn().expect("bash");
        let mut stdout = child.stdout.take().expect("a pipe");
        let (sender, said) = channel();
        let reader = thread::spawn(move || {
            let mut byte = [0];
            sender.send(stdout.read_exact(&mut byte).is_ok()).ok();
        });
        eventually("the first word", || {
            post("trip/cache");
            post("reset/cache");
            match said.recv_timeout(Duration::from_millis(100)) {
                Ok(true) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
        child.wait().ok();
        reader.join().ok();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ways.clear();
    }
}

fn admin() -> SocketAddr {
    "127.0.0.1:9900".parse().expect("an address")
}

fn post(action: &str) {
    let path = format!("/api/v1/circuit-breaker/{action}");
    http::request(admin(), "POST", &path, &[], "").expect("an answer");
}

/// Whether a command goes on as a proxy.
fn starts_a_proxy(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let fusewire = words.next().is_some_and(|word| word == "fusewire" || word.ends_with("/fusewire"));
    let next = words.next().unwrap_or_default();
    fusewire && (next == "run" || next.starts_with("--") || next == "\\")
}

fn without_numbers(text: &str) -> String {
    let mut said = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if said.ends_with('#') => {}
            true => said.push('#'),
            false => said.push(c),
        }
    }
    said
}

/// A way to a server by another address. Dropped, it is closed, and who tries it is refused.
struct Way {
    addr: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Way {
    fn new(addr: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("an address of its own");
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = thread::spawn(move || {
            let mut sockets = Vec::new();
            for client in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(server) = TcpStream::connect(to) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) =
                        (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    thread::spawn(move || {
                        std::io::copy(&mut from, &mut to).ok();
                        to.shutdown(Shutdown::Write).ok();
                    });
                }
                sockets.push(client);
            }
            sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
        });
        Self { addr, over, thread: Some(thread) }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread, which then closes the listener.
        TcpStream::connect(self.addr).ok();
        self.thread.take().map(JoinHandle::join);
    }
}
