//! Who is trusted to say who a client is, and how the server is told.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// The PROXY protocol on either leg.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Whose connections begin with a header.
    pub from: Vec<Network>,
    /// What the server is sent; none: nothing.
    pub to: Option<Version>,
}

impl ProxyProtocol {
    /// Whether a connection from there begins with a header; none: over a unix socket.
    pub fn expects(&self, peer: Option<IpAddr>) -> bool {
        self.from.iter().any(|network| network.contains(peer))
    }
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// Both, and neither.
    pub(super) const ALL: [Option<Self>; 3] = [None, Some(Self::V1), Some(Self::V2)];

    /// The word in the configuration.
    pub(super) fn word(version: Option<Self>) -> &'static str {
        match version {
            None => "off",
            Some(Self::V1) => "v1",
            Some(Self::V2) => "v2",
        }
    }
}

/// A part of the world that a connection may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Addresses.
    Ip(IpNet),
    /// Whoever may open the unix socket.
    Unix,
}

impl Network {
    /// Reads `10.0.0.0/8`, `::1` or `unix`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "unix" {
            return Some(Self::Unix);
        }
        let net = text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))?;
        Some(Self::Ip(net.trunc()))
    }

    /// Whether a connection from there is one of it; none: over a unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Self::Unix, None) => true,
            (Self::Ip(net), Some(peer)) => net.contains(&peer.to_canonical()),
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(net) => net.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let holds =
            |net: &str, peer: &str| Network::parse(net).unwrap().contains(Some(peer.parse().unwrap()));
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("::1", "::1") && !holds("::/0", "10.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"), "the same, as a socket of both families sees it");
        assert!(holds("0.0.0.0/0", "1.2.3.4"));
        assert!(!Network::Unix.contains(Some("::1".parse().unwrap())) && Network::Unix.contains(None));
        assert!(!Network::parse("0.0.0.0/0").unwrap().contains(None));
        assert_eq!(Network::parse("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        for text in ["", "10.0.0.0/33", "localhost", "10.0.0", "unix:/x"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
