//! Two Redis servers that can fail over, and the one address that clients know.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use super::history::directly;
use super::redis_checker::{ADMIN, users};
use crate::Redis;
use crate::until::{check, eventually};
use crate::wire::Reply;

/// A primary and its replica, and the address that clients know.
#[derive(Debug)]
pub struct Pair {
    servers: [Redis; 2],
    primary: usize,
    link: PathBuf,
    _dir: TempDir,
}

impl Pair {
    /// Starts both, the second as the replica of the first.
    pub fn start() -> Self {
        let args: Vec<String> = users()
            .into_iter()
            .chain(["--masteruser", "admin", "--masterauth", ADMIN].map(str::to_owned))
            .chain(["--repl-diskless-sync-delay", "0"].map(str::to_owned))
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let servers = [Redis::with(&args), Redis::with(&args)];
        let dir = TempDir::with_prefix("fusewire-pair-").expect("a temporary directory");
        let pair = Self { servers, primary: 0, link: dir.path().join("current.sock"), _dir: dir };
        pair.point();
        pair.follow(1);
        pair
    }

    /// The unix socket where clients find the primary.
    pub fn address(&self) -> &Path {
        &self.link
    }

    /// The primary.
    pub fn primary(&self) -> &Redis {
        &self.servers[self.primary]
    }

    /// The primary dies, its replica takes its place and its address; then the dead one comes back as the replica.
    pub fn fail_over(&mut self, pause: Duration) {
        let old = self.primary;
        self.servers[old].kill();
        sleep(pause);
        self.primary = 1 - old;
        directly(self.primary().addr(), &["REPLICAOF", "NO", "ONE"]).expect("a promotion");
        self.point();
        sleep(pause);
        self.servers[old].restart();
        self.follow(old);
    }

    /// Clients find the primary here from now on.
    fn point(&self) {
        let new = self.link.with_extension("new");
        symlink(self.primary().unix(), &new).expect("a link");
        fs::rename(&new, &self.link).expect("a link");
    }

    fn follow(&self, replica: usize) {
        let (port, addr) = (self.primary().port().to_string(), self.servers[replica].addr());
        directly(addr, &["REPLICAOF", "127.0.0.1", &port]).expect("a replica");
        eventually("replication", || match directly(addr, &["INFO", "replication"]) {
            Ok(Reply::Bulk(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                check(text.contains("master_link_status:up"), text)
            }
            other => Err(format!("{other:?}")),
        });
    }
}
