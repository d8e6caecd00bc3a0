//! Certificates made for a test, and a raw client that speaks TLS.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// An authority and a folder for what it signs.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Cert {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Cert {
    /// As settings of a backend: `cert` and `key` are the settings' names.
    pub fn spec(&self, cert: &str, key: &str) -> String {
        format!("{cert}={},{key}={}", self.cert.display(), self.key.display())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one, trusted by nobody.
    pub fn new() -> Self {
        let dir = TempDir::with_prefix("fusewire-tls-").expect("a temporary directory");
        let mut params = CertificateParams::default();
        // OpenSSL takes a certificate whose subject is its issuer's for a self-signed one.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { dir, issuer }
    }

    /// Its own certificate.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for `localhost` and 127.0.0.1.
    pub fn issue(&self, name: &str) -> Cert {
        let key = KeyPair::generate().expect("a key");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |end: &str| self.dir.path().join(format!("{name}.{end}"));
        let cert = Cert { cert: file("pem"), key: file("key") };
        fs::write(&cert.cert, signed.pem()).expect("a file");
        fs::write(&cert.key, key.serialize_pem()).expect("a file");
        cert
    }

    /// Settings of a client that trusts this authority and shows `identity`.
    pub fn client(&self, identity: Option<&Cert>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_file_iter(&identity.cert).expect("a file");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a certificate")
            }
        }
    }

    /// Connects to 127.0.0.1 with TLS from the first byte.
    ///
    /// # Errors
    /// The handshake's.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        handshake(TcpStream::connect(addr).await?, self.client(None)).await
    }
}

/// Puts TLS on a connection to 127.0.0.1.
///
/// # Errors
/// The handshake's.
pub async fn handshake(stream: TcpStream, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
