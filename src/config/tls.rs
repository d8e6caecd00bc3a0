//! TLS on either leg, as configured: which files, which mode, and which of them contradict each other.
//!
//! Here is refused what cannot work (PROTOCOLS.md §3.2). Absent on purpose: the file system. Whether a file can be
//! read and holds what it should is for whoever starts, checks or reloads the proxy to find out.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::ServerName;

use super::Endpoint;
use super::raw::Speaks;
use super::settings::Key;

/// TLS of one backend. The default is none on either leg.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// What clients are offered. None: no TLS.
    pub downstream: Option<Downstream>,
    /// Postgres: clients without TLS are refused. Redis clients have no choice anyway.
    pub required: bool,
    /// How the server is spoken to.
    pub upstream: Upstream,
}

/// The clients' leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downstream {
    /// The certificate that is shown to clients.
    pub identity: Identity,
    /// Clients must show a certificate that one of these has signed. None: they are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// A certificate and its key: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by those of intermediate authorities.
    pub cert: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// The server's leg.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Upstream {
    /// No TLS.
    #[default]
    Plain,
    /// Postgres: a client that asks for TLS gets it from the server itself, and nothing but connects is seen.
    Passthrough,
    /// TLS between fusewire and the server.
    Tls(Box<UpstreamTls>),
}

/// How fusewire speaks TLS to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Postgres: a server without TLS is spoken to without.
    pub optional: bool,
    /// How the server's certificate is verified.
    pub verify: Verify,
    /// The authorities to trust, a PEM file. None: the system's.
    pub ca: Option<PathBuf>,
    /// The name that is sent to the server (SNI) and that its certificate must bear. None: the upstream's host.
    pub server_name: Option<Arc<str>>,
    /// The certificate that is shown to the server if it asks for one.
    pub identity: Option<Identity>,
}

/// How a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Not at all.
    Nothing,
    /// A trusted authority has signed it.
    Chain,
    /// A trusted authority has signed it, and it is for the server's name.
    Name,
}

/// A value of `upstream_tls`; libpq's words for `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
    Passthrough,
}

impl Mode {
    /// The words, for messages.
    pub(super) const WORDS: &'static str =
        "disable, prefer, require, verify-ca, verify-full, passthrough, true (verify-full), false (disable)";

    /// The word that is read as it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
            Self::Passthrough => "passthrough",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" | "off" | "false" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" | "true" => Self::VerifyFull,
            "passthrough" => Self::Passthrough,
            _ => return None,
        })
    }
}

/// The settings about TLS of one backend, by nearness, before they have been seen together.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) speaks: Speaks,
    pub(super) listen: Endpoint,
    pub(super) upstream: Endpoint,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) required: bool,
    pub(super) mode: Mode,
    pub(super) ca: Option<PathBuf>,
    pub(super) server_name: Option<Arc<str>>,
    pub(super) upstream_cert: Option<PathBuf>,
    pub(super) upstream_key: Option<PathBuf>,
}

/// The setting that is refused, and why.
type Refusal = (Key, &'static str);

impl Parts {
    /// Puts the parts together.
    ///
    /// # Errors
    /// The first combination that cannot work.
    pub(super) fn settle(self) -> Result<Tls, Refusal> {
        let downstream = self.downstream()?;
        let upstream = self.upstream()?;
        let passes = upstream == Upstream::Passthrough;
        if passes && downstream.is_some() {
            return Err((
                Key::TlsCert,
                "with upstream_tls = passthrough the server shows its own certificate",
            ));
        }
        if self.required && downstream.is_none() && !passes {
            return Err((Key::TlsRequired, "clients cannot be offered TLS without tls_cert and tls_key"));
        }
        if matches!(self.listen, Endpoint::Unix(_)) && (downstream.is_some() || self.required) {
            return Err((Key::TlsCert, "clients speak no TLS over a unix socket; set it to off"));
        }
        Ok(Tls { downstream, required: self.required, upstream })
    }

    fn downstream(&self) -> Result<Option<Downstream>, Refusal> {
        let identity = pair((&self.cert, Key::TlsCert), (&self.key, Key::TlsKey))?;
        match identity {
            Some(identity) => Ok(Some(Downstream { identity, client_ca: self.client_ca.clone() })),
            None if self.client_ca.is_some() => {
                Err((Key::TlsClientCa, "clients cannot show a certificate without tls_cert and tls_key"))
            }
            None => Ok(None),
        }
    }

    fn upstream(&self) -> Result<Upstream, Refusal> {
        let (optional, verify) = match self.mode {
            Mode::Prefer | Mode::Passthrough if self.speaks == Speaks::Redis => {
                return Err((
                    Key::UpstreamTls,
                    "Redis has no TLS by agreement: it takes disable, require, verify-ca or verify-full",
                ));
            }
            Mode::Disable | Mode::Passthrough => {
                self.idle("it has no effect: fusewire itself speaks no TLS to this server")?;
                let passes = self.mode == Mode::Passthrough;
                return Ok(if passes { Upstream::Passthrough } else { Upstream::Plain });
            }
            Mode::Prefer => (true, Verify::Nothing),
            Mode::Require => (false, Verify::Nothing),
            Mode::VerifyCa => (false, Verify::Chain),
            Mode::VerifyFull => (false, Verify::Name),
        };
        if matches!(self.upstream, Endpoint::Unix(_)) {
            return Err((Key::UpstreamTls, "servers speak no TLS over a unix socket; set it to disable"));
        }
        if verify == Verify::Nothing && self.ca.is_some() {
            return Err((
                Key::UpstreamCa,
                "nothing is verified with it unless upstream_tls is verify-ca or verify-full",
            ));
        }
        let named = |name: &str| ServerName::try_from(name).is_ok();
        match (&self.server_name, &self.upstream) {
            (Some(name), _) if !named(name) => {
                return Err((Key::UpstreamServerName, "it is neither a DNS name nor an IP address"));
            }
            (None, Endpoint::Tcp { host, .. }) if !named(host) => {
                return Err((
                    Key::Upstream,
                    "its host cannot stand in a certificate; give upstream_server_name",
                ));
            }
            _ => {}
        }
        let identity =
            pair((&self.upstream_cert, Key::UpstreamCert), (&self.upstream_key, Key::UpstreamKey))?;
        Ok(Upstream::Tls(Box::new(UpstreamTls {
            optional,
            verify,
            ca: self.ca.clone(),
            server_name: self.server_name.clone(),
            identity,
        })))
    }

    /// Refuses settings that would silently do nothing: whoever gives an authority believes that it is asked.
    fn idle(&self, why: &'static str) -> Result<(), Refusal> {
        let given = [
            (Key::UpstreamCa, self.ca.is_some()),
            (Key::UpstreamServerName, self.server_name.is_some()),
            (Key::UpstreamCert, self.upstream_cert.is_some()),
            (Key::UpstreamKey, self.upstream_key.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map_or(Ok(()), |(key, _)| Err((key, why)))
    }
}

fn pair(
    (cert, cert_name): (&Option<PathBuf>, Key),
    (key, key_name): (&Option<PathBuf>, Key),
) -> Result<Option<Identity>, Refusal> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(Identity { cert: cert.clone(), key: key.clone() })),
        (None, None) => Ok(None),
        (Some(_), None) => Err((key_name, "a certificate needs its key")),
        (None, Some(_)) => Err((cert_name, "a key needs its certificate")),
    }
}
