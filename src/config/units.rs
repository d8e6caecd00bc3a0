//! Quantities as people write them: durations with a unit, counts, codes.
//!
//! A bare `30` is refused: one program's seconds are the next one's milliseconds, and nobody notices until the
//! day it matters. Absent on purpose: where a value came from; [`super::error`] adds that.

use std::time::Duration;

use super::error::Reason;
use super::settings::Setting;

/// `250ms`, `30s`, `1m30s`, `1.5h`.
///
/// # Errors
/// No unit, not a duration, or out of bounds (both included).
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, Reason> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Reason::NoUnit { number: Reason::quote(text) });
    }
    let parsed =
        humantime::parse_duration(text).map_err(|_| Reason::NotADuration { value: Reason::quote(text) })?;
    if parsed < min || parsed > max {
        let range = format!("{} to {}", Setting::words(min), Setting::words(max));
        return Err(Reason::OutOfRange { value: Reason::quote(text), range });
    }
    Ok(parsed)
}

/// A whole number from 1 to `max`.
///
/// # Errors
/// Not a number, or out of bounds.
pub(super) fn count(text: &str, max: u32) -> Result<u32, Reason> {
    let text = text.trim();
    let out_of_range = || Reason::OutOfRange { value: Reason::quote(text), range: format!("1 to {max}") };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reason::NotANumber { value: Reason::quote(text) });
    }
    text.parse().ok().filter(|n| (1..=max).contains(n)).ok_or_else(out_of_range)
}

/// Codes joined by `+` or `|`; empty text is an empty list.
pub(super) fn codes(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(['+', '|']).map(|code| code.trim().to_owned()).collect()
}

/// Whether this can be (the beginning of) the first word of a Redis error: printable, no blank.
pub(super) fn is_redis_code(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_graphic()) && !code.starts_with('-')
}

/// Whether this can be (the beginning of) an SQLSTATE.
pub(super) fn is_sqlstate_prefix(code: &str) -> bool {
    (1..=5).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}
