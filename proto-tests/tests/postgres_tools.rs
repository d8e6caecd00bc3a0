//! The programs that come with Postgres do the same through the proxy as without it: what they print, what they
//! leave in the database, what they write to disk.
//!
//! Each does its work twice, directly and through the proxy, and both results are compared with each other.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use proto_tests::postgres_server::{client, psql};
use proto_tests::process::{Process, Signal};
use proto_tests::tools::{output_of, run, run_with_input};
use proto_tests::until::check;
use proto_tests::{Fusewire, Options, Postgres, Setup, eventually};
use tempfile::TempDir;

const DB: [(&str, &str); 1] = [("backend", "db")];

/// A server that keeps what replication needs, and the proxy before it.
fn both() -> (Postgres, Fusewire) {
    let postgres = Postgres::with(Options { settings: &["wal_level=logical"], ..Options::default() });
    let proxy = Setup::default().postgres("db", postgres.addr(), "").start();
    (postgres, proxy)
}

/// A table with something in it that COPY, quoting and encodings can get wrong.
const FIXTURE: &str = "
    CREATE TABLE t (x int PRIMARY KEY, y text, z bytea, w numeric[]);
    INSERT INTO t SELECT n, repeat(chr(945 + n % 24), n % 7) || E'\\t\\n\\\\' || n, decode(md5(n::text), 'hex'),
        ARRAY[n, NULL, n / 3.0] FROM generate_series(1, 3000) n;
    CREATE VIEW v AS SELECT count(*) FROM t;
    CREATE FUNCTION f(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN n * 2; END $$;
    CREATE INDEX ON t (y);";

/// Standard output of a program that must succeed without a word on standard error.
#[track_caller]
fn quiet(command: &mut Command) -> Vec<u8> {
    let output = run(command);
    assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
    output.stdout
}

#[test]
fn pgbench_leaves_the_same_rows_in_all_three_query_protocols() {
    let (postgres, proxy) = both();
    for (database, addr) in [("direct", postgres.addr()), ("through", proxy.addr("db"))] {
        postgres.sql(&format!("CREATE DATABASE {database}"));
        let bench = |args: &[&str]| {
            let output = run(client("pgbench", addr).args(args).arg(database));
            assert!(output.status.success(), "{args:?}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        bench(&["-i", "-q", "-s", "1"]);
        for mode in ["simple", "extended", "prepared"] {
            // With a seed of its own each client does the same each time, and sums do not depend on the order.
            let said = bench(&["-n", "-c", "4", "-j", "2", "-t", "100", "-M", mode, "--random-seed=7"]);
            assert!(said.contains("number of transactions actually processed: 400/400"), "{mode}: {said}");
        }
    }
    let rows = |database: &str| {
        let digest = |columns: &str, table: &str| {
            format!("(SELECT md5(string_agg({columns}, ',' ORDER BY {columns})) FROM pgbench_{table})")
        };
        let sql = format!(
            "SELECT {}, {}, {}, {}, (SELECT count(*) FROM pgbench_history)",
            digest("aid || ' ' || abalance", "accounts"),
            digest("bid || ' ' || bbalance", "branches"),
            digest("tid || ' ' || tbalance", "tellers"),
            digest("tid || ' ' || bid || ' ' || aid || ' ' || delta", "history"),
        );
        output_of(psql(postgres.addr(), &sql).args(["-d", database]))
    };
    let direct = rows("direct");
    assert!(direct.trim_end().ends_with("|1200"), "{direct}");
    assert_eq!(rows("through"), direct);
    proxy.stop_clean("db");
}

/// A dump as text; what a dump says of itself is different each time.
fn dump(addr: SocketAddr, database: &str) -> String {
    let text = quiet(client("pg_dump", addr).args(["-d", database]));
    let text = String::from_utf8(text).expect("UTF-8");
    let own = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
    text.lines().filter(own).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_dump_that_was_read_and_restored_through_the_proxy_is_the_same_dump() {
    let (postgres, proxy) = both();
    postgres.sql(FIXTURE);
    postgres.sql("CREATE DATABASE restored");
    postgres.sql("CREATE DATABASE parallel");
    let wanted = dump(postgres.addr(), "postgres");
    let text = dump(proxy.addr("db"), "postgres");
    assert!(text == wanted, "{} and {} bytes", text.len(), wanted.len());
    let mut restore = client("psql", proxy.addr("db"));
    restore.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored"]);
    let output = run_with_input(&mut restore, text.as_bytes());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(dump(postgres.addr(), "restored") == wanted);

    // Several connections that share a snapshot, and COPY into several tables at a time.
    let dir = TempDir::new().expect("a temporary directory");
    let folder = dir.path().join("dump");
    quiet(client("pg_dump", proxy.addr("db")).args(["-d", "postgres", "-Fd", "-j2", "-f"]).arg(&folder));
    quiet(client("pg_restore", proxy.addr("db")).args(["-d", "parallel", "-j2"]).arg(&folder));
    assert!(dump(postgres.addr(), "parallel") == wanted);
    proxy.stop_clean("db");
}

#[test]
fn copy_moves_the_same_bytes_in_both_directions_and_every_format() {
    let (postgres, proxy) = both();
    postgres.sql(FIXTURE);
    postgres.sql("CREATE TABLE back (LIKE t)");
    let all = "SELECT md5(string_agg(back::text, ',' ORDER BY x)) FROM back";
    for format in ["text", "csv", "binary"] {
        let out = |addr| quiet(&mut psql(addr, &format!("COPY t TO STDOUT (FORMAT {format})")));
        let bytes = out(proxy.addr("db"));
        assert!(bytes == out(postgres.addr()), "{format}");
        let mut digests = Vec::new();
        for addr in [postgres.addr(), proxy.addr("db")] {
            postgres.sql("TRUNCATE back");
            let mut command = psql(addr, &format!("COPY back FROM STDIN (FORMAT {format})"));
            let output = run_with_input(&mut command, &bytes);
            assert!(output.status.success(), "{format}: {output:?}");
            digests.push(postgres.sql(all));
        }
        assert_eq!(digests[0], digests[1], "{format}");
        assert_eq!(digests[0], postgres.sql("SELECT md5(string_agg(t::text, ',' ORDER BY x)) FROM t"));
    }
    proxy.stop_clean("db");
}

#[test]
fn pg_receivewal_writes_the_same_log() {
    let (postgres, proxy) = both();
    postgres.sql(FIXTURE);
    let end = postgres.sql("SELECT pg_current_wal_insert_lsn()");
    let segment = postgres.sql(&format!("SELECT pg_walfile_name('{end}')"));
    let length: usize = postgres
        .sql(&format!("SELECT file_offset FROM pg_walfile_name_offset('{end}')"))
        .parse()
        .expect("a length");
    // It ends when it has seen more than it was asked for.
    postgres.sql("CREATE TABLE more AS SELECT generate_series(1, 1000)");
    let received = |addr| {
        let dir = TempDir::new().expect("a temporary directory");
        let mut command = client("pg_receivewal", addr);
        let output = run(command.args(["-n", "--no-sync", "--endpos", &end, "-D"]).arg(dir.path()));
        assert!(output.status.success(), "{output:?}");
        fs::read(dir.path().join(format!("{segment}.partial"))).expect("a segment")
    };
    let direct = received(postgres.addr());
    let through = received(proxy.addr("db"));
    let written = fs::read(postgres.data().join("pg_wal").join(&segment)).expect("the server's segment");
    assert!(length > 100_000 && direct[..length] == written[..length]);
    assert!(through[..length] == written[..length]);
    assert!(proxy.metric("fusewire_opaque_connections_total", &DB) >= 1.0);
    proxy.stop_clean("db");
}

#[test]
fn pg_basebackup_copies_the_whole_cluster() {
    let (postgres, proxy) = both();
    postgres.sql(FIXTURE);
    let dir = TempDir::new().expect("a temporary directory");
    let data = dir.path().join("data");
    quiet(
        client("pg_basebackup", proxy.addr("db"))
            .args(["--no-sync", "-c", "fast", "-X", "stream", "-D"])
            .arg(&data),
    );
    quiet(
        Command::new(proto_tests::tools::tool("pg_verifybackup"))
            .arg(&data)
            .stdin(Stdio::null())
            .env("LC_ALL", "C")
            .arg("-q"),
    );
    proxy.stop_clean("db");
}

#[test]
fn pg_recvlogical_prints_the_same_changes() {
    let (postgres, proxy) = both();
    postgres.sql("CREATE TABLE t (x int PRIMARY KEY, y text)");
    for (slot, addr) in [("direct", postgres.addr()), ("through", proxy.addr("db"))] {
        quiet(client("pg_recvlogical", addr).args([
            "-d",
            "postgres",
            "-S",
            slot,
            "--create-slot",
            "-P",
            "test_decoding",
        ]));
    }
    postgres.sql("INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 2000) n; UPDATE t SET y = NULL WHERE x = 7; DELETE FROM t WHERE x = 8");
    let end = postgres.sql("SELECT pg_current_wal_insert_lsn()");
    postgres.sql("INSERT INTO t VALUES (8, 'one more')");
    let changes = |slot: &str, addr| {
        let mut command = client("pg_recvlogical", addr);
        command.args(["-d", "postgres", "-S", slot, "--start", "-n", "--endpos", &end, "-f", "-"]);
        String::from_utf8(quiet(&mut command)).expect("UTF-8")
    };
    let direct = changes("direct", postgres.addr());
    let through = changes("through", proxy.addr("db"));
    assert!(
        direct.lines().count() >= 2004
            && direct.contains("table public.t: UPDATE: x[integer]:7 y[text]:null"),
        "{direct}"
    );
    assert!(through == direct, "{} and {} bytes", through.len(), direct.len());
    quiet(client("pg_recvlogical", proxy.addr("db")).args([
        "-d",
        "postgres",
        "-S",
        "through",
        "--drop-slot",
    ]));
    assert_eq!(postgres.sql("SELECT string_agg(slot_name, ' ') FROM pg_replication_slots"), "direct");
    proxy.stop_clean("db");
}

#[test]
fn a_subscription_follows_its_publisher_through_the_proxy() {
    let (postgres, proxy) = both();
    let subscriber = Postgres::start();
    for server in [&postgres, &subscriber] {
        server.sql("CREATE TABLE t (x int PRIMARY KEY, y text)");
    }
    postgres.sql(
        "INSERT INTO t SELECT n, 'before' FROM generate_series(1, 1000) n; CREATE PUBLICATION p FOR TABLE t",
    );
    let port = proxy.addr("db").port();
    subscriber.sql(&format!("CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={port} user=postgres dbname=postgres' PUBLICATION p"));
    postgres.sql("INSERT INTO t SELECT n, 'after' FROM generate_series(1001, 2000) n");
    let digest = "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY x)) FROM t";
    let wanted = postgres.sql(digest);
    eventually("the subscriber", || {
        let got = subscriber.sql(digest);
        check(got == wanted, got)
    });
    // The stream outlives a trip: it is no call.
    proxy.post("/api/v1/circuit-breaker/trip/db");
    postgres.sql("DELETE FROM t WHERE x % 2 = 0");
    let wanted = postgres.sql(digest);
    eventually("the subscriber", || {
        let got = subscriber.sql(digest);
        check(got == wanted, got)
    });
    proxy.post("/api/v1/circuit-breaker/reset/db");
    subscriber.sql("DROP SUBSCRIPTION s");
    assert_eq!(postgres.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    proxy.stop_clean("db");
}

#[test]
fn psql_hears_its_notifications() {
    let (postgres, proxy) = both();
    let heard = |addr| {
        let script = "LISTEN news;\nNOTIFY news;\nSELECT pg_notify('news', 'payload ' || n) FROM generate_series(1, 3) n;\n\
                      UNLISTEN news;\nNOTIFY news, 'unheard';\nSELECT 1;\n";
        let mut command = client("psql", addr);
        command.args(["-X", "-q", "-A", "-t", "-d", "postgres"]);
        let output = run_with_input(&mut command, script.as_bytes());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let plain = text
            .lines()
            .map(|line| line.split(" received from server process").next().unwrap_or_default().to_owned());
        plain.collect::<Vec<_>>()
    };
    let direct = heard(postgres.addr());
    assert_eq!(
        direct.iter().filter(|line| line.starts_with("Asynchronous notification \"news\"")).count(),
        4,
        "{direct:?}"
    );
    assert_eq!(heard(proxy.addr("db")), direct);
    proxy.stop_clean("db");
}

/// Large objects are read and written by FunctionCall messages.
#[test]
fn large_objects_come_back_as_they_went() {
    let (postgres, proxy) = both();
    let dir = TempDir::new().expect("a temporary directory");
    let given = dir.path().join("given");
    let mut bytes = Vec::new();
    proto_tests::payload::stream(3, 3 << 20, |piece| bytes.extend_from_slice(piece));
    fs::write(&given, &bytes).expect("a file");
    let told = |addr: SocketAddr, script: &str| {
        let mut command = client("psql", addr);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
        let output = run_with_input(&mut command, script.as_bytes());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    };
    let show = |path: &Path| path.display().to_string();
    for (name, into, out_of) in
        [("a", proxy.addr("db"), postgres.addr()), ("b", postgres.addr(), proxy.addr("db"))]
    {
        let file = dir.path().join(name);
        told(into, &format!("\\lo_import '{}' {name}\n", show(&given)));
        let oid = postgres.sql(&format!("SELECT loid FROM pg_largeobject_metadata m JOIN (SELECT DISTINCT loid FROM pg_largeobject) o ON o.loid = m.oid WHERE obj_description(m.oid, 'pg_largeobject') = '{name}'"));
        told(out_of, &format!("\\lo_export {oid} '{}'\n", show(&file)));
        assert!(fs::read(&file).expect("a file") == bytes, "{name}");
        told(proxy.addr("db"), &format!("\\lo_unlink {oid}\n"));
    }
    assert_eq!(postgres.sql("SELECT count(*) FROM pg_largeobject_metadata"), "0");
    proxy.stop_clean("db");
}

/// A psql that sleeps on the server; what `act` does to it must end its query. What it said at its end.
fn interrupted(postgres: &Postgres, addr: SocketAddr, act: impl FnOnce(&Process)) -> Output {
    let mut command = psql(addr, "SELECT 'begun', pg_sleep(60)");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start(&mut command);
    eventually("a running query", || {
        let running = postgres.sql(SLEEPING);
        check(running.lines().count() == 1, running)
    });
    act(&process);
    let status = process.wait();
    let mut texts = [Vec::new(), Vec::new()];
    let child = process.child();
    std::io::Read::read_to_end(&mut child.stdout.take().expect("a pipe"), &mut texts[0]).expect("output");
    std::io::Read::read_to_end(&mut child.stderr.take().expect("a pipe"), &mut texts[1]).expect("output");
    let [stdout, stderr] = texts;
    Output { status, stdout, stderr }
}

const SLEEPING: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

#[test]
fn ctrl_c_and_pg_cancel_backend_end_a_query_and_nothing_else() {
    let (postgres, proxy) = both();
    let ctrl_c = |addr| interrupted(&postgres, addr, |psql| psql.signal(Signal::INT));
    let by_sql = |addr| {
        interrupted(&postgres, addr, |_| {
            assert_eq!(postgres.sql(&format!("SELECT pg_cancel_backend(({SLEEPING}))")), "t");
        })
    };
    let acts: [&dyn Fn(SocketAddr) -> Output; 2] = [&ctrl_c, &by_sql];
    for act in acts {
        let (direct, through) = (act(postgres.addr()), act(proxy.addr("db")));
        assert!(
            String::from_utf8_lossy(&direct.stderr).contains("canceling statement due to user request"),
            "{direct:?}"
        );
        assert_eq!(
            (direct.status, &direct.stdout, &direct.stderr),
            (through.status, &through.stdout, &through.stderr)
        );
    }
    assert_eq!(proxy.metric("fusewire_cancel_requests_total", &DB), 1.0);
    proxy.stop_clean("db");
}
