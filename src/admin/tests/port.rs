//! Real sockets: what only a server can get wrong.

use super::*;

pub(super) struct Running {
    endpoint: Endpoint,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    pub(super) state: Arc<State>,
}

impl Running {
    async fn start(endpoint: &Endpoint) -> Self {
        let bound = bind(endpoint).await.unwrap();
        let (endpoint, shutdown, state) = (bound.endpoint().clone(), CancellationToken::new(), state());
        let task = tokio::spawn(serve(bound, state.clone(), shutdown.clone()));
        Self { endpoint, shutdown, task, state }
    }

    pub(super) async fn on_any_port() -> Self {
        Self::start(&Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }).await
    }

    pub(super) async fn connect(&self) -> TcpStream {
        let Endpoint::Tcp { host, port } = &self.endpoint else { panic!("not TCP") };
        TcpStream::connect((&**host, *port)).await.unwrap()
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Sends `request` and reads to the end of the connection; empty if it was cut off without an answer.
async fn exchange<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, request: &str) -> String {
    io.write_all(request.as_bytes()).await.unwrap();
    to_end(io).await
}

async fn to_end<IO: AsyncRead + Unpin>(io: &mut IO) -> String {
    let mut answer = Vec::new();
    // A reset ends it as well as an end of file does.
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn it_answers_over_tcp_and_knows_hosts_methods_and_paths() {
    let server = Running::on_any_port().await;
    let cases = [
        ("GET /livez", "localhost", "HTTP/1.1 200 OK"),
        ("GET /livez", "evil.example", "HTTP/1.1 403 Forbidden"),
        ("GET /nope", "localhost", "HTTP/1.1 404 Not Found"),
        ("GET /api/v1/circuit-breaker/trip/cache", "localhost", "HTTP/1.1 405 Method Not Allowed"),
        ("POST /api/v1/circuit-breaker/trip/cache", "localhost", "HTTP/1.1 200 OK"),
    ];
    for (line, host, expected) in cases {
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = exchange(&mut server.connect().await, &request).await;
        assert!(answer.starts_with(expected), "{line}: {answer}");
    }
    let status = get(&server.state, &format!("{API}/status/cache")).await.json();
    assert_eq!(status["state"], "open");
    server.stop().await;
}

#[tokio::test]
async fn a_health_check_of_the_old_kind_is_answered() {
    let server = Running::on_any_port().await;
    let answer = exchange(&mut server.connect().await, "GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn silent_connections_in_any_number_do_not_hold_the_port() {
    let server = Running::on_any_port().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /livez HTT").await.unwrap();
        silent.push(stream);
    }
    // Sooner than their heads time out, or it would prove nothing.
    let soon = super::super::server::HEAD_TIMEOUT / 2;
    let mut stream = server.connect().await;
    let answer = tokio::time::timeout(soon, exchange(&mut stream, LIVEZ)).await.expect("the port is held");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let oldest = tokio::time::timeout(soon, to_end(&mut silent[0])).await;
    assert_eq!(oldest.expect("the oldest was not pushed out"), "");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_cut_off() {
    let server = Running::on_any_port().await;
    let mut stream = server.connect().await;
    let cut_off = exchange(&mut stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n");
    // Time is paused and runs ahead when everybody waits: an hour passes at once unless a timeout comes first.
    tokio::time::timeout(Duration::from_secs(3600), cut_off).await.expect("the connection was left open");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_answer() {
    let server = Running::on_any_port().await;
    let mut stream = server.connect().await;
    let answer = exchange(&mut stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = tokio::time::timeout(Duration::from_secs(3600), answer).await.expect("it was left open");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let server = Running::on_any_port().await;
    let mut stream = server.connect().await;
    let head =
        "POST /api/v1/circuit-breaker/trip/cache HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{";
    let answer = tokio::time::timeout(Duration::from_secs(3600), exchange(&mut stream, head));
    let answer = answer.await.expect("the connection was left open");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(get(&server.state, "/health").await.json()["status"], "healthy");
    server.stop().await;
}

#[tokio::test]
async fn a_head_without_measure_is_refused() {
    let server = Running::on_any_port().await;
    let many = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(200));
    let answer = exchange(&mut server.connect().await, &many).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut stream = server.connect().await;
    let long = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nA: {}", "b".repeat(1 << 20));
    // Refused before it has been read, so writing may fail.
    let _ = stream.write_all(long.as_bytes()).await;
    assert!(!to_end(&mut stream).await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_idle_connections() {
    let server = Running::on_any_port().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut silent = server.connect().await;
    silent.write_all(b"GET").await.unwrap();
    let soon = super::super::server::HEAD_TIMEOUT / 2;
    tokio::time::timeout(soon, server.stop()).await.expect("it waits for connections to time out");
    to_end(&mut idle).await;
    to_end(&mut silent).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let server = Running::on_any_port().await;
    let error = bind(&server.endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&server.endpoint.to_string()), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_answers_belongs_to_its_owner_and_leaves_nothing_behind() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let endpoint = Endpoint::Unix(path.clone());
    let server = Running::start(&endpoint).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let answer = exchange(&mut stream, &LIVEZ.replace("localhost", "whatever")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let error = bind(&endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "a living socket is not taken over");
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_left_by_the_dead_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    Running::start(&Endpoint::Unix(path)).await.stop().await;

    let file = dir.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    assert!(bind(&Endpoint::Unix(file.clone())).await.is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}
