//! What the load runs through: nothing, fusewire, and other proxies, each a process with a port for each protocol.
//!
//! All of them as their packages have them, with what it takes to be comparable: HAProxy gets as many threads as
//! fusewire has workers, one for each core, and nobody logs connections. twemproxy, PgBouncer and our forwarder have
//! one thread and no choice.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proto_tests::postgres_server::owner;
use proto_tests::process::Process;
use proto_tests::tools::{find_tool, free_port, output_of};
use proto_tests::{Client, Fusewire, Postgres, Redis, Setup, eventually, postgres_server};
use tempfile::TempDir;

use crate::rows::{Protocol, Row, Work};
use crate::usage::Usage;

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No proxy.
    Direct,
    Haproxy,
    Fusewire,
    /// Another build of fusewire.
    Build(&'static Path),
    /// Our bare loop around readiness events, one thread.
    Forwarder,
    /// Our copy loop on tokio, one thread.
    Relay,
    /// twemproxy.
    Nutcracker,
    /// With a server connection for each client.
    Pgbouncer,
}

/// The servers behind all of them.
pub(crate) struct Servers {
    redis: Option<Redis>,
    postgres: Option<Postgres>,
}

/// One of them at work.
pub(crate) struct Peer {
    process: Run,
    redis: SocketAddr,
    postgres: SocketAddr,
    _dir: TempDir,
}

enum Run {
    None,
    Fusewire(Fusewire),
    Other(Process),
}

impl Servers {
    /// Starts what these rows need, and fills it.
    pub(crate) fn start(rows: &[&Row]) -> Self {
        let need = |protocol| rows.iter().any(|row| row.work.protocol() == protocol);
        let redis = need(Protocol::Redis).then(|| {
            let redis = Redis::with(&["--maxclients", "9000"]);
            let mut client = redis.client();
            let big = "x".repeat(1024 * 1024);
            client.send(format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n{big}\r\n", big.len()).as_bytes());
            assert_eq!(client.line(), "+OK");
            // What redis-benchmark's own `-t get` asks for.
            client.send(b"SET key:__rand_int__ xxx\r\n");
            assert_eq!(client.line(), "+OK");
            redis
        });
        let postgres = need(Protocol::Postgres).then(|| {
            let postgres = Postgres::start();
            output_of(postgres_server::client("pgbench", postgres.addr()).args(["-i", "-q", "postgres"]));
            postgres
        });
        Self { redis, postgres }
    }

    /// Puts what redis-benchmark's SET has overwritten back to three bytes.
    fn restore(&self) {
        if let Some(redis) = &self.redis {
            let mut client = redis.client();
            client.send(b"SET key:__rand_int__ xxx\r\n");
            assert_eq!(client.line(), "+OK");
        }
    }

    fn redis(&self) -> SocketAddr {
        self.redis.as_ref().map_or(NOWHERE, Redis::addr)
    }

    fn postgres(&self) -> SocketAddr {
        self.postgres.as_ref().map_or(NOWHERE, Postgres::addr)
    }
}

/// Of a server that no row needs.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

impl Kind {
    /// As it is called in the output.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Fusewire => "fusewire",
            Self::Build(path) => path.file_name().and_then(OsStr::to_str).unwrap_or("?"),
            Self::Forwarder => "forwarder",
            Self::Relay => "relay",
            Self::Nutcracker => "twemproxy",
            Self::Pgbouncer => "pgbouncer",
        }
    }

    /// Whether it is there.
    pub(crate) fn is_installed(&self) -> bool {
        match self {
            Self::Direct | Self::Fusewire | Self::Build(_) | Self::Forwarder | Self::Relay => true,
            Self::Haproxy => find_tool("haproxy").is_some(),
            Self::Nutcracker => find_tool("nutcracker").is_some(),
            Self::Pgbouncer => find_tool("pgbouncer").is_some(),
        }
    }

    /// Starts it and waits until it serves.
    pub(crate) fn start(self, servers: &Servers, row: &Row) -> Peer {
        servers.restore();
        let dir = TempDir::with_prefix("fusewire-bench-").expect("a temporary directory");
        let (to_redis, to_postgres) = (servers.redis(), servers.postgres());
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (redis, postgres) = (port(), port());
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a configuration");
            path
        };
        // Whoever is not root can be read here too: PgBouncer is started as another user.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
        let own = |name: &str| {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args([name, &redis.to_string(), &to_redis.to_string()]);
            command.args([postgres.to_string(), to_postgres.to_string()]);
            command
        };
        let mut command = match self {
            Self::Direct => {
                return Peer { process: Run::None, redis: to_redis, postgres: to_postgres, _dir: dir };
            }
            Self::Fusewire | Self::Build(_) => {
                // An outage of the bench's own making, a refused connection say, must not be over before it is seen.
                let mut setup = Setup::default().redis("redis", to_redis, "recovery-timeout=1h").postgres(
                    "postgres",
                    to_postgres,
                    "recovery-timeout=1h",
                );
                if let Self::Build(path) = self {
                    setup = setup.built_as(path);
                }
                let fusewire = setup.start();
                let (redis, postgres) = (fusewire.addr("redis"), fusewire.addr("postgres"));
                if matches!(row.work, Work::Rejected { .. }) {
                    fusewire.post("/api/v1/circuit-breaker/trip/redis");
                }
                return Peer { process: Run::Fusewire(fusewire), redis, postgres, _dir: dir };
            }
            Self::Forwarder => own("forwarder"),
            Self::Relay => own("relay"),
            Self::Haproxy => {
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                let text = format!(
                    "global\n  nbthread {threads}\n  maxconn 9000\ndefaults\n  mode tcp\n  maxconn 9000\n  \
                     timeout connect 3s\n  timeout client 1h\n  timeout server 1h\n\
                     listen redis\n  bind {redis}\n  server redis {to_redis}\n\
                     listen postgres\n  bind {postgres}\n  server postgres {to_postgres}\n"
                );
                let mut command = Command::new(find_tool("haproxy").expect("haproxy"));
                command.arg("-db").arg("-f").arg(file("haproxy.cfg", &text));
                command
            }
            Self::Nutcracker => {
                let text = format!(
                    "bench:\n  listen: {redis}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  \
                     servers:\n   - {to_redis}:1\n"
                );
                let mut command = Command::new(find_tool("nutcracker").expect("nutcracker"));
                command.arg("-c").arg(file("nutcracker.yml", &text)).args(["-s", &free_port().to_string()]);
                command
            }
            Self::Pgbouncer => {
                let text = format!(
                    "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                     listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = session\n\
                     max_client_conn = 9000\ndefault_pool_size = 64\nlog_connections = 0\nlog_disconnections = 0\n\
                     ignore_startup_parameters = extra_float_digits\n",
                    to_postgres.port(),
                    postgres.port()
                );
                let mut command = Command::new(find_tool("pgbouncer").expect("pgbouncer"));
                command.arg(file("pgbouncer.ini", &text));
                // It refuses to run as root.
                if let Some((uid, gid)) = owner() {
                    command.uid(uid).gid(gid);
                }
                command
            }
        };
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).current_dir("/");
        let process = Process::start(&mut command);
        let listens = if row.work.protocol() == Protocol::Redis { redis } else { postgres };
        eventually(self.name(), || Client::try_connect(listens).map(drop).map_err(|error| error.to_string()));
        Peer { process: Run::Other(process), redis, postgres, _dir: dir }
    }
}

impl Peer {
    /// Where clients of a protocol connect.
    pub(crate) fn addr(&self, protocol: Protocol) -> SocketAddr {
        if protocol == Protocol::Redis { self.redis } else { self.postgres }
    }

    /// Its process, if there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.process {
            Run::None => None,
            Run::Fusewire(fusewire) => Some(fusewire.pid()),
            Run::Other(process) => Some(process.pid()),
        }
    }

    /// What it has cost so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.pid().map(Usage::of)
    }
}
