//! Two hundred clients at once on a half-open breaker: exactly `probes` calls reach the server, by its own count.

use proto_tests::pgwire::{self, PgError};
use proto_tests::wire::Reply;
use proto_tests::{Client, Fusewire, Pg, Postgres, Redis, Setup};

const CLIENTS: usize = 200;
const PROBES: usize = 3;

/// No probe may end before every client has asked, and a single success must not close the breaker under them.
const SETTINGS: &str =
    "probes=3,success-threshold=3,probe-timeout=10m,response-timeout=10m,handshake-timeout=10m";

/// Opens a breaker and waits until it lets probes through.
fn half_open(proxy: &Fusewire, name: &str) {
    proxy.post(&format!("/api/v1/circuit-breaker/trip/{name}?for=100ms"));
    proxy.await_state(name, "half_open");
}

#[test]
fn two_hundred_redis_clients_get_three_probes_through() {
    let redis = Redis::start();
    let proxy = Setup::default().redis("cache", redis.addr(), SETTINGS).start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(proxy.addr("cache"))).collect();
    for client in &mut clients {
        assert_eq!(client.call(&["PING"]), Reply::simple("PONG"));
    }
    redis.freeze();
    half_open(&proxy, "cache");
    clients.iter_mut().for_each(|client| client.command(&["INCR", "count"]));
    proxy.await_figure("cache", "rejected_calls", (CLIENTS - PROBES) as u64);
    assert_eq!(proxy.figure("cache", "probes"), PROBES as u64);
    redis.thaw();
    let replies: Vec<Reply> = clients.iter_mut().map(Client::reply).collect();
    let rejected =
        |reply: &&Reply| matches!(reply, Reply::Line(b'-', error) if error.starts_with("CIRCUITOPEN"));
    assert_eq!(replies.iter().filter(rejected).count(), CLIENTS - PROBES, "{replies:?}");
    assert_eq!(redis.client().call(&["GET", "count"]), Reply::bulk("3"));
    proxy.await_state("cache", "closed");
    proxy.stop();
}

/// Sixty sessions with a query each and a hundred and forty that want to log in: the server has eighty places.
#[test]
fn two_hundred_postgres_clients_get_three_probes_through() {
    const SESSIONS: usize = 60;
    let postgres = Postgres::start();
    postgres.sql("CREATE TABLE seen (n int)");
    let proxy = Setup::default().postgres("db", postgres.addr(), SETTINGS).start();
    let mut sessions: Vec<Pg> = (0..SESSIONS).map(|_| Pg::session(proxy.addr("db"))).collect();
    let mut newcomers: Vec<Pg> = (SESSIONS..CLIENTS).map(|_| Pg::connect(proxy.addr("db"))).collect();
    postgres.freeze();
    half_open(&proxy, "db");
    let startup = pgwire::startup_packet("postgres", "postgres");
    for n in 0..newcomers.len().max(sessions.len()) {
        if let Some(session) = sessions.get_mut(n) {
            session.send(&pgwire::query(&format!("INSERT INTO seen VALUES ({n})")));
        }
        if let Some(newcomer) = newcomers.get_mut(n) {
            newcomer.send(&startup);
        }
    }
    proxy.await_figure("db", "rejected_calls", (CLIENTS - PROBES) as u64);
    assert_eq!(proxy.figure("db", "probes"), PROBES as u64);
    postgres.thaw();

    let error = |messages: &[pgwire::Message]| -> Option<PgError> {
        messages.iter().find(|message| message.tag == b'E').map(pgwire::Message::error)
    };
    let answers: Vec<_> = sessions.iter_mut().map(|pg| error(&pg.until_ready())).collect();
    let logins: Vec<_> = newcomers.iter_mut().map(|pg| error(&pg.until_ready())).collect();
    let passed = |all: &[Option<PgError>]| all.iter().filter(|error| error.is_none()).count();
    assert!(answers.iter().flatten().all(|error| error.code == "57000"), "{answers:?}");
    assert!(logins.iter().flatten().all(|error| error.code == "57P03"), "{logins:?}");
    assert_eq!(passed(&answers) + passed(&logins), PROBES);
    assert_eq!(postgres.sql("SELECT count(*) FROM seen"), passed(&answers).to_string());
    let there = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    assert_eq!(postgres.sql(there), (SESSIONS + passed(&logins)).to_string());
    proxy.await_state("db", "closed");
    proxy.stop();
}
