//! What clients, server and faults of a simulation share: the gate, the network, the time, the weather.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Instant as TokioInstant, advance, sleep, sleep_until};

use super::Figures;
use super::judge::Judge;
use super::random::Random;
use crate::backends::Backend;
use crate::breaker::{Fault, Mode};
use crate::config::{self, args::Inputs};
use crate::gate::Gate;
use crate::metrics::Counter;
use crate::protocol::Session;
use crate::proxy::driver::{Driver, SIDE_MAX, heaviest_side};
use crate::proxy::memory::{Dialled, Memory, answer_dials};
use crate::proxy::service::{Route, Service};
use crate::proxy::socket::Socket;

/// The shape that the server is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Fair,
    /// Nobody listens.
    Refusing,
    /// Connects are never answered.
    BlackHole,
    /// It accepts and says nothing; what it has read it answers when the weather changes.
    Stalled,
    /// It answers with an error that says it cannot work.
    Loading,
    /// It accepts and closes.
    Slamming,
    /// This machine is out of descriptors.
    Exhausted,
}

const ALL_WEATHER: [Weather; 7] = [
    Weather::Fair,
    Weather::Refusing,
    Weather::BlackHole,
    Weather::Stalled,
    Weather::Loading,
    Weather::Slamming,
    Weather::Exhausted,
];

pub(super) struct World {
    pub(super) gate: Arc<Gate>,
    pub(super) service: Arc<Service>,
    pub(super) weather: Cell<Weather>,
    pub(super) judge: RefCell<Judge>,
    random: RefCell<Random>,
    connections: RefCell<Vec<(AbortHandle, Arc<AtomicBool>)>>,
    faults: Cell<u64>,
    inputs: fn(&str) -> Inputs,
}

/// What serves one connection of the server.
pub(super) type Serve = fn(Rc<World>, Socket, Random) -> Pin<Box<dyn Future<Output = ()>>>;

/// The runtime's time.
pub(super) fn present() -> Instant {
    TokioInstant::now().into_std()
}

/// A history in virtual time: `clients` run to their end while faults happen, then the sun shines and `last` must
/// get through.
pub(super) fn history<C, L>(
    seed: u64,
    inputs: fn(&str) -> Inputs,
    serve: Serve,
    client: impl Fn(Rc<World>, Random, u64) -> C,
    last: impl Fn(Rc<World>, Random) -> L,
) -> Result<Figures, String>
where
    C: Future<Output = ()> + 'static,
    L: Future<Output = bool>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut random = Random::new(seed);
        let world = World::new(&mut random, inputs);
        let dialled = world.clone();
        answer_dials(Some(Rc::new(move || dialled.dial(serve))));
        let timer = spawn_local(keep_time(world.gate.clone()));
        let clients: Vec<_> = (1..=random.between(1, 4))
            .map(|id| spawn_local(client(world.clone(), random.fork(), id)))
            .collect();
        let faults = spawn_local(world.clone().misfortune(random.fork()));
        for client in clients {
            client.await.map_err(|error| error.to_string())?;
        }
        faults.await.map_err(|error| error.to_string())?;
        // Whatever is left of the faults has its time to pass: deadlines, recovery, probes.
        sleep(Duration::from_secs(600)).await;
        let mut through = false;
        for _ in 0..20 {
            through = last(world.clone(), random.fork()).await;
            if through {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        if !through {
            world.object(format!("wedged: {:?}", world.gate.snapshot(present())));
        }
        sleep(Duration::from_secs(600)).await;
        timer.abort();
        answer_dials(None);
        world.balance();
        world.weigh();
        world.judge.borrow_mut().verdict()?;
        Ok(world.figures())
    })
}

/// A backend with numbers of the seed's.
fn configure(random: &mut Random, inputs: fn(&str) -> Inputs) -> config::Backend {
    let spec = format!(
        "name=sim,listen=127.0.0.1:1,upstream=127.0.0.1:2,failure-threshold={},recovery-timeout={}ms,probes={},\
         success-threshold={},probe-timeout=3s,response-timeout=2s,connect-timeout=1s,handshake-timeout=2s{}",
        random.between(1, 4),
        random.pick(&[50, 500, 5000]),
        random.between(1, 2),
        random.between(1, 2),
        random.pick(&[
            "",
            "",
            ",slow-start=2s",
            ",failure-rate=50%,window=10calls,min-calls=4",
            ",recovery-backoff=2"
        ]),
    );
    let config = config::load(&inputs(&spec), &config::Env::new()).expect("a valid configuration");
    config.backends.into_iter().next().expect("one backend")
}

async fn keep_time(gate: Arc<Gate>) {
    loop {
        match gate.deadline() {
            None => gate.alarm.notified().await,
            Some(deadline) => tokio::select! {
                biased;
                () = gate.alarm.notified() => {}
                () = sleep_until(deadline.into()) => gate.tick(present()),
            },
        }
    }
}

impl World {
    fn new(random: &mut Random, inputs: fn(&str) -> Inputs) -> Rc<Self> {
        let config = configure(random, inputs);
        let gate = Gate::new("sim", config.breaker.clone(), 1, present());
        let backend = Arc::new(Backend::new(config.clone(), gate.clone()));
        let service = Arc::new(Service::new(backend, Route::new(config).expect("no TLS")));
        Rc::new(Self {
            gate,
            service,
            weather: Cell::new(Weather::Fair),
            judge: RefCell::default(),
            random: RefCell::new(random.fork()),
            connections: RefCell::default(),
            faults: Cell::new(0),
            inputs,
        })
    }

    /// Another configuration of the same backend, as a reload brings it.
    fn reload(&self, random: &mut Random) {
        let config = configure(random, self.inputs);
        self.service.backend().adopt(Arc::new(config.clone()), present());
        self.service.adopt(Route::new(config).expect("no TLS"));
    }

    /// A client's connection to the proxy.
    pub(super) fn connect<S: Session + 'static>(&self, session: S) -> Socket {
        let (room, slice) = self.wire();
        let (proxy, client) = Memory::pair(room, slice);
        let driver = Driver::new(session, self.gate.lane(1), self.service.clone(), Socket::Memory(proxy));
        spawn_local(driver.run());
        Socket::Memory(client)
    }

    /// How much a connection holds and how it is read.
    fn wire(&self) -> (usize, usize) {
        let mut random = self.random.borrow_mut();
        (random.pick(&[64, 1000, 8192, 65536]), random.pick(&[1, 7, 100, 5000, usize::MAX]))
    }

    fn dial(self: &Rc<Self>, serve: Serve) -> Dialled {
        let delay = Duration::from_millis(self.random.borrow_mut().pick(&[0, 0, 1, 30, 300]));
        let result = match self.weather.get() {
            Weather::Refusing => Err(Some(Fault::Refused)),
            Weather::Exhausted => Err(None),
            Weather::BlackHole => {
                return Dialled { delay: Duration::from_secs(100), result: Err(Some(Fault::Unreachable)) };
            }
            weather => {
                let (room, slice) = self.wire();
                let (proxy, server) = Memory::pair(room, slice);
                if weather != Weather::Slamming {
                    let resetter = server.resetter();
                    let random = self.random.borrow_mut().fork();
                    let task = spawn_local(serve(self.clone(), Socket::Memory(server), random));
                    self.connections.borrow_mut().push((task.abort_handle(), resetter));
                }
                Ok(proxy)
            }
        };
        Dialled { delay, result }
    }

    /// Waits while the server is stalled.
    pub(super) async fn until_awake(&self) {
        while self.weather.get() == Weather::Stalled {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the server's connections, like a restart.
    fn kill(&self, reset: bool) {
        for (task, resetter) in self.connections.borrow_mut().drain(..) {
            resetter.store(reset, Ordering::Relaxed);
            task.abort();
        }
    }

    /// The fault plan: something happens now and then.
    async fn misfortune(self: Rc<Self>, mut random: Random) {
        for _ in 0..random.between(0, 40) {
            sleep(Duration::from_millis(random.pick(&[1, 10, 100, 700, 3000]))).await;
            self.faults.set(self.faults.get() + 1);
            let now = present();
            match random.below(13) {
                0..=3 => self.weather.set(random.pick(&ALL_WEATHER)),
                4 | 5 => self.weather.set(Weather::Fair),
                6 => self.kill(false),
                7 => self.kill(true),
                8 => self.gate.trip(now, random.chance(50).then_some(Duration::from_secs(1))),
                9 => self.gate.reset(now),
                10 => self.gate.set_mode(
                    now,
                    random.pick(&[Mode::Enforce, Mode::Enforce, Mode::Observe, Mode::Disabled]),
                ),
                11 => self.reload(&mut random),
                _ => advance(Duration::from_millis(random.pick(&[100, 1000, 20_000, 3_600_000]))).await,
            }
        }
        self.clear_up();
    }

    /// The end of all faults. Whoever tripped the breaker by hand resets it.
    fn clear_up(&self) {
        self.weather.set(Weather::Fair);
        self.gate.set_mode(present(), Mode::Enforce);
        let snapshot = self.gate.snapshot(present());
        if snapshot.state == crate::breaker::State::Open && snapshot.deadline.is_none() {
            self.gate.reset(present());
        }
    }

    /// Notes that a promise was broken.
    pub(super) fn object(&self, what: String) {
        self.judge.borrow_mut().object(what);
    }

    /// What a connection may have held, whatever its client and its server did.
    fn weigh(&self) {
        let most = heaviest_side();
        if most > SIDE_MAX {
            self.object(format!(
                "{most} bytes were held for one side of a connection, not {SIDE_MAX} at most"
            ));
        }
    }

    fn balance(&self) {
        let snapshot = self.gate.snapshot(present());
        let totals = &snapshot.totals;
        let pairs = [
            ("client connections", totals.get(Counter::Accepted), totals.get(Counter::Closed)),
            ("upstream connections", totals.get(Counter::Connected), totals.get(Counter::Disconnected)),
            ("calls", totals.get(Counter::Admitted), totals.calls()),
            ("probes in flight", 0, snapshot.probes_in_flight as u64),
        ];
        for (what, begun, ended) in pairs {
            if begun != ended {
                self.object(format!("{what}: {begun} begun, {ended} ended"));
            }
        }
    }

    fn figures(&self) -> Figures {
        let judge = self.judge.borrow();
        Figures {
            faults: self.faults.get(),
            requests: judge.requests(),
            refused: judge.refused(),
            unknown: judge.unknown(),
            trips: self.gate.snapshot(present()).trips,
        }
    }
}
