//! Checks against a server in memory, on a virtual clock.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::*;
use crate::backends::Backend;
use crate::breaker::{CallKind, Checks, Code, Policy, Remedy, State, Verdict, When};
use crate::config::{self, Endpoint, Overrides, Postgres, Redis, SqlState, Timeouts, Tls};
use crate::gate::Gate;
use crate::proxy::memory::{Dialled, Memory, answer_dials};
use crate::proxy::service::Route;

/// What the server does with a check.
#[derive(Clone)]
enum Act {
    Refuse,
    Silence,
    /// Begins a session, and stands still.
    Hang(&'static [u8]),
    Answer(&'static [u8]),
    /// This machine is out of descriptors.
    Local,
}

struct Rig {
    gate: Arc<Gate>,
    began: Instant,
    act: Arc<Mutex<Act>>,
    /// When each check came, in seconds.
    dials: Arc<Mutex<Vec<f64>>>,
    /// What the last one has sent, and whether it was heard out.
    sent: Arc<Mutex<Vec<u8>>>,
    ended: Arc<AtomicUsize>,
    service: Arc<Service>,
    checkers: TaskTracker,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Its checker would make the next one's dials.
        self.service.shutdown().finish();
        answer_dials(None);
    }
}

fn redis() -> Protocol {
    Protocol::Redis(Redis::default())
}

fn postgres() -> Protocol {
    Protocol::Postgres(Postgres {
        reject_connect_code: SqlState::CANNOT_CONNECT_NOW,
        reject_query_code: SqlState::OPERATOR_INTERVENTION,
        answer_empty_queries: false,
        check_user: "fusewire_check".into(),
        verdicts: Overrides::default(),
    })
}

impl Rig {
    fn new(protocol: Protocol, when: When, may: Remedy, act: Act) -> Self {
        let second = Duration::from_secs(1);
        let policy = Policy {
            checks: Checks { when, interval: 4 * second, may },
            recovery_timeout: 3600 * second,
            recovery_timeout_max: 3600 * second,
            probe_timeout: 2 * second,
            ..Policy::default()
        };
        let timeouts = Timeouts {
            connect: second,
            response: None,
            handshake: second,
            tcp_user: second,
            keepalive: second,
        };
        let endpoint = Endpoint::Tcp { host: "server.test".into(), port: 1 };
        let config = config::Backend {
            name: "b".into(),
            protocol,
            listen: endpoint.clone(),
            upstream: endpoint,
            proxy_protocol: config::ProxyProtocol::default(),
            breaker: policy.clone(),
            timeouts,
            tls: Tls::default(),
        };
        let began = Instant::now();
        let gate = Gate::new("b", policy, 1, began.into_std());
        let backend = Arc::new(Backend::new(config.clone(), gate.clone()));
        let service = Arc::new(Service::new(backend, Route::new(config).unwrap()));
        let rig = Self {
            gate,
            began,
            act: Arc::new(Mutex::new(act)),
            dials: Arc::default(),
            sent: Arc::default(),
            ended: Arc::default(),
            checkers: TaskTracker::new(),
            service,
        };
        let (act, dials, sent, ended) =
            (rig.act.clone(), rig.dials.clone(), rig.sent.clone(), rig.ended.clone());
        answer_dials(Some(Rc::new(move || {
            dials.lock().unwrap().push(began.elapsed().as_secs_f64());
            let dialled = |result| Dialled { delay: Duration::ZERO, result };
            let (answer, hangs) = match act.lock().unwrap().clone() {
                Act::Refuse => return dialled(Err(Some(Fault::Refused))),
                Act::Local => return dialled(Err(None)),
                Act::Silence => (None, true),
                Act::Hang(answer) => (Some(answer), true),
                Act::Answer(answer) => (Some(answer), false),
            };
            let (ours, theirs) = Memory::pair(4096, 4096);
            let (sent, ended) = (sent.clone(), ended.clone());
            tokio::spawn(async move {
                let mut server = Socket::Memory(theirs);
                let mut request = [0; 512];
                let n = server.read(&mut request).await.unwrap_or(0);
                *sent.lock().unwrap() = request[..n].to_vec();
                if let Some(answer) = answer {
                    for byte in answer {
                        let _ = server.write_all(&[*byte]).await;
                    }
                }
                while let Ok(n @ 1..) = server.read(&mut request).await {
                    sent.lock().unwrap().extend_from_slice(&request[..n]);
                    if request[..n] == *postgres::check::GOODBYE && !hangs {
                        break;
                    }
                }
                ended.fetch_add(1, Ordering::Relaxed);
            });
            dialled(Ok(ours))
        })));
        rig
    }

    fn start(&mut self) {
        self.checkers.spawn(check_on(self.service.clone()));
        self.checkers.close();
    }

    /// Goes on until a check is under way.
    async fn until_checked(&self) {
        while self.dials.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// How long the checker takes to end, in seconds.
    async fn ending(&self) -> f64 {
        let asked = Instant::now();
        self.checkers.wait().await;
        asked.elapsed().as_secs_f64()
    }

    fn trip(&self, cause: impl Into<crate::breaker::Cause>) {
        let (lane, cause) = (self.gate.lane(1), cause.into());
        for _ in 0..5 {
            let now = Instant::now().into_std();
            let permit = lane.admit(now, CallKind::Command).unwrap();
            permit.record(now, Verdict::Failure(cause.clone()));
        }
        assert_eq!(self.gate.state(), State::Open);
    }

    async fn until(&self, second: f64) {
        sleep_until(self.began + Duration::from_secs_f64(second)).await;
        self.gate.tick(Instant::now().into_std());
    }

    fn last(&self) -> Option<Finding> {
        self.gate.snapshot(Instant::now().into_std()).last_check.map(|check| check.finding)
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_checked_while_closed_and_every_interval_while_open() {
    let mut rig = Rig::new(redis(), When::WhileOpen, Remedy::HalfOpen, Act::Refuse);
    rig.start();
    rig.until(100.0).await;
    assert_eq!(*rig.dials.lock().unwrap(), [0.0; 0]);
    rig.trip(Fault::Refused);
    rig.until(200.0).await;
    let dials = rig.dials.lock().unwrap().clone();
    assert!((20..=33).contains(&dials.len()), "{dials:?}");
    assert!((103.0..=105.0).contains(&dials[0]), "{dials:?}");
    for pair in dials.windows(2) {
        assert!((2.999..=5.001).contains(&(pair[1] - pair[0])), "{dials:?}");
    }
    assert_eq!(rig.last(), Some(Finding::Failed(Fault::Refused.into())));
    assert_eq!(rig.gate.state(), State::Open);
    assert_eq!(rig.gate.snapshot(Instant::now().into_std()).totals.calls(), 5, "they are no calls");

    *rig.act.lock().unwrap() = Act::Answer(b"+PONG\r\n");
    rig.until(206.0).await;
    assert_eq!(rig.gate.state(), State::HalfOpen);
    assert_eq!(*rig.sent.lock().unwrap(), redis::check::REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stands_still_fails_a_check_after_the_probes_time() {
    let mut rig = Rig::new(redis(), When::Always, Remedy::Close, Act::Silence);
    rig.start();
    // Five checks of 2 s each, 3 to 5 s apart.
    rig.until(5.0 * 5.0 + 2.0 * 5.0 + 0.1).await;
    let snapshot = rig.gate.snapshot(Instant::now().into_std());
    assert_eq!(snapshot.state, State::Open);
    assert_eq!(snapshot.last_trip.unwrap().to_string(), "no reply in time, 5 failed checks in a row");
    assert_eq!(rig.last(), Some(Finding::Failed(Fault::Timeout.into())));
    *rig.act.lock().unwrap() = Act::Answer(b"+PONG\r\n");
    rig.until(5.0 * 6.0 + 2.0 * 6.0 + 5.0).await;
    assert_eq!(rig.gate.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_answer_decides_what_becomes_of_an_open_breaker() {
    let password = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    let starting = b"E\0\0\0\x1aSFATAL\0VFATAL\0C57P03\0\0";
    for (protocol, answer, state, goodbye) in [
        (redis as fn() -> Protocol, &b"+PONG\r\n"[..], State::Closed, false),
        (redis, b"-LOADING Redis is loading the dataset in memory\r\n", State::Open, false),
        (redis, b"-NOAUTH Authentication required.\r\n", State::HalfOpen, false),
        (redis, b"", State::Open, false),
        (postgres, password, State::Closed, false),
        (postgres, starting, State::Open, false),
        (postgres, b"R\0\0\0\x08\0\0\0\0S\0\0", State::Closed, true),
        (postgres, b"HTTP/1.1 400 Bad Request\r\n", State::Open, false),
    ] {
        let mut rig = Rig::new(protocol(), When::WhileOpen, Remedy::Close, Act::Answer(answer));
        rig.start();
        rig.trip(Fault::Refused);
        rig.until(8.0).await;
        let text = String::from_utf8_lossy(answer);
        assert_eq!(rig.gate.state(), state, "{text:?}");
        assert_eq!(rig.sent.lock().unwrap().ends_with(postgres::check::GOODBYE), goodbye, "{text:?}");
        assert_eq!(rig.ended.load(Ordering::Relaxed), rig.dials.lock().unwrap().len(), "{text:?}: hung up");
    }
}

#[tokio::test(start_paused = true)]
async fn a_loading_server_behind_a_password_is_left_alone() {
    let mut rig = Rig::new(redis(), When::WhileOpen, Remedy::Close, Act::Answer(b"-NOAUTH no\r\n"));
    rig.start();
    rig.trip(Code::new("LOADING"));
    rig.until(60.0).await;
    assert_eq!((rig.gate.state(), rig.last()), (State::Open, Some(Finding::Alive)));
}

#[tokio::test(start_paused = true)]
async fn want_of_descriptors_is_no_finding_but_a_fault_of_this_machine() {
    let mut rig = Rig::new(redis(), When::Always, Remedy::Close, Act::Local);
    rig.start();
    rig.until(60.0).await;
    let snapshot = rig.gate.snapshot(Instant::now().into_std());
    assert_eq!(snapshot.state, State::Closed);
    let made = u64::try_from(rig.dials.lock().unwrap().len()).unwrap();
    assert_eq!(snapshot.totals.get(Counter::LocalFaults), made);
    assert_eq!(snapshot.checks["nothing"], made);
}

#[tokio::test(start_paused = true)]
async fn a_checker_that_is_told_otherwise_follows_and_makes_no_check_in_a_drain() {
    let mut rig = Rig::new(redis(), When::Off, Remedy::HalfOpen, Act::Refuse);
    rig.start();
    rig.until(60.0).await;
    assert_eq!(rig.dials.lock().unwrap().len(), 0);
    let mut policy = rig.service.route().config.breaker.clone();
    policy.checks = Checks { when: When::Always, interval: Duration::from_secs(1), may: Remedy::HalfOpen };
    rig.gate.set_policy(Instant::now().into_std(), policy);
    rig.until(62.0).await;
    assert!(!rig.dials.lock().unwrap().is_empty());
    rig.service.shutdown().drain();
    let made = rig.dials.lock().unwrap().len();
    rig.until(100.0).await;
    assert_eq!(rig.dials.lock().unwrap().len(), made);
}

/// What a server says that trusts its clients.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0";

#[tokio::test(start_paused = true)]
async fn a_drain_lets_a_check_end_that_is_under_way_and_does_not_wait_without_one() {
    let mut rig = Rig::new(redis(), When::Always, Remedy::Close, Act::Silence);
    rig.start();
    rig.until_checked().await;
    rig.service.shutdown().drain();
    // The probe's time.
    let took = rig.ending().await;
    assert!((1.9..=2.1).contains(&took), "{took} s");
    assert_eq!(rig.last(), Some(Finding::Failed(Fault::Timeout.into())));
    assert_eq!(rig.dials.lock().unwrap().len(), 1);
    for when in [When::Off, When::Always] {
        let mut rig = Rig::new(redis(), when, Remedy::Close, Act::Silence);
        rig.start();
        rig.until(1.0).await;
        rig.service.shutdown().drain();
        assert_eq!((rig.ending().await, rig.dials.lock().unwrap().len()), (0.0, 0), "{when:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_drain_cuts_off_a_check_that_hangs_at_any_step() {
    for (act, found) in [(Act::Silence, None), (Act::Hang(WELCOME), Some(Finding::Ready))] {
        let mut rig = Rig::new(postgres(), When::Always, Remedy::Close, act);
        rig.start();
        rig.until_checked().await;
        sleep(Duration::from_millis(500)).await;
        rig.service.shutdown().finish();
        assert_eq!((rig.ending().await, rig.last()), (0.0, found));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_slow_to_end_a_session_has_answered() {
    let mut rig = Rig::new(postgres(), When::Always, Remedy::Close, Act::Hang(WELCOME));
    rig.start();
    rig.until_checked().await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.last(), Some(Finding::Ready));
    // It has the probe's time to do so, then the next one is made.
    sleep(Duration::from_millis(1900)).await;
    assert_eq!(rig.ended.load(Ordering::Relaxed), 0);
    rig.until(5.0 * 5.0 + 2.0 * 5.0 + 0.1).await;
    assert!(rig.dials.lock().unwrap().len() >= 5);
    let snapshot = rig.gate.snapshot(Instant::now().into_std());
    assert_eq!((snapshot.state, snapshot.checks.len()), (State::Closed, 1), "{:?}", snapshot.checks);
    rig.service.shutdown().drain();
    rig.checkers.wait().await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.ended.load(Ordering::Relaxed), rig.dials.lock().unwrap().len(), "hung up");
}
