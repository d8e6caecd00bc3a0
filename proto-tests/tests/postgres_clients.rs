//! Real Postgres clients notice no difference while the breaker is closed.

use std::fs;
use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt, StreamExt};
use proto_tests::pgwire::{self, bind, execute, parse, sync};
use proto_tests::postgres_server::{PASSWORD, client, psql};
use proto_tests::tools::{output_of, run};
use proto_tests::{Fusewire, Pg, Postgres, Setup, eventually, within};
use tempfile::TempDir;
use tokio_postgres::{AsyncMessage, Client, NoTls};

fn both() -> (Postgres, Fusewire) {
    let postgres = Postgres::start();
    let proxy = Setup::default().postgres("db", postgres.addr(), "").start();
    (postgres, proxy)
}

async fn connect(proxy: &Fusewire) -> Client {
    let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", proxy.addr("db").port());
    let (client, connection) =
        within("a session", tokio_postgres::connect(&config, NoTls)).await.expect("a session");
    tokio::spawn(connection);
    client
}

#[test]
fn psql_scripts_and_both_directions_of_copy() {
    let (postgres, proxy) = both();
    let dir = TempDir::new().expect("a temporary directory");
    let (given, got) = (dir.path().join("in"), dir.path().join("out"));
    let lines: String = (0..50_000).map(|n| format!("{n}\tline {n}\n")).collect();
    fs::write(&given, &lines).expect("a file");
    let script = format!(
        "CREATE TABLE t (x int, y text);\n\\copy t FROM '{}'\nBEGIN;\nUPDATE t SET x = x;\nROLLBACK;\n\
         \\copy (SELECT * FROM t ORDER BY x) TO '{}'\nSELECT count(*) FROM t;\nDO $$ BEGIN RAISE NOTICE 'hello'; END $$;\n",
        given.display(),
        got.display()
    );
    let file = dir.path().join("script.sql");
    fs::write(&file, script).expect("a file");
    let mut command = client("psql", proxy.addr("db"));
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f"]).arg(&file);
    let output = run(&mut command);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "50000");
    assert!(String::from_utf8_lossy(&output.stderr).contains("hello"));
    assert_eq!(fs::read_to_string(&got).expect("a file"), lines);
    assert_eq!(postgres.sql("SELECT count(*) FROM t"), "50000");
    proxy.stop_clean("db");
}

#[test]
fn passwords_work_through_the_proxy() {
    let (_postgres, proxy) = both();
    for user in ["md5_user", "scram_user"] {
        let mut right = psql(proxy.addr("db"), "SELECT current_user");
        right.args(["-U", user]).env("PGPASSWORD", PASSWORD);
        assert_eq!(output_of(&mut right).trim(), user);
        let mut wrong = psql(proxy.addr("db"), "SELECT 1");
        wrong.args(["-U", user]).env("PGPASSWORD", "wrong");
        assert!(String::from_utf8_lossy(&run(&mut wrong).stderr).contains("password authentication failed"));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(within("a session", async {
            let port = proxy.addr("db").port();
            let config =
                format!("host=127.0.0.1 port={port} user={user} password={PASSWORD} dbname=postgres");
            let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("a session");
            tokio::spawn(connection);
            let row = client.query_one("SELECT current_user::text", &[]).await.expect("a row");
            assert_eq!(row.get::<_, String>(0), user);
        }));
    }
    assert!(proxy.log().iter().all(|line| !line.contains(PASSWORD)));
    proxy.stop_clean("db");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_pipelines_and_prepares() {
    let (_postgres, proxy) = both();
    let client = connect(&proxy).await;
    let statement = client.prepare("SELECT $1::int * 2").await.expect("a statement");
    // Polled together, the queries leave without waiting for each other's answers.
    let numbers: Vec<i32> = (0..500).collect();
    let queries = numbers.iter().map(|n| async {
        let n: &(dyn tokio_postgres::types::ToSql + Sync) = n;
        client.query_one(&statement, &[n]).await.map(|row| row.get::<_, i32>(0))
    });
    let doubled = within("a pipeline", try_join_all(queries)).await.expect("answers");
    assert_eq!(doubled, numbers.iter().map(|n| n * 2).collect::<Vec<_>>());
    // Errors in the middle of a pipeline hit only their own query.
    let mixed = numbers.iter().take(50).map(|n| {
        let sql = if n % 7 == 0 { "SELECT 1/0".to_owned() } else { format!("SELECT {n}") };
        let client = &client;
        async move { client.query_one(&sql, &[]).await.map(|row| row.get::<_, i32>(0)).ok() }
    });
    for (n, answer) in numbers.iter().zip(within("a mixed pipeline", join_all(mixed)).await) {
        assert_eq!(answer, (n % 7 != 0).then_some(*n));
    }
    proxy.stop_clean("db");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_copies_in_and_out() {
    let (_postgres, proxy) = both();
    let client = connect(&proxy).await;
    client.batch_execute("CREATE TABLE t (x int, y text)").await.expect("a table");
    let sink = client.copy_in("COPY t FROM STDIN").await.expect("COPY IN");
    let mut sink = pin!(sink);
    for n in 0..1000 {
        let rows: String = (0..50).map(|m| format!("{}\trow\n", n * 50 + m)).collect();
        sink.send(Bytes::from(rows)).await.expect("a piece");
    }
    assert_eq!(sink.as_mut().finish().await.expect("the end"), 50_000);
    let stream = client.copy_out("COPY (SELECT x FROM t ORDER BY x) TO STDOUT").await.expect("COPY OUT");
    let mut stream = pin!(stream);
    let mut text = Vec::new();
    while let Some(piece) = within("COPY data", stream.next()).await {
        text.extend_from_slice(&piece.expect("a piece"));
    }
    assert_eq!(String::from_utf8_lossy(&text), (0..50_000).map(|n| format!("{n}\n")).collect::<String>());
    // Giving a COPY up is the user's choice.
    let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.expect("COPY IN");
    drop(sink);
    let row = client.query_one("SELECT count(*) FROM t", &[]).await.expect("a row");
    assert_eq!(row.get::<_, i64>(0), 50_000);
    proxy.stop_clean("db");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_arrive_while_a_session_is_idle() {
    let (postgres, proxy) = both();
    let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", proxy.addr("db").port());
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.expect("a session");
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(note) = message {
                sender.send(note.payload().to_owned()).ok();
            }
        }
    });
    within("LISTEN", client.batch_execute("LISTEN news")).await.expect("LISTEN");
    for n in 0..5 {
        postgres.sql(&format!("NOTIFY news, '{n}'"));
        assert_eq!(within("a notification", receiver.recv()).await, Some(n.to_string()));
    }
    proxy.stop_clean("db");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_reaches_its_own_session() {
    let (postgres, proxy) = both();
    let (victim, bystander) = (connect(&proxy).await, connect(&proxy).await);
    let token = victim.cancel_token();
    // The bystander runs until it gets a lock.
    let mut holder = postgres.session();
    holder.query("SELECT pg_advisory_lock(1)");
    let running = tokio::spawn(async move { victim.batch_execute("SELECT pg_sleep(60)").await });
    let other = tokio::spawn(async move { bystander.batch_execute("SELECT pg_advisory_lock(1)").await });
    tokio::task::block_in_place(|| {
        eventually("running queries", || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event IN ('PgSleep', 'advisory')";
            match postgres.sql(waiting).as_str() {
                "2" => Ok(()),
                seen => Err(seen.to_owned()),
            }
        });
    });
    within("a cancel", token.cancel_query(NoTls)).await.expect("a cancel");
    let error = within("the victim", running).await.expect("a task").expect_err("57014");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
    holder.query("SELECT pg_advisory_unlock(1)");
    within("the bystander", other).await.expect("a task").expect("an undisturbed query");
    proxy.stop_clean("db");
}

#[test]
fn cancel_requests_pass_while_the_breaker_is_open() {
    let (postgres, proxy) = both();
    let mut session = Pg::session(proxy.addr("db"));
    session.send(&pgwire::query("SELECT pg_sleep(60)"));
    eventually("a running query", || {
        match postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").as_str() {
            "1" => Ok(()),
            seen => Err(seen.to_owned()),
        }
    });
    proxy.post("/api/v1/circuit-breaker/trip/db");
    let mut cancel = Pg::connect(proxy.addr("db"));
    cancel.send(&[&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e], &session.key[..]].concat());
    cancel.raw.eof();
    let messages = session.until_ready();
    let error = messages.iter().find(|message| message.tag == b'E').expect("an error").error();
    assert_eq!(error.code, "57014");
    assert_eq!(proxy.figure("db", "failed_calls"), 0);
    proxy.stop();
}

/// Everything that a session says in answer to these bytes, up to the end; its own numbers blanked out.
fn answer_to(addr: std::net::SocketAddr, input: &[u8]) -> Vec<pgwire::Message> {
    let mut pg = Pg::session(addr);
    pg.send(input);
    pg.send(&pgwire::message(b'X', b""));
    let mut all = Vec::new();
    while let Some(message) = pg.receive() {
        all.push(message);
    }
    all
}

#[test]
fn every_message_is_the_same_as_without_the_proxy() {
    let (postgres, proxy) = both();
    postgres.sql("CREATE TABLE t (x int PRIMARY KEY, y text)");
    let flush = pgwire::message(b'H', b"");
    let describe = pgwire::message(b'D', b"S\0");
    let close = pgwire::message(b'C', b"S\0");
    let copy = |rows: &str, end: u8| {
        let body = if end == b'f' { &b"given up\0"[..] } else { b"" };
        [
            pgwire::query("COPY t FROM STDIN"),
            pgwire::message(b'd', rows.as_bytes()),
            pgwire::message(end, body),
        ]
        .concat()
    };
    let inputs: Vec<Vec<u8>> = vec![
        pgwire::query(""),
        pgwire::query("SELECT 1; SELECT 'two'; SELEC; SELECT 3"),
        [parse("", "SELECT 1"), bind(""), describe.clone(), execute(), sync()].concat(),
        // After an error everything is skipped up to Sync, even a Query.
        [parse("", "SELEC"), pgwire::query("SELECT 1"), flush.clone(), sync(), pgwire::query("SELECT 2")]
            .concat(),
        [sync(), sync(), parse("", "SELECT 1"), flush.clone(), bind(""), execute(), close, sync(), sync()]
            .concat(),
        copy("1\ta\n2\tb\n", b'c'),
        copy("5\ta\n", b'f'),
        copy("broken\n", b'c'),
        // Syncs sent ahead of CopyDone are swallowed.
        [
            parse("", "COPY t FROM STDIN"),
            bind(""),
            execute(),
            sync(),
            pgwire::message(b'd', b"7\tx\n"),
            pgwire::message(b'c', b""),
            sync(),
            pgwire::query("SELECT count(*) FROM t"),
        ]
        .concat(),
        [
            pgwire::query("BEGIN"),
            pgwire::query("SELECT 1/0"),
            pgwire::query("SELECT 1"),
            pgwire::query("ROLLBACK"),
        ]
        .concat(),
        pgwire::query("SELECT repeat('x', 300000) FROM generate_series(1, 20)"),
        pgwire::query("COPY (SELECT repeat('y', 5000) FROM generate_series(1, 500)) TO STDOUT"),
        pgwire::query("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$"),
        pgwire::message(b'F', b"\0\0\x06\xdb\0\0\0\0\0\0"),
        pgwire::query("LISTEN a; NOTIFY a, 'to myself'; SELECT 1"),
        parse("s", "SELECT 1").repeat(1),
    ];
    for input in inputs {
        postgres.sql("TRUNCATE t");
        let wanted = answer_to(postgres.addr(), &input);
        postgres.sql("TRUNCATE t");
        let got = answer_to(proxy.addr("db"), &input);
        // NotificationResponse names the sending process.
        let plain = |messages: &[pgwire::Message]| -> Vec<(u8, Vec<u8>)> {
            messages
                .iter()
                .map(|m| (m.tag, if m.tag == b'A' { m.body[4..].to_vec() } else { m.body.clone() }))
                .collect()
        };
        assert_eq!(plain(&got), plain(&wanted), "{}", proto_tests::wire::Text(&input));
    }
    proxy.stop_clean("db");
}
