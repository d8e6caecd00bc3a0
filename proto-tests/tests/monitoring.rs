//! What deploy/ brings for Prometheus and Grafana, against a real Prometheus that scrapes a real fusewire.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use proto_tests::tools::{free_port, output_of, repository, tool};
use proto_tests::until::check;
use proto_tests::{Client, Fusewire, Pg, Postgres, Prometheus, Redis, Setup, eventually};
use serde_json::Value;

fn deployed(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_alert_rules_pass_their_own_tests() {
    for (what, path) in [
        (["check", "config"], "prometheus/prometheus.yml"),
        (["test", "rules"], "prometheus/fusewire.rules.test.yml"),
    ] {
        let said = output_of(Command::new(tool("promtool")).args(what).arg(deployed(path)));
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn every_alert_has_a_test_that_sets_it_off_and_a_runbook() {
    let rules = read("deploy/prometheus/fusewire.rules.yml");
    let (tests, runbooks) = (read("deploy/prometheus/fusewire.rules.test.yml"), read("docs/OPERATING.md"));
    let headings: BTreeSet<_> = runbooks.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        let fires = tests
            .split("- eval_time")
            .any(|test| test.contains(&format!("alertname: {alert}\n")) && test.contains("exp_labels"));
        assert!(fires, "no test sets off {alert}");
        assert!(headings.contains(alert), "docs/OPERATING.md has no runbook `### {alert}`");
        let link = format!("runbook: docs/OPERATING.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} does not lead to its runbook");
    }
    let unknown: Vec<_> =
        headings.iter().filter(|name| name.starts_with("Fusewire") && !alerts.contains(name)).collect();
    assert!(unknown.is_empty(), "runbooks without an alert: {unknown:?}");
}

/// A proxy in the middle of everything at once: served, failing, refused, half-way, and watched only.
struct Scene {
    redis: Redis,
    postgres: Postgres,
    proxy: Fusewire,
}

impl Scene {
    fn start() -> Self {
        let (redis, postgres) = (Redis::start(), Postgres::start());
        let nobody = format!("127.0.0.1:{}", free_port());
        let proxy = Setup::default()
            .redis("cache", redis.addr(), "")
            .postgres("db", postgres.addr(), "")
            .redis("dead", &nobody, "failure-threshold=1,recovery-timeout=1h")
            .redis("flapping", &nobody, "failure-threshold=1,recovery-timeout=1h")
            .redis("watched", &nobody, "failure-threshold=1,recovery-timeout=1h,mode=observe")
            .start();
        Self { redis, postgres, proxy }
    }

    /// Some more of everything.
    fn go_on(&self) {
        let mut client = Client::connect(self.proxy.addr("cache"));
        (0..20).for_each(|_| drop(client.call(&["INCR", "n"])));
        let mut session = Pg::session(self.proxy.addr("db"));
        (0..5).for_each(|_| drop(session.rows("SELECT 1")));
        self.proxy.post("/api/v1/circuit-breaker/reset/flapping");
        for name in ["dead", "flapping", "watched"] {
            let mut client = Client::connect(self.proxy.addr(name));
            client.try_send(b"PING\r\n").ok();
            client.line();
        }
    }
}

#[test]
fn every_query_of_the_grafana_dashboard_returns_data() {
    let scene = Scene::start();
    let prometheus = Prometheus::scraping(scene.proxy.admin(), &deployed("prometheus/fusewire.rules.yml"));
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/fusewire.json")).expect("JSON");

    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{queries:#?}");
    for (title, query) in &queries {
        let query = filled_in(query);
        assert!(!query.contains('$'), "{title}: {query} has a variable that this test does not know");
        eventually(&format!("data for {title}: {query}"), || {
            scene.go_on();
            let series = prometheus.query(&query)?;
            // A quantile or a share of nothing is NaN, which Grafana does not draw.
            let drawn = series.iter().any(|one| one["value"][1] != "NaN");
            drawn.then_some(()).ok_or_else(|| format!("{series:?}"))
        });
    }

    // The variables offer what is there.
    for (variable, expected) in [("instance", 1), ("backend", 5)] {
        let list = dashboard["templating"]["list"].as_array().expect("variables");
        let one = list.iter().find(|one| one["name"] == variable).expect("the variable");
        let query = filled_in(one["query"]["query"].as_str().expect("a query"));
        let (selector, label) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|rest| rest.rsplit_once(", "))
            .expect("label_values(selector, label)");
        assert_eq!(prometheus.label_values(selector, label).map(|values| values.len()), Ok(expected));
    }

    // The alerts work on the same figures: none fails, and those that this scene sets off are under way.
    let expected = [
        ("FusewireBackendOpen", "pending"),
        ("FusewireNotEnforcing", "pending"),
        ("FusewireWouldReject", "firing"),
        ("FusewireBackendFlapping", "firing"),
        ("FusewireDown", "inactive"),
        ("FusewireLocalFaults", "inactive"),
        ("FusewireConfigRefused", "inactive"),
        ("FusewireOpenedByHand", "inactive"),
    ];
    eventually("the alerts", || {
        scene.go_on();
        let rules = prometheus.rules()?;
        let healthy = rules.iter().all(|rule| rule["health"] == "ok");
        let state =
            |name: &str| rules.iter().find(|rule| rule["name"] == name).map(|rule| rule["state"].clone());
        let as_expected =
            expected.iter().all(|(name, wanted)| state(name).is_some_and(|state| state == *wanted));
        check(healthy && as_expected, rules)
    });
    let Scene { redis, postgres, proxy } = scene;
    proxy.stop();
    drop((redis, postgres));
}

#[test]
fn the_dashboard_and_the_alerts_name_only_metrics_that_are_documented() {
    let documented = read("docs/METRICS.md");
    let both = read("deploy/grafana/fusewire.json") + &read("deploy/prometheus/fusewire.rules.yml");
    let words = both.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics: BTreeSet<_> = words
        .filter(|word| {
            ["circuit_breaker_", "fusewire_", "process_"].iter().any(|head| word.starts_with(head))
        })
        .map(|word| word.trim_end_matches("_bucket"))
        .collect();
    assert!(metrics.len() > 20, "{metrics:?}");
    for metric in metrics {
        assert!(documented.contains(&format!("\n| `{metric}` |")), "docs/METRICS.md does not know {metric}");
    }
}

/// Title → query, of every panel and every annotation.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut all: Vec<_> = annotations.iter().map(|one| (text(&one["name"]), text(&one["expr"]))).collect();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{} has no query", panel["title"]);
        all.extend(targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"]))));
    }
    all
}

/// A query with Grafana's variables as Grafana fills them in when everything is chosen.
fn filled_in(query: &str) -> String {
    let window = query.replace("$__rate_interval", "5s").replace("$__interval", "5s");
    window.replace("$instance", ".*").replace("$backend", ".*")
}
