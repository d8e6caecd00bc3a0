//! fusewire's own question to a Postgres: does it take sessions? (PROTOCOLS.md §4.)
//!
//! A startup packet without credentials, read up to the first answer. A server that starts, shuts down or recovers says so
//! in place of asking for a password; one that asks is well, and a client that hangs up then leaves no line in its log. A
//! server that trusts its clients begins the session instead: then the check says goodbye and waits for the end, because
//! a connection that is broken off in the middle of a greeting is logged.
//!
//! Absent on purpose: sockets; SSLRequest followed by a close, and a bare connect. The one is logged, the other is answered
//! by a process that stands still.

use super::classify::Table;
use super::message::{HEADER, Header, STARTUP_ERROR_MAX};
use super::report::Report;
use crate::breaker::{Code, Fault, Finding, Verdict};

/// Sent when the server has begun a session: Terminate.
pub const GOODBYE: &[u8] = b"X\0\0\0\x04";

/// How much is read up to the first answer: an error with notices before it.
pub const ANSWER_MAX: usize = STARTUP_ERROR_MAX + 4096;

/// What the answer says, and what is to be done about the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the check has found.
    pub finding: Finding,
    /// The server has begun a session: [`GOODBYE`], and then its end is to be waited for.
    pub session: bool,
}

/// The startup packet of a check that calls itself `user`. The database is one that every cluster has.
pub fn request(user: &str) -> Vec<u8> {
    const PARAMETERS: [&str; 5] = ["database", "postgres", "application_name", "fusewire check", ""];
    let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
    for word in ["user", user].iter().chain(&PARAMETERS) {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    // A user's name is bounded by the configuration.
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut packet = len.to_be_bytes().to_vec();
    packet.append(&mut body);
    packet
}

/// What the server's answer says; none as long as it has not come. `input` is all that has come.
pub fn judge(mut input: &[u8], table: &Table) -> Option<Answer> {
    let end = |finding| Some(Answer { finding, session: false });
    let malformed = || end(Finding::Failed(Fault::Malformed.into()));
    let read = input.len();
    loop {
        let Some(header) = Header::read(input) else {
            return if read >= ANSWER_MAX { malformed() } else { None };
        };
        let Ok(len) = header.server_body() else { return malformed() };
        if header.tag == b'E' && len > STARTUP_ERROR_MAX {
            // No length at all, but the bare text of a postmaster that could not fork.
            return end(Finding::Failed(Code::new("FATAL").into()));
        }
        let body = input.get(HEADER..).unwrap_or_default();
        match header.tag {
            b'R' => {
                let kind = body.get(..4)?;
                return Some(Answer { finding: Finding::Ready, session: kind == [0; 4] });
            }
            b'E' => {
                return end(error(body.get(..len)?, table));
            }
            // Notices, and what the server makes of a protocol version, say nothing about its state.
            b'N' | b'v' | b'S' => {}
            _ => return malformed(),
        }
        let Some(rest) = body.get(len..) else { return if read >= ANSWER_MAX { malformed() } else { None } };
        input = rest;
    }
}

fn error(body: &[u8], table: &Table) -> Finding {
    let mut report = Report::default();
    report.feed(body);
    match table.judge(&report) {
        // The sessions that it has are served.
        Verdict::Failure(_) if report.code() == b"53300" => Finding::Alive,
        Verdict::Failure(cause) => Finding::Failed(cause),
        // It has looked at its own state before it looked at who asks: no such user, no entry in pg_hba.conf.
        Verdict::Success => Finding::Ready,
        Verdict::Ignored => Finding::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    fn fatal(code: &str) -> Vec<u8> {
        message(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mno\0\0").as_bytes())
    }

    #[test]
    fn each_answer_is_judged_when_it_has_come_and_not_before() {
        let failed = |code: &str| Finding::Failed(Code::new(code).into());
        let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        let with_notice = [message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"), fatal("57P03")].concat();
        let with_version = [message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]), sasl.clone()].concat();
        for (answer, least, finding, session) in [
            (message(b'R', &[0; 4]), 9, Finding::Ready, true),
            (message(b'R', &[0, 0, 0, 3]), 9, Finding::Ready, false),
            (sasl.clone(), 9, Finding::Ready, false),
            (fatal("28000"), fatal("28000").len(), Finding::Ready, false),
            (fatal("3D000"), fatal("3D000").len(), Finding::Ready, false),
            (fatal("57P03"), fatal("57P03").len(), failed("57P03"), false),
            (fatal("53300"), fatal("53300").len(), Finding::Alive, false),
            (fatal("57000"), fatal("57000").len(), Finding::Alive, false),
            (fatal("58030"), fatal("58030").len(), failed("58030"), false),
            (b"Ecould not fork new process for connection".to_vec(), 5, failed("FATAL"), false),
            (with_notice.clone(), with_notice.len(), failed("57P03"), false),
            (with_version.clone(), with_version.len() - sasl.len() + 9, Finding::Ready, false),
            (b"-ERR unknown command\r\n".to_vec(), 5, Finding::Failed(Fault::Malformed.into()), false),
        ] {
            for end in 0..least {
                assert_eq!(judge(&answer[..end], &Table::new(&crate::config::Overrides::default())), None);
            }
            for end in least..=answer.len() {
                let found = judge(&answer[..end], &Table::new(&crate::config::Overrides::default()));
                assert_eq!(
                    found,
                    Some(Answer { finding: finding.clone(), session }),
                    "{answer:?} up to {end}"
                );
            }
        }
        let table = Table::new(&crate::config::Overrides::default());
        let sized = |len: usize| {
            let text = "x".repeat(len - (fatal("57P03").len() - HEADER - 2));
            message(b'E', format!("SFATAL\0VFATAL\0C57P03\0M{text}\0\0").as_bytes())
        };
        for (len, finding) in [(STARTUP_ERROR_MAX, failed("57P03")), (STARTUP_ERROR_MAX + 1, failed("FATAL"))]
        {
            assert_eq!(judge(&sized(len), &table), Some(Answer { finding, session: false }), "{len}");
        }
        let endless = message(b'N', &[b'x'; ANSWER_MAX]);
        let found = judge(&endless[..ANSWER_MAX], &Table::new(&crate::config::Overrides::default()));
        assert_eq!(found.map(|answer| answer.finding), Some(Finding::Failed(Fault::Malformed.into())));
    }

    #[test]
    fn the_request_is_a_startup_packet_that_our_own_reader_takes() {
        use super::super::startup::{Packet, read};
        let packet = request("fusewire_check");
        let len = packet.len();
        assert_eq!(read(&packet), Packet::Startup { len, native: true, replication: false });
        let text =
            b"\0\x03\0\0user\0fusewire_check\0database\0postgres\0application_name\0fusewire check\0\0";
        assert_eq!(packet[4..], text[..]);
    }
}
