//! The harness itself: a test bench that cannot kill, freeze and revive its servers proves nothing.

use proto_tests::postgres_server::{PASSWORD, psql};
use proto_tests::process::Signal;
use proto_tests::tools::{output_of, run};
use proto_tests::wire::Reply;
use proto_tests::{Client, Pg, Postgres, Redis, eventually};

#[test]
fn redis_dies_and_comes_back_empty_on_its_port() {
    let mut redis = Redis::start();
    let mut client = redis.client();
    assert_eq!(client.call(&["SET", "k", "v"]), Reply::simple("OK"));
    redis.kill();
    client.eof();
    assert!(Client::try_connect(redis.addr()).is_err());
    redis.restart();
    assert_eq!(redis.client().call(&["GET", "k"]), Reply::Null);
    assert_eq!(Client::unix(&redis.unix()).call(&["PING"]), Reply::simple("PONG"));
}

#[test]
fn frozen_redis_answers_only_after_the_thaw() {
    let redis = Redis::start();
    let mut client = redis.client();
    redis.freeze();
    client.send(b"PING\r\n");
    assert!(!client.readable());
    redis.thaw();
    client.expect(b"+PONG\r\n");
}

#[test]
fn postgres_dies_freezes_and_comes_back_with_its_data() {
    let mut postgres = Postgres::start();
    postgres.sql("CREATE TABLE t AS SELECT 42 AS x");
    postgres.sql("CHECKPOINT");
    let mut session = postgres.session();
    assert_eq!(session.rows("SELECT x FROM t"), (vec!["42".to_owned()], 'I'));
    let (error, status) = session.error("SELECT 1/0");
    assert_eq!((error.code.as_str(), status), ("22012", 'I'));
    postgres.freeze();
    let mut late = Pg::connect(postgres.addr());
    late.send(&proto_tests::pgwire::startup_packet("postgres", "postgres"));
    assert!(!late.raw.readable());
    postgres.thaw();
    assert_eq!(late.receive().map(|message| message.tag), Some(b'R'));
    postgres.kill();
    session.raw.rest();
    assert!(Client::try_connect(postgres.addr()).is_err());
    postgres.restart();
    assert_eq!(postgres.sql("SELECT x FROM t"), "42");
    assert_eq!(Pg::unix(&postgres.unix()).startup("postgres", "postgres"), Ok(()));
}

#[test]
fn postgres_fast_shutdown_ends_sessions_natively() {
    let mut postgres = Postgres::start();
    let mut session = postgres.session();
    postgres.shutdown(Signal::INT);
    let last = session.receive().expect("a last message").error();
    assert_eq!((last.severity.as_str(), last.code.as_str()), ("FATAL", "57P01"));
    postgres.wait();
    postgres.restart();
    assert_eq!(postgres.sql("SELECT 1"), "1");
}

#[test]
fn postgres_asks_some_roles_for_passwords() {
    let postgres = Postgres::start();
    for user in ["md5_user", "scram_user"] {
        let mut right = psql(postgres.addr(), "SELECT current_user");
        right.args(["-U", user]).env("PGPASSWORD", PASSWORD);
        assert_eq!(output_of(&mut right).trim(), user);
        let mut wrong = psql(postgres.addr(), "SELECT 1");
        wrong.args(["-U", user]).env("PGPASSWORD", "wrong");
        let output = run(&mut wrong);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("password authentication failed"));
    }
}

#[test]
fn nothing_is_left_behind() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let addrs = [redis.addr(), postgres.addr()];
    let files = [redis.unix(), postgres.unix()];
    postgres.freeze();
    drop((redis, postgres));
    eventually("closed ports", || match addrs.iter().find(|addr| Client::try_connect(**addr).is_ok()) {
        Some(addr) => Err(addr.to_string()),
        None => Ok(()),
    });
    assert!(files.iter().all(|file| !file.parent().is_some_and(|dir| dir.exists())));
}
