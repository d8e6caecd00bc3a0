//! Handshakes over socket pairs, with certificates made for the test.

use std::fs;
use std::future::poll_fn;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::task::Poll;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio_rustls::rustls::crypto::ring;

use super::files::{NO_CERTIFICATE, client_config};
use super::*;
use crate::breaker::Policy;
use crate::config::tls::{Downstream, Identity, UpstreamTls, Verify};
use crate::config::{Overrides, Postgres, Redis, SqlState, Timeouts};
use crate::protocol::postgres::encryption::ALPN;
use crate::proxy::socket::Backlog;

/// A folder with an authority `ca.pem` and what it has signed: `NAME.pem` and `NAME.key`.
struct Folder {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = Self { dir, ca };
        fs::write(folder.path("ca.pem"), folder.ca.pem()).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, name: &str, host: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let pem = params.signed_by(&key, &self.ca).unwrap().pem();
        self.write(name, &pem, &key.serialize_pem())
    }

    /// A certificate that is its own authority, as `openssl req -x509` makes them.
    fn self_signed(&self, name: &str, host: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.write(name, &params.self_signed(&key).unwrap().pem(), &key.serialize_pem())
    }

    fn write(&self, name: &str, cert: &str, key: &str) -> Identity {
        let identity =
            Identity { cert: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        fs::write(&identity.cert, cert).unwrap();
        fs::write(&identity.key, key).unwrap();
        identity
    }
}

fn backend(protocol: Protocol, tls: config::Tls) -> config::Backend {
    let second = Duration::from_secs(1);
    config::Backend {
        name: "b".into(),
        protocol,
        listen: Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 },
        upstream: Endpoint::Tcp { host: "server.test".into(), port: 1 },
        proxy_protocol: config::ProxyProtocol::default(),
        breaker: Policy::default(),
        timeouts: Timeouts {
            connect: second,
            response: None,
            handshake: second,
            tcp_user: second,
            keepalive: second,
        },
        tls,
    }
}

fn redis() -> Protocol {
    Protocol::Redis(Redis::default())
}

fn postgres() -> Protocol {
    Protocol::Postgres(Postgres {
        reject_connect_code: SqlState::CANNOT_CONNECT_NOW,
        reject_query_code: SqlState::OPERATOR_INTERVENTION,
        check_user: "fusewire_check".into(),
        answer_empty_queries: false,
        verdicts: Overrides::default(),
    })
}

fn accepting(identity: Identity, client_ca: Option<PathBuf>) -> config::Tls {
    config::Tls { downstream: Some(Downstream { identity, client_ca }), ..config::Tls::default() }
}

fn dialling(verify: Verify, ca: Option<PathBuf>, identity: Option<Identity>) -> config::Tls {
    let tls = UpstreamTls { optional: false, verify, ca, server_name: None, identity };
    config::Tls { upstream: Upstream::Tls(Box::new(tls)), ..config::Tls::default() }
}

fn store(protocol: Protocol, tls: config::Tls) -> Arc<Store> {
    Store::new(&backend(protocol, tls)).unwrap().unwrap()
}

fn pair() -> (Socket, Socket) {
    let (a, b) = UnixStream::pair().unwrap();
    (Socket::Unix(a), Socket::Unix(b))
}

/// Both ends' views of a handshake: the server's, then the client's.
async fn shake(server: &Store, client: &Store) -> (Result<Socket, Refused>, io::Result<Secured>) {
    let (a, b) = pair();
    tokio::join!(server.accept(a, Vec::new()), client.connect(b))
}

async fn connected(server: &Store, client: &Store) -> (Socket, Socket) {
    match shake(server, client).await {
        (Ok(server), Ok(Secured::Yes(client))) => (server, client),
        other => panic!("{other:?}"),
    }
}

async fn trusts(server: &Identity, verify: Verify, ca: PathBuf) -> bool {
    let server = store(redis(), accepting(server.clone(), None));
    let client = store(redis(), dialling(verify, Some(ca), None));
    let (accepted, connected) = shake(&server, &client).await;
    assert_eq!(accepted.is_ok(), connected.is_ok());
    connected.is_ok()
}

#[tokio::test]
async fn each_mode_verifies_what_libpq_verifies() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (good, misnamed) = (folder.issue("good", "server.test"), folder.issue("misnamed", "else.test"));
    let (ours, theirs) = (|| folder.path("ca.pem"), || other.path("ca.pem"));
    assert!(trusts(&good, Verify::Name, ours()).await);
    assert!(!trusts(&misnamed, Verify::Name, ours()).await);
    assert!(trusts(&misnamed, Verify::Chain, ours()).await);
    assert!(!trusts(&good, Verify::Chain, theirs()).await);
    assert!(!trusts(&good, Verify::Name, theirs()).await);
    assert!(trusts(&misnamed, Verify::Nothing, theirs()).await);
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_trusted_if_it_is_given_itself() {
    let folder = Folder::new();
    let (own, misnamed) =
        (folder.self_signed("own", "server.test"), folder.self_signed("misnamed", "else.test"));
    assert!(trusts(&own, Verify::Name, own.cert.clone()).await);
    assert!(trusts(&misnamed, Verify::Chain, misnamed.cert.clone()).await);
    assert!(!trusts(&misnamed, Verify::Name, misnamed.cert.clone()).await);
    assert!(!trusts(&own, Verify::Chain, misnamed.cert.clone()).await);
    assert!(!trusts(&own, Verify::Chain, folder.path("ca.pem")).await);
}

#[tokio::test]
async fn clients_must_show_a_certificate_that_the_authority_has_signed() {
    let (folder, other) = (Folder::new(), Folder::new());
    let server = accepting(folder.issue("server", "server.test"), Some(folder.path("ca.pem")));
    let server = store(redis(), server);
    let client = |identity| store(redis(), dialling(Verify::Nothing, None, identity));
    let (good, bad) = (folder.issue("client", "c.test"), other.issue("client", "c.test"));
    assert!(shake(&server, &client(Some(good))).await.0.is_ok());
    for refused in [Some(bad), None] {
        let (accepted, connected) = shake(&server, &client(refused)).await;
        assert!(!accepted.unwrap_err().silent);
        // The client learns of it by its first read, and not as the end of a stream.
        let Ok(Secured::Yes(mut socket)) = connected else { panic!("{connected:?}") };
        assert_eq!(socket.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_told_from_one_that_says_nonsense() {
    let folder = Folder::new();
    let server = store(redis(), accepting(folder.issue("server", "server.test"), None));
    let (a, b) = pair();
    drop(b);
    assert!(server.accept(a, Vec::new()).await.unwrap_err().silent);
    let (a, mut b) = pair();
    b.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    assert!(!server.accept(a, Vec::new()).await.unwrap_err().silent);
}

#[tokio::test]
async fn what_was_read_before_the_handshake_is_part_of_it() {
    let folder = Folder::new();
    let server = store(postgres(), accepting(folder.issue("server", "server.test"), None));
    let client = store(redis(), dialling(Verify::Nothing, None, None));
    let (mut a, b) = pair();
    let accept = async {
        let mut early = vec![0; 5];
        a.read_exact(&mut early).await.unwrap();
        server.accept(a, early).await
    };
    let (accepted, connected) = tokio::join!(accept, client.connect(b));
    assert!(accepted.is_ok() && connected.is_ok());
}

#[tokio::test]
async fn the_end_of_a_stream_is_its_own_word_and_not_that_of_the_network() {
    let folder = Folder::new();
    let server = store(redis(), accepting(folder.issue("server", "server.test"), None));
    let client = store(redis(), dialling(Verify::Nothing, None, None));

    let (mut a, mut b) = connected(&server, &client).await;
    b.write_all(b"half a rep").await.unwrap();
    drop(b);
    let mut text = Vec::new();
    let error = a.read_to_end(&mut text).await.unwrap_err();
    assert_eq!((error.kind(), text.as_slice()), (io::ErrorKind::UnexpectedEof, &b"half a rep"[..]));

    // Half-closed, and the other half goes on.
    let (mut a, mut b) = connected(&server, &client).await;
    b.write_all(b"request").await.unwrap();
    b.shutdown().await.unwrap();
    let mut text = Vec::new();
    a.read_to_end(&mut text).await.unwrap();
    a.write_all(b"answer").await.unwrap();
    a.farewell();
    drop(a);
    let mut answer = Vec::new();
    b.read_to_end(&mut answer).await.unwrap();
    assert_eq!((text.as_slice(), answer.as_slice()), (&b"request"[..], &b"answer"[..]));
}

#[tokio::test]
async fn a_backlog_is_not_empty_before_the_last_encrypted_byte_has_left() {
    let folder = Folder::new();
    let server = store(redis(), accepting(folder.issue("server", "server.test"), None));
    let client = store(redis(), dialling(Verify::Nothing, None, None));
    let (mut a, mut b) = connected(&server, &client).await;
    let payload: Vec<u8> = (0..4_000_000u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let mut backlog = Backlog::default();
    // More and more, until the socket is full and the TLS connection holds something back.
    let mut sent = 0;
    poll_fn(|cx| {
        while backlog.is_empty() {
            let chunk = &payload[sent..sent + 10_000];
            backlog.write(cx, &mut a, &mut [IoSlice::new(chunk)]).unwrap();
            sent += chunk.len();
        }
        Poll::Ready(())
    })
    .await;
    assert!(a.has_unsent());
    let expected = payload[..sent].to_vec();
    let read = tokio::spawn(async move {
        let mut got = vec![0; expected.len()];
        b.read_exact(&mut got).await.unwrap();
        assert_eq!(got, expected);
    });
    poll_fn(|cx| {
        backlog.flush(cx, &mut a).unwrap();
        if backlog.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert!(!a.has_unsent());
    read.await.unwrap();
}

#[tokio::test]
async fn changed_files_are_used_and_broken_ones_are_not() {
    let folder = Folder::new();
    let identity = folder.issue("server", "server.test");
    let server = store(redis(), accepting(identity.clone(), None));
    let client = store(redis(), dialling(Verify::Name, Some(folder.path("ca.pem")), None));
    assert!(!server.reload().unwrap());

    // The certificate has been replaced and its key not yet.
    let (cert, key) = (fs::read(&identity.cert).unwrap(), fs::read(&identity.key).unwrap());
    let renewed = folder.issue("renewed", "else.test");
    fs::copy(&renewed.cert, &identity.cert).unwrap();
    let error = server.reload().unwrap_err();
    assert_eq!((error.setting, &*error.path), ("tls_cert", identity.cert.to_str().unwrap()));
    assert!(shake(&server, &client).await.1.is_ok());

    fs::copy(&renewed.key, &identity.key).unwrap();
    assert!(server.reload().unwrap());
    assert!(shake(&server, &client).await.1.is_err(), "the new certificate is for another name");

    fs::remove_file(&identity.cert).unwrap();
    server.reload().unwrap_err();
    fs::write(&identity.cert, cert).unwrap();
    fs::write(&identity.key, key).unwrap();
    assert!(server.reload().unwrap());
    assert!(shake(&server, &client).await.1.is_ok());
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let folder = Folder::new();
    let good = folder.issue("good", "server.test");
    let missing = folder.path("missing");
    fs::write(folder.path("empty"), "").unwrap();
    let failed = |tls| Store::new(&backend(redis(), tls)).unwrap_err();
    let with = |cert: &Path, key: &Path| accepting(Identity { cert: cert.into(), key: key.into() }, None);
    assert_eq!(failed(with(&missing, &good.key)).setting, "tls_cert");
    assert_eq!(failed(with(&good.cert, &missing)).setting, "tls_key");
    assert_eq!(&*failed(with(&folder.path("empty"), &good.key)).why, NO_CERTIFICATE);
    assert_eq!(failed(with(&good.cert, &good.cert)).setting, "tls_key");
    assert_eq!(failed(accepting(good.clone(), Some(missing.clone()))).setting, "tls_client_ca");
    let ca = dialling(Verify::Chain, Some(missing.clone()), None);
    assert_eq!(failed(ca).setting, "upstream_ca");
    let identity = Identity { cert: missing, key: good.key };
    assert_eq!(failed(dialling(Verify::Nothing, None, Some(identity))).setting, "upstream_cert");
}

#[tokio::test]
async fn a_postgres_server_is_asked_and_its_answer_decides() {
    let optional = |optional| {
        let tls =
            UpstreamTls { optional, verify: Verify::Nothing, ca: None, server_name: None, identity: None };
        store(postgres(), config::Tls { upstream: Upstream::Tls(Box::new(tls)), ..config::Tls::default() })
    };
    for (answer, prefer) in [(b'N', "No"), (b'E', "Redial"), (b'H', "Redial")] {
        for optionally in [true, false] {
            let (mut a, b) = pair();
            let store = optional(optionally);
            let server = async {
                let mut request = [0; 8];
                a.read_exact(&mut request).await.unwrap();
                a.write_u8(answer).await.unwrap();
                request
            };
            let (request, secured) = tokio::join!(server, store.connect(b));
            assert_eq!(request, SSL_REQUEST);
            match secured {
                Ok(secured) => assert!(optionally && format!("{secured:?}").starts_with(prefer)),
                Err(_) => assert!(!optionally),
            }
        }
    }
}

#[tokio::test]
async fn only_postgres_names_its_protocol() {
    let folder = Folder::new();
    let identity = folder.issue("server", "server.test");
    for (protocol, alpn) in [(postgres(), Some(ALPN)), (redis(), None)] {
        let server = store(protocol, accepting(identity.clone(), None));
        let provider = Arc::new(ring::default_provider());
        let Upstream::Tls(tls) = dialling(Verify::Nothing, None, None).upstream else { unreachable!() };
        let mut config = client_config(&tls, &provider).unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let (a, b) = pair();
        let name = ServerName::try_from("server.test").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let (accepted, connected) = tokio::join!(server.accept(a, Vec::new()), connector.connect(name, b));
        assert_eq!(accepted.unwrap().tls().and_then(Stream::alpn), alpn);
        connected.unwrap();
    }
}
