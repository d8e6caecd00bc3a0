//! Addresses as people write them: `host:port`, `[v6]:port`, `unix:/path`.
//!
//! Absent on purpose: looking names up. A name that cannot be resolved today is no mistake of the configuration:
//! fusewire starts even when every backend is down.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::Endpoint;
use super::error::Reason;

/// The longest path that fits into a `sockaddr_un` together with its end mark.
const UNIX_PATH_MAX: usize = 107;

impl FromStr for Endpoint {
    type Err = Reason;

    /// Port 0 is let through: it has a meaning for listening.
    fn from_str(text: &str) -> Result<Self, Reason> {
        let text = text.trim();
        let fail = |why: &'static str| Reason::Address { value: Reason::quote(text), why };
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map_err(fail);
        }
        if text.contains("://") {
            return Err(fail("it takes host:port, not a URL"));
        }
        if text.contains('@') {
            return Err(fail("it takes host:port and no user: clients log in through fusewire themselves"));
        }
        let (host, port) = split(text).map_err(fail)?;
        let port = port.parse().map_err(|_| fail("its port is not a number from 0 to 65535"))?;
        Ok(Self::Tcp { host: host.into(), port })
    }
}

fn unix(path: &str) -> Result<Endpoint, &'static str> {
    if !path.starts_with('/') {
        return Err("a unix socket needs an absolute path, as in unix:/run/redis.sock");
    }
    if path.len() > UNIX_PATH_MAX {
        return Err("the path of a unix socket has at most 107 bytes");
    }
    if path.contains('\0') {
        return Err("the path of a unix socket has no NUL");
    }
    Ok(Endpoint::Unix(PathBuf::from(path)))
}

fn split(text: &str) -> Result<(&str, &str), &'static str> {
    if text.is_empty() {
        return Err("it takes host:port, [v6]:port or unix:/path");
    }
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("its bracket is never closed")?;
        host.parse::<Ipv6Addr>().map_err(|_| "what stands in brackets is not an IPv6 address")?;
        let port = rest.strip_prefix(':').filter(|port| !port.is_empty()).ok_or("its port is missing")?;
        return if digits(port) { Ok((host, port)) } else { Err("its port is not a number from 0 to 65535") };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address needs brackets and a port, as in [::1]:6379");
    }
    let (host, port) = text.rsplit_once(':').ok_or("its port is missing")?;
    if host.is_empty() {
        return Err("its host is missing");
    }
    if port.is_empty() {
        return Err("its port is missing");
    }
    if !digits(port) {
        return Err("its port is not a number from 0 to 65535");
    }
    let named = host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if named { Ok((host, port)) } else { Err("its host is neither a name nor an address") }
}

impl Endpoint {
    /// Whether only this machine can reach it. A name other than localhost may stand for any address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }

    /// Whether both could not be listened on at once: the same socket, or the same port where one of them stands
    /// for every address of the other's family. Port 0 is a different port each time.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Tcp { port: 0, .. }, _) | (_, Self::Tcp { port: 0, .. }) => false,
            (Self::Tcp { host: a, port: p }, Self::Tcp { host: b, port: q }) => p == q && hosts_overlap(a, b),
            _ => false,
        }
    }
}

fn hosts_overlap(a: &str, b: &str) -> bool {
    match (addresses(a), addresses(b)) {
        (Some(a), Some(b)) => a.iter().any(|a| {
            b.iter()
                .any(|b| a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())))
        }),
        _ => a.eq_ignore_ascii_case(b),
    }
}

fn addresses(host: &str) -> Option<Vec<IpAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }
    host.parse().ok().map(|address| vec![address])
}
