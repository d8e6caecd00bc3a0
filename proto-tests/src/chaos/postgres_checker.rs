//! Postgres clients that move money and write down what they were told.
//!
//! Every transfer is two updates and a line in the journal, so balances and journal agree or a transaction was torn; a
//! transfer whose COMMIT was acknowledged is in the journal for ever, one that failed before it is not. Every answer
//! carries a word of its question, and every session knows its own mark.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, pin_mut};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Config, Error, IsolationLevel, NoTls, Statement};

use super::bank::READ_ONLY;
use super::judge::{Figure, Judge};
use super::random::Random;
use crate::Postgres;
use crate::until::{PATIENCE, awake};

const ACCOUNTS: u64 = 8;
const START: i64 = 1000;
/// Rows of one COPY.
const ROWS: u64 = 20;

const SCHEMA: &str = "
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT n, 1000 FROM generate_series(0, 7) n;
CREATE TABLE journal (client int, n bigint, source int, target int, amount bigint, PRIMARY KEY (client, n));
CREATE TABLE note (client int, n bigint, PRIMARY KEY (client, n));
CREATE TABLE bulk (client int, n bigint, row int, PRIMARY KEY (client, n, row));
";

/// SQLSTATEs that an outage, a rejection or a conflict gives; any other is a broken promise.
const EXPECTED: &[&str] = &[
    "40001", "40P01", "53100", "53300", "57000", "57P01", "57P02", "57P03", "58030", "08006", "25P02",
    "XX000",
];

/// What was written where, by (client, number).
#[derive(Debug, Default)]
struct Book {
    told: BTreeSet<(i32, i64)>,
    maybe: BTreeSet<(i32, i64)>,
}

#[derive(Debug, Default)]
struct Books {
    journal: Mutex<Book>,
    note: Mutex<Book>,
    bulk: Mutex<Book>,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It did not happen.
    Refused,
    /// Nobody said.
    Unknown,
}

/// Clients of one backend.
#[derive(Debug)]
pub struct PostgresChecker {
    name: &'static str,
    runtime: Option<Runtime>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    books: Arc<Books>,
    /// Answers seen that were no errors, for progress.
    pub answers: Arc<AtomicU64>,
}

/// Whom clients may meet at their address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// A server that takes writes.
    Primary,
    /// Also a standby.
    Either,
}

impl PostgresChecker {
    /// Makes the tables and starts so many clients of the backend of this name at `addr`, each of which rests for `pace`
    /// between two things that it does.
    pub fn start(
        name: &'static str,
        server: &Postgres,
        addr: SocketAddr,
        serves: Serves,
        (clients, pace): (u64, Duration),
        judge: &Arc<Judge>,
        seed: u64,
    ) -> Self {
        server.sql(SCHEMA);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (books, answers) = (Arc::<Books>::default(), Arc::<AtomicU64>::default());
        let tasks = (0..clients).map(|id| {
            let teller = Teller {
                name,
                id: id as i32,
                addr,
                serves,
                pace,
                judge: judge.clone(),
                books: books.clone(),
                answers: answers.clone(),
                random: Random::new(seed ^ (id << 40)),
                n: 0,
            };
            runtime.spawn(teller.work())
        });
        let tasks = tasks.collect();
        Self { name, runtime: Some(runtime), tasks, books, answers }
    }

    /// How many commits were acknowledged so far.
    pub fn commits(&self) -> usize {
        let Books { journal, note, bulk } = &*self.books;
        [journal, note, bulk].into_iter().map(|book| lock(book).told.len()).sum()
    }

    /// Awaits their end.
    pub fn join(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime
                .block_on(join_all(self.tasks.drain(..)))
                .into_iter()
                .for_each(|end| end.expect("no panic"));
        }
    }

    /// Compares the server, asked directly, with what the clients were told. Only when they have ended, or when
    /// `final_` is not set: then of what is written meanwhile nothing is expected.
    pub fn audit(&self, server: &Postgres, judge: &Judge, final_: bool) {
        let name = self.name;
        let tables =
            [("journal", &self.books.journal), ("note", &self.books.note), ("bulk", &self.books.bulk)];
        for (table, book) in tables {
            let told = lock(book).told.clone();
            let rows = server.sql(&format!("SELECT client, n, count(*) FROM {table} GROUP BY 1, 2"));
            let mut found = BTreeSet::new();
            for row in rows.lines() {
                let mut fields = row.split('|').map(|field| field.parse::<i64>().expect("a number"));
                let mut next = || fields.next().expect("three fields");
                let (key, count) = ((next() as i32, next()), next() as u64);
                judge.count(Figure::Audited, 1);
                if table == "bulk" && count != ROWS {
                    judge.violation(format!("{name}: COPY {key:?} has {count} of {ROWS} rows"));
                }
                found.insert(key);
            }
            for lost in told.difference(&found) {
                judge.violation(format!("{name}: {table} {lost:?} was acknowledged and is gone"));
            }
            let book = lock(book);
            let unasked = found.iter().filter(|key| !book.told.contains(key) && !book.maybe.contains(key));
            if let (true, Some(unasked)) = (final_, unasked.copied().next()) {
                judge.violation(format!(
                    "{name}: {table} {unasked:?} is there, though its client was told that it failed"
                ));
            }
        }
        let torn = server.sql(&format!(
            "SELECT id, balance, {START} + coalesce((SELECT sum(amount) FROM journal WHERE target = id), 0) \
             - coalesce((SELECT sum(amount) FROM journal WHERE source = id), 0) AS due FROM account \
             WHERE balance <> {START} + coalesce((SELECT sum(amount) FROM journal WHERE target = id), 0) \
             - coalesce((SELECT sum(amount) FROM journal WHERE source = id), 0)"
        ));
        if !torn.is_empty() {
            judge.violation(format!("{name}: balances and journal differ: {torn}"));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client; its sessions follow one another.
struct Teller {
    name: &'static str,
    id: i32,
    addr: SocketAddr,
    serves: Serves,
    pace: Duration,
    judge: Arc<Judge>,
    books: Arc<Books>,
    answers: Arc<AtomicU64>,
    random: Random,
    n: i64,
}

impl Teller {
    async fn work(mut self) {
        while !self.judge.is_over() {
            // Longer than anything may take; then it hangs.
            let deadline = awake() + 3 * PATIENCE;
            let ended = {
                let session = self.session();
                pin_mut!(session);
                loop {
                    match timeout(PATIENCE, &mut session).await {
                        Err(_) if awake() < deadline => {}
                        ended => break ended,
                    }
                }
            };
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.excuse("session", &error);
                    self.judge.count(Figure::PostgresBreaks, 1);
                }
                Err(_) => self.judge.violation(format!("{} client {}: a session hangs", self.name, self.id)),
            }
            sleep(Duration::from_millis(5 + self.random.below(20))).await;
        }
    }

    /// Whether an error belongs to chaos; if not, that is a broken promise.
    fn excuse(&self, what: &str, error: &Error) {
        self.judge.count(Figure::PostgresErrors, 1);
        let Some(said) = error.as_db_error() else { return };
        let code = said.code().code();
        if self.serves == Serves::Either && READ_ONLY.contains(&code) {
            self.judge.count(Figure::PostgresReadOnly, 1);
        } else if !EXPECTED.contains(&code) {
            self.judge.violation(format!("{} client {}: {what}: {said:?}", self.name, self.id));
        }
    }

    /// What became of a write by the error that it ended with.
    fn outcome<T>(&self, what: &str, result: &Result<T, Error>) -> Outcome {
        match result {
            Ok(_) => Outcome::Done,
            Err(error) => {
                self.excuse(what, error);
                match error.as_db_error() {
                    // fusewire's own word, as ERROR or FATAL: it was never sent.
                    Some(said) if said.code().code() == "57000" => Outcome::Refused,
                    Some(said) if said.parsed_severity() == Some(Severity::Error) => Outcome::Refused,
                    _ => Outcome::Unknown,
                }
            }
        }
    }

    fn enter(&self, book: &Mutex<Book>, n: i64, outcome: Outcome) {
        let mut book = lock(book);
        match outcome {
            Outcome::Done => {
                book.told.insert((self.id, n));
                self.judge.count(Figure::PostgresCommits, 1);
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Unknown => {
                book.maybe.insert((self.id, n));
            }
            Outcome::Refused => {}
        }
    }

    /// A few dozen things on one session.
    async fn session(&mut self) -> Result<(), Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.addr.port()).user("postgres").dbname("postgres");
        let (mut client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let result = self.use_session(&mut client).await;
        drop(client);
        // Its error is that of whatever was under way.
        let _ = connection.await;
        result
    }

    async fn use_session(&mut self, client: &mut Client) -> Result<(), Error> {
        let mark = format!("client{}", self.id);
        client.batch_execute(&format!("SET chaos.mark = '{mark}'")).await?;
        let echo = client.prepare("SELECT $1::text, current_setting('chaos.mark')").await?;
        for _ in 0..20 + self.random.below(30) {
            if self.judge.is_over() {
                break;
            }
            self.n += 1;
            sleep(self.pace).await;
            match self.random.below(6) {
                0 | 1 => self.transfer(client).await?,
                2 => self.note(client).await?,
                3 => self.copy(client).await?,
                4 => self.pipeline(client, &echo, &mark).await?,
                _ => self.balance(client).await?,
            }
        }
        Ok(())
    }

    async fn transfer(&mut self, client: &mut Client) -> Result<(), Error> {
        let serialisable = self.random.below(2) == 0;
        let level = if serialisable { IsolationLevel::Serializable } else { IsolationLevel::ReadCommitted };
        let source = self.random.below(ACCOUNTS) as i32;
        let target = (source + 1 + self.random.below(ACCOUNTS - 1) as i32) % ACCOUNTS as i32;
        let amount = self.random.below(50) as i64;
        let transaction = client.build_transaction().isolation_level(level).start().await;
        let Ok(transaction) = transaction.inspect_err(|error| self.excuse("BEGIN", error)) else {
            return Ok(());
        };
        let moved = async {
            for (account, sum) in [(source, -amount), (target, amount)] {
                let sql = "UPDATE account SET balance = balance + $1 WHERE id = $2";
                transaction.execute(sql, &[&sum, &account]).await?;
            }
            let sql = "INSERT INTO journal VALUES ($1, $2, $3, $4, $5)";
            transaction.execute(sql, &[&self.id, &self.n, &source, &target, &amount]).await
        };
        if let Err(error) = moved.await {
            self.excuse("a transfer", &error);
            return if error.as_db_error().is_none() { Err(error) } else { transaction.rollback().await };
        }
        let result = transaction.commit().await;
        let outcome = self.outcome("COMMIT", &result);
        self.enter(&self.books.journal, self.n, outcome);
        if outcome == Outcome::Unknown { result } else { Ok(()) }
    }

    async fn note(&self, client: &Client) -> Result<(), Error> {
        let result = client.execute("INSERT INTO note VALUES ($1, $2)", &[&self.id, &self.n]).await;
        let outcome = self.outcome("INSERT", &result);
        self.enter(&self.books.note, self.n, outcome);
        if outcome == Outcome::Unknown { result.map(drop) } else { Ok(()) }
    }

    async fn copy(&self, client: &Client) -> Result<(), Error> {
        let result = async {
            let sink = client.copy_in::<_, Bytes>("COPY bulk FROM STDIN").await?;
            pin_mut!(sink);
            for row in 0..ROWS {
                sink.send(Bytes::from(format!("{}\t{}\t{row}\n", self.id, self.n))).await?;
            }
            sink.finish().await
        };
        let result = result.await;
        let mut outcome = self.outcome("COPY", &result);
        // The driver takes CommandComplete for the end, which the server says before it commits. Its ReadyForQuery, which
        // comes after the commit, goes before the answer to this.
        if outcome == Outcome::Done
            && self.outcome("an empty query", &client.simple_query("").await) != Outcome::Done
        {
            outcome = Outcome::Unknown;
        }
        self.enter(&self.books.bulk, self.n, outcome);
        if outcome == Outcome::Unknown { result.map(drop) } else { Ok(()) }
    }

    /// Several questions at once, each with a word of its own.
    async fn pipeline(&self, client: &Client, echo: &Statement, mark: &str) -> Result<(), Error> {
        let words: Vec<String> = (0..5).map(|k| format!("{mark}-{}-{k}", self.n)).collect();
        let answers = join_all(words.iter().map(|word| async move { client.query_one(echo, &[word]).await }));
        for (word, answer) in words.iter().zip(answers.await) {
            match answer {
                Ok(row) => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    self.judge.count(Figure::PostgresReads, 1);
                    let (back, of): (String, String) = (row.get(0), row.get(1));
                    if back != *word || of != *mark {
                        self.judge.violation(format!("asked {word} of {mark}, was answered {back} of {of}"));
                    }
                }
                Err(error) if error.as_db_error().is_some() => self.excuse("a query", &error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn balance(&self, client: &Client) -> Result<(), Error> {
        match client.query_one("SELECT sum(balance)::bigint FROM account", &[]).await {
            Ok(row) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.judge.count(Figure::PostgresReads, 1);
                let sum: i64 = row.get(0);
                if sum != START * ACCOUNTS as i64 {
                    self.judge.violation(format!("the accounts hold {sum} together"));
                }
                Ok(())
            }
            Err(error) if error.as_db_error().is_some() => {
                self.excuse("a sum", &error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Deletes what a client was told is there, and takes money from an account: to see that the checker sees.
pub fn sabotage(server: &Postgres) {
    server.sql("DELETE FROM note WHERE (client, n) = (SELECT client, n FROM note LIMIT 1)");
    server.sql("UPDATE account SET balance = balance - id");
}
