//! Addresses.

use proptest::prelude::*;

use super::*;

/// An address and why it is refused.
const BAD_ADDRESSES: [(&str, &str); 16] = [
    ("", "it takes host:port, [v6]:port or unix:/path"),
    ("h", "its port is missing"),
    ("h:", "its port is missing"),
    (":6379", "its host is missing"),
    ("h:65536", "its port is not a number from 0 to 65535"),
    ("h:+1", "its port is not a number from 0 to 65535"),
    ("h:redis", "its port is not a number from 0 to 65535"),
    ("::1", "an IPv6 address needs brackets and a port, as in [::1]:6379"),
    ("::1:6379", "an IPv6 address needs brackets and a port, as in [::1]:6379"),
    ("[::1", "its bracket is never closed"),
    ("[::1]", "its port is missing"),
    ("[::g]:1", "what stands in brackets is not an IPv6 address"),
    ("[::1]:x", "its port is not a number from 0 to 65535"),
    ("a b:1", "its host is neither a name nor an address"),
    ("unix:run/x.sock", "a unix socket needs an absolute path, as in unix:/run/redis.sock"),
    ("http://h:1", "it takes host:port, not a URL"),
];

#[test]
fn bad_addresses_say_why() {
    for (text, expected) in BAD_ADDRESSES {
        match text.parse::<Endpoint>() {
            Err(Reason::Address { why, .. }) => assert_eq!(why, expected, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
    let long = format!("unix:/{}", "x".repeat(107));
    assert!(long.parse::<Endpoint>().is_err());
}

#[test]
fn addresses_overlap_when_they_cannot_both_be_listened_on() {
    let overlap = |a: &str, b: &str| {
        let (a, b): (Endpoint, Endpoint) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(a.overlaps(&b), b.overlaps(&a), "{a} {b}");
        a.overlaps(&b)
    };
    assert!(overlap("127.0.0.1:1", "127.0.0.1:1"));
    assert!(overlap("0.0.0.0:1", "10.0.0.1:1"));
    assert!(overlap("[::]:1", "[::1]:1"));
    assert!(overlap("[::1]:1", "[0:0:0:0:0:0:0:1]:1"));
    assert!(overlap("unix:/a", "unix:/a"));
    assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"), "port 0 is another port each time");
    assert!(!overlap("127.0.0.1:1", "127.0.0.2:1"));
    assert!(!overlap("127.0.0.1:1", "127.0.0.1:2"));
    assert!(!overlap("unix:/a", "127.0.0.1:1"));
}

proptest! {
    #[test]
    fn endpoints_survive_being_printed(
        v4 in any::<std::net::Ipv4Addr>(), v6 in any::<std::net::Ipv6Addr>(), port in any::<u16>(),
        name in "[a-z][a-z0-9.-]{0,30}", path in "/[a-z0-9/._-]{1,60}",
    ) {
        for endpoint in [
            Endpoint::from(SocketAddr::from((v4, port))),
            Endpoint::from(SocketAddr::from((v6, port))),
            Endpoint::Tcp { host: name.into(), port },
            Endpoint::Unix(path.into()),
        ] {
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }
}
