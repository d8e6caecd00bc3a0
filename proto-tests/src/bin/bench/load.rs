//! Who makes the load: redis-benchmark, pgbench, a reader for COPY that does nothing with what it reads, and a client
//! for rejections, at the first of which redis-benchmark gives up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Instant;

use proto_tests::postgres_server::client;
use proto_tests::tools::{output_of, tool};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a run has shown, from the client's side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) operations: f64,
    /// Operations a second.
    pub(crate) rate: f64,
    /// Milliseconds; none where the client does not say.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// Redis commands by redis-benchmark.
pub(crate) fn redis(addr: SocketAddr, clients: u32, pipeline: u32, args: &[&str], amount: u64) -> Done {
    // Every client sends whole pipelines.
    let step = u64::from(pipeline);
    let amount = amount.div_ceil(step) * step;
    let mut command = Command::new(tool("redis-benchmark"));
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "--csv"]);
    command.args(["-c", &clients.to_string(), "-P", &pipeline.to_string(), "-n", &amount.to_string()]);
    let text = output_of(command.args(args));
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms",...
    let line = text.lines().last().expect("a line of figures");
    let fields: Vec<f64> = line.split("\",\"").map(|field| field.parse().unwrap_or(f64::NAN)).collect();
    assert!(fields.len() > 6, "redis-benchmark says {text}");
    Done { operations: amount as f64, rate: fields[1], p50: Some(fields[4]), p99: Some(fields[6]) }
}

/// GETs by 50 clients of our own; a reply, be it a value or an error, has so many lines.
pub(crate) fn lines(addr: SocketAddr, pipeline: u32, lines: usize, amount: u64) -> Done {
    const CLIENTS: u64 = 50;
    let batches = amount.div_ceil(CLIENTS * u64::from(pipeline)).max(1);
    let requests = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:__rand_int__\r\n".repeat(pipeline as usize);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let started = Instant::now();
    let mut latencies: Vec<f64> = runtime.block_on(async {
        let client = || tokio::spawn(one_client(addr, requests.clone(), batches, lines * pipeline as usize));
        let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(client.await.expect("a client"));
        }
        latencies
    });
    let (seconds, operations) =
        (started.elapsed().as_secs_f64(), (batches * CLIENTS * u64::from(pipeline)) as f64);
    latencies.sort_by(f64::total_cmp);
    let at = |q: f64| latencies.get((latencies.len() as f64 * q) as usize).copied();
    Done { operations, rate: operations / seconds, p50: at(0.5), p99: at(0.99) }
}

/// One client's batches; how many milliseconds each took.
async fn one_client(addr: SocketAddr, requests: Vec<u8>, batches: u64, lines: usize) -> Vec<f64> {
    let mut stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let (mut buffer, mut latencies) = (vec![0; 64 * 1024], Vec::new());
    for _ in 0..batches {
        let sent = Instant::now();
        stream.write_all(&requests).await.expect("requests");
        let mut left = lines;
        while left > 0 {
            let n = stream.read(&mut buffer).await.expect("replies");
            assert!(n > 0, "the server has hung up");
            left -= buffer[..n].iter().filter(|byte| **byte == b'\n').count();
        }
        latencies.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    latencies
}

/// Transactions of one SELECT by pgbench.
pub(crate) fn pgbench(addr: SocketAddr, clients: u32, args: &[&str], amount: u64) -> Done {
    let each = amount.div_ceil(u64::from(clients)).max(1);
    let logs = TempDir::with_prefix("fusewire-bench-").expect("a temporary directory");
    let mut command = client("pgbench", addr);
    command.args(["-n", "-S", "-c", &clients.to_string(), "-j", &clients.min(2).to_string()]);
    command.args(["-t", &each.to_string()]).args(args).arg("postgres").current_dir(logs.path());
    if clients == 1 {
        command.arg("-l");
    }
    let text = output_of(&mut command);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let rate = rate.unwrap_or_else(|| panic!("pgbench says {text}"));
    let latencies = if clients == 1 { latencies(&logs) } else { Vec::new() };
    let at = |q: f64| latencies.get((latencies.len() as f64 * q) as usize).map(|micros| micros / 1e3);
    Done { operations: (each * u64::from(clients)) as f64, rate, p50: at(0.5), p99: at(0.99) }
}

/// The third column of pgbench's log, in microseconds, in order.
fn latencies(logs: &TempDir) -> Vec<f64> {
    let files = std::fs::read_dir(logs.path()).expect("the logs").flatten();
    let text: String = files.map(|file| std::fs::read_to_string(file.path()).expect("a log")).collect();
    let third = |line: &str| line.split(' ').nth(2)?.parse().ok();
    let mut latencies: Vec<f64> = text.lines().filter_map(third).collect();
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// One COPY of so many MiB, in rows of 1 KiB. An operation is a MiB.
pub(crate) fn copy(addr: SocketAddr, mebibytes: u64) -> Done {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let len = u32::try_from(parameters.len() + 8).expect("a short message");
    stream.write_all(&[&len.to_be_bytes()[..], &[0, 3, 0, 0], parameters].concat()).expect("a startup");
    read_until_ready(&mut stream);
    let sql =
        format!("COPY (SELECT repeat('x', 1018) FROM generate_series(1, {})) TO STDOUT\0", mebibytes * 1024);
    let len = u32::try_from(sql.len() + 4).expect("a short message");
    let started = Instant::now();
    stream.write_all(&[b"Q", &len.to_be_bytes()[..], sql.as_bytes()].concat()).expect("a query");
    let bytes = read_until_ready(&mut stream);
    let seconds = started.elapsed().as_secs_f64();
    assert!(bytes >= mebibytes * 1024 * 1024, "COPY gave {bytes} bytes");
    Done { operations: mebibytes as f64, rate: mebibytes as f64 / seconds, p50: None, p99: None }
}

/// Reads up to a ReadyForQuery outside a transaction; how much that was.
fn read_until_ready(stream: &mut TcpStream) -> u64 {
    const READY: &[u8] = b"Z\0\0\0\x05I";
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut kept) = (0, 0);
    loop {
        let n = stream.read(&mut buffer[kept..]).expect("bytes");
        assert!(n > 0, "the server has hung up");
        total += n as u64;
        let end = kept + n;
        if buffer[..end].ends_with(READY) {
            return total;
        }
        // The message may have come in two pieces.
        kept = end.min(READY.len() - 1);
        buffer.copy_within(end - kept..end, 0);
    }
}
