//! The proxy under test: the real binary, its admin API, its metrics and its log.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::{env, fs, thread};

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::process::{self, Process, Signal};
use crate::tools::{free_port, profile_dir, repository, run};
use crate::until::{check, eventually};

/// The binary: `FUSEWIRE_BIN`, else the one beside the running test, which cargo brings up to date first, so that
/// no test ever passes against yesterday's build.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            if let Some(path) = env::var_os("FUSEWIRE_BIN") {
                return path.into();
            }
            let dir = profile_dir();
            if let Some(cargo) = env::var_os("CARGO") {
                let mut build = Command::new(cargo);
                build.args(["build", "--quiet", "--package", "fusewire", "--bin", "fusewire"]);
                if dir.ends_with("release") {
                    build.arg("--release");
                }
                let built = build.current_dir(repository()).status().expect("cargo");
                assert!(built.success(), "fusewire does not build");
            }
            let path = dir.join("fusewire");
            assert!(path.is_file(), "{} is missing: cargo build, or set FUSEWIRE_BIN", path.display());
            path
        })
        .clone()
}

/// A `fusewire` command without settings from the environment.
pub fn command(args: &[&str]) -> Command {
    command_of(&binary(), args)
}

fn command_of(binary: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    for (key, _) in env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("FUSEWIRE_")) {
        command.env_remove(key);
    }
    command.args(args);
    command
}

/// Runs a `fusewire` command that ends by itself.
pub fn once(args: &[&str]) -> Output {
    run(&mut command(args))
}

/// What to start: backends and flags.
#[derive(Debug, Default)]
pub struct Setup {
    args: Vec<String>,
    listen: BTreeMap<String, SocketAddr>,
    text_log: bool,
    env: Vec<(String, String)>,
    launcher: Vec<String>,
    binary: Option<PathBuf>,
    defaults: Option<TempDir>,
}

impl Setup {
    /// Adds a Redis backend on a free port. `more` are further `key=value` settings, separated by commas.
    pub fn redis(self, name: &str, upstream: impl ToString, more: &str) -> Self {
        self.backend("redis", name, &upstream.to_string(), more)
    }

    /// Adds a Postgres backend on a free port.
    pub fn postgres(self, name: &str, upstream: impl ToString, more: &str) -> Self {
        self.backend("postgres", name, &upstream.to_string(), more)
    }

    fn backend(mut self, protocol: &str, name: &str, upstream: &str, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { "," };
        let listen = if more.split(',').any(|setting| setting.starts_with("listen=")) {
            String::new()
        } else {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            self.listen.insert(name.to_owned(), addr);
            format!(",listen={addr}")
        };
        self.arg(&format!("--{protocol}"))
            .arg(&format!("name={name},upstream={upstream}{listen}{comma}{more}"))
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Logs text instead of JSON lines.
    pub fn text_log(mut self) -> Self {
        self.text_log = true;
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has another program start it, which gets its command line as further arguments and becomes it by exec(3).
    pub fn launched_by(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Takes another build of it than [`binary`].
    pub fn built_as(mut self, binary: &Path) -> Self {
        self.binary = Some(binary.to_owned());
        self
    }

    /// Has it read defaults for its backends from a file that [`Fusewire::set_defaults`] changes.
    pub fn with_defaults(mut self) -> Self {
        let dir = TempDir::with_prefix("fusewire-defaults-").expect("a temporary directory");
        let file = defaults_file(&dir);
        fs::write(&file, "").expect("a file");
        self.defaults = Some(dir);
        self.args(&["--config", file.to_str().expect("a path")])
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Fusewire {
        Fusewire::start(self)
    }
}

/// A running fusewire. Dropped, it is killed; [`Fusewire::stop`] ends it in order.
#[derive(Debug)]
pub struct Fusewire {
    process: Process,
    admin: SocketAddr,
    listen: BTreeMap<String, SocketAddr>,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    defaults: Option<TempDir>,
}

fn defaults_file(dir: &TempDir) -> PathBuf {
    dir.path().join("fusewire.toml")
}

impl Fusewire {
    fn start(setup: Setup) -> Self {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let format = if setup.text_log { "text" } else { "json" };
        let binary = setup.binary.unwrap_or_else(binary);
        let mut command =
            command_of(&binary, &["run", "--admin", &admin.to_string(), "--log-format", format]);
        command.args(&setup.args);
        if let Some((program, args)) = setup.launcher.split_first() {
            let mut launcher = Command::new(program);
            launcher.args(args).arg(command.get_program()).args(command.get_args());
            command = launcher;
        }
        command.envs(setup.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let child = process.child();
        let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
        let read = |pipe: Box<dyn Read + Send>| {
            let lines = lines.clone();
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            })
        };
        let readers = [stdout, stderr].into_iter().flatten().map(read).collect();
        let mut proxy =
            Self { process, admin, listen: setup.listen, lines, readers, defaults: setup.defaults };
        eventually("fusewire", || {
            let ended = proxy.process.ended();
            assert!(ended.is_none(), "fusewire ended ({ended:?}): {:#?}", proxy.log());
            let ready = http::request(admin, "GET", "/readyz", &[], "").map_err(|error| error.to_string())?;
            check(ready.status == 200, ready)
        });
        proxy
    }

    /// Where a backend's clients connect.
    #[track_caller]
    pub fn addr(&self, name: &str) -> SocketAddr {
        *self.listen.get(name).unwrap_or_else(|| panic!("no backend `{name}` with a port of its own"))
    }

    /// Where the admin API listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// An admin request.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str) -> Response {
        http::request(self.admin, method, path, &[], "")
            .unwrap_or_else(|error| panic!("{method} {path}: {error}; log: {:#?}", self.log()))
    }

    /// An admin GET that must succeed.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        let response = self.request("GET", path);
        assert_eq!(response.status, 200, "GET {path}: {response:?}");
        response
    }

    /// An admin POST that must succeed.
    #[track_caller]
    pub fn post(&self, path: &str) -> Response {
        let response = self.request("POST", path);
        assert_eq!(response.status, 200, "POST {path}: {response:?}");
        response
    }

    /// Changes the defaults of its backends (`response_timeout = "400ms"`), which hold from each connection's next call on: for
    /// limits that a server is to meet only in the part of a test in which it fails, however slow the machine is before.
    #[track_caller]
    pub fn set_defaults(&self, settings: &str) {
        let dir = self.defaults.as_ref().expect("a proxy that was set up with_defaults");
        fs::write(defaults_file(dir), format!("[defaults]\n{settings}\n")).expect("a file");
        self.post("/api/v1/config/reload");
    }

    /// One breaker as the admin API shows it.
    #[track_caller]
    pub fn status(&self, name: &str) -> Value {
        self.get(&format!("/api/v1/circuit-breaker/status/{name}")).json()
    }

    /// `closed`, `half_open` or `open`.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.status(name)["state"].as_str().unwrap_or("none").to_owned()
    }

    /// A number from a breaker's `metrics` in the admin API.
    #[track_caller]
    pub fn figure(&self, name: &str, figure: &str) -> u64 {
        let status = self.status(name);
        status["metrics"][figure].as_u64().unwrap_or_else(|| panic!("no figure `{figure}` in {status:#}"))
    }

    /// Awaits a state.
    #[track_caller]
    pub fn await_state(&self, name: &str, state: &str) {
        eventually(&format!("'{name}' to be {state}"), || {
            let status = self.status(name);
            check(status["state"] == state, status)
        });
    }

    /// Awaits that a figure of the admin API has this value.
    #[track_caller]
    pub fn await_figure(&self, name: &str, figure: &str, value: u64) {
        eventually(&format!("{figure} of '{name}' to be {value}"), || {
            let status = self.status(name);
            check(status["metrics"][figure] == value, status)
        });
    }

    /// Every sample of `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> Vec<Sample> {
        parse_metrics(&self.get("/metrics").body)
    }

    /// The sum of a metric over the samples that have these labels; 0 when there are none.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &Sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|had| had == value);
            sample.name == name && labels.iter().all(has)
        };
        self.metrics().iter().filter(|sample| fits(sample)).map(|sample| sample.value).sum()
    }

    /// Awaits that a metric, summed as by [`Fusewire::metric`], has at least this value.
    #[track_caller]
    pub fn await_metric(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name} to be {least}"), || {
            let value = self.metric(name, labels);
            check(value >= least, value)
        });
    }

    /// The lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Awaits a log line that contains `text`, and returns it.
    #[track_caller]
    pub fn await_log(&self, text: &str) -> String {
        eventually(&format!("`{text}` in the log"), || {
            let log = self.log();
            log.iter().find(|line| line.contains(text)).cloned().ok_or_else(|| format!("{log:#?}"))
        })
    }

    /// The most memory it has ever held resident, in bytes.
    pub fn peak_rss(&self) -> u64 {
        process::peak_rss(self.pid())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Awaits its end. The log is whole then.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.process.wait();
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        status
    }

    /// As [`Fusewire::stop`], once nothing is held against the backend called `name`: its breaker is closed, no call to it
    /// has failed, and no call at all was rejected.
    #[track_caller]
    pub fn stop_clean(self, name: &str) {
        assert_eq!(self.state(name), "closed");
        assert_eq!(self.figure(name, "failed_calls"), 0);
        assert_eq!(self.metric("circuit_breaker_rejections_total", &[]), 0.0);
        self.stop();
    }

    /// SIGTERM; it must end with exit code 0.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "fusewire ended with {status}: {:#?}", self.log());
    }
}

impl Drop for Fusewire {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            eprintln!("the last of fusewire's log:\n{}", log[log.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// One sample of a Prometheus exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Reads the text exposition format; label values must hold no escapes, as ours do.
#[track_caller]
pub fn parse_metrics(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse_sample(line).unwrap_or_else(|| panic!("not a sample: `{line}`"))).collect()
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = head.split_once('{') else {
        return Some(Sample { name: head.to_owned(), labels: BTreeMap::new(), value });
    };
    let labels = labels.strip_suffix('}')?.split("\",").filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (key, value) = label.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(Sample { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_and_without_labels() {
        let text = "# HELP a b\na 1\nb{x=\"1\",y=\"two three\"} 2.5\nc{le=\"+Inf\"} 7\n";
        let samples = parse_metrics(text);
        assert_eq!(samples.len(), 3);
        assert_eq!((samples[0].name.as_str(), samples[0].value), ("a", 1.0));
        assert_eq!(samples[1].labels["y"], "two three");
        assert_eq!(samples[2].labels["le"], "+Inf");
    }
}
