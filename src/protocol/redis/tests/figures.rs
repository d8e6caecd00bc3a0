//! What is counted, and as what.

use super::*;

/// Calls with a duration, and the sum of those.
fn timed(rig: &Rig) -> (u64, Duration) {
    let totals = rig.totals();
    (totals.latency_counts.iter().sum(), Duration::from_nanos(totals.latency_nanos.iter().sum()))
}

#[test]
fn replies_that_come_together_have_each_the_duration_of_its_own_call() {
    let (a, b) = (Duration::from_secs(3), Duration::from_secs(4));
    scenario(|rig| {
        rig.client(req("GET a").repeat(2));
        rig.now += a;
        rig.client(reqs(&["GET b", "HELLO", "GET b"]));
        rig.now += b;
        rig.server("$-1\r\n$-1\r\n$-1\r\n*0\r\n$-1\r\n");
        assert_eq!(timed(rig), (4, (a + b) * 2 + b * 2));
    });
}

#[test]
fn replies_that_come_together_belong_each_to_the_generation_of_its_own_call() {
    scenario(|rig| {
        rig.client(req("GET a").repeat(2)).trip().close().client(req("GET b").repeat(2));
        rig.server("$-1\r\n".repeat(4));
        assert_eq!((rig.count(Counter::Success), rig.count(Counter::Stale)), (4, 2));
        rig.client(req("GET a").repeat(2)).trip().close().client(req("GET b").repeat(2));
        rig.server("-LOADING x\r\n".repeat(4));
        assert_eq!((rig.count(Counter::Failure), rig.count(Counter::Stale), rig.run()), (4, 4, 2));
    });
}

#[test]
fn exec_is_a_latency_sample_and_so_is_what_would_block_outside() {
    let (queued, run) = (Duration::from_secs(1), Duration::from_secs(2));
    scenario(|rig| {
        rig.passes(req("MULTI"), "+OK\r\n").client(req("BLPOP k 60"));
        rig.now += queued;
        rig.server("+QUEUED\r\n").client(req("EXEC"));
        rig.now += run;
        rig.server("*1\r\n*-1\r\n");
        assert_eq!(timed(rig), (2, queued + run));
    });
}

#[test]
fn what_is_rejected_within_a_transaction_is_counted_apart() {
    for (end, session) in [("EXEC", 2), ("DISCARD", 1)] {
        scenario(|rig| {
            rig.trip().client(reqs(&["MULTI", "SET k v", end]));
            assert_eq!((rig.count(Counter::RejectedOpen), rig.count(Counter::RejectedSession)), (1, session));
        });
    }
}

#[test]
fn a_request_of_our_own_is_no_call() {
    for reply in ["+OK\r\n", "-LOADING x\r\n"] {
        scenario(|rig| {
            rig.passes(reqs(&["MULTI", "SET a 1"]), "+OK\r\n+QUEUED\r\n").trip();
            let (calls, failures) = (rig.totals().calls(), rig.count(Counter::Failure));
            rig.client(req("EXEC")).server(reply);
            assert_eq!((rig.totals().calls(), rig.count(Counter::Failure)), (calls, failures));
        });
    }
}
