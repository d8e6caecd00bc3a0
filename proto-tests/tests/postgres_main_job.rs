//! The main job with a real Postgres: refused connections and queries say why and when to come back, sessions and
//! transactions survive, one probe closes the breaker.

use std::thread;

use proto_tests::pgwire::{self, PgError, bind, execute, parse, status, sync, tags};
use proto_tests::postgres_server::psql;
use proto_tests::process::Signal;
use proto_tests::tools::run;
use proto_tests::{Fake, Fusewire, Pg, Postgres, Setup, Step, eventually, within};

const DB: [(&str, &str); 1] = [("backend", "db")];

fn proxy_for(postgres: &Postgres, settings: &str) -> Fusewire {
    Setup::default().postgres("db", postgres.addr(), settings).start()
}

fn trip(proxy: &Fusewire) {
    proxy.post("/api/v1/circuit-breaker/trip/db");
}

fn reset(proxy: &Fusewire) {
    proxy.post("/api/v1/circuit-breaker/reset/db");
}

#[track_caller]
fn assert_hint(error: &PgError) {
    let number = error.hint.strip_prefix("retry after ").and_then(|tail| tail.strip_suffix(" ms"));
    assert!(number.is_some_and(|number| number.parse::<u64>().is_ok()), "{error:?}");
}

#[test]
fn five_failures_open_the_breaker_and_psql_prints_the_cause_and_the_hint() {
    let mut postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "recovery-timeout=1h");
    let mut through = psql(proxy.addr("db"), "SELECT 6 * 7");
    assert_eq!(proto_tests::tools::output_of(&mut through).trim(), "42");
    assert_eq!(proxy.state("db"), "closed");

    postgres.kill();
    for failures in 1..=5 {
        assert_eq!(proxy.state("db"), "closed", "after {} failures", failures - 1);
        let error = Pg::refused(proxy.addr("db"));
        assert_eq!(error.severity, "FATAL");
        assert!(format!("{error}").contains("connection refused"), "{error}");
        proxy.await_figure("db", "failed_calls", failures);
    }
    proxy.await_state("db", "open");

    let error = Pg::refused(proxy.addr("db"));
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P03"));
    assert_eq!(error.message, "backend 'db' is open (connection refused, 5 consecutive failures)");
    assert!(error.detail.contains("connection refused"), "{error:?}");
    assert_hint(&error);

    let output = run(&mut psql(proxy.addr("db"), "SELECT 1"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    for part in ["FATAL:  backend 'db' is open (connection refused, 5 consecutive failures)", "retry after "]
    {
        assert!(text.contains(part), "{text}");
    }
    let mut ready = proto_tests::postgres_server::client("pg_isready", proxy.addr("db"));
    let said = String::from_utf8_lossy(&run(&mut ready).stdout).into_owned();
    assert!(said.contains("rejecting connections"), "{said}");

    assert_eq!(proxy.figure("db", "failed_calls"), 5, "a rejection is no failure");
    assert_eq!(proxy.metric("circuit_breaker_state", &DB), 2.0);
    assert_eq!(proxy.metric("circuit_breaker_failures_total", &[DB[0], ("reason", "refused")]), 5.0);
    assert_eq!(proxy.metric("circuit_breaker_trips_total", &DB), 1.0);
    assert_eq!(proxy.metric("circuit_breaker_rejections_total", &DB), 3.0);
    proxy.await_log("Circuit breaker 'db' transitioned from CLOSED to OPEN after 5 consecutive failures");
    proxy.stop();
}

#[test]
fn a_probe_closes_the_breaker_after_a_restart() {
    let mut postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "recovery-timeout=500ms");
    postgres.kill();
    (0..5).for_each(|_| drop(Pg::refused(proxy.addr("db"))));
    proxy.await_log("transitioned from CLOSED to OPEN");
    proxy.await_log("transitioned from OPEN to HALF");
    postgres.restart();
    eventually("an admitted session", || {
        Pg::connect(proxy.addr("db")).startup("postgres", "postgres").map_err(|error| error.to_string())
    });
    assert_eq!(proxy.state("db"), "closed");
    assert_eq!(Pg::session(proxy.addr("db")).rows("SELECT 1").0, ["1"]);
    proxy.stop();
}

#[test]
fn tokio_postgres_reads_code_detail_and_hint() {
    let postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "recovery-timeout=1h");
    trip(&proxy);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", proxy.addr("db").port());
    let connecting = within("a refusal", tokio_postgres::connect(&config, tokio_postgres::NoTls));
    let Err(error) = runtime.block_on(connecting) else { panic!("the session was admitted") };
    let error = error.as_db_error().unwrap_or_else(|| panic!("no native error: {error}")).clone();
    assert_eq!(error.code().code(), "57P03");
    assert!(error.message().starts_with("backend 'db' is open ("), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.starts_with("retry after ")), "{error:?}");
    proxy.stop();
}

#[test]
fn a_hang_refuses_queries_of_live_sessions_and_keeps_the_sessions() {
    let postgres = Postgres::start();
    let settings = "recovery-timeout=1s,probe-timeout=1s";
    let proxy = Setup::default().with_defaults().postgres("db", postgres.addr(), settings).start();
    let mut session = Pg::session(proxy.addr("db"));
    session.rows("CREATE TEMP TABLE mine AS SELECT 7 AS x");

    postgres.freeze();
    proxy.set_defaults("handshake_timeout = \"1s\"");
    // The kernel still accepts for the frozen server; nobody answers a startup.
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let error = Pg::refused(proxy.addr("db"));
                assert!(format!("{error}").contains("no reply in time"), "{error}");
            });
        }
    });
    let line =
        proxy.await_log("Circuit breaker 'db' transitioned from CLOSED to OPEN after 5 consecutive failures");
    assert!(line.contains("no reply in time"), "{line}");
    trip(&proxy);
    let (error, status) = session.error("SELECT x FROM mine");
    assert_eq!((error.severity.as_str(), error.code.as_str(), status), ("ERROR", "57000", 'I'));

    postgres.thaw();
    reset(&proxy);
    assert_eq!(session.rows("SELECT x FROM mine"), (vec!["7".to_owned()], 'I'), "the session is the same");
    proxy.stop();
}

#[test]
fn a_refused_query_says_why_and_keeps_the_session_in_both_protocols() {
    let postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "recovery-timeout=1h");
    let mut session = Pg::session(proxy.addr("db"));
    session.rows("CREATE TEMP TABLE mine AS SELECT 7 AS x");
    trip(&proxy);
    let (error, at_end) = session.error("SELECT x FROM mine");
    assert_eq!((error.severity.as_str(), error.code.as_str(), at_end), ("ERROR", "57000", 'I'));
    assert!(error.message.starts_with("backend 'db' is open ("), "{error}");
    assert!(error.hint.starts_with("retry after "), "{error:?}");

    let group = [parse("", "SELECT x FROM mine"), bind(""), execute(), sync()].concat();
    session.send(&group);
    let refused = session.until_ready();
    assert_eq!((tags(&refused).as_str(), status(&refused)), ("EZ", 'I'));
    assert_eq!(refused[0].error().code, "57000");

    reset(&proxy);
    session.send(&group);
    assert_eq!(tags(&session.until_ready()), "12DCZ");
    assert_eq!(session.rows("SELECT x FROM mine").0, ["7"]);
    assert_eq!(proxy.figure("db", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn an_open_transaction_is_let_through_until_it_ends() {
    let postgres = Postgres::start();
    postgres.sql("CREATE TABLE t (x int)");
    let proxy = proxy_for(&postgres, "recovery-timeout=1h");
    let mut session = Pg::session(proxy.addr("db"));
    assert_eq!(session.rows("BEGIN").1, 'T');
    session.rows("INSERT INTO t VALUES (1)");
    trip(&proxy);
    assert_eq!(session.rows("INSERT INTO t VALUES (2)").1, 'T');
    assert_eq!(session.error("SELECT 1/0"), {
        let (error, status) = session_error("22012");
        (PgError { message: "division by zero".to_owned(), ..error }, status)
    });
    assert_eq!(session.rows("ROLLBACK").1, 'I');
    assert_eq!(session.error("SELECT 1").0.code, "57000");
    reset(&proxy);
    session.rows("BEGIN");
    session.rows("INSERT INTO t VALUES (3)");
    trip(&proxy);
    assert_eq!(session.rows("COMMIT").1, 'I');
    assert_eq!(session.error("SELECT 1").0.code, "57000");
    assert_eq!(postgres.sql("SELECT x FROM t"), "3");
    proxy.stop();
}

/// An error of a server, with the status of a failed transaction.
fn session_error(code: &str) -> (PgError, char) {
    let [severity, code] = ["ERROR", code].map(str::to_owned);
    (PgError { severity, code, message: String::new(), detail: String::new(), hint: String::new() }, 'E')
}

#[test]
fn a_rejected_setting_ends_the_session_instead_of_being_forgotten() {
    let postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "recovery-timeout=1h");
    let mut session = Pg::session(proxy.addr("db"));
    trip(&proxy);
    session.send(&pgwire::query("SET search_path TO tenant_7"));
    let answer = session.until_ready();
    let last = answer.last().expect("an error").error();
    assert_eq!(last.severity, "FATAL", "{answer:?}");
    session.raw.eof();
    proxy.stop();
}

#[test]
fn the_users_own_errors_never_trip() {
    let postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "failure-threshold=1");
    let mut session = Pg::session(proxy.addr("db"));
    session.rows("CREATE TEMP TABLE t (x int PRIMARY KEY)");
    session.rows("INSERT INTO t VALUES (1)");
    for (sql, code) in [
        ("INSERT INTO t VALUES (1)", "23505"),
        ("SELEC", "42601"),
        ("SELECT 1/0", "22012"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SET statement_timeout = 1; SELECT pg_sleep(30)", "57014"),
    ] {
        assert_eq!(session.error(sql).0.code, code);
    }
    assert_eq!(Pg::connect(proxy.addr("db")).startup("nobody_here", "postgres").unwrap_err().code, "28000");
    assert_eq!(Pg::connect(proxy.addr("db")).startup("postgres", "no_such_db").unwrap_err().code, "3D000");
    assert_eq!(proxy.state("db"), "closed");
    assert_eq!(proxy.figure("db", "failed_calls"), 0);
    proxy.stop();
}

#[test]
fn clients_that_leave_at_the_password_prompt_never_trip() {
    let postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "failure-threshold=1");
    for user in ["md5_user", "scram_user"] {
        // As with a prompt, psql closes its connection before it asks; only here it may not.
        let mut psql = psql(proxy.addr("db"), "SELECT 1");
        psql.args(["-U", user, "--no-password"]).env_remove("PGPASSWORD").env("PGPASSFILE", "/dev/null");
        assert!(String::from_utf8_lossy(&run(&mut psql).stderr).contains("no password supplied"));
    }
    eventually("both calls to be ignored", || match proxy.figure("db", "ignored_calls") {
        2 => Ok(()),
        n => Err(format!("{n}")),
    });
    assert_eq!((proxy.state("db").as_str(), proxy.figure("db", "failed_calls")), ("closed", 0));
    proxy.stop();
}

#[test]
fn sessions_that_end_with_a_fast_shutdown_count_only_where_a_query_was_running() {
    let mut postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "");
    let mut idle: Vec<Pg> = (0..10).map(|_| Pg::session(proxy.addr("db"))).collect();
    let mut busy = Pg::session(proxy.addr("db"));
    busy.send(&pgwire::query("SELECT pg_sleep(60)"));
    eventually("a running query", || {
        match postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    postgres.shutdown(Signal::INT);
    for session in idle.iter_mut().chain([&mut busy]) {
        let errors: Vec<_> =
            session.until_ready().into_iter().filter(|message| message.tag == b'E').collect();
        assert_eq!(errors.first().map(|message| message.error().code), Some("57P01".to_owned()));
    }
    postgres.wait();
    proxy.await_figure("db", "failed_calls", 1);
    assert_eq!(proxy.state("db"), "closed");
    proxy.stop();
}

#[test]
fn a_killed_server_is_one_failure_for_each_busy_session() {
    let mut postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "failure-threshold=3,recovery-timeout=1h");
    let _idle: Vec<Pg> = (0..5).map(|_| Pg::session(proxy.addr("db"))).collect();
    let mut busy: Vec<Pg> = (0..2).map(|_| Pg::session(proxy.addr("db"))).collect();
    for session in &mut busy {
        // Several statements in flight on one connection are still one connection's death.
        session.send(&pgwire::query("SELECT pg_sleep(60)").repeat(3));
    }
    eventually("running queries", || {
        match postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").as_str() {
            "2" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    postgres.kill();
    for session in &mut busy {
        session.raw.rest();
    }
    proxy.await_figure("db", "failed_calls", 2);
    assert_eq!(proxy.state("db"), "closed");
    proxy.stop();
}

#[test]
fn server_side_refusals_on_the_failure_table_trip() {
    let refusal = |code: &str| {
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mnot now\0\0");
        vec![
            Step::Await(b"postgres".to_vec()),
            Step::Send(pgwire::message(b'E', fields.as_bytes())),
            Step::Close,
        ]
    };
    let fake = Fake::scripts(vec![refusal("57P03"), refusal("53300"), refusal("28P01"), refusal("57P03")]);
    let proxy =
        Setup::default().postgres("db", fake.addr(), "failure-threshold=2,recovery-timeout=1h").start();
    let codes: Vec<String> = (0..2).map(|_| Pg::refused(proxy.addr("db")).code).collect();
    assert_eq!(codes, ["57P03", "53300"], "the server's own words reach the client");
    proxy.await_state("db", "open");
    reset(&proxy);
    // A wrong password shows a working server and ends the run of failures.
    assert_eq!(Pg::refused(proxy.addr("db")).code, "28P01");
    assert_eq!(Pg::refused(proxy.addr("db")).code, "57P03");
    assert_eq!(proxy.figure("db", "consecutive_failures"), 1);
    assert_eq!(proxy.state("db"), "closed");
    proxy.stop();
}

#[test]
fn encryption_requests_are_answered_before_the_refusal() {
    let postgres = Postgres::start();
    let proxy = proxy_for(&postgres, "recovery-timeout=1h");
    trip(&proxy);
    let mut pg = Pg::connect(proxy.addr("db"));
    pg.send(&pgwire::GSSENC_REQUEST);
    pg.raw.expect(b"N");
    pg.send(&pgwire::SSL_REQUEST);
    pg.raw.expect(b"N");
    let error = pg.startup("postgres", "postgres").unwrap_err();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P03"));
    pg.raw.eof();
    proxy.stop();
}
