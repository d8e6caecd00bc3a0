//! Redis errors → verdicts: the table, its overrides, and the look-up (PROTOCOLS §2.5).
//!
//! A row matches the exact first token of an error, or the exact first words if it has several: `BUSY` must not
//! match `BUSYKEY`, which is the client's own doing. What no row matches is the client's error, and so a success:
//! the backend answered.

use std::sync::Arc;

use crate::breaker::{Code, Verdict};
use crate::config::Overrides;
use crate::protocol::Class::{self, Failure, Ignored, Success};

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The error's first word, or first words; for a row of the configuration a prefix of the error.
    pub code: Code,
    /// The verdict.
    pub class: Class,
    /// Why, for `fusewire classify`.
    pub why: &'static str,
    /// Matches any error that starts with it, as the rows of the configuration do.
    pub prefix: bool,
}

const BUILT_IN: &[(&str, Class, &str)] = &[
    ("LOADING", Failure, "the backend is loading its data set and serves nothing else"),
    ("BUSY", Failure, "a script or function has kept the backend from everything else for seconds"),
    ("MASTERDOWN", Failure, "a replica has lost its master and may not serve stale data"),
    ("CLUSTERDOWN", Failure, "the cluster has lost slots or its majority"),
    ("MISCONF", Failure, "the backend cannot persist and refuses writes (and PING)"),
    ("OOM", Failure, "the backend is out of memory and refuses writes"),
    ("NOREPLICAS", Failure, "too few replicas: the backend refuses writes"),
    ("ERR max number of clients", Failure, "the backend refuses more connections"),
    ("DENIED", Failure, "the backend refuses connections (protected mode)"),
    ("MOVED", Success, "a redirection: the slot lives elsewhere, the backend works"),
    ("ASK", Success, "a redirection during a slot's migration, the backend works"),
    ("REDIRECT", Success, "a redirection (Valkey), the backend works"),
    ("TRYAGAIN", Ignored, "a slot is on its way; the client tries again"),
    ("UNBLOCKED", Ignored, "a blocked call was let go because of a failover or by an operator"),
    ("READONLY", Ignored, "a write reached a replica: the client's view of the topology is old"),
    ("EXECABORT", Ignored, "an earlier error of the same transaction, which was counted by itself"),
    ("IOERR", Ignored, "MIGRATE could not reach its target, which is another backend"),
    ("NOMASTERLINK", Ignored, "replication cannot start yet"),
    ("UNKILLABLE", Ignored, "the running script has written and cannot be killed"),
    ("NOTBUSY", Ignored, "no script runs that could be killed"),
    ("INPROG", Ignored, "a failover is already under way"),
    ("NOGOODSLAVE", Ignored, "no replica is fit for a failover"),
    ("NOQUORUM", Ignored, "a sentinel found no quorum"),
    ("ERR Protocol error", Ignored, "the client, or fusewire, broke the protocol"),
    ("CIRCUITOPEN", Ignored, "a fusewire further down the line has rejected it and counts for itself"),
    ("ERR", Success, "the client's error: syntax, types, unknown commands"),
    ("WRONGTYPE", Success, "the client's error: the key holds another type"),
    ("NOAUTH", Success, "the client's error: it has not authenticated"),
    ("WRONGPASS", Success, "the client's error: wrong user or password"),
    ("NOPERM", Success, "the client's error: its user lacks the permission"),
    ("NOSCRIPT", Success, "the client's error: the script must be loaded first"),
    ("NOPROTO", Success, "the client's error: no such protocol version"),
    ("CROSSSLOT", Success, "the client's error: keys of several slots"),
    ("BUSYKEY", Success, "the client's error: the key exists"),
    ("BUSYGROUP", Success, "the client's error: the consumer group exists"),
    ("NOGROUP", Success, "the client's error: no such consumer group"),
    ("INVALIDOBJ", Success, "the client's error: the value's type does not fit"),
];

/// Why a row of the configuration says what it says.
const CONFIGURED: &str = "set in the configuration";
/// Why an error that no row names is a success.
const OTHER: &str = "not on the table: the client's error, the backend answered";

/// The verdict table of one backend.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Row>,
    other: Row,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(&Overrides::default())
    }
}

impl Table {
    /// The built-in rows and those of the configuration. The longest match wins; a configured row beats a
    /// built-in one of the same length.
    pub fn new(overrides: &Overrides) -> Self {
        let configured =
            [(&overrides.failure, Failure), (&overrides.success, Success), (&overrides.ignored, Ignored)];
        let mut rows: Vec<Row> = configured
            .into_iter()
            .flat_map(|(codes, class)| codes.iter().map(move |code| (code, class)))
            .map(|(code, class)| Row {
                code: Code::new(Arc::clone(code)),
                class,
                why: CONFIGURED,
                prefix: true,
            })
            .collect();
        rows.extend(BUILT_IN.iter().map(|&(code, class, why)| Row {
            code: Code::new(code),
            class,
            why,
            prefix: false,
        }));
        let other = Row { code: Code::new("*"), class: Success, why: OTHER, prefix: true };
        Self { rows, other }
    }

    /// The rows, those of the configuration first.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// The row that decides an error, given its text without the type byte, or only its code. The row `*` stands
    /// for everything that no other names.
    pub fn row(&self, error: &[u8]) -> &Row {
        let mut best = &self.other;
        for row in self.rows.iter().filter(|row| row.matches(error)) {
            // The catch-all is one byte long like no row of the table, and loses to any that matches.
            if std::ptr::eq(best, &self.other) || row.code.as_str().len() > best.code.as_str().len() {
                best = row;
            }
        }
        best
    }

    /// The verdict on an error.
    pub fn verdict(&self, error: &[u8]) -> Verdict {
        let row = self.row(error);
        row.class.verdict(&row.code)
    }
}

impl Row {
    fn matches(&self, error: &[u8]) -> bool {
        let code = self.code.as_str();
        if code.as_bytes().first() != error.first() {
            // Most rows: not worth a call.
            return false;
        }
        let Some(rest) = error.strip_prefix(code.as_bytes()) else { return false };
        match rest.first() {
            _ if self.prefix => true,
            None | Some(b' ' | b'\r' | b'\n') => true,
            // "ERR Protocol error: ..."; a single word is a token, which a colon does not end.
            Some(b':') => code.contains(' '),
            Some(_) => false,
        }
    }
}
