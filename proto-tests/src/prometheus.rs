//! A private real Prometheus on a free port that scrapes one fusewire.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use url::form_urlencoded::byte_serialize;

use crate::http;
use crate::process::Process;
use crate::tools::{free_port, tool};
use crate::until::{check, eventually};

/// A private Prometheus. Dropped, it is gone with all its data.
#[derive(Debug)]
pub struct Prometheus {
    addr: SocketAddr,
    dir: TempDir,
    _process: Process,
}

impl Prometheus {
    /// Starts one that scrapes `target` five times a second as job `fusewire` and evaluates these rules.
    pub fn scraping(target: SocketAddr, rules: &Path) -> Self {
        let dir = TempDir::with_prefix("fusewire-prometheus-").expect("a temporary directory");
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 500ms}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: fusewire, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules.display()
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("its configuration");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = File::create(dir.path().join("log")).expect("a log file");
        let mut command = Command::new(tool("prometheus"));
        command.arg(format!("--web.listen-address={addr}")).arg("--config.file=prometheus.yml");
        command.args(["--storage.tsdb.path=data", "--log.level=warn"]).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = Process::start(&mut command);
        eventually("Prometheus", || {
            let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            assert!(process.ended().is_none(), "Prometheus ended: {log}");
            let ready = http::request(addr, "GET", "/-/ready", &[], "").map_err(|error| error.to_string())?;
            check(ready.status == 200, ready)
        });
        Self { addr, dir, _process: process }
    }

    /// The result of an instant query: an array of series.
    ///
    /// # Errors
    /// What Prometheus has against it.
    pub fn query(&self, promql: &str) -> Result<Vec<Value>, String> {
        self.data(&format!("query?query={}", encoded(promql)), "/result")
    }

    /// The values that a label has on the series of a selector.
    ///
    /// # Errors
    /// What Prometheus has against it.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<Value>, String> {
        self.data(&format!("label/{label}/values?match[]={}", encoded(selector)), "")
    }

    /// Every alerting rule, with its `state` and its `health`.
    ///
    /// # Errors
    /// What Prometheus has against it.
    pub fn rules(&self) -> Result<Vec<Value>, String> {
        let groups = self.data("rules?type=alert", "/groups")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    fn data(&self, path: &str, pointer: &str) -> Result<Vec<Value>, String> {
        let answer = http::request(self.addr, "GET", &format!("/api/v1/{path}"), &[], "");
        let answer = answer.map_err(|error| format!("{error}; its log: {}", self.log()))?;
        let json = answer.json();
        let result = json["data"].pointer(pointer).and_then(Value::as_array).cloned();
        result.ok_or_else(|| json.to_string())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}
