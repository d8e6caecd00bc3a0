//! Two Postgres servers that can fail over: a primary and a standby that has a commit before the client hears of it.
//!
//! `synchronous_standby_names` is always set, as with Patroni's `synchronous_mode_strict`: a primary without its standby
//! acknowledges no commit, so none that was acknowledged can be lost, whichever of the two is promoted. fusewire
//! learns where the primary is from its configuration file, which is written anew and reloaded, as an operator's
//! tools do it; connections that are there stay where they are. (The pair of Redis servers has an address that moves.)
//!
//! Absent on purpose: who decides on a fail-over. Here a fault does.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tempfile::TempDir;

use super::postgres_checker::PostgresChecker;
use crate::postgres_server::{Options, as_postgres, give_away};
use crate::tools::{free_port, output_of, tool};
use crate::until::{check, eventually};
use crate::{Fusewire, Postgres};

/// fusewire's name of it.
pub const NAME: &str = "bank";

/// For both servers, since either may be the primary. A standby calls itself by its `cluster_name`; a base backup has
/// another name and confirms nothing.
const SETTINGS: &[&str] = &[
    "synchronous_commit=on",
    "synchronous_standby_names=standby",
    "cluster_name=standby",
    "max_standby_streaming_delay=-1",
];

/// SQLSTATEs that a standby answers writes with: read-only, and no serialisable transactions.
pub const READ_ONLY: &[&str] = &["25006", "0A000"];

/// A primary, its standby, and the file that says where the primary is.
#[derive(Debug)]
pub struct Bank {
    servers: [Postgres; 2],
    primary: usize,
    listen: SocketAddr,
    dir: TempDir,
}

impl Bank {
    /// Starts both.
    pub fn start() -> Self {
        let server = || Postgres::with(Options { settings: SETTINGS, ..Options::default() });
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let dir = TempDir::with_prefix("fusewire-bank-").expect("a temporary directory");
        let mut bank = Self { servers: [server(), server()], primary: 0, listen, dir };
        bank.write_address();
        bank.copy();
        bank
    }

    /// fusewire's configuration file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("fusewire.toml")
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// The primary.
    pub fn primary(&self) -> &Postgres {
        &self.servers[self.primary]
    }

    /// The other one: the standby, or what is left of the old primary.
    pub fn other(&mut self) -> &mut Postgres {
        &mut self.servers[1 - self.primary]
    }

    /// The primary, to do harm to it.
    pub fn primary_mut(&mut self) -> &mut Postgres {
        &mut self.servers[self.primary]
    }

    /// Makes the standby the primary. Nobody is told.
    pub fn promote(&mut self) {
        self.primary = 1 - self.primary;
        assert_eq!(self.primary().sql("SELECT pg_promote()"), "t", "a promotion: {}", self.primary().log());
    }

    /// Tells fusewire where the primary is.
    pub fn announce(&self, proxy: &Fusewire) {
        self.write_address();
        proxy.post("/api/v1/config/reload");
    }

    fn write_address(&self) {
        let (listen, upstream) = (self.listen, self.primary().addr());
        let text = format!(
            "[[backend]]\nprotocol = \"postgres\"\nname = \"{NAME}\"\nlisten = \"{listen}\"\nupstream = \"{upstream}\"\n"
        );
        fs::write(self.file(), text).expect("a configuration file");
    }

    /// Throws the other server's data away and makes it a standby from a copy of the primary, which may be at work.
    /// What only a dead primary had, a commit that nobody was told of, is gone with that.
    pub fn copy(&mut self) {
        let port = self.primary().port().to_string();
        let old = self.other();
        old.kill();
        fs::remove_dir_all(old.data()).expect("its data");
        let mut copy = as_postgres(&tool("pg_basebackup"));
        copy.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", "fast", "--no-sync", "-D"]);
        output_of(copy.arg(old.data()).current_dir(old.data().parent().expect("a directory")));
        self.follow();
    }

    /// Makes the other server a standby with the data that it has. It must have ended in order, and have sent all.
    pub fn follow(&mut self) {
        let port = self.primary().port();
        let data = self.other().data();
        let address = format!("primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'\n");
        fs::write(data.join("standby.signal"), "").expect("a file");
        fs::write(data.join("postgresql.auto.conf"), address).expect("a file");
        give_away(&data);
        self.other().restart();
        eventually("a synchronous standby", || {
            let state = self.primary().sql("SELECT sync_state FROM pg_stat_replication");
            check(state == "sync", state)
        });
    }

    /// A fail-over that loses what was acknowledged: the standby is away, somebody has the primary wait for it no longer,
    /// and then the primary is away. To see that the checker sees.
    pub fn sabotage(&mut self, checker: &PostgresChecker) {
        self.other().kill();
        let before = checker.commits();
        eventually("a commit that the standby lacks", || {
            let waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            self.primary().sql(waiting);
            let now = checker.commits();
            check(now > before, now)
        });
        self.primary_mut().kill();
        self.other().restart();
        self.promote();
    }
}
