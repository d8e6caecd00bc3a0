//! fusewire's own question to a Redis: does it work? (PROTOCOLS.md §4.)
//!
//! PING, without credentials. A server that wants some says so before it looks whether it is loading, so NOAUTH shows
//! that it lives and no more. Absent on purpose: sockets, and any word after the answer.

use super::classify::Table;
use crate::breaker::{Fault, Finding};
use crate::protocol::Class;

/// What is sent.
pub const REQUEST: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// The longest answer; an error line is a sentence or two.
pub const ANSWER_MAX: usize = 1024;

/// Failures of the server that leave a part of its calls working: no disk keeps it from writes (and from PING), its last
/// connection gone from new clients.
const PARTIAL: [&str; 2] = ["MISCONF", "ERR max number of clients"];

/// What the answer says; none as long as its end has not come. `input` is all that has come.
pub fn judge(input: &[u8], table: &Table) -> Option<Finding> {
    let malformed = || Finding::Failed(Fault::Malformed.into());
    let Some(end) = memchr::memmem::find(input, b"\r\n") else {
        return (input.len() >= ANSWER_MAX).then(malformed);
    };
    let line = input.get(..end).unwrap_or_default();
    Some(match line.split_first() {
        Some((b'+', b"PONG")) => Finding::Ready,
        Some((b'-', error)) => {
            let row = table.row(error);
            if row.class == Class::Failure && !PARTIAL.contains(&row.code.as_str()) {
                Finding::Failed(row.code.clone().into())
            } else {
                Finding::Alive
            }
        }
        _ => malformed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::Code;
    use crate::config::Overrides;

    fn failed(code: &str) -> Finding {
        Finding::Failed(Code::new(code).into())
    }

    #[test]
    fn each_answer_is_judged_at_its_end_and_not_before() {
        let table = Table::default();
        for (answer, finding) in [
            ("+PONG\r\n", Finding::Ready),
            ("-NOAUTH Authentication required.\r\n", Finding::Alive),
            ("-NOPERM this user has no permissions to run the 'ping' command\r\n", Finding::Alive),
            ("-LOADING Redis is loading the dataset in memory\r\n", failed("LOADING")),
            ("-MASTERDOWN Link with MASTER is down\r\n", failed("MASTERDOWN")),
            ("-BUSY Redis is busy running a script.\r\n", failed("BUSY")),
            ("-DENIED Redis is running in protected mode\r\n", failed("DENIED")),
            ("-MISCONF Redis is configured to save RDB snapshots\r\n", Finding::Alive),
            ("-ERR max number of clients reached\r\n", Finding::Alive),
            ("-CIRCUITOPEN backend 'far' is open\r\n", Finding::Alive),
            ("+OK\r\n", Finding::Failed(Fault::Malformed.into())),
            ("HTTP/1.1 400 Bad Request\r\n", Finding::Failed(Fault::Malformed.into())),
            ("\r\n", Finding::Failed(Fault::Malformed.into())),
        ] {
            for end in 0..answer.len() {
                assert_eq!(judge(&answer.as_bytes()[..end], &table), None, "{answer:?} up to {end}");
            }
            assert_eq!(judge(answer.as_bytes(), &table), Some(finding), "{answer:?}");
        }
        assert_eq!(judge(&[b'x'; ANSWER_MAX], &table), Some(Finding::Failed(Fault::Malformed.into())));
    }

    #[test]
    fn the_configurations_own_rows_hold_for_checks_too() {
        let overrides = Overrides {
            failure: vec!["NOAUTH".into()],
            ignored: vec!["LOADING".into()],
            ..Overrides::default()
        };
        let table = Table::new(&overrides);
        assert_eq!(judge(b"-NOAUTH Authentication required.\r\n", &table), Some(failed("NOAUTH")));
        assert_eq!(judge(b"-LOADING Redis is loading\r\n", &table), Some(Finding::Alive));
    }
}
