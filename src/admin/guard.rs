//! Who may ask: the defence of a loopback port against the web pages that its own user visits.
//!
//! A page on `evil.example` can have its name resolve to 127.0.0.1 and then read whatever a local port answers
//! (DNS rebinding), or simply send a form to it. The first always carries its own name in Host, the second in
//! Origin; both are refused. A request without a Host cannot come from a browser and passes: HAProxy's plain
//! `option httpchk` sends none.
//!
//! Absent on purpose: users and roles. There is one optional token; finer rights belong to a proxy in front.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::error::Error;
use crate::config::{AdminAccess, Endpoint};

/// Who is let in, beyond the rules that always hold.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Names, without port, by which the API may be addressed besides localhost, loopback addresses and the
    /// address that it is bound to: a service's name in a cluster, for instance.
    pub hosts: Vec<Arc<str>>,
    /// If set, needed for everything but `/livez` and `/readyz`, whose callers cannot send one, and the files of
    /// the dashboard, which then asks for it.
    pub token: Option<Token>,
}

/// Why nobody can be asked for a token.
#[derive(Debug, thiserror::Error)]
#[error("admin_token_file: {path}: {why}")]
pub struct TokenError {
    path: Box<str>,
    why: Box<str>,
}

impl Access {
    /// Reads the token's file.
    ///
    /// # Errors
    /// If it cannot be read, or holds nothing but white space.
    pub fn read(config: &AdminAccess) -> Result<Self, TokenError> {
        let token = match &config.token_file {
            None => None,
            Some(path) => {
                let refuse =
                    |why: String| TokenError { path: path.display().to_string().into(), why: why.into() };
                let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
                Some(Token::new(&text).ok_or_else(|| refuse("it holds no token".to_owned()))?)
            }
        };
        Ok(Self { hosts: config.hosts.clone(), token })
    }
}

/// A bearer token. Never printed.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// The token that clients send after `Authorization: Bearer `; none if it is empty.
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        (!token.is_empty()).then(|| Self(token.into()))
    }

    /// Compares in a time that depends on the lengths only.
    fn matches(&self, offered: &str) -> bool {
        let (own, offered) = (self.0.as_bytes(), offered.as_bytes());
        let differences = own.iter().zip(offered).fold(0, |differences, (a, b)| differences | (a ^ b));
        own.len() == offered.len() && differences == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// The other end of an admin connection, and how it came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over TCP from `remote` to the address `local` of this machine.
    Tcp { remote: SocketAddr, local: SocketAddr },
    /// Over the unix socket, by this process as far as the kernel knows it.
    Unix { uid: Option<u32>, pid: Option<i32> },
}

impl fmt::Display for Peer {
    /// For the audit line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { remote, .. } => remote.fmt(f),
            Self::Unix { uid: Some(uid), pid: Some(pid) } => write!(f, "unix uid {uid} pid {pid}"),
            Self::Unix { uid: Some(uid), pid: None } => write!(f, "unix uid {uid}"),
            Self::Unix { uid: None, .. } => f.write_str("unix"),
        }
    }
}

/// The rules, for one listening address.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    access: Arc<ArcSwap<Access>>,
    bound: Endpoint,
}

impl Guard {
    pub(super) fn new(access: Arc<ArcSwap<Access>>, bound: Endpoint) -> Self {
        Self { access, bound }
    }

    /// # Errors
    /// 403 for a foreign Host, or a foreign Origin of a change; 401 for a missing or wrong token.
    pub(super) fn check(&self, peer: &Peer, request: &Parts) -> Result<(), Error> {
        let (host, access) = (host(request)?, self.access.load());
        if let (Peer::Tcp { local, .. }, Some(host)) = (peer, &host)
            && !self.is_own(&access, host, *local)
        {
            let name = host.host();
            return Err(Error::forbidden(format!(
                "'{name}' is not an address of this admin API; use localhost or the address that it listens on"
            )));
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            check_origin(&request.headers, host.as_ref())?;
        }
        match &access.token {
            Some(token) if !is_public(request.uri.path()) => check_token(&request.headers, token),
            _ => Ok(()),
        }
    }

    fn is_own(&self, access: &Access, host: &Authority, local: SocketAddr) -> bool {
        let name = host.host();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // Bound to every address, the API is exposed on purpose, perhaps behind address translation that
            // hides the address it was called by. An address is safe to accept there: rebinding needs a name.
            Ok(ip) => ip.is_loopback() || ip == local.ip().to_canonical() || self.is_wildcard(),
            Err(_) => {
                name.eq_ignore_ascii_case("localhost")
                    || matches!(&self.bound, Endpoint::Tcp { host, .. } if host.eq_ignore_ascii_case(name))
                    || access.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
            }
        }
    }

    fn is_wildcard(&self) -> bool {
        match &self.bound {
            Endpoint::Tcp { host, .. } => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()),
            Endpoint::Unix(_) => false,
        }
    }
}

/// Whether a path says nothing about the backends.
fn is_public(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/") || path.starts_with("/assets/")
}

/// The authority that the request is addressed to: of its target if that is absolute (RFC 9112 §3.2.2), else its
/// Host.
fn host(request: &Parts) -> Result<Option<Authority>, Error> {
    if let Some(authority) = request.uri.authority() {
        return Ok(Some(authority.clone()));
    }
    match single(&request.headers, header::HOST)? {
        None => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| Error::bad_request("the Host header is not a host and port"))
        }
    }
}

/// A page may change something only if it came from this very API (the dashboard).
fn check_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Error> {
    let Some(origin) = single(headers, header::ORIGIN)? else { return Ok(()) };
    let authority = origin.split_once("://").and_then(|(_, rest)| rest.parse::<Authority>().ok());
    if authority.is_some() && authority.as_ref() == host {
        Ok(())
    } else {
        Err(Error::forbidden("a page of another origin may not change anything here"))
    }
}

fn check_token(headers: &HeaderMap, token: &Token) -> Result<(), Error> {
    let offered = single(headers, header::AUTHORIZATION)?.and_then(|value| value.split_once(' '));
    match offered {
        Some((scheme, offered)) if scheme.eq_ignore_ascii_case("bearer") && token.matches(offered.trim()) => {
            Ok(())
        }
        _ => Err(Error::new(StatusCode::UNAUTHORIZED, "a valid bearer token is needed")),
    }
}

/// A header's only value. Two of them are refused, because whoever is in front may have looked at the other.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Error> {
    let mut values = headers.get_all(&name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Error::bad_request(format!("more than one {name} header")));
    }
    value
        .map(|value| value.to_str().map_err(|_| Error::bad_request(format!("the {name} header is not text"))))
        .transpose()
}
