//! The table: each workload, who takes part, and what fusewire has to reach.

use std::net::SocketAddr;

use crate::load::{self, Done};
use crate::peer::Kind::{self, Direct, Forwarder, Fusewire, Haproxy, Nutcracker, Pgbouncer, Relay};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) work: Work,
    pub(crate) peers: &'static [Kind],
    pub(crate) must: Must,
}

/// What the clients do.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// redis-benchmark.
    Redis { clients: u32, pipeline: u32, args: &'static [&'static str] },
    /// GETs through a breaker that is open, or from the live server.
    Rejected { pipeline: u32 },
    /// pgbench -S.
    Pgbench { clients: u32, args: &'static [&'static str] },
    /// One COPY OUT of so many MiB, which is its operation.
    Copy,
    /// So many clients that have connected and do nothing.
    Idle { clients: usize },
}

/// The two protocols.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Redis,
    Postgres,
}

/// What fusewire must reach.
#[derive(Clone, Copy, Default)]
pub(crate) struct Must {
    /// At most so much of HAProxy's CPU time.
    pub(crate) cpu: Option<f64>,
    /// At least so much of HAProxy's throughput; of the server's own with an open breaker.
    pub(crate) rate: Option<f64>,
    /// A median latency (for an open breaker: a 99th percentile) that is no higher.
    pub(crate) latency: bool,
    /// At most so many KiB for each idle client.
    pub(crate) kib: Option<f64>,
}

const REDIS: &[Kind] = &[Direct, Haproxy, Fusewire, Forwarder, Relay, Nutcracker];
const POSTGRES: &[Kind] = &[Direct, Haproxy, Fusewire, Forwarder, Relay, Pgbouncer];

const fn must(cpu: f64, rate: f64) -> Must {
    Must { cpu: Some(cpu), rate: Some(rate), latency: false, kib: None }
}

const fn redis(clients: u32, pipeline: u32, args: &'static [&'static str]) -> Work {
    Work::Redis { clients, pipeline, args }
}

/// Every workload, in the order in which they run.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "get",
        title: "Redis GET 3 B, 50 clients, P 1",
        work: redis(50, 1, &["-t", "get"]),
        peers: REDIS,
        must: must(0.95, 1.0),
    },
    Row {
        name: "get-500",
        title: "the same, 500 clients",
        work: redis(500, 1, &["-t", "get"]),
        peers: REDIS,
        must: must(0.90, 1.05),
    },
    Row {
        name: "get-p16",
        title: "50 clients, P 16",
        work: redis(50, 16, &["-t", "get"]),
        peers: REDIS,
        must: must(0.98, 1.0),
    },
    Row {
        name: "get-p64",
        title: "50 clients, P 64",
        work: redis(50, 64, &["-t", "get"]),
        peers: REDIS,
        must: must(1.15, 0.97),
    },
    Row {
        name: "set-1k",
        title: "SET 1 KiB, P 16",
        work: redis(50, 16, &["-t", "set", "-d", "1024"]),
        peers: REDIS,
        must: must(0.98, 1.0),
    },
    Row {
        name: "get-1m",
        title: "GET 1 MiB, 8 clients",
        work: redis(8, 1, &["GET", "big"]),
        peers: REDIS,
        must: must(1.0, 1.0),
    },
    Row {
        name: "connect",
        title: "a Redis connection per command",
        work: redis(50, 1, &["-k", "0", "-t", "get"]),
        peers: REDIS,
        must: must(0.80, 1.3),
    },
    Row {
        name: "pg-simple",
        title: "pgbench -S, 16 clients, simple",
        work: pgbench(16, &["-M", "simple"]),
        peers: POSTGRES,
        must: must(0.92, 1.03),
    },
    Row {
        name: "pg-extended",
        title: "pgbench -S, 16 clients, extended",
        work: pgbench(16, &["-M", "extended"]),
        peers: POSTGRES,
        must: must(0.92, 1.03),
    },
    Row {
        name: "pg-prepared",
        title: "pgbench -S, 16 clients, prepared",
        work: pgbench(16, &["-M", "prepared"]),
        peers: POSTGRES,
        must: must(0.92, 1.03),
    },
    Row {
        name: "pg-one",
        title: "pgbench -S prepared, 1 client (latency)",
        work: pgbench(1, &["-M", "prepared"]),
        peers: POSTGRES,
        must: Must { cpu: Some(0.84), rate: None, latency: true, kib: None },
    },
    Row { name: "copy", title: "COPY OUT of 1 GB", work: Work::Copy, peers: POSTGRES, must: must(0.95, 1.0) },
    Row {
        name: "pg-connect",
        title: "pgbench -C (connection per transaction)",
        work: pgbench(8, &["-C"]),
        peers: &[Direct, Haproxy, Fusewire, Forwarder, Relay],
        must: Must { cpu: Some(0.92), rate: None, latency: false, kib: None },
    },
    Row {
        name: "idle",
        title: "memory of an idle client connection",
        work: Work::Idle { clients: 2000 },
        peers: &[Haproxy, Fusewire, Forwarder, Relay, Nutcracker],
        must: Must { cpu: None, rate: None, latency: false, kib: Some(2.0) },
    },
    Row {
        name: "open",
        title: "breaker open, Redis GET, P 1",
        work: Work::Rejected { pipeline: 1 },
        peers: &[Direct, Fusewire],
        must: Must { cpu: None, rate: Some(1.0), latency: true, kib: None },
    },
    Row {
        name: "open-p64",
        title: "breaker open, Redis GET, P 64",
        work: Work::Rejected { pipeline: 64 },
        peers: &[Direct, Fusewire],
        must: Must { cpu: None, rate: Some(1.0), latency: true, kib: None },
    },
];

const fn pgbench(clients: u32, args: &'static [&'static str]) -> Work {
    Work::Pgbench { clients, args }
}

impl Work {
    /// Does so many operations through what listens there.
    pub(crate) fn run(&self, kind: Kind, addr: SocketAddr, amount: u64) -> Done {
        match *self {
            Self::Redis { clients, pipeline, args } => load::redis(addr, clients, pipeline, args, amount),
            Self::Rejected { pipeline } => {
                let lines = if kind == Direct { 2 } else { 1 };
                load::lines(addr, pipeline, lines, amount)
            }
            Self::Pgbench { clients, args } => load::pgbench(addr, clients, args, amount),
            Self::Copy => load::copy(addr, amount),
            Self::Idle { .. } => unreachable!("idle clients do nothing"),
        }
    }

    /// The protocol that is spoken.
    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::Redis { .. } | Self::Rejected { .. } | Self::Idle { .. } => Protocol::Redis,
            Self::Pgbench { .. } | Self::Copy => Protocol::Postgres,
        }
    }

    /// A number of operations that shows roughly how fast it is.
    pub(crate) fn pilot(&self) -> u64 {
        match self {
            Self::Redis { args, .. } if args.contains(&"big") => 100,
            Self::Redis { args, .. } if args.contains(&"-k") => 2_000,
            Self::Redis { pipeline, .. } | Self::Rejected { pipeline } => {
                10_000 * u64::from(*pipeline).min(20)
            }
            Self::Pgbench { args, .. } if args.contains(&"-C") => 200,
            Self::Pgbench { .. } => 3_000,
            Self::Copy => 64,
            Self::Idle { .. } => 0,
        }
    }

    /// The number of operations of a measurement that had better be about `wanted`.
    pub(crate) fn amount(&self, wanted: f64) -> u64 {
        match self {
            Self::Copy => 1024,
            _ => (wanted as u64).max(self.pilot() / 2),
        }
    }

    /// A COPY takes as long as it takes: some seconds.
    pub(crate) fn rounds(&self, asked: usize) -> usize {
        if matches!(self, Self::Copy) { asked.min(3) } else { asked }
    }

    /// What is counted.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Redis { args, .. } if args.contains(&"big") => "GiB",
            Self::Copy => "GiB",
            _ => "M ops",
        }
    }

    /// Operations in one unit.
    pub(crate) fn per_unit(&self) -> f64 {
        if self.unit() == "GiB" { 1024.0 } else { 1e6 }
    }
}
