//! Finding programs, ports and directories.
//!
//! A missing program is a panic with the way to get it: a skipped test would look like a passed one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::{env, fs, io};

use socket2::{Domain, Socket, Type};

use crate::until::awake;

/// The path of a program, from the newest `/usr/lib/postgresql/*/bin`, from `PATH`, or from `/usr/sbin`, which is not on
/// everybody's `PATH`.
///
/// # Panics
/// If the program is nowhere.
pub fn tool(name: &str) -> PathBuf {
    find_tool(name).unwrap_or_else(|| {
        panic!("`{name}` is not installed; proto-tests/run.sh installs what the tests need")
    })
}

/// As [`tool`], for a program that may be missing.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let on_path: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let mut all = postgres_bin_dirs().into_iter().chain(on_path).chain(["/usr/sbin".into()]);
    all.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()))
}

fn postgres_bin_dirs() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, dir): &(u32, PathBuf)| dir.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, dir)| dir).collect()
}

/// A TCP port on which nobody listens and which the kernel will not give to an outgoing connection: below the
/// ephemeral range. An ephemeral port could be taken while its server is down, or a client could even connect to
/// itself on it.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // Test binaries of other checkouts may run at the same time; the process id keeps them apart.
    let start = 12_000 + (std::process::id() % 1_000) as u16 * 20;
    let port = (start..32_000)
        .chain(12_000..start)
        .find(|port| !given.contains(port) && is_free(*port))
        .expect("every port between 12000 and 32000 is taken");
    given.insert(port);
    port
}

/// Binds and does not listen: a client of another test, whose server is down on this port, must be refused meanwhile.
fn is_free(port: u16) -> bool {
    let bindable = |address: SocketAddr| -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    let v6 = !has_ipv6() || bindable((Ipv6Addr::LOCALHOST, port).into()).is_ok();
    v6 && bindable((Ipv4Addr::LOCALHOST, port).into()).is_ok()
}

/// Whether this machine has an IPv6 loopback (containers often have none).
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// The directory with the build profile's binaries (`target/debug`), derived from the running test.
pub fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("the test's own path");
    let dir = exe.parent().expect("a directory");
    if dir.ends_with("deps") { dir.parent().expect("a profile directory").to_owned() } else { dir.to_owned() }
}

/// The top directory of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// A script of `drivers/` with its interpreter and their pinned packages.
///
/// # Panics
/// If they are not installed.
pub fn script(name: &str) -> Command {
    let installed = profile_dir().parent().expect("target/").join("drivers");
    let clean = |program: PathBuf| {
        assert!(
            program.is_file(),
            "{} is missing; proto-tests/run.sh installs the drivers",
            program.display()
        );
        let mut command = Command::new(program);
        for (key, _) in env::vars_os() {
            let key_name = key.to_string_lossy();
            if ["PG", "REDIS", "PYTHON", "NODE"].iter().any(|prefix| key_name.starts_with(prefix)) {
                command.env_remove(key);
            }
        }
        command
    };
    let mut command = if Path::new(name).extension().is_some_and(|extension| extension == "py") {
        let mut command = clean(installed.join("python/bin/python"));
        command.arg("-B");
        command
    } else {
        let mut command = clean(installed.join("node/bin/node"));
        command.env("NODE_PATH", installed.join("node/node_modules"));
        command
    };
    command.arg(repository().join("proto-tests/drivers").join(name));
    command
}

/// Runs a command to its end and returns its output; a hanging one is killed and fails the test.
pub fn run(command: &mut Command) -> Output {
    run_with_input(command, b"")
}

/// [`run`] with bytes for its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    use std::io::{Read, Write};
    const LIMIT: Duration = Duration::from_secs(60);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = input.to_vec();
    // A program that ends early closes its input; that is its own business.
    let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
    let collect = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            bytes
        })
    };
    let stdout = collect(stdout.map(|pipe| Box::new(pipe) as _));
    let stderr = collect(stderr.map(|pipe| Box::new(pipe) as _));
    let deadline = awake() + LIMIT;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        match child.try_wait().expect("a child to wait for") {
            Some(status) => break status,
            None if awake() > deadline => {
                child.kill().ok();
                child.wait().ok();
                let (out, err) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
                panic!(
                    "{command:?} still ran after {LIMIT:?}\nstdout: {}\nstderr: {}",
                    String::from_utf8_lossy(&out),
                    String::from_utf8_lossy(&err)
                )
            }
            None => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    writer.join().ok();
    Output { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() }
}

/// Reads `250ms`, `30s`, `5m` or `1h`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let read = |(unit, millis): &(&str, u64)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()? * millis);
    units.iter().find_map(read).map(Duration::from_millis).ok_or_else(|| format!("not a duration: {text}"))
}

/// A command's standard output as text; fails the test if the command failed.
pub fn output_of(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?} failed: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
