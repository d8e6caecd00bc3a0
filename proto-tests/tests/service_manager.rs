//! fusewire as a service of systemd: what it says to it, and sockets that it gets from it.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use proto_tests::process::Signal;
use proto_tests::tools::free_port;
use proto_tests::until::PATIENCE;
use proto_tests::wire::Reply;
use proto_tests::{Client, Redis, Setup, eventually};
use tempfile::TempDir;

/// The service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    path: String,
    said: Receiver<String>,
    _dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::with_prefix("fusewire-notify-").expect("a temporary directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a datagram socket");
        let (sender, said) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(n) = socket.recv(&mut bytes) {
                if sender.send(String::from_utf8_lossy(&bytes[..n]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { path: path.to_string_lossy().into_owned(), said, _dir: dir }
    }

    /// The next message that is none of the watchdog's.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let said = self.said.recv_timeout(PATIENCE).expect("a notification");
            if said != "WATCHDOG=1\n" {
                return said;
            }
        }
    }
}

#[test]
fn ready_reloading_and_stopping_are_told_in_their_order() {
    let (redis, manager) = (Redis::start(), Manager::new());
    let mut proxy =
        Setup::default().redis("cache", redis.addr(), "").env("NOTIFY_SOCKET", &manager.path).start();
    assert_eq!(manager.next(), "READY=1\n");
    proxy.signal(Signal::HUP);
    let reloading = manager.next();
    let (first, second) = reloading.trim_end().split_once('\n').expect("two lines");
    assert_eq!(first, "RELOADING=1");
    let at = second.strip_prefix("MONOTONIC_USEC=").and_then(|at| at.parse::<u64>().ok());
    assert!(at.is_some_and(|at| at > 0), "{reloading}");
    assert_eq!(manager.next(), "READY=1\n");
    proxy.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1\n");
    assert!(proxy.wait().success());
}

#[test]
fn the_watchdog_is_fed_as_long_as_the_process_runs_and_not_while_it_hangs() {
    let (redis, manager) = (Redis::start(), Manager::new());
    let proxy = Setup::default()
        .redis("cache", redis.addr(), "")
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "100000")
        .start();
    let fed = || {
        eventually("the watchdog", || match manager.said.try_recv().as_deref() {
            Ok("WATCHDOG=1\n") => Ok(()),
            other => Err(format!("{other:?}")),
        })
    };
    (0..5).for_each(|_| fed());
    proto_tests::process::freeze(proxy.pid());
    while manager.said.try_recv().is_ok() {}
    let hungry = manager.said.recv_timeout(std::time::Duration::from_millis(500));
    assert_eq!(hungry, Err(RecvTimeoutError::Timeout));
    proxy.signal(Signal::CONT);
    fed();
    proxy.stop();
}

/// What systemd does: binds, puts the sockets from descriptor 3 on, says so in the environment and becomes the service.
/// Its first argument is `NAME=PORT`, or `NAME=PATH` for a unix socket, separated by commas.
const LAUNCHER: &str = "
import os, socket, sys
sockets, names = [], []
for at in sys.argv[1].split(','):
    name, at = at.split('=')
    s = socket.socket(socket.AF_UNIX if at.startswith('/') else socket.AF_INET)
    s.bind(at if at.startswith('/') else ('127.0.0.1', int(at)))
    s.listen(16)
    sockets.append(os.dup(s.fileno()))
    names.append(name)
sockets = [os.dup2(s, 60 + i) for i, s in enumerate(sockets)]
for i, s in enumerate(sockets):
    os.dup2(s, 3 + i)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=':'.join(names), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn sockets_of_the_service_manager_serve_the_backends_that_they_are_named_for() {
    let (a, b) = (Redis::start(), Redis::start());
    a.client().call(&["SET", "who", "a"]);
    b.client().call(&["SET", "who", "b"]);
    let dir = TempDir::with_prefix("fusewire-activation-").expect("a temporary directory");
    let path = dir.path().join("b.sock");
    let port = free_port();
    // `a` would listen elsewhere by itself, and `own` does.
    let proxy = Setup::default()
        .redis("a", a.addr(), "")
        .redis("b", b.addr(), "")
        .redis("own", a.addr(), "")
        .launched_by(&["python3", "-c", LAUNCHER, &format!("b={},a={port}", path.display())])
        .start();
    assert_eq!(Client::unix(&path).call(&["GET", "who"]), Reply::bulk("b"));
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    assert_eq!(client.call(&["GET", "who"]), Reply::bulk("a"));
    assert_eq!(Client::connect(proxy.addr("own")).call(&["GET", "who"]), Reply::bulk("a"));
    assert!(Client::try_connect(proxy.addr("a")).is_err());

    // A reload keeps them.
    proxy.post("/api/v1/config/reload");
    assert_eq!(Client::unix(&path).call(&["GET", "who"]), Reply::bulk("b"));
    assert_eq!(client.call(&["GET", "who"]), Reply::bulk("a"));
    proxy.stop();
    assert!(path.exists(), "the file belongs to the service manager");
}

#[test]
fn a_socket_for_no_backend_is_refused_by_its_name() {
    let mut command = std::process::Command::new("python3");
    command.args(["-c", LAUNCHER, &format!("fusewire.socket={}", free_port())]);
    command.arg(proto_tests::fusewire::binary());
    command.args(["--admin", "off", "--redis", "name=cache,upstream=127.0.0.1:1,listen=127.0.0.1:0"]);
    let output = proto_tests::tools::run(&mut command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("'fusewire.socket'") && said.contains("cache"), "{said}");
}
