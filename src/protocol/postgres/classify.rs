//! The verdict table: which SQLSTATEs say that the backend failed (PROTOCOLS.md §3.5), as data.
//!
//! The longest row that matches wins; a row of the user's beats a built-in one of the same length. The table is
//! what `fusewire classify postgres` prints.

use std::sync::Arc;

use super::report::{Report, Severity, Voice};
use crate::breaker::{Code, Verdict};
use crate::config::Overrides;
use crate::protocol::Class;

/// Which severities a row applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// Any.
    Always,
    /// `FATAL` or `PANIC`: the session is over.
    Fatal,
    /// `FATAL` with one of pgbouncer's texts about its server.
    Pooler,
    /// `PANIC`.
    Panic,
}

impl When {
    /// The word for listings.
    pub fn label(self) -> &'static str {
        match self {
            Self::Always => "any",
            Self::Fatal => "FATAL",
            Self::Pooler => "FATAL (pgbouncer)",
            Self::Panic => "PANIC",
        }
    }

    fn holds(self, severity: Severity, message: &[u8]) -> bool {
        match self {
            Self::Always => true,
            Self::Fatal => severity.is_final(),
            Self::Pooler => severity.is_final() && POOLER.iter().any(|text| starts_with(message, text)),
            Self::Panic => severity == Severity::Panic,
        }
    }
}

fn starts_with(message: &[u8], text: &str) -> bool {
    message.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()))
}

/// pgbouncer answers everything with 08P01; these beginnings say that it or its server is in trouble.
const POOLER: &[&str] = &[
    "no more connections allowed",
    "client connections exceeded",
    "query_wait_timeout",
    "server login has been failing",
    "server login failed",
    "server_login_retry",
    "server conn crashed",
    "server down",
    "client_login_timeout (server down)",
    "pgbouncer cannot connect to server",
    "the database system is shutting down",
    "server shutting down",
    "shutting down",
    "pooler is shutting down",
    "server dns lookup failed",
    "bouncer resources exhaustion",
    "connect failed",
    "max_client_conn",
];

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// A SQLSTATE or the beginning of one. Two rows match every code: `FATAL` and `PANIC` name them as causes.
    pub code: Code,
    /// How many characters of the code must match; more wins over fewer.
    specificity: usize,
    /// Which severities it applies to.
    pub when: When,
    /// The verdict.
    pub class: Class,
    /// Why, in a few words.
    pub why: &'static str,
    /// Whether the configuration set it.
    pub own: bool,
}

impl Row {
    fn matches(&self, code: &[u8], severity: Severity, message: &[u8]) -> bool {
        let prefix = self.code.as_str().as_bytes();
        (self.specificity == 0 || code.starts_with(prefix)) && self.when.holds(severity, message)
    }

    /// The verdict with this row as its cause.
    pub fn verdict(&self) -> Verdict {
        self.class.verdict(&self.code)
    }
}

type BuiltIn = (&'static str, When, Class, &'static str);

/// Rows of the same length stand in order of precedence.
const BUILT_IN: &[BuiltIn] = &[
    ("PANIC", When::Panic, Class::Failure, "the server is going down with all its sessions"),
    ("FATAL", When::Fatal, Class::Failure, "the server ended the session for a reason not in this table"),
    ("other", When::Always, Class::Success, "the server answered"),
    ("08", When::Always, Class::Ignored, "dblink and postgres_fdw report failures of other servers so"),
    ("08000", When::Fatal, Class::Failure, "connection exception"),
    ("08001", When::Fatal, Class::Failure, "a pooler could not reach its server"),
    ("08003", When::Fatal, Class::Failure, "connection does not exist"),
    ("08004", When::Fatal, Class::Failure, "the server rejected the connection"),
    ("08006", When::Fatal, Class::Failure, "a pooler lost its server"),
    ("08P01", When::Pooler, Class::Failure, "pgbouncer has no server to offer"),
    ("08P01", When::Always, Class::Success, "the client broke the protocol"),
    ("0A", When::Always, Class::Success, "feature not supported"),
    ("2", When::Always, Class::Success, "the client's data, transaction state, rights or password"),
    (
        "25006",
        When::Always,
        Class::Ignored,
        "read-only: a standby after a failover, or the client's own wish",
    ),
    ("25P02", When::Always, Class::Ignored, "the transaction had failed before"),
    ("25P03", When::Always, Class::Ignored, "the client idled in a transaction"),
    ("25P04", When::Always, Class::Ignored, "the client's transaction took too long"),
    ("3", When::Always, Class::Success, "the client named what does not exist"),
    ("40", When::Always, Class::Success, "serialization failures and deadlocks are the clients' doing"),
    ("40003", When::Always, Class::Ignored, "nobody knows whether the statement completed"),
    ("42", When::Always, Class::Success, "syntax error or missing right"),
    ("44", When::Always, Class::Success, "WITH CHECK OPTION"),
    ("53000", When::Always, Class::Failure, "insufficient resources"),
    ("53100", When::Always, Class::Failure, "disk full"),
    ("53200", When::Always, Class::Failure, "out of memory"),
    ("53300", When::Always, Class::Failure, "too many connections"),
    ("53400", When::Always, Class::Ignored, "a configured limit, such as temp_file_limit"),
    ("54", When::Always, Class::Success, "the client's statement is beyond the server's limits"),
    ("55", When::Always, Class::Success, "the object is not in the state the client needs"),
    ("55P03", When::Always, Class::Ignored, "lock not available"),
    ("57000", When::Always, Class::Ignored, "another fusewire rejected it"),
    (
        "57014",
        When::Always,
        Class::Ignored,
        "cancelled by its user, statement_timeout, or the client's CopyFail",
    ),
    ("57P01", When::Always, Class::Failure, "the server is shutting down"),
    ("57P02", When::Always, Class::Failure, "another session crashed the server"),
    ("57P03", When::Always, Class::Failure, "the server is starting up, recovering or shutting down"),
    ("57P04", When::Always, Class::Ignored, "the database was dropped"),
    ("57P05", When::Always, Class::Ignored, "the session was idle for too long"),
    ("58000", When::Always, Class::Failure, "system error"),
    ("58030", When::Always, Class::Failure, "input or output error"),
    ("58P01", When::Always, Class::Ignored, "a file the client named does not exist"),
    ("58P02", When::Always, Class::Ignored, "a file the client named exists already"),
    ("F0", When::Always, Class::Ignored, "configuration file"),
    ("HV", When::Always, Class::Ignored, "a foreign server failed"),
    ("P0", When::Always, Class::Success, "PL/pgSQL"),
    ("XX000", When::Fatal, Class::Failure, "internal error that ended the session"),
    ("XX000", When::Always, Class::Ignored, "internal error: any query can meet a bug"),
    ("XX001", When::Always, Class::Failure, "data corrupted"),
    ("XX002", When::Always, Class::Failure, "index corrupted"),
];

/// How many built-in rows match every code.
const CATCH_ALL: usize = 3;

/// The table of one backend: the user's rows, then the built-in ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Sorted by precedence: the first match is the answer.
    rows: Vec<Row>,
}

impl Table {
    /// Compiles the table.
    pub fn new(overrides: &Overrides) -> Self {
        let lists = [
            (&overrides.failure, Class::Failure),
            (&overrides.success, Class::Success),
            (&overrides.ignored, Class::Ignored),
        ];
        let own = lists.into_iter().flat_map(|(codes, class)| {
            codes.iter().map(move |code: &Arc<str>| Row {
                code: Code::new(code.clone()),
                specificity: code.len(),
                when: When::Always,
                class,
                why: "set in the configuration",
                own: true,
            })
        });
        let built_in = BUILT_IN.iter().enumerate().map(|(at, &(code, when, class, why))| Row {
            code: Code::new(code),
            specificity: if at < CATCH_ALL { 0 } else { code.len() },
            when,
            class,
            why,
            own: false,
        });
        let mut rows: Vec<Row> = own.chain(built_in).collect();
        // Stable, so the user's rows stay ahead of built-in ones of their length.
        rows.sort_by_key(|row| std::cmp::Reverse(row.specificity));
        Self { rows }
    }

    /// All rows, those of higher precedence first.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// The rows that may decide about a code, those of higher precedence first: one, or one for each severity.
    pub fn explain(&self, code: &str) -> impl Iterator<Item = &Row> {
        let mut found = Vec::new();
        for row in &self.rows {
            let prefix = row.code.as_str();
            if row.specificity == 0 || code.starts_with(prefix) {
                found.push(row);
                if row.when == When::Always {
                    break;
                }
            }
        }
        found.into_iter()
    }

    /// The row that decides about a code at a severity.
    pub fn find(&self, code: &str, severity: Severity) -> Option<&Row> {
        self.row(code.as_bytes(), severity, b"")
    }

    fn row(&self, code: &[u8], severity: Severity, message: &[u8]) -> Option<&Row> {
        // A server that goes down takes every session with it, whatever the code and whatever the configuration.
        let panic = |row: &&Row| row.when == When::Panic;
        if severity == Severity::Panic
            && let Some(row) = self.rows.iter().find(panic)
        {
            return Some(row);
        }
        self.rows.iter().find(|row| row.matches(code, severity, message))
    }

    /// The verdict on a call that met this report.
    pub(super) fn judge(&self, report: &Report) -> Verdict {
        let Some(row) = self.row(report.code(), report.severity(), report.message()) else {
            return Verdict::Success;
        };
        let verdict = row.verdict();
        if row.own || report.severity().is_final() {
            return verdict;
        }
        match (report.voice(), verdict) {
            // `RAISE ... USING ERRCODE = '53300'` is the application's word, not the server's.
            (Voice::Application, _) => Verdict::Success,
            // A full disk at the other end of a dblink is no reason to keep clients from this one.
            (Voice::OtherServer, Verdict::Failure(_)) => Verdict::Ignored,
            (_, verdict) => verdict,
        }
    }
}
