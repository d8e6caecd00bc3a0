//! Verdicts on what real counterparts say: pgbouncer, dblink and postgres_fdw, PL/pgSQL, and a server whose session
//! crashes.

use proto_tests::pgwire;
use proto_tests::process::{Signal, send};
use proto_tests::until::check;
use proto_tests::{Fusewire, Pg, Pgbouncer, Postgres, Setup, eventually};

fn proxy_for(upstream: impl ToString) -> Fusewire {
    Setup::default().postgres("db", upstream, "failure-threshold=100").start()
}

/// How many failures there have been for this reason, and how many in all.
fn failures(proxy: &Fusewire, reason: &str) -> (f64, u64) {
    let labels = [("backend", "db"), ("reason", reason)];
    (proxy.metric("circuit_breaker_failures_total", &labels), proxy.figure("db", "failed_calls"))
}

/// The errors among these messages, as `FATAL 08P01 text`.
fn errors(messages: &[pgwire::Message]) -> Vec<String> {
    let errors = messages.iter().filter(|message| message.tag == b'E').map(pgwire::Message::error);
    errors.map(|error| format!("{} {} {}", error.severity, error.code, error.message)).collect()
}

/// Begins a query that sleeps on the server, and returns the server's process id.
fn sleep(postgres: &Postgres, session: &mut Pg) -> u32 {
    session.send(&pgwire::query("SELECT pg_sleep(60)"));
    eventually("a running query", || {
        let pid = postgres.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        pid.parse().map_err(|_| pid)
    })
}

#[test]
fn a_pgbouncer_that_takes_no_more_clients_is_a_failure_and_an_unknown_database_is_not() {
    let postgres = Postgres::start();
    let pgbouncer = Pgbouncer::before(&postgres, &["max_client_conn = 1"]);
    let proxy = proxy_for(pgbouncer.addr());
    let unknown = Pg::connect(proxy.addr("db")).startup("postgres", "nowhere").unwrap_err();
    assert_eq!((unknown.severity.as_str(), failures(&proxy, "08P01")), ("FATAL", (0.0, 0)), "{unknown}");
    let first = eventually("the room that the last client had", || {
        let mut session = Pg::connect(proxy.addr("db"));
        session.startup("postgres", "postgres").map(|()| session).map_err(|error| error.to_string())
    });
    let before = failures(&proxy, "08P01");
    let refused = Pg::refused(proxy.addr("db"));
    assert_eq!((refused.severity.as_str(), refused.code.as_str()), ("FATAL", "08P01"));
    assert_eq!(refused.message, "no more connections allowed (max_client_conn)");
    assert_eq!(failures(&proxy, "08P01"), (before.0 + 1.0, before.1 + 1));
    drop(first);
    proxy.stop();
}

#[test]
fn a_pgbouncer_that_has_no_server_to_offer_is_a_failure() {
    let mut postgres = Postgres::start();
    postgres.sql("CREATE ROLE app LOGIN");
    let settings = ["pool_mode = transaction", "default_pool_size = 1", "server_login_retry = 3600"];
    let pgbouncer = Pgbouncer::before(&postgres, &settings);
    let proxy = proxy_for(pgbouncer.addr());
    let mut console = Pg::connect(pgbouncer.addr());
    console.startup("postgres", "pgbouncer").expect("its console");
    // A short patience only where nothing is to be had: a server that is slow to log in must not meet it.
    let mut patience = |seconds: u32| {
        let said = console.query(&format!("SET query_wait_timeout = {seconds}"));
        assert_eq!(errors(&said), [""; 0]);
    };
    let session = |user| {
        let mut pg = Pg::connect(proxy.addr("db"));
        pg.startup(user, "postgres").expect("a session");
        pg
    };
    let (mut holder, mut waiter) = (session("postgres"), session("postgres"));
    assert_eq!(holder.rows("BEGIN").1, 'T');
    patience(1);
    assert_eq!(errors(&waiter.query("SELECT 1")), ["FATAL 08P01 query_wait_timeout"]);
    assert_eq!(failures(&proxy, "08P01"), (1.0, 1));

    // The server answers each login of a pool with an error.
    patience(60);
    let (mut first, mut second) = (session("app"), session("app"));
    assert_eq!(first.rows("SELECT 1").0, ["1"]);
    postgres.sql("ALTER ROLE app CONNECTION LIMIT 0");
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    // Until it has noticed, pgbouncer would hand the dead connection out.
    let mut observer = Pg::connect(pgbouncer.addr());
    observer.startup("postgres", "pgbouncer").expect("its console");
    eventually("pgbouncer to see the end of its connection", || {
        let servers = observer.query("SHOW SERVERS");
        let apps = |row: &&pgwire::Message| row.tag == b'D' && row.body.windows(3).any(|name| name == b"app");
        let left = servers.iter().filter(apps).count();
        check(left == 0, servers)
    });
    patience(1);
    assert_eq!(errors(&first.query("SELECT 1")), ["FATAL 08P01 query_wait_timeout"]);
    eventually("the refused login", || {
        let log = postgres.log();
        check(log.contains("too many connections for role"), log)
    });
    let text = "FATAL 08P01 server login has been failing, try again later (server_login_retry)";
    assert_eq!(errors(&second.query("SELECT 1")), [text]);
    assert_eq!(failures(&proxy, "08P01"), (3.0, 3));

    // The server dies within a transaction: no call is in flight, and the next one is refused.
    postgres.kill();
    // It may yet say 57P01, if it notices its postmaster's death before it is killed itself.
    let said = errors(&holder.until_ready());
    assert_eq!(said.last().map(String::as_str), Some("FATAL 08P01 server conn crashed?"), "{said:?}");
    assert_eq!(errors(&session("postgres").query("SELECT 1")), ["FATAL 08P01 query_wait_timeout"]);
    assert_eq!(failures(&proxy, "08P01"), (4.0, 4));
    proxy.stop();
}

#[test]
fn the_end_of_pgbouncers_server_in_the_middle_of_a_query_is_one_failure() {
    let postgres = Postgres::start();
    let pgbouncer = Pgbouncer::before(&postgres, &[]);
    let proxy = proxy_for(pgbouncer.addr());
    let mut session = Pg::session(proxy.addr("db"));
    let pid = sleep(&postgres, &mut session);
    postgres.sql(&format!("SELECT pg_terminate_backend({pid})"));
    let said = errors(&session.until_ready());
    let wanted = [
        "FATAL 57P01 terminating connection due to administrator command",
        "FATAL 08P01 server conn crashed?",
    ];
    assert_eq!(said, wanted);
    assert_eq!(failures(&proxy, "57P01"), (1.0, 1));

    // Nor does pgbouncer say anything when it is ended itself.
    let mut session = Pg::session(proxy.addr("db"));
    sleep(&postgres, &mut session);
    pgbouncer.stop();
    let said = errors(&session.until_ready());
    assert!(said.len() == 1 && said[0].starts_with("FATAL 08006 backend 'db' has failed"), "{said:?}");
    assert_eq!(failures(&proxy, "eof"), (1.0, 2));
    proxy.stop();
}

#[test]
fn failures_of_another_server_behind_dblink_and_postgres_fdw_do_not_count() {
    let (postgres, other) = (Postgres::start(), Postgres::start());
    for server in [&postgres, &other] {
        server.sql(
            "CREATE FUNCTION forged(code text) RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION USING ERRCODE = code; END $$",
        );
    }
    other.sql("CREATE VIEW full_disk AS SELECT forged('53100') AS x");
    other.sql("CREATE VIEW gone AS SELECT pg_terminate_backend(pg_backend_pid())::int AS x");
    let port = other.port();
    let dead = proto_tests::tools::free_port();
    postgres.sql("CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw");
    for (name, port) in [("other", port), ("dead", dead)] {
        postgres.sql(&format!(
            "CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'postgres');
             CREATE USER MAPPING FOR postgres SERVER {name} OPTIONS (user 'postgres')"
        ));
    }
    postgres.sql(
        "CREATE FOREIGN TABLE full_disk (x int) SERVER other;
         CREATE FOREIGN TABLE gone (x int) SERVER other;
         CREATE FOREIGN TABLE unreachable (x int) SERVER dead",
    );
    let proxy = proxy_for(postgres.addr());
    let mut session = Pg::session(proxy.addr("db"));
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    session.rows(&format!("SELECT dblink_connect('c', '{conninfo}')"));
    let before = proxy.figure("db", "ignored_calls");
    let remote = [
        ("SELECT dblink_connect('d', 'host=127.0.0.1 port=".to_owned() + &dead.to_string() + "')", "08001"),
        ("SELECT * FROM dblink('c', 'SELECT forged(''53100'')') AS t(x int)".to_owned(), "53100"),
        ("SELECT * FROM unreachable".to_owned(), "08001"),
        ("SELECT * FROM full_disk".to_owned(), "53100"),
        ("SELECT * FROM gone".to_owned(), "08006"),
        (
            "SELECT dblink_send_query('c', 'SELECT pg_terminate_backend(pg_backend_pid())'); \
          SELECT * FROM dblink_get_result('c') AS t(x bool)"
                .to_owned(),
            "57P01",
        ),
    ];
    for (sql, code) in &remote {
        let (error, status) = session.error(sql);
        assert_eq!(
            (error.severity.as_str(), error.code.as_str(), status),
            ("ERROR", *code, 'I'),
            "{sql}: {error}"
        );
    }
    assert_eq!(proxy.figure("db", "ignored_calls") - before, remote.len() as u64);
    // A file that the client names and an option that it gets wrong.
    for (sql, code) in [
        ("SELECT pg_read_file('/nonexistent')", "58P01"),
        ("CREATE SERVER files FOREIGN DATA WRAPPER file_fdw OPTIONS (nonsense '1')", "HV00D"),
        ("COPY pg_class TO '/dev/full'", "53100"),
    ] {
        assert_eq!(session.error(sql).0.code, code);
    }
    // The last one is this server's own disk.
    assert_eq!(failures(&proxy, "53100"), (1.0, 1));
    proxy.stop();
}

#[test]
fn codes_that_the_application_raises_are_its_own() {
    let postgres = Postgres::start();
    let proxy = proxy_for(postgres.addr());
    let mut session = Pg::session(proxy.addr("db"));
    for code in ["53300", "57P01", "57P03", "58030", "XX001", "08006"] {
        let sql = format!(
            "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = repeat('x', 100000); END $$"
        );
        assert_eq!(session.error(&sql).0.code, code);
    }
    // A warning with the code of a crash is no omen of one.
    session.send(&pgwire::query(
        "DO $$ BEGIN RAISE WARNING USING ERRCODE = '57P02'; END $$; SELECT pg_sleep(60)",
    ));
    let pid: u32 = eventually("a running query", || {
        let pid = postgres.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        pid.parse().map_err(|_| pid)
    });
    postgres.sql(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(errors(&session.until_ready()), ["ERROR 57014 canceling statement due to user request"]);
    assert_eq!((proxy.figure("db", "failed_calls"), proxy.state("db").as_str()), (0, "closed"));
    proxy.stop();
}

#[test]
fn a_session_that_crashes_fails_the_busy_ones_beside_it_and_not_the_idle_ones() {
    let postgres = Postgres::start();
    let proxy = proxy_for(postgres.addr());
    let mut idle: Vec<Pg> = (0..10).map(|_| Pg::session(proxy.addr("db"))).collect();
    let mut busy = Pg::session(proxy.addr("db"));
    busy.send(&pgwire::query("SELECT pg_sleep(60)"));
    let mut victim = Pg::session(proxy.addr("db"));
    let pid: u32 = victim.rows("SELECT pg_backend_pid()").0[0].parse().expect("a process id");
    victim.send(&pgwire::query("SELECT pg_sleep(60)"));
    eventually("running queries", || {
        let running = postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        check(running == "2", running)
    });
    send(pid, Signal::KILL);
    // The victim itself says nothing; the others are told by a notice, and then their connections end.
    let said = errors(&victim.until_ready());
    assert!(said.len() == 1 && said[0].starts_with("FATAL 08006 backend 'db' has failed"), "{said:?}");
    for session in idle.iter_mut().chain([&mut busy]) {
        let messages = session.until_ready();
        let notice = messages.iter().find(|message| message.tag == b'N').expect("a notice").error();
        assert_eq!((notice.severity.as_str(), notice.code.as_str()), ("WARNING", "57P02"));
    }
    assert_eq!(failures(&proxy, "57P02"), (1.0, 2), "the busy one, and the victim by its connection's end");
    assert_eq!(failures(&proxy, "eof"), (1.0, 2));
    proxy.stop();
}
