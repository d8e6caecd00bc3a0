//! What Redis clients have been told, and what a server may therefore hold.
//!
//! A write that was acknowledged is there. Of those after it, whose outcome nobody was told, any prefix may have run. A
//! server that fails over to a replica promises less: what its replica has confirmed (WAIT) is there, of what came after
//! that any prefix.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use super::judge::{Figure, Judge};
use super::redis_checker::{ADMIN, Connection, DATABASES};
use crate::wire::{Reply, command};

/// What a server keeps through a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Everything that it acknowledged: it syncs each write before it answers.
    Durable,
    /// What its replica has confirmed.
    Replicated,
}

/// The keys of one connection.
#[derive(Debug, Default)]
pub struct History {
    /// By name.
    pub keys: BTreeMap<String, Key>,
}

/// One key, or two that are only ever written together.
#[derive(Debug, Default, Clone)]
pub struct Key {
    /// The database that it belongs in.
    pub db: u64,
    /// What a reply has confirmed last; none: nothing was ever written.
    pub now: Option<String>,
    /// The last value that is certain to stay.
    pub safe: Option<String>,
    /// Values that it may hold instead, in the order in which they were written.
    pub later: Vec<String>,
}

impl Key {
    /// A write was acknowledged.
    pub fn acknowledged(&mut self, promise: Promise, value: &str) {
        self.now = Some(value.to_owned());
        match promise {
            Promise::Durable => self.confirmed(),
            Promise::Replicated => self.later.push(value.to_owned()),
        }
    }

    /// A write may have run.
    pub fn maybe(&mut self, value: &str) {
        self.later.push(value.to_owned());
    }

    /// What was acknowledged is certain to stay.
    pub fn confirmed(&mut self) {
        self.safe.clone_from(&self.now);
        self.later.clear();
    }

    fn allows(&self, found: Option<&str>) -> bool {
        found == self.safe.as_deref()
            || found.is_some_and(|found| self.later.iter().any(|value| value == found))
    }
}

/// Compares a server, asked directly, with what the clients of ended connections were told.
///
/// # Errors
/// If the server cannot be asked to the end.
pub fn audit(
    server: SocketAddr,
    what: &str,
    histories: &Mutex<Vec<History>>,
    judge: &Judge,
) -> io::Result<()> {
    let mut direct = Connection::open(server)?;
    direct.call(&["AUTH", "admin", ADMIN])?;
    for db in 0..DATABASES {
        direct.call(&["SELECT", &db.to_string()])?;
        let Reply::Many(_, names) = direct.call(&["KEYS", "*"])? else {
            return Err(io::Error::other("no list of keys"));
        };
        for name in names {
            let Reply::Bulk(name) = name else { continue };
            let name = String::from_utf8_lossy(&name).into_owned();
            judge.count(Figure::Audited, 1);
            if !name.contains(&format!(":d{db}:")) {
                judge.violation(format!("{what}: key {name} is in database {db}"));
            }
        }
    }
    let mut histories = histories.lock().expect("no panic elsewhere");
    let mut selected = None;
    for (name, key) in histories.iter().flat_map(|history| &history.keys) {
        if selected != Some(key.db) {
            direct.call(&["SELECT", &key.db.to_string()])?;
            selected = Some(key.db);
        }
        judge.count(Figure::Audited, 1);
        let value = text(&direct.call(&["GET", name])?);
        if !key.allows(value.as_deref()) {
            let (safe, later) = (&key.safe, &key.later);
            judge.violation(format!(
                "{what}: {name} holds {value:?}, allowed are {safe:?} or one of {later:?}"
            ));
        }
        if let Some(stem) = name.strip_suffix(":left") {
            // At once: a transaction whose client is gone may still be on its way.
            let both = direct.call(&["MGET", name, &format!("{stem}:right")])?;
            let Reply::Many(_, both) = both else { return Err(io::Error::other("no list of values")) };
            if text(&both[0]) != text(&both[1]) {
                judge.violation(format!("{what}: half a transaction: {stem} has {both:?}"));
            }
        }
    }
    // What was found right is not looked at again.
    histories.clear();
    Ok(())
}

fn text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Bulk(value) => Some(String::from_utf8_lossy(value).into_owned()),
        _ => None,
    }
}

/// A direct request of the harness, past fusewire.
///
/// # Errors
/// If there is no answer.
pub fn directly(server: SocketAddr, args: &[&str]) -> io::Result<Reply> {
    let mut direct = Connection::open(server)?;
    direct.send(&command(&["AUTH", "admin", ADMIN]))?;
    direct.reply()?;
    direct.call(args)
}
