//! `/metrics` of the real binary: what Prometheus' own tool says of it, and that no input can make it grow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use proto_tests::fusewire::{Sample, once};
use proto_tests::payload::Random;
use proto_tests::tools::{free_port, repository, run_with_input, tool};
use proto_tests::until::{check, eventually};
use proto_tests::{Client, Fake, Fusewire, Pg, Postgres, Redis, Setup, Step, http, pgwire};

/// How many odd things each kind of server or client says.
const ROUNDS: usize = 40;

#[test]
fn promtool_finds_nothing_to_say_about_a_scrape() {
    let redis = Redis::start();
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "failure-threshold=1")
        .postgres("db", format!("127.0.0.1:{}", free_port()), "failure-threshold=1")
        .start();
    let mut client = Client::connect(proxy.addr("cache"));
    client.call(&["SET", "k", "v"]);
    // One refused connect opens it, the next client is rejected.
    (0..2).for_each(|_| drop(Pg::refused(proxy.addr("db"))));
    proxy.await_metric("circuit_breaker_rejections_total", &[("backend", "db"), ("reason", "open")], 1.0);
    let scrape = proxy.get("/metrics").body;
    let output = run_with_input(Command::new(tool("promtool")).args(["check", "metrics"]), scrape.as_bytes());
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    proxy.stop();
}

#[test]
fn the_buckets_fit_a_call_of_50_microseconds_and_one_of_10_seconds() {
    let proxy = Setup::default().redis("cache", "127.0.0.1:1", "").start();
    let bounds: Vec<f64> = proxy
        .metrics()
        .iter()
        .filter(|sample| sample.name == "circuit_breaker_call_duration_seconds_bucket")
        .map(|sample| sample.labels["le"].replace("+Inf", "inf").parse().expect("a bound"))
        .collect();
    assert!(bounds[0] <= 50e-6, "{bounds:?}");
    let finite = &bounds[..bounds.len() - 1];
    assert!(finite.last().is_some_and(|last| *last > 10.0), "{bounds:?}");
    // Fine enough for a quantile to mean something: no bucket is more than two and a half times the one before.
    let coarse: Vec<_> = finite.windows(2).filter(|pair| pair[1] / pair[0] > 3.0).collect();
    assert!(coarse.is_empty(), "{coarse:?}");
    proxy.stop();
}

#[test]
fn nothing_that_clients_or_servers_say_becomes_a_label_or_a_series() {
    let mut random = Random::new(7);
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let odd_redis = Fake::scripts((0..ROUNDS).map(|_| odd_redis_script(&mut random)).collect());
    let odd_postgres = Fake::scripts((0..ROUNDS).map(|_| odd_postgres_script(&mut random)).collect());
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "mode=observe")
        .postgres("db", postgres.addr(), "mode=observe")
        .redis("odd-cache", odd_redis.addr(), "mode=observe")
        .postgres("odd-db", odd_postgres.addr(), "mode=observe")
        .start();
    let before = series(&proxy);
    assert_known_labels(&proxy);

    for _ in 0..ROUNDS {
        odd_redis_client(&proxy, &mut random);
        odd_postgres_client(&proxy, &mut random);
        odd_admin_client(&proxy, &mut random);
        // Each connection meets one more odd answer.
        let mut client = Client::connect(proxy.addr("odd-cache"));
        client.send(b"PING\r\n");
        client.rest();
        let mut client = Pg::connect(proxy.addr("odd-db"));
        if client.startup("postgres", "postgres").is_ok() {
            client.raw.try_send(&pgwire::query("SELECT 1")).ok();
        }
        client.raw.rest();
    }
    proxy.await_metric("circuit_breaker_calls_total", &[("backend", "odd-cache")], ROUNDS as f64);
    proxy.await_metric("fusewire_connections_total", &[("backend", "odd-db")], ROUNDS as f64);

    assert_known_labels(&proxy);
    let scrape = proxy.get("/metrics").body;
    assert!(!scrape.to_lowercase().contains("zq"), "an odd word is in {scrape}");
    let after = series(&proxy);
    assert!(before.is_subset(&after), "gone: {:?}", before.difference(&after));
    let rows = failure_rows();
    for new in after.difference(&before) {
        let reason = new.split("reason=").nth(1).unwrap_or_default().trim_end_matches('}');
        assert!(
            new.starts_with("circuit_breaker_failures_total") && rows.contains(reason),
            "odd input has made the series {new}"
        );
    }
    proxy.stop();
}

/// A word that no table knows and that is easy to find again: it begins with `ZQ`.
fn odd_word(random: &mut Random) -> String {
    let length = 1 + random.below(12);
    let letters = (0..length).map(|_| char::from(b'A' + random.below(26) as u8));
    letters.fold("ZQ".to_owned(), |word, letter| word + &letter.to_string())
}

/// Now and then a code that the tables know.
fn code(random: &mut Random, known: &[&str], odd: impl FnOnce(&mut Random) -> String) -> String {
    let at = random.below(known.len() * 4);
    known.get(at).map_or_else(|| odd(random), |known| (*known).to_owned())
}

fn odd_redis_script(random: &mut Random) -> Vec<Step> {
    let error = code(random, &["LOADING", "OOM", "CLUSTERDOWN", "ERR"], odd_word);
    let reply = match random.below(4) {
        0 => format!("{}\r\n", odd_word(random)).into_bytes(),
        1 => format!("!{}\r\n{error} x\r\n", error.len() + 2).into_bytes(),
        _ => format!("-{error} {}\r\n", odd_word(random)).into_bytes(),
    };
    vec![Step::Await(b"PING\r\n".to_vec()), Step::Send(reply), Step::Close]
}

fn odd_postgres_script(random: &mut Random) -> Vec<Step> {
    let odd = |random: &mut Random| format!("{:.5}", odd_word(random) + "00000");
    let code = code(random, &["57P01", "53300", "58030", "XX001"], odd);
    let severity = ["ERROR", "FATAL", "PANIC", "ZQSEVERE"][random.below(4)];
    let field = |tag: char, text: &str| format!("{tag}{text}\0");
    let fields = field('S', severity) + &field('V', severity) + &field('C', &code) + &field('M', "zq");
    let error = pgwire::message(b'E', format!("{fields}\0").as_bytes());
    let startup = pgwire::startup_packet("postgres", "postgres").len();
    if random.below(3) == 0 {
        return vec![Step::AwaitLength(startup), Step::Send(error), Step::Close];
    }
    let question = Step::Await(pgwire::query("SELECT 1"));
    vec![Step::AwaitLength(startup), Step::Send(pgwire::greeting()), question, Step::Send(error), Step::Close]
}

fn odd_redis_client(proxy: &Fusewire, random: &mut Random) {
    let mut client = Client::connect(proxy.addr("cache"));
    let (word, other) = (odd_word(random), odd_word(random));
    client.call(&[&word, &other]);
    client.call(&["EVAL", &format!("return redis.error_reply('{word} {other}')"), "0"]);
    client.call(&["CLIENT", "SETNAME", &word]);
    // And something that is no RESP at all.
    client.try_send(format!("*{word}\r\n").as_bytes()).ok();
    client.rest();
}

fn odd_postgres_client(proxy: &Fusewire, random: &mut Random) {
    let word = odd_word(random);
    Pg::connect(proxy.addr("db")).startup(&word, &word).ok();
    let mut session = Pg::session(proxy.addr("db"));
    session.query(&format!("{word} {word}"));
    let state = format!("ZQ{:03}", random.below(1000));
    session.query(&format!("DO $$ BEGIN RAISE EXCEPTION '{word}' USING ERRCODE = '{state}'; END $$"));
    session.query(&format!("SET application_name = '{word}'"));
    session.send(format!("{word}{word}").as_bytes());
}

fn odd_admin_client(proxy: &Fusewire, random: &mut Random) {
    let word = odd_word(random);
    for path in
        [format!("/{word}"), format!("/api/v1/circuit-breaker/status/{word}"), format!("/metrics?{word}=1")]
    {
        http::request(proxy.admin(), "GET", &path, &[("User-Agent", &word)], "").expect("an answer");
    }
    http::request(proxy.admin(), &word, "/metrics", &[], "").ok();
    proxy.request("POST", &format!("/api/v1/circuit-breaker/trip/{word}"));
}

/// Every series, as its name and its labels.
fn series(proxy: &Fusewire) -> BTreeSet<String> {
    let line = |sample: &Sample| {
        let labels: Vec<_> = sample.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}{{{}}}", sample.name, labels.join(","))
    };
    proxy.metrics().iter().map(line).collect()
}

/// Every label and its every value stands in docs/METRICS.md, or is the name of a configured backend.
#[track_caller]
fn assert_known_labels(proxy: &Fusewire) {
    let (documented, rows) = (documented_labels(), failure_rows());
    for sample in proxy.metrics() {
        for (label, value) in &sample.labels {
            let known = match label.as_str() {
                "backend" => ["cache", "db", "odd-cache", "odd-db"].contains(&value.as_str()),
                "version" => value == env!("CARGO_PKG_VERSION"),
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                label => {
                    let listed = documented.get(label).is_some_and(|values| values.contains(value));
                    listed
                        || (sample.name == "circuit_breaker_failures_total" && rows.contains(value.as_str()))
                }
            };
            assert!(known, "docs/METRICS.md does not know {label}=\"{value}\" of {}", sample.name);
        }
    }
}

/// Label → values, from the table in docs/METRICS.md.
fn documented_labels() -> BTreeMap<String, BTreeSet<String>> {
    let document = fs::read_to_string(repository().join("docs/METRICS.md")).expect("docs/METRICS.md");
    let rows = document.lines().skip_while(|line| *line != "| label | of | values |").skip(2);
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let cells: Vec<_> = row.trim_matches('|').split('|').map(quoted).collect();
        labels.entry(cells[0][0].clone()).or_default().extend(cells[2].iter().cloned());
    }
    labels
}

/// The codes that count as failures, as `fusewire classify` prints them: columns are two spaces apart.
fn failure_rows() -> BTreeSet<String> {
    let table = |protocol: &str| String::from_utf8_lossy(&once(&["classify", protocol]).stdout).into_owned();
    let both = table("redis") + &table("postgres");
    let cells = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let rows = both.lines().map(cells);
    rows.filter(|row| row.iter().any(|cell| cell == "failure")).map(|row| row[0].clone()).collect()
}

#[test]
fn each_client_connection_is_one_task_and_its_end_is_the_tasks() {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), "").start();
    let tasks = || proxy.metric("fusewire_tasks", &[]);
    let connect = || {
        let mut client = Client::connect(proxy.addr("cache"));
        client.call(&["PING"]);
        client
    };
    // What the start and the scrapes left behind is gone when nothing changes any more; only this scrape's own task counts.
    let few = eventually("the tasks of a proxy without clients", || {
        let [first, second] = [tasks(), tasks()];
        if first == second && first > 0.0 { Ok(first) } else { Err(format!("{first}, {second}")) }
    });
    let clients: Vec<Client> = (0..20).map(|_| connect()).collect();
    eventually("a task for each", || check(tasks() == few + 20.0, tasks()));
    drop(clients);
    eventually("their end", || check(tasks() == few, tasks()));
    proxy.stop();
}
