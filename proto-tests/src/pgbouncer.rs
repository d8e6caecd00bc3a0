//! A private real pgbouncer before a private Postgres, on a free port.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use tempfile::TempDir;

use crate::pgwire::Pg;
use crate::postgres_server::{Postgres, as_postgres, give_away};
use crate::process::{Process, Signal};
use crate::tools::{free_port, tool};
use crate::until::eventually;

/// A private pgbouncer. Dropped, it is gone with all its files.
#[derive(Debug)]
pub struct Pgbouncer {
    process: Process,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Pgbouncer {
    /// Starts one for the databases of `postgres`, which knows the users `postgres` and `user`, with more settings
    /// (`max_client_conn = 1`).
    pub fn before(postgres: &Postgres, settings: &[&str]) -> Self {
        let dir = TempDir::with_prefix("fusewire-pgbouncer-").expect("a temporary directory");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = format!(
            "[databases]\npostgres = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = users\nadmin_users = postgres\n{}\n",
            postgres.port(),
            addr.port(),
            settings.join("\n")
        );
        fs::write(dir.path().join("config"), config).expect("a file");
        fs::write(dir.path().join("users"), "\"postgres\" \"\"\n\"app\" \"\"\n").expect("a file");
        let log = File::create(dir.path().join("log")).expect("a log file");
        give_away(dir.path());
        let mut command = as_postgres(&tool("pgbouncer"));
        command.arg("config").current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = Process::start(&mut command);
        eventually("pgbouncer", || {
            let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            assert!(process.ended().is_none(), "pgbouncer ended: {log}");
            // Its own console needs no server.
            let mut pg = Pg::try_connect(addr).map_err(|error| error.to_string())?;
            pg.startup("postgres", "pgbouncer").map_err(|error| error.to_string())
        });
        Self { process, addr, _dir: dir }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it at once, with its clients' connections.
    pub fn stop(mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait();
    }
}
