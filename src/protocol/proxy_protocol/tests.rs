//! Headers whole, in part, broken, and made up.

use proptest::prelude::*;

use super::*;

fn ends(source: &str, destination: &str) -> Option<Ends> {
    Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &len, body].concat()
}

/// The header is read at its last byte and not before, whatever comes behind it.
#[track_caller]
fn reads(header: &[u8], ends: Option<Ends>) {
    for end in 0..header.len() {
        assert_eq!(read(&header[..end]), Ok(None), "{end} of {header:?}");
    }
    let len = header.len();
    assert_eq!(read(header), Ok(Some(Header { len, ends })), "{header:?}");
    let more = [header, b"*1\r\n$4\r\nPING\r\nPROXY TCP4"].concat();
    assert_eq!(read(&more), Ok(Some(Header { len, ends })));
}

#[test]
fn headers_of_both_versions_are_read_at_every_split() {
    reads(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 6379\r\n", ends("192.0.2.1:56324", "198.51.100.7:6379"));
    reads(b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", ends("[2001:db8::1]:65535", "[::1]:0"));
    reads(b"PROXY UNKNOWN\r\n", None);
    reads(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", None);
    let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let all = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    reads(longest.as_bytes(), ends(all, all));
    let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 4, 0x18, 0xeb];
    reads(&v2(0x21, 0x11, &v4), ends("192.0.2.1:56324", "198.51.100.7:6379"));
    // Optional fields are skipped.
    reads(
        &v2(0x21, 0x11, &[&v4[..], &[4, 0, 3, 1, 2, 3]].concat()),
        ends("192.0.2.1:56324", "198.51.100.7:6379"),
    );
    let mut v6 = [0; 36];
    (v6[15], v6[31], v6[35]) = (1, 2, 3);
    reads(&v2(0x21, 0x21, &v6), ends("[::1]:0", "[::2]:3"));
    reads(&v2(0x20, 0x00, &[]), None);
    reads(&v2(0x20, 0x11, &v4), None);
    reads(&v2(0x21, 0x00, &[]), None);
    reads(&v2(0x21, 0x31, &[0; 216]), None);
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_shows() {
    for (input, at) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"*1\r\n$4\r\nPING\r\n", 1),
        (b"PROXYTCP4", 6),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
    ] {
        for end in 0..=input.len() {
            let expected = if end < at { Ok(None) } else { Err(Malformed) };
            assert_eq!(read(&input[..end]), expected, "{end} of {input:?}");
        }
    }
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 56324 6379 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 56324 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 056324 6379\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 +5 6379\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
        "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\r\n",
        "PROXY TCP4 \u{e9} 198.51.100.7 1 2\r\n",
    ] {
        assert_eq!(read(line.as_bytes()), Err(Malformed), "{line:?}");
    }
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    assert_eq!(read(&endless[..106]), Ok(None));
    assert_eq!(read(&endless[..107]), Err(Malformed));
    assert_eq!(read(&v2(0x22, 0x11, &[0; 12])), Err(Malformed), "command");
    assert_eq!(read(&v2(0x11, 0x11, &[0; 12])), Err(Malformed), "version");
    assert_eq!(read(&v2(0x21, 0x11, &[0; 11])), Err(Malformed), "too short for its addresses");
    assert_eq!(read(&v2(0x21, 0x21, &[0; 35])), Err(Malformed));
    let most = HEADER_MAX - FIXED;
    reads(&v2(0x20, 0, &vec![0; most]), None);
    assert_eq!(
        read(&v2(0x20, 0, &vec![0; most + 1])[..FIXED]),
        Err(Malformed),
        "too long, and that is told at once"
    );
}

#[test]
fn one_header_has_one_family() {
    let mixed =
        Ends { source: "192.0.2.1:1".parse().unwrap(), destination: "[2001:db8::2]:2".parse().unwrap() };
    assert_eq!(write(Version::V1, Some(mixed)), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
    let like_v4 =
        Ends { source: "[::ffff:192.0.2.1]:1".parse().unwrap(), destination: "192.0.2.2:2".parse().unwrap() };
    assert_eq!(write(Version::V1, Some(like_v4)), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<(std::net::Ipv4Addr, u16)>().prop_map(SocketAddr::from),
        any::<(std::net::Ipv6Addr, u16)>().prop_map(SocketAddr::from),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(source in address(), destination in address(), v1 in any::<bool>(), known in any::<bool>()) {
        let version = if v1 { Version::V1 } else { Version::V2 };
        let told = known.then_some(Ends { source, destination });
        let header = write(version, told);
        let read = read(&header).unwrap().unwrap();
        prop_assert_eq!(read.len, header.len());
        let plain = |ends: Ends| [ends.source, ends.destination].map(|end| (end.ip().to_canonical(), end.port()));
        prop_assert_eq!(read.ends.map(plain), told.map(plain));
        for end in 0..header.len() {
            prop_assert_eq!(super::read(&header[..end]), Ok(None));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_more_of_them_change_no_verdict(
        input in prop::collection::vec(any::<u8>(), 0..300),
        prefix in 0_usize..3,
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let input = [[&b""[..], LINE, SIGNATURE][prefix], &input].concat();
        let first = read(&input);
        let later = read(&[&input[..], &more].concat());
        if first != Ok(None) {
            prop_assert_eq!(first, later);
        }
        if let Ok(Some(header)) = first {
            prop_assert!(header.len <= input.len() && header.len <= HEADER_MAX);
        }
    }
}
