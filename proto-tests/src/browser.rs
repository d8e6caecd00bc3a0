//! A headless Chromium, driven by ChromeDriver: what the dashboard's users look through.
//!
//! Absent on purpose: sleeping. [`Browser::until`] awaits what the page shows.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

use crate::process::{Process, Signal, children, send};
use crate::tools::{free_port, tool};
use crate::until::{PATIENCE, check, eventually};

/// A browser with one tab. Dropped, its processes and its profile are gone.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    driver: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Panics
    /// If chromium or chromedriver is missing: a skipped test would look like a passed one.
    pub async fn start() -> Self {
        let profile = TempDir::with_prefix("fusewire-browser-").expect("a temporary directory");
        let port = free_port();
        let mut command = Command::new(tool("chromedriver"));
        command
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let driver = Process::start(&mut command);
        eventually("chromedriver", || {
            let up = std::net::TcpStream::connect(("127.0.0.1", port));
            check(up.is_ok(), up)
        });
        let address = format!("http://127.0.0.1:{port}");
        let capabilities = capabilities(&tool("chromium"), profile.path());
        let client =
            ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&address).await;
        Self { client: client.expect("a browser session"), driver, _profile: profile }
    }

    /// The tab.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Goes to a page.
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The value of a JavaScript expression.
    pub async fn eval(&self, expression: &str) -> Value {
        self.try_eval(expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn try_eval(&self, expression: &str) -> Result<Value, CmdError> {
        self.client.execute(&format!("return ({expression});"), Vec::new()).await
    }

    /// Awaits that a JavaScript expression is true, then returns. It may fail until then: of a part of the page that is not
    /// there yet.
    ///
    /// # Panics
    /// If it does not become true; shows the text of the page.
    pub async fn until(&self, expression: &str) {
        let is_true = async || match self.try_eval(expression).await {
            Ok(Value::Bool(true)) => Ok(()),
            other => Err(format!("{other:?}")),
        };
        self.awaited(expression, is_true).await;
    }

    /// Clicks the first element that matches a CSS selector, as a mouse does: it must be visible. Awaits it.
    pub async fn click(&self, selector: &str) {
        self.awaited(selector, async || self.try_click(selector).await.map_err(|error| error.to_string()))
            .await;
    }

    async fn try_click(&self, selector: &str) -> Result<(), CmdError> {
        self.client.find(Locator::Css(selector)).await?.click().await
    }

    /// Types into the first element that matches a CSS selector. Awaits it.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let typed = async || self.try_type(selector, text).await.map_err(|error| error.to_string());
        self.awaited(selector, typed).await;
    }

    async fn try_type(&self, selector: &str, text: &str) -> Result<(), CmdError> {
        self.client.find(Locator::Css(selector)).await?.send_keys(text).await
    }

    /// Tries until it succeeds: the page is drawn anew while it is looked at.
    async fn awaited(&self, what: &str, mut act: impl AsyncFnMut() -> Result<(), String>) {
        let mut seen = String::new();
        let done = async {
            while let Err(error) = act().await {
                seen = error;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, done).await.is_err() {
            let text = self.eval("document.body.innerText").await;
            panic!("waited {PATIENCE:?} for `{what}`; last seen: {seen}; the page shows: {text}");
        }
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, cmd: &str, params: Value) -> Value {
        let command = Extension("goog/cdp/execute", json!({"cmd": cmd, "params": params}));
        self.client.issue_cmd(command).await.unwrap_or_else(|error| panic!("{cmd}: {error}"))
    }

    /// What the page has written to the console so far, and what the browser has complained about: failed requests,
    /// scripts that threw, and all that the Content-Security-Policy has blocked.
    pub async fn console(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Extension("se/log", json!({"type": "browser"}))).await;
        let entries = log.expect("the console");
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect()
    }

    /// Ends it in order.
    pub async fn close(self) {
        self.client.clone().close().await.ok();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver is killed without a chance to end its browser, so that is ended first.
        for pid in descendants(self.driver.pid()) {
            send(pid, Signal::KILL);
        }
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let own = children(pid);
    own.iter().flat_map(|child| descendants(*child)).chain(own.iter().copied()).collect()
}

/// No sandbox, because tests run as root in containers; nothing that calls home.
fn capabilities(chromium: &PathBuf, profile: &std::path::Path) -> serde_json::Map<String, Value> {
    let mut args: Vec<String> = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1440,900",
    ]
    .map(str::to_owned)
    .to_vec();
    args.push(format!("--user-data-dir={}", profile.display()));
    let capabilities = json!({
        "goog:chromeOptions": { "binary": chromium, "args": args },
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    capabilities.as_object().cloned().unwrap_or_default()
}

/// A command that only ChromeDriver knows, below the session's address.
#[derive(Debug)]
struct Extension(&'static str, Value);

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.1.to_string()))
    }
}
