//! Out of file descriptors: nobody is blamed, it is alarmed, and it is over when they are back.

use proto_tests::wire::Reply;
use proto_tests::{Client, Pg, Postgres, Redis, Setup, eventually};

#[test]
fn want_of_descriptors_is_alarmed_blames_no_backend_and_passes() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let limit = "ulimit -n 90; exec \"$0\" \"$@\"";
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "failure-threshold=2")
        .postgres("db", postgres.addr(), "failure-threshold=2")
        .args(&["--workers", "2"])
        .launched_by(&["sh", "-c", limit])
        .start();
    let mut early = Client::connect(proxy.addr("cache"));
    assert_eq!(early.call(&["PING"]), Reply::simple("PONG"));
    // Held, because the admin API needs a descriptor as well: what it says is looked at when there is one again.
    let mut clients: Vec<Client> = (0..80).map(|_| Client::connect(proxy.addr("cache"))).collect();
    clients.iter_mut().for_each(|client| client.command(&["PING"]));
    proxy.await_log("Cannot accept clients for the moment");
    assert_eq!(early.call(&["PING"]), Reply::simple("PONG"), "who is in is served");
    drop(clients);
    eventually("a descriptor", || match Client::connect(proxy.addr("cache")).call(&["PING"]) {
        reply if reply == Reply::simple("PONG") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(Pg::session(proxy.addr("db")).rows("SELECT 1").0, ["1"]);
    assert!(proxy.metric("fusewire_local_faults_total", &[("backend", "cache")]) >= 1.0);
    for name in ["cache", "db"] {
        assert_eq!(
            (proxy.state(name), proxy.figure(name, "failed_calls")),
            ("closed".to_owned(), 0),
            "{name}"
        );
    }
    proxy.stop();
}
