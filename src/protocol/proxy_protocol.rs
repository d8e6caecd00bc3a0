//! The PROXY protocol, versions 1 and 2: who a client is that comes through another proxy.
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>)
//!
//! A header stands before everything else on a connection, TLS included. [`read`] and [`write`] are functions of bytes.
//! Absent on purpose: guessing. Whether a header must come is a matter of who connects, or anybody could claim to be anyone.
//! The optional fields of version 2 are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::proxy_protocol::Version;

/// The longest header that is read. The specification lets version 2 have 64 KiB of optional fields; nobody sends them.
pub const HEADER_MAX: usize = 4096;

/// The longest header of version 1, its line feed included.
const LINE_MAX: usize = 107;
const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and the length of the rest.
const FIXED: usize = 16;

/// Both ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where it has connected to.
    pub destination: SocketAddr,
}

/// A header that has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its length.
    pub len: usize,
    /// None: the sender speaks for itself, or does not know.
    pub ends: Option<Ends>,
}

/// No header, and more bytes will not make it one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads the header at the beginning of `input`; none as long as it is not whole.
///
/// # Errors
/// As soon as it cannot become one, at [`HEADER_MAX`] bytes at the latest.
pub fn read(input: &[u8]) -> Result<Option<Header>, Malformed> {
    if begins(input, SIGNATURE) {
        binary(input)
    } else if begins(input, LINE) {
        line(input)
    } else {
        Err(Malformed)
    }
}

/// Whether one of them is the beginning of the other.
fn begins(input: &[u8], with: &[u8]) -> bool {
    input.iter().zip(with).all(|(a, b)| a == b)
}

fn line(input: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', input.get(..LINE_MAX).unwrap_or(input)) else {
        return if input.len() < LINE_MAX { Ok(None) } else { Err(Malformed) };
    };
    let line = input.get(LINE.len()..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let len = end + 1;
    let mut words = line.split(' ');
    let v6 = match words.next() {
        Some("TCP4") => false,
        Some("TCP6") => true,
        // What follows, if anything does, is to be ignored.
        Some("UNKNOWN") => return Ok(Some(Header { len, ends: None })),
        _ => return Err(Malformed),
    };
    let mut address = || match words.next()?.parse::<IpAddr>() {
        Ok(address) if address.is_ipv6() == v6 => Some(address),
        _ => None,
    };
    let (source, destination) = (address().ok_or(Malformed)?, address().ok_or(Malformed)?);
    let mut port = || {
        let word = words.next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?;
        word.parse::<u16>().ok().filter(|_| word == "0" || !word.starts_with('0'))
    };
    let (from, to) = (port().ok_or(Malformed)?, port().ok_or(Malformed)?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    let ends = Ends { source: (source, from).into(), destination: (destination, to).into() };
    Ok(Some(Header { len, ends: Some(ends) }))
}

fn binary(input: &[u8]) -> Result<Option<Header>, Malformed> {
    // What is wrong is told as soon as it can be seen.
    let command = input.get(12).copied();
    if command.is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(Malformed);
    }
    let (Some(command), Some(&family), Some(&[high, low])) =
        (command, input.get(13), input.get(14..FIXED).and_then(|two| <&[u8; 2]>::try_from(two).ok()))
    else {
        return Ok(None);
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let len = FIXED + rest;
    if len > HEADER_MAX {
        return Err(Malformed);
    }
    let Some(body) = input.get(FIXED..len) else { return Ok(None) };
    let ends = match (command, family) {
        (0x20, _) => None,
        (_, 0x11) => Some(ends::<4>(body, |octets| Ipv4Addr::from(octets).into())?),
        (_, 0x21) => Some(ends::<16>(body, |octets| Ipv6Addr::from(octets).into())?),
        // A unix socket, or something that is no stream: nothing that could be told as an address.
        _ => None,
    };
    Ok(Some(Header { len, ends }))
}

/// Source, destination and their ports, at the beginning of a body.
fn ends<const N: usize>(body: &[u8], address: impl Fn([u8; N]) -> IpAddr) -> Result<Ends, Malformed> {
    let octets = |at: usize| body.get(at..at + N).and_then(|some| <[u8; N]>::try_from(some).ok());
    let port = |at: usize| body.get(at..at + 2).and_then(|some| <[u8; 2]>::try_from(some).ok());
    let (Some(source), Some(destination), Some(from), Some(to)) =
        (octets(0), octets(N), port(2 * N), port(2 * N + 2))
    else {
        return Err(Malformed);
    };
    Ok(Ends {
        source: (address(source), u16::from_be_bytes(from)).into(),
        destination: (address(destination), u16::from_be_bytes(to)).into(),
    })
}

/// The header that tells of a client; without its ends: that the sender speaks for itself.
pub fn write(version: Version, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.map(|Ends { source, destination }| {
        match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (IpAddr::V4(from), IpAddr::V4(to), source, destination),
            // One header has one family.
            (from, to) => (mapped(from), mapped(to), source, destination),
        }
    });
    match (version, ends) {
        (Version::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (Version::V1, Some((from, to, source, destination))) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
        (Version::V2, None) => [SIGNATURE, &[0x20, 0, 0, 0]].concat(),
        (Version::V2, Some((from, to, source, destination))) => {
            let mut header = SIGNATURE.to_vec();
            header.extend_from_slice(if from.is_ipv4() {
                &[0x21, 0x11, 0, 12]
            } else {
                &[0x21, 0x21, 0, 36]
            });
            for address in [from, to] {
                match address {
                    IpAddr::V4(address) => header.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => header.extend_from_slice(&address.octets()),
                }
            }
            for port in [source.port(), destination.port()] {
                header.extend_from_slice(&port.to_be_bytes());
            }
            header
        }
    }
}

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        v6 => v6,
    }
}

#[cfg(test)]
mod tests;
