//! Another configuration under way: nobody is disconnected, nothing is forgotten, and a mistake changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use proto_tests::http;
use proto_tests::postgres_server::client;
use proto_tests::process::Signal;
use proto_tests::tools::{free_port, output_of, run, tool};
use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Pg, Postgres, Redis, Setup, eventually, fusewire};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;

/// A configuration file that a running proxy reads.
struct File {
    path: PathBuf,
    _dir: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let dir = TempDir::with_prefix("fusewire-reload-").expect("a temporary directory");
        let file = Self { path: dir.path().join("fusewire.toml"), _dir: dir };
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).expect("a configuration file");
    }

    fn start(&self) -> Fusewire {
        Setup::default().args(&["--config", &self.path.to_string_lossy()]).start()
    }

    /// Has `proxy` read a new text, and returns what it says has changed.
    #[track_caller]
    fn reload(&self, proxy: &Fusewire, text: &str) -> Value {
        self.write(text);
        proxy.post("/api/v1/config/reload").json()
    }
}

fn addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A `[[backend]]` table.
fn backend(protocol: &str, name: &str, listen: impl ToString, upstream: impl ToString, more: &str) -> String {
    let (listen, upstream) = (listen.to_string(), upstream.to_string());
    format!(
        "[[backend]]\nprotocol = {protocol:?}\nname = {name:?}\nlisten = {listen:?}\nupstream = {upstream:?}\n{more}\n"
    )
}

fn ping(addr: SocketAddr) -> Reply {
    Client::connect(addr).call(&["PING"])
}

#[test]
fn reloads_under_load_fail_no_call_and_an_open_breaker_stays_open() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let (cache, db, dead, extra) = (addr(), addr(), addr(), addr());
    let text = |n: usize| {
        let more = format!("response_timeout = \"{}s\"\nfailure_threshold = {}", 20 + n, 3 + n);
        let mut text = backend("redis", "cache", cache, redis.addr(), &more);
        text += &backend("postgres", "db", db, postgres.addr(), &more);
        text += &backend("redis", "dead", dead, addr(), &format!("recovery_timeout = \"1h\"\n{more}"));
        if n % 2 == 1 {
            text += &backend("redis", "extra", extra, redis.addr(), "");
        }
        text
    };
    let file = File::new(&text(0));
    let proxy = file.start();
    for _ in 0..3 {
        ping(dead).error();
    }
    proxy.await_state("dead", "open");
    let before = proxy.status("dead");
    output_of(client("pgbench", db).args(["-i", "-q", "-s", "1", "postgres"]));

    let over = AtomicBool::new(false);
    let reloads = std::thread::scope(|scope| {
        let bench = scope.spawn(|| {
            let port = cache.port().to_string();
            let mut command = std::process::Command::new(tool("redis-benchmark"));
            command.args(["-p", &port, "-c", "20", "-P", "4", "-n", "60000", "-t", "set,get", "--csv"]);
            run(&mut command)
        });
        let transactions = scope.spawn(|| {
            // Half of its time on connections that are new for each transaction.
            let mut kept = client("pgbench", db);
            let kept = kept.args(["-n", "-c", "4", "-t", "300", "postgres"]).stdout(Stdio::piped());
            let mut fresh = client("pgbench", db);
            let fresh = fresh.args(["-n", "-C", "-S", "-c", "2", "-t", "30", "postgres"]);
            (run(kept), run(fresh))
        });
        let reloads = scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) || n < 10 {
                n += 1;
                let done = file.reload(&proxy, &text(n));
                let changed: Vec<_> = done["changed"].as_array().unwrap().iter().collect();
                assert_eq!(changed, ["cache", "db", "dead"], "{done}");
                let list = if n % 2 == 1 { "added" } else { "removed" };
                assert_eq!(done[list][0], "extra", "{done}");
            }
            n
        });
        let (bench, (kept, fresh)) = (bench.join().unwrap(), transactions.join().unwrap());
        over.store(true, Ordering::Relaxed);
        assert!(bench.status.success(), "{bench:?}");
        let said = String::from_utf8_lossy(&bench.stdout) + String::from_utf8_lossy(&bench.stderr);
        assert!(said.contains("\"GET\"") && !said.to_lowercase().contains("error"), "{said}");
        for pgbench in [kept, fresh] {
            let said = String::from_utf8_lossy(&pgbench.stdout) + String::from_utf8_lossy(&pgbench.stderr);
            assert!(
                pgbench.status.success() && !said.contains("ERROR") && !said.contains("aborted"),
                "{said}"
            );
        }
        reloads.join().unwrap()
    });
    for name in ["cache", "db"] {
        assert_eq!(proxy.figure(name, "failed_calls"), 0);
        assert_eq!(proxy.figure(name, "rejected_calls"), 0);
    }
    assert!(proxy.figure("cache", "successful_calls") >= 120_000, "the figures go on");
    let after = proxy.status("dead");
    for what in ["state", "since", "last_trip"] {
        assert_eq!(before[what], after[what], "{what}");
    }
    assert_eq!(proxy.metric("fusewire_config_reloads_total", &[("result", "success")]), reloads as f64);
    assert!(ping(dead).error().starts_with("CIRCUITOPEN"));
    proxy.stop();
}

#[test]
fn an_invalid_file_changes_nothing_and_says_why_in_the_words_of_check() {
    let redis = Redis::start();
    let listen = addr();
    let file = File::new(&backend("redis", "cache", listen, redis.addr(), ""));
    let proxy = file.start();
    let mut connected = Client::connect(listen);
    assert_eq!(connected.call(&["PING"]), Reply::simple("PONG"));

    file.write(&backend("redis", "cache", listen, redis.addr(), "failure_treshold = 3\nprobes = 0"));
    let check = fusewire::once(&["check", "--config", &file.path.to_string_lossy()]);
    assert_eq!(check.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&check.stderr).into_owned();
    let lines: Vec<&str> = stderr.lines().map(|line| line.trim_start_matches("fusewire: ")).collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("toml:6: failure_treshold") && line.contains("failure_threshold"))
    );

    let answer = http::request(proxy.admin(), "POST", "/api/v1/config/reload", &[], "").unwrap();
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(answer.json()["problems"], serde_json::json!(lines));
    proxy.signal(Signal::HUP);
    proxy.await_metric("fusewire_config_reloads_total", &[("result", "failure")], 2.0);
    proxy.await_log("nothing has changed");
    proxy.await_log("did you mean failure_threshold");
    assert_eq!(proxy.metric("fusewire_config_last_reload_successful", &[]), 0.0);

    // So does an address that is taken: the backend that stands before it is not begun either.
    let (fresh, taken) = (addr(), redis.addr());
    let mut text = backend("redis", "cache", listen, redis.addr(), "failure_threshold = 9");
    text += &backend("redis", "fresh", fresh, redis.addr(), "");
    text += &backend("redis", "taken", taken, "127.0.0.1:1", "");
    file.write(&text);
    let answer = http::request(proxy.admin(), "POST", "/api/v1/config/reload", &[], "").unwrap();
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains(&taken.to_string()), "{answer:?}");
    assert!(Client::try_connect(fresh).is_err());
    assert_eq!(proxy.get("/api/v1/history").json()["backends"].as_array().unwrap().len(), 1);

    assert_eq!(connected.call(&["PING"]), Reply::simple("PONG"));
    file.reload(&proxy, &backend("redis", "cache", listen, redis.addr(), "failure_threshold = 9"));
    assert_eq!(proxy.metric("fusewire_config_last_reload_successful", &[]), 1.0);
    assert_eq!(proxy.get("/api/v1/history").json()["backends"][0]["failure_threshold"], 9);
    proxy.stop();
}

#[test]
fn thresholds_verdicts_and_rejections_reach_connections_that_are_open() {
    let redis = Redis::start();
    let listen = addr();
    let file = File::new(&backend("redis", "cache", listen, redis.addr(), ""));
    let proxy = file.start();
    let mut client = Client::connect(listen);
    client.call(&["LPUSH", "list", "x"]);
    assert!(client.call(&["GET", "list"]).error().starts_with("WRONGTYPE"));
    proxy.await_figure("cache", "successful_calls", 2);

    let more = "failure_threshold = 2\nfailure_errors = [\"WRONGTYPE\"]\nreject_code = \"TRYLATER\"";
    file.reload(&proxy, &backend("redis", "cache", listen, redis.addr(), more));
    for _ in 0..2 {
        assert!(client.call(&["GET", "list"]).error().starts_with("WRONGTYPE"));
    }
    proxy.await_state("cache", "open");
    assert!(client.call(&["GET", "list"]).error().starts_with("TRYLATER"));
    proxy.stop();
}

#[test]
fn another_upstream_is_for_new_connections_and_open_ones_stay_where_they_are() {
    let (old, new) = (Redis::start(), Redis::start());
    old.client().call(&["SET", "who", "old"]);
    new.client().call(&["SET", "who", "new"]);
    let listen = addr();
    let file = File::new(&backend("redis", "cache", listen, old.addr(), ""));
    let proxy = file.start();
    let mut before = Client::connect(listen);
    assert_eq!(before.call(&["GET", "who"]), Reply::bulk("old"));
    file.reload(&proxy, &backend("redis", "cache", listen, new.addr(), ""));
    assert_eq!(before.call(&["GET", "who"]), Reply::bulk("old"));
    assert_eq!(Client::connect(listen).call(&["GET", "who"]), Reply::bulk("new"));
    assert_eq!(proxy.figure("cache", "successful_calls"), 3);
    proxy.stop();
}

#[test]
fn a_removed_backend_stops_listening_and_lets_its_transactions_finish() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let (cache, db) = (addr(), addr());
    let keep = backend("redis", "cache", cache, redis.addr(), "");
    let file = File::new(&(keep.clone() + &backend("postgres", "db", db, postgres.addr(), "")));
    let proxy = file.start();
    let (mut busy, mut idle) = (Pg::session(db), Pg::session(db));
    busy.query("CREATE TABLE kept (n int)");
    busy.query("BEGIN");
    busy.query("INSERT INTO kept VALUES (1)");

    let done = file.reload(&proxy, &keep);
    assert_eq!(done["removed"], serde_json::json!(["db"]));
    assert_eq!(idle.receive().unwrap().error().code, "57P01");
    eventually("the port to be closed", || match Client::try_connect(db) {
        Err(_) => Ok(()),
        Ok(_) => Err("connected".to_owned()),
    });
    let missing = proxy.request("GET", "/api/v1/circuit-breaker/status/db");
    assert_eq!(missing.status, 404);
    busy.query("INSERT INTO kept VALUES (2)");
    busy.query("COMMIT");
    assert_eq!(busy.receive().unwrap().error().code, "57P01");
    assert_eq!(postgres.sql("SELECT count(*) FROM kept"), "2");
    assert_eq!(ping(cache), Reply::simple("PONG"));

    // It may come back, with figures of its own.
    file.reload(&proxy, &(keep + &backend("postgres", "db", db, postgres.addr(), "")));
    assert_eq!(Pg::session(db).rows("SELECT 1").0, ["1"]);
    proxy.stop();
}

#[test]
fn two_backends_swap_their_addresses_and_their_clients_keep_their_servers() {
    let (a, b) = (Redis::start(), Redis::start());
    a.client().call(&["SET", "who", "a"]);
    b.client().call(&["SET", "who", "b"]);
    let (one, two) = (addr(), addr());
    let text = |a_listens, b_listens| {
        backend("redis", "a", a_listens, a.addr(), "") + &backend("redis", "b", b_listens, b.addr(), "")
    };
    let file = File::new(&text(one, two));
    let proxy = file.start();
    let mut early = Client::connect(one);
    assert_eq!(early.call(&["GET", "who"]), Reply::bulk("a"));
    file.reload(&proxy, &text(two, one));
    eventually("the swap", || match Client::connect(one).call(&["GET", "who"]) {
        reply if reply == Reply::bulk("b") => Ok(()),
        reply => Err(format!("{reply:?}")),
    });
    eventually("the swap", || match Client::connect(two).call(&["GET", "who"]) {
        reply if reply == Reply::bulk("a") => Ok(()),
        reply => Err(format!("{reply:?}")),
    });
    assert_eq!(early.call(&["GET", "who"]), Reply::bulk("a"));
    proxy.stop();
}

#[test]
fn the_answer_says_what_is_in_force_and_what_takes_a_restart() {
    let redis = Redis::start();
    let table = backend("redis", "cache", addr(), redis.addr(), "");
    let file = File::new(&table);
    let proxy = file.start();
    let text = format!("workers = 7\nlog_level = \"debug\"\ndrain_timeout = \"5s\"\n{table}");
    for _ in 0..2 {
        let done = file.reload(&proxy, &text);
        assert_eq!(done["needs_restart"], serde_json::json!(["workers"]), "{done}");
    }
    proxy.await_log("take a restart: workers");
    let first = file.reload(&proxy, &table);
    assert_eq!(first["settings"], serde_json::json!(["drain_timeout", "log_level"]));
    assert_eq!(first["changed"], serde_json::json!([]));
    proxy.stop();
}

/// The numbers that a process's next descriptors will get.
fn free_descriptors(pid: u32) -> impl Iterator<Item = u64> {
    let names =
        fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").map(|entry| entry.unwrap().file_name());
    let open: BTreeSet<u64> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    (0..).filter(move |number| !open.contains(number))
}

#[test]
fn a_reload_for_which_descriptors_are_missing_changes_nothing_and_can_be_made_again() {
    let redis = Redis::start();
    let (cache, extra) = (addr(), addr());
    let text = backend("redis", "cache", cache, redis.addr(), "");
    let file = File::new(&text);
    let proxy = file.start();
    let text = text + &backend("redis", "extra", extra, redis.addr(), "");
    file.write(&text);
    // One is enough to read the file and to bind the address, and too few for the workers to accept there.
    let pid = Pid::from_raw(proxy.pid().try_into().unwrap());
    let limit = getrlimit(Resource::Nofile);
    let short = Rlimit { current: free_descriptors(proxy.pid()).nth(1), ..limit };
    let before = prlimit(pid, Resource::Nofile, short).expect("a limit");
    proxy.signal(Signal::HUP);
    proxy.await_log("Configuration not reloaded");
    prlimit(pid, Resource::Nofile, before).expect("the limit");
    assert_eq!(file.reload(&proxy, &text)["added"][0], "extra");
    for backend in [cache, extra] {
        assert_eq!(ping(backend), Reply::simple("PONG"));
    }
    proxy.stop();
}
