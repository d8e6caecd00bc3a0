//! What operators ask a running fusewire from the command line.
//!
//! Each command is a request or two to the admin API and a text made of the answer. Absent on purpose: any rule of
//! its own. What may be done, and in which words it is refused, the API says.

mod api;
mod show;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hyper::Method;
use serde_json::Value;

use self::api::Api;
use crate::config::Env;
use crate::config::args::{Ask, Named};

const BREAKERS: &str = "/api/v1/circuit-breaker";

/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An address or a file on this side is wrong.
    #[error("{0}")]
    Mistaken(String),
    /// Nobody answers, or not in time, or somebody else does.
    #[error("no answer from the admin API on {at}: {why}")]
    Unreached {
        /// Where it was asked.
        at: String,
        /// What went wrong.
        why: String,
    },
    /// The API does not grant it; perhaps several lines.
    #[error("{0}")]
    Refused(String),
    /// The system refuses what it takes, or standard output is full.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Carries a command out and writes what came of it to `out`, which is a `terminal` or not. A reader that has gone
/// is no failure.
///
/// # Errors
/// What kept it from being carried out.
pub fn run(ask: &Ask, env: &Env, out: &mut dyn Write, terminal: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(carry_out(ask, env, out, terminal)) {
        Err(Failure::System(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

async fn carry_out(ask: &Ask, env: &Env, out: &mut dyn Write, terminal: bool) -> Result<(), Failure> {
    let change = match ask {
        Ask::Status { name, watch, target } => {
            let view = View { api: Api::new(target, env)?, name: name.as_deref(), json: target.json };
            return match watch {
                Some(every) => view.watch(*every, out, terminal).await,
                None => Ok(out.write_all(view.read().await?.as_bytes())?),
            };
        }
        Ask::Reset { name: Some(name), target, .. } => (target, breaker("reset", name)),
        Ask::Reset { name: None, target, .. } => (target, format!("{BREAKERS}/reset-all")),
        Ask::Trip { name, lasting, target } => {
            let hold = lasting.as_ref().map(|lasting| format!("?for={}", api::encoded(lasting)));
            (target, breaker("trip", name) + &hold.unwrap_or_default())
        }
        Ask::Enforce(Named { name, target }) => (target, breaker("enforce", name)),
        Ask::Observe(Named { name, target }) => (target, breaker("observe", name)),
        Ask::Disable(Named { name, target }) => (target, breaker("disable", name)),
        Ask::Reload { target } => (target, "/api/v1/config/reload".to_owned()),
    };
    let (target, path) = change;
    let api = Api::new(target, env)?;
    let answer = api.ask(Method::POST, &path).await?;
    let text = match ask {
        _ if target.json => pretty(&answer),
        Ask::Reload { .. } => show::reloaded(&api.typed(answer)?),
        Ask::Reset { name: None, .. } => show::table(&api.typed(answer)?, SystemTime::now()),
        _ => show::outcome(&api.typed(answer)?),
    };
    Ok(out.write_all(text.as_bytes())?)
}

fn breaker(what: &str, name: &str) -> String {
    format!("{BREAKERS}/{what}/{}", api::encoded(name))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// What `status` shows.
struct View<'a> {
    api: Api,
    name: Option<&'a str>,
    json: bool,
}

impl View<'_> {
    async fn read(&self) -> Result<String, Failure> {
        let now = SystemTime::now();
        let Some(name) = self.name else {
            let status = self.api.ask(Method::GET, &format!("{BREAKERS}/status")).await?;
            return if self.json {
                Ok(pretty(&status))
            } else {
                Ok(show::table(&self.api.typed(status)?, now))
            };
        };
        let mut status = self.api.ask(Method::GET, &breaker("status", name)).await?;
        let mut details = self.api.ask(Method::GET, &format!("{BREAKERS}/metrics")).await?;
        for more in ["latency_ms", "history"] {
            // Gone in between by a reload: then its last status is what there is.
            status[more] = details["breakers"][name][more].take();
        }
        if self.json { Ok(pretty(&status)) } else { Ok(show::story(&self.api.typed(status)?, now)) }
    }

    /// Shows it again and again. A fusewire that does not answer is waited for: it may be starting anew.
    async fn watch(&self, every: Duration, out: &mut dyn Write, terminal: bool) -> Result<(), Failure> {
        loop {
            let text = match self.read().await {
                Err(failure @ Failure::Unreached { .. }) => format!("{failure}\n"),
                text => text?,
            };
            let (before, after) = if terminal { (CLEAR, "") } else { ("", "\n") };
            write!(out, "{before}{text}{after}")?;
            out.flush()?;
            tokio::time::sleep(every).await;
        }
    }
}
