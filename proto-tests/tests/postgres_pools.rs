//! tokio-postgres and its pool: normal work, refusals, connections that are kept, recovery; and what a pool that tests
//! its connections by empty queries sees with and without `answer_empty_queries`.

use std::collections::BTreeSet;

use deadpool_postgres::{Config, ManagerConfig, Pool, PoolConfig, RecyclingMethod, Runtime, Timeouts};
use proto_tests::{Fusewire, Postgres, Setup, eventually, within};
use tokio_postgres::NoTls;
use tokio_postgres::error::{DbError, SqlState};

fn both(settings: &str) -> (Postgres, Fusewire) {
    let postgres = Postgres::start();
    let proxy =
        Setup::default().postgres("db", postgres.addr(), &format!("recovery-timeout=1h{settings}")).start();
    (postgres, proxy)
}

fn trip(proxy: &Fusewire) {
    proxy.post("/api/v1/circuit-breaker/trip/db");
}

fn reset(proxy: &Fusewire) {
    proxy.post("/api/v1/circuit-breaker/reset/db");
}

fn accepted(proxy: &Fusewire) -> f64 {
    proxy.metric("fusewire_connections_total", &[("backend", "db")])
}

fn pool(proxy: &Fusewire, recycling_method: RecyclingMethod) -> Pool {
    let mut config = Config::new();
    config.host = Some("127.0.0.1".to_owned());
    config.port = Some(proxy.addr("db").port());
    config.user = Some("postgres".to_owned());
    config.dbname = Some("postgres".to_owned());
    config.manager = Some(ManagerConfig { recycling_method });
    config.pool =
        Some(PoolConfig { max_size: 3, timeouts: Timeouts::wait_millis(20_000), ..PoolConfig::default() });
    config.create_pool(Some(Runtime::Tokio1), NoTls).expect("a pool")
}

/// What the server, or fusewire in its place, said.
fn refusal(error: &tokio_postgres::Error) -> DbError {
    error.as_db_error().unwrap_or_else(|| panic!("no native error: {error:?}")).clone()
}

async fn one(pool: &Pool, sql: &str) -> Result<i32, tokio_postgres::Error> {
    let client = within("a connection", pool.get()).await.expect("a connection");
    let statement = client.prepare_cached(sql).await?;
    Ok(within("an answer", client.query_one(&statement, &[])).await?.get(0))
}

/// The server's process ids of all of the pool's connections.
async fn pids(pool: &Pool) -> BTreeSet<i32> {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(within("a connection", pool.get()).await.expect("a connection"));
    }
    let mut pids = BTreeSet::new();
    for client in &all {
        pids.insert(client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get(0));
    }
    pids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_keeps_its_session_through_refusals_and_finds_the_server_again() {
    let (mut postgres, proxy) = both(",failure-threshold=2");
    let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", proxy.addr("db").port());
    let connect = || async {
        let (client, connection) = within("a session", tokio_postgres::connect(&config, NoTls)).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let mut client = connect().await.expect("a session");
    client
        .batch_execute("CREATE TEMP TABLE mine AS SELECT 7 AS x; CREATE TABLE t (x int)")
        .await
        .expect("tables");
    let statement = client.prepare("SELECT x FROM mine").await.expect("a statement");
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get(0);
    // The driver closes the statement of that query without waiting. A call right behind such a run passes with it.
    client.simple_query("SELECT 1").await.expect("an answer to everything before");

    trip(&proxy);
    let before = (accepted(&proxy), proxy.metric("circuit_breaker_rejections_total", &[]));
    for _ in 0..10 {
        let error = refusal(&client.query_one(&statement, &[]).await.unwrap_err());
        assert_eq!(
            (error.code(), error.severity(), error.routine()),
            (&SqlState::OPERATOR_INTERVENTION, "ERROR", Some("fusewire"))
        );
        assert!(error.hint().is_some_and(|hint| hint.starts_with("retry after ")), "{error:?}");
    }
    for error in [
        client.simple_query("SELECT 1").await.map(drop).unwrap_err(),
        client.prepare("SELECT 2").await.map(drop).unwrap_err(),
        client.batch_execute("SELECT 1; SELECT 2").await.unwrap_err(),
        client.transaction().await.map(drop).unwrap_err(),
        client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refusal(&error).code(), &SqlState::OPERATOR_INTERVENTION);
    }
    let Err(refused) = connect().await else { panic!("a new session was admitted") };
    assert_eq!(refusal(&refused).code(), &SqlState::CANNOT_CONNECT_NOW);
    let after = (accepted(&proxy), proxy.metric("circuit_breaker_rejections_total", &[]));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1.0, 16.0), "nothing is tried twice");
    assert!(!client.is_closed());

    reset(&proxy);
    // The rejected BEGIN is over with a new one.
    let transaction = client.transaction().await.expect("a transaction");
    transaction.execute("INSERT INTO t VALUES (1)", &[]).await.expect("a row");
    trip(&proxy);
    transaction.execute("INSERT INTO t VALUES (2)", &[]).await.expect("an open transaction passes");
    transaction.commit().await.expect("as does its end");
    reset(&proxy);
    assert_eq!(client.query_one(&statement, &[]).await.expect("a row").get::<_, i32>(0), 7);
    assert_eq!(client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a row").get::<_, i32>(0), pid);
    assert_eq!(postgres.sql("SELECT count(*) FROM t"), "2");

    postgres.kill();
    within("the end of the session", async {
        while !client.is_closed() {
            client.simple_query("SELECT 1").await.ok();
        }
    })
    .await;
    while proxy.state("db") != "open" {
        assert_eq!(refusal(&connect().await.map(drop).unwrap_err()).code(), &SqlState::CANNOT_CONNECT_NOW);
    }
    postgres.restart();
    proxy.post("/api/v1/circuit-breaker/trip/db?for=1ms");
    proxy.await_state("db", "half_open");
    let client = connect().await.expect("a probe");
    assert_eq!(client.query_one("SELECT 1", &[]).await.expect("a row").get::<_, i32>(0), 1);
    assert_eq!(proxy.state("db"), "closed");
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadpool_keeps_its_connections_through_refusals_and_replaces_dead_ones() {
    let (mut postgres, proxy) = both(",failure-threshold=2");
    let pool = pool(&proxy, RecyclingMethod::Fast);
    let before = pids(&pool).await;
    assert_eq!(before.len(), 3);
    let connections = accepted(&proxy);
    trip(&proxy);
    for _ in 0..10 {
        let error = refusal(&one(&pool, "SELECT 42").await.unwrap_err());
        assert_eq!(error.code(), &SqlState::OPERATOR_INTERVENTION);
    }
    assert_eq!(accepted(&proxy), connections);
    reset(&proxy);
    assert_eq!(pids(&pool).await, before);
    assert_eq!(one(&pool, "SELECT 42").await.expect("a row"), 42);

    postgres.kill();
    eventually("the ends of the connections", || {
        let active = proxy.metric("fusewire_connections_active", &[("backend", "db")]);
        proto_tests::until::check(active == 0.0, active)
    });
    while proxy.state("db") != "open" {
        within("a refusal", pool.get()).await.map(drop).unwrap_err();
    }
    postgres.restart();
    proxy.post("/api/v1/circuit-breaker/trip/db?for=1ms");
    proxy.await_state("db", "half_open");
    assert_eq!(one(&pool, "SELECT 42").await.expect("a row"), 42);
    assert_eq!(proxy.state("db"), "closed");
    proxy.stop();
}

/// deadpool's `Verified` sends an empty query before it lends a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_tests_its_connections_keeps_them_if_empty_queries_are_answered() {
    for answered in [true, false] {
        let (_postgres, proxy) = both(&format!(",answer-empty-queries={answered}"));
        let pool = pool(&proxy, RecyclingMethod::Verified);
        let before = pids(&pool).await;
        let connections = accepted(&proxy);
        trip(&proxy);
        for _ in 0..10 {
            if answered {
                let error = refusal(&one(&pool, "SELECT 42").await.unwrap_err());
                assert_eq!(error.code(), &SqlState::OPERATOR_INTERVENTION);
            } else {
                within("a refusal", pool.get()).await.map(drop).unwrap_err();
            }
        }
        assert_eq!(accepted(&proxy) == connections, answered, "its connections are kept");
        reset(&proxy);
        assert_eq!(pids(&pool).await == before, answered);
        assert_eq!(one(&pool, "SELECT 42").await.expect("a row"), 42);
        assert_eq!(proxy.figure("db", "failed_calls"), 0);
        proxy.stop();
    }
}
