//! Certificates, keys and authorities: from the files that the configuration names to what a handshake takes.
//!
//! Absent on purpose: when they are read, which is the store's to say.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::verify;
use crate::config;
use crate::config::tls::{Downstream, Identity, Upstream, UpstreamTls};
use crate::protocol::postgres::encryption::ALPN;

/// What the files held when they were last read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) server: Option<Arc<ServerConfig>>,
    /// What clients are shown, to compare.
    pub(super) shown: Option<CertificateDer<'static>>,
    pub(super) client: Option<Arc<ClientConfig>>,
    /// That clients and server see different certificates has been said.
    pub(super) warned: AtomicBool,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {path}: {why}")]
pub struct LoadError {
    /// The setting that names it.
    pub setting: &'static str,
    /// The file.
    pub path: Box<str>,
    /// What is wrong with it.
    pub why: Box<str>,
}

/// What changes when a file does; none if it cannot be looked at.
pub(super) type Stamp = Option<(SystemTime, u64, u64)>;

/// Every file that the configuration names.
fn files(tls: &config::Tls) -> impl Iterator<Item = &Path> {
    let downstream = tls.downstream.as_ref();
    let upstream = if let Upstream::Tls(upstream) = &tls.upstream { Some(upstream) } else { None };
    let identities = [downstream.map(|tls| &tls.identity), upstream.and_then(|tls| tls.identity.as_ref())];
    let pairs = identities.into_iter().flatten().flat_map(|identity| [&identity.cert, &identity.key]);
    let authorities =
        [downstream.and_then(|tls| tls.client_ca.as_ref()), upstream.and_then(|tls| tls.ca.as_ref())];
    pairs.chain(authorities.into_iter().flatten()).map(PathBuf::as_path)
}

/// What tells whether a file has changed, of each of them.
pub(super) fn stamps(tls: &config::Tls) -> Vec<Stamp> {
    let stamp = |path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len(), file.ino()))
    };
    files(tls).map(stamp).collect()
}

/// Reads them.
///
/// # Errors
/// The first that cannot be used.
pub(super) fn load(tls: &config::Tls, postgres: bool) -> Result<Loaded, LoadError> {
    let provider = Arc::new(ring::default_provider());
    let (server, shown) = match &tls.downstream {
        Some(downstream) => {
            let (config, shown) = server_config(downstream, postgres, &provider)?;
            (Some(Arc::new(config)), Some(shown))
        }
        None => (None, None),
    };
    let client = match &tls.upstream {
        Upstream::Tls(upstream) => Some(Arc::new(client_config(upstream, &provider)?)),
        Upstream::Plain | Upstream::Passthrough => None,
    };
    Ok(Loaded { server, shown, client, warned: AtomicBool::new(false) })
}

fn server_config(
    tls: &Downstream,
    postgres: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<(ServerConfig, CertificateDer<'static>), LoadError> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("tls_cert", &tls.identity.cert, error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities("tls_client_ca", path)?.0);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| refuse("tls_client_ca", path, error))?)
        }
    };
    let (chain, key) = identity("tls_cert", "tls_key", &tls.identity)?;
    let shown =
        chain.first().cloned().ok_or_else(|| refuse("tls_cert", &tls.identity.cert, NO_CERTIFICATE))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| refuse("tls_cert", &tls.identity.cert, error))?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if postgres {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok((config, shown))
}

pub(super) fn client_config(
    tls: &UpstreamTls,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, LoadError> {
    let ca = || tls.ca.as_deref().unwrap_or(Path::new("the system's authorities"));
    let (roots, pinned) = match (tls.verify, &tls.ca) {
        (config::tls::Verify::Nothing, _) => (RootCertStore::empty(), Vec::new()),
        (_, Some(path)) => authorities("upstream_ca", path)?,
        (_, None) => (system_authorities()?, Vec::new()),
    };
    let verifier = verify::ServerVerifier::new(tls.verify, roots, pinned, provider.clone())
        .map_err(|error| refuse("upstream_ca", ca(), error))?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("upstream_tls", ca(), error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(files) => {
            let (chain, key) = identity("upstream_cert", "upstream_key", files)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| refuse("upstream_cert", &files.cert, error))
        }
    }
}

pub(super) const NO_CERTIFICATE: &str = "it holds no certificate in PEM form";

fn refuse(setting: &'static str, path: &Path, why: impl ToString) -> LoadError {
    LoadError { setting, path: path.display().to_string().into(), why: why.to_string().into() }
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(all) if all.is_empty() => Err(refuse(setting, path, NO_CERTIFICATE)),
        Ok(all) => Ok(all),
        Err(error) => Err(refuse(setting, path, error)),
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(cert: &'static str, key: &'static str, files: &Identity) -> Result<Pair, LoadError> {
    let chain = certificates(cert, &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| refuse(key, &files.key, error))?;
    Ok((chain, key))
}

/// The authorities in a file, and the certificates themselves: a server may show one of them.
fn authorities(
    setting: &'static str,
    path: &Path,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), LoadError> {
    let all = certificates(setting, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &all {
        roots.add(certificate.clone()).map_err(|error| refuse(setting, path, error))?;
    }
    Ok((roots, all))
}

fn system_authorities() -> Result<RootCertStore, LoadError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold what no longer parses; the rest of it is good.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = "the system has no trusted authorities; give upstream_ca";
        return Err(refuse("upstream_tls", Path::new("verify-ca and verify-full"), why));
    }
    Ok(roots)
}
