//! A private real Redis on a free port, without persistence.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Process, Signal};
use crate::tools::{free_port, has_ipv6, tool};
use crate::until::eventually;
use crate::wire::Client;

/// A private Redis. Dropped, it is gone with all its files.
#[derive(Debug)]
pub struct Redis {
    process: Option<Process>,
    port: u16,
    args: Vec<String>,
    dir: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more arguments (`--requirepass`, `hunter2`).
    pub fn with(args: &[&str]) -> Self {
        let dir = TempDir::with_prefix("fusewire-redis-").expect("a temporary directory");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut redis = Self { process: None, port: free_port(), args, dir };
        redis.restart();
        redis
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        self.kill();
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        let bind: &[&str] =
            if has_ipv6() { &["--bind", "127.0.0.1", "::1"] } else { &["--bind", "127.0.0.1"] };
        let mut command = Command::new(tool("redis-server"));
        command.args(["--port", &self.port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(bind).args(["--daemonize", "no", "--maxclients", "2000"]);
        command.arg("--unixsocket").arg(self.unix()).arg("--dir").arg(self.dir.path()).args(&self.args);
        self.process = Some(Process::start(command.current_dir(self.dir.path()).stdout(log)));
        eventually("Redis", || {
            let running = self.process.as_mut().is_some_and(|process| process.ended().is_none());
            assert!(running, "Redis ended: {}", self.log());
            let mut client = Client::try_connect(self.addr()).map_err(|error| error.to_string())?;
            client.try_send(b"PING\r\n").map_err(|error| error.to_string())?;
            // One that cannot start after all accepts and hangs up.
            client.try_byte().ok_or("it hung up")?;
            match client.line().as_str() {
                "PONG" => Ok(()),
                line if line.starts_with("NOAUTH") => Ok(()),
                line => Err(line.to_owned()),
            }
        });
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port, on 127.0.0.1 and, where there is one, on ::1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its unix socket.
    pub fn unix(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// A client that bypasses the proxy.
    pub fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// A hang: the process stands still, its sockets stay open.
    pub fn freeze(&self) {
        self.running().freeze();
    }

    /// Ends a hang.
    pub fn thaw(&self) {
        self.running().thaw();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("a running Redis")
    }
}
