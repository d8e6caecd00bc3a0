//! A Redis behind a network that can be cut: in a network namespace of its own, at the other end of a virtual cable.
//!
//! Nothing leaves the machine. Both ends are to be in namespaces that the caller has made: run the caller itself with
//! `unshare --net`, as proto-tests/chaos.sh does. It takes root.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::history::directly;
use super::redis_checker::users;
use crate::process::Process;
use crate::tools::{output_of, tool};
use crate::until::eventually;

/// The two ends of the cable: 192.0.2.0/24 is for documentation and is nowhere.
const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";
/// No interface has it: what is sent there is gone.
const NOBODY: &str = "02:00:00:00:00:99";

/// A Redis, and the cable to it.
#[derive(Debug)]
pub struct Island {
    name: String,
    process: Option<Process>,
    _dir: TempDir,
}

impl Island {
    /// Whether this process is alone in a network namespace and may make another.
    pub fn possible() -> bool {
        let links = Command::new("ip").args(["-o", "link"]).output();
        let alone = links.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().count() == 1);
        alone && crate::process::is_root()
    }

    /// Builds one. The loopback of this namespace must be up.
    pub fn build() -> Self {
        let name = format!("fusewire-{}", std::process::id());
        let ip = |args: &str| output_of(Command::new("ip").args(args.split(' ')));
        ip(&format!("netns add {name}"));
        let dir = TempDir::with_prefix("fusewire-island-").expect("a temporary directory");
        let mut island = Self { name: name.clone(), process: None, _dir: dir };
        ip(&format!("link add fuse0 type veth peer name fuse1 netns {name}"));
        ip(&format!("address add {HERE}/24 dev fuse0"));
        ip("link set fuse0 up");
        ip(&format!("-n {name} address add {THERE}/24 dev fuse1"));
        ip(&format!("-n {name} link set fuse1 up"));
        ip(&format!("-n {name} link set lo up"));
        island.start();
        island
    }

    fn start(&mut self) {
        let log = File::create(self._dir.path().join("log")).expect("a log file");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(tool("redis-server"));
        command
            .args(["--bind", THERE, "--port", "6379", "--save", "", "--protected-mode", "no"])
            .args(users());
        command.current_dir(self._dir.path()).stdin(Stdio::null()).stdout(log);
        self.process = Some(Process::start(&mut command));
        eventually("the island's Redis", || {
            directly(self.addr(), &["PING"]).map(drop).map_err(|error| error.to_string())
        });
    }

    /// Where its Redis is.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(THERE.parse().expect("an address"), 6379)
    }

    /// From here on whatever is sent there is lost, and so is each answer. Nobody is told.
    pub fn cut(&self) {
        self.neighbours(&format!("replace {THERE} lladdr {NOBODY} dev fuse0 nud permanent"), "");
        self.neighbours(&format!("replace {HERE} lladdr {NOBODY} dev fuse1 nud permanent"), &self.name);
    }

    /// What is sent arrives, and each answer is lost.
    pub fn cut_answers(&self) {
        self.neighbours(&format!("replace {HERE} lladdr {NOBODY} dev fuse1 nud permanent"), &self.name);
    }

    /// Whole again.
    pub fn mend(&self) {
        self.neighbours(&format!("del {THERE} dev fuse0"), "");
        self.neighbours(&format!("del {HERE} dev fuse1"), &self.name);
    }

    /// Changes who is where, here or in another namespace. To delete what is not there is fine.
    fn neighbours(&self, change: &str, namespace: &str) {
        let mut command = Command::new("ip");
        if !namespace.is_empty() {
            command.args(["-n", namespace]);
        }
        let output = command.arg("neigh").args(change.split(' ')).output().expect("ip");
        assert!(output.status.success() || change.starts_with("del"), "ip neigh {change}: {output:?}");
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        self.process = None;
        Command::new("ip").args(["link", "del", "fuse0"]).output().ok();
        Command::new("ip").args(["netns", "del", &self.name]).output().ok();
    }
}
