//! Servers that fail at any step of a session, in ways that a real one shows only by accident: what its client reads,
//! what the breaker makes of it, and that a fresh session works afterwards.

use proto_tests::pgwire::{self, Pg, SSL_REQUEST, done, greeting, message};
use proto_tests::wire::Text;
use proto_tests::{Fake, Setup, Step};

/// What a server says at some step, and what must come of it.
struct Case {
    name: &'static str,
    /// Sent at once after the startup packet.
    startup: Vec<u8>,
    /// Sent after the first query, if the startup succeeds.
    answer: Vec<u8>,
    /// The client gets exactly what the server sent (and behind it the error of fusewire's own that is named next).
    own_error: Option<&'static str>,
    /// The cause of the failure, if it is one.
    reason: Option<&'static str>,
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Mno\0\0").as_bytes())
}

fn authenticated() -> Vec<u8> {
    message(b'R', &0_u32.to_be_bytes())
}

fn row() -> Vec<u8> {
    message(b'D', &[0, 1, 0, 0, 0, 1, b'1'])
}

fn cases() -> Vec<Case> {
    let startup = |name, startup: Vec<u8>, own_error, reason| Case {
        name,
        startup,
        answer: Vec::new(),
        own_error,
        reason,
    };
    let query = |name, answer: Vec<u8>, own_error, reason| Case {
        name,
        startup: greeting(),
        answer,
        own_error,
        reason,
    };
    let fork = b"Ecould not fork new process for connection: Cannot allocate memory\n\0";
    let half = |bytes: Vec<u8>| bytes[..bytes.len() - 2].to_vec();
    let long = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes()].concat();
    vec![
        startup("fork", fork.to_vec(), None, Some("malformed")),
        startup("no postgres", b"HTTP/1.1 400 Bad Request".to_vec(), Some("57P03"), Some("malformed")),
        startup("nothing", Vec::new(), Some("57P03"), Some("eof")),
        startup("before authentication", error("FATAL", "53300"), None, Some("53300")),
        startup("starting", error("FATAL", "57P03"), None, Some("57P03")),
        startup("wrong password", error("FATAL", "28P01"), None, None),
        startup("no database", [authenticated(), error("FATAL", "3D000")].concat(), None, None),
        startup("reserved slots", [authenticated(), error("FATAL", "53300")].concat(), None, Some("53300")),
        startup("after authentication", authenticated(), Some("57P03"), Some("eof")),
        startup(
            "half a parameter",
            [authenticated(), half(message(b'S', b"a\0b\0"))].concat(),
            None,
            Some("eof"),
        ),
        startup("endless authentication", long(b'R', 1 << 30), Some("57P03"), Some("malformed")),
        startup("negative length", long(b'R', u32::MAX), Some("57P03"), Some("malformed")),
        query("nothing", Vec::new(), Some("08006"), Some("eof")),
        query("rows without an end", [message(b'T', &[0, 0]), row()].concat(), Some("08006"), Some("eof")),
        query("half a row", half(row()), None, Some("eof")),
        query("half a header", row()[..3].to_vec(), Some("08006"), Some("eof")),
        query("negative length", [row(), long(b'D', u32::MAX)].concat(), Some("08006"), Some("malformed")),
        query("short length", long(b'Z', 3), Some("08006"), Some("malformed")),
        query(
            "disk full",
            [row(), error("ERROR", "53100"), message(b'Z', b"I")].concat(),
            None,
            Some("53100"),
        ),
        query("syntax", [error("ERROR", "42601"), message(b'Z', b"I")].concat(), None, None),
        query("shutdown", [row(), error("FATAL", "57P01")].concat(), None, Some("57P01")),
        query("panic", error("PANIC", "22012"), None, Some("PANIC")),
        query("crash", message(b'N', b"SWARNING\0VWARNING\0C57P02\0Mno\0\0"), Some("08006"), Some("57P02")),
        query("an empty error", [message(b'E', b"\0"), message(b'Z', b"I")].concat(), None, None),
        query("an error without end", message(b'E', b"SERROR"), Some("08006"), None),
        query("an unknown message", message(b'~', b"what"), None, None),
        query("one answer too many", [done(), message(b'Z', b"I"), message(b'Z', b"I")].concat(), None, None),
    ]
}

#[test]
fn a_server_may_fail_at_any_step() {
    let cases = cases();
    let fakes: Vec<Fake> = cases
        .iter()
        .map(|case| {
            let mut script =
                vec![Step::Await(b"application_name".to_vec()), Step::Drip(case.startup.clone())];
            if case.startup == greeting() {
                script.extend([Step::Await(b"SELECT".to_vec()), Step::Drip(case.answer.clone())]);
            }
            script.push(Step::Close);
            let works = vec![
                Step::Await(b"application_name".to_vec()),
                Step::Send(greeting()),
                Step::Await(b"SELECT".to_vec()),
                Step::Send(done()),
                Step::Silence,
            ];
            Fake::scripts(vec![script, works])
        })
        .collect();
    let mut setup = Setup::default();
    for (n, fake) in fakes.iter().enumerate() {
        setup = setup.postgres(&format!("db{n}"), fake.addr(), "failure-threshold=2");
    }
    let proxy = setup.start();
    for (n, case) in cases.iter().enumerate() {
        let name = format!("db{n}");
        let mut pg = Pg::connect(proxy.addr(&name));
        pg.send(&pgwire::startup_packet("postgres", "postgres"));
        if case.startup == greeting() {
            pg.until_ready();
            pg.send(&pgwire::query("SELECT 1"));
        }
        let said = if case.startup == greeting() { &case.answer } else { &case.startup };
        let got = pg.raw.rest();
        // What fusewire cannot relay (a header that it does not follow) it replaces by an error of its own.
        let own = match got.strip_prefix(said.as_slice()) {
            Some(own) => own.to_vec(),
            None => {
                let at = (0..=said.len()).rev().find(|at| got.starts_with(&said[..*at])).unwrap_or_default();
                assert!(case.own_error.is_some() && said.len() - at < 30, "{}: {}", case.name, Text(&got));
                got[at..].to_vec()
            }
        };
        let code = own.windows(6).find(|bytes| bytes[0] == b'C' && bytes[1].is_ascii_digit());
        let code = code.map(|bytes| String::from_utf8_lossy(&bytes[1..]).into_owned());
        assert_eq!(code.as_deref(), case.own_error, "{}: {}", case.name, Text(&got));
        assert!(case.own_error.is_some() || own.is_empty(), "{}: {}", case.name, Text(&own));

        assert_eq!(proxy.figure(&name, "failed_calls"), u64::from(case.reason.is_some()), "{}", case.name);
        if let Some(reason) = case.reason {
            let labels = [("backend", name.as_str()), ("reason", reason)];
            assert_eq!(proxy.metric("circuit_breaker_failures_total", &labels), 1.0, "{}", case.name);
        }
        assert_eq!(proxy.state(&name), "closed", "{}", case.name);
        assert_eq!(Pg::session(proxy.addr(&name)).rows("SELECT 1").1, 'I', "{}", case.name);
    }
    assert!(proxy.peak_rss() < 64 << 20, "peak RSS is {} MiB", proxy.peak_rss() >> 20);
    proxy.stop();
}

/// A server whose postmaster cannot fork answers the request for TLS with a text, too.
#[test]
fn a_server_that_cannot_fork_when_it_is_asked_for_tls_is_a_failure() {
    for answer in [
        &b"Ecould not fork new process for connection: Cannot allocate memory\n\0"[..],
        b"",
        b"X",
        b"SXXXXXXX",
    ] {
        let fake =
            Fake::start(vec![Step::Await(SSL_REQUEST.to_vec()), Step::Send(answer.to_vec()), Step::Close]);
        let proxy = Setup::default().postgres("db", fake.addr(), "upstream-tls=require").start();
        let refused = Pg::refused(proxy.addr("db"));
        assert_eq!((refused.severity.as_str(), refused.code.as_str()), ("FATAL", "57P03"), "{refused}");
        assert_eq!(proxy.figure("db", "failed_calls"), 1, "{}", Text(answer));
        proxy.stop();
    }
}
