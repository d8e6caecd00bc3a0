//! Quantities as people write them: durations with a unit, counts, shares, codes.
//!
//! A bare `30` is refused: one program's seconds are the next one's milliseconds, and nobody notices until the
//! day it matters. Absent on purpose: where a value came from; [`super::error`] adds that.

use std::time::Duration;

use super::error::Reason;
use crate::breaker::{Factor, Share, Span};

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
        let range = format!("{} to {}", words(min), words(max));
        return Err(Reason::OutOfRange { value: Reason::quote(text), range });
    }
    Ok(parsed)
}

/// A duration in words: `0s`, `1ms`, `7days`.
pub(super) fn words(span: Duration) -> String {
    humantime::format_duration(span).to_string()
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

/// `0.5` or `50%`; none if it is more than a whole.
///
/// # Errors
/// Not a share. Digits beyond a millionth are refused: they would be lost.
pub(super) fn share(text: &str) -> Result<Option<Share>, Reason> {
    let text = text.trim();
    let not = || Reason::NotAShare { value: Reason::quote(text) };
    let millionths = match text.strip_suffix('%') {
        Some(percent) => decimal(percent.trim_end(), 4),
        None => decimal(text, 6),
    };
    Ok(Share::from_millionths(millionths.ok_or_else(not)?))
}

/// `2` or `1.5`; none if it is below 1 or above `max`.
///
/// # Errors
/// Not a number of at most two decimals.
pub(super) fn factor(text: &str, max: u32) -> Result<Option<Factor>, Reason> {
    let text = text.trim();
    let not = || Reason::NotAFactor { value: Reason::quote(text) };
    let hundredths = decimal(text, 2).ok_or_else(not)?;
    let max = max.saturating_mul(100);
    Ok(Some(hundredths).filter(|&n| n <= max).and_then(Factor::from_hundredths))
}

/// `100calls` or `10s`.
///
/// # Errors
/// A bare number, which might be either; not a window; out of bounds (all included).
pub(super) fn window(text: &str, calls: u32, min: Duration, max: Duration) -> Result<Span, Reason> {
    let text = text.trim();
    if let Some(number) = text.strip_suffix("calls").or_else(|| text.strip_suffix("call")) {
        return count(number, calls).map(Span::Calls).map_err(|reason| match reason {
            Reason::OutOfRange { range, .. } => Reason::OutOfRange { value: Reason::quote(text), range },
            _ => Reason::NotAWindow { value: Reason::quote(text) },
        });
    }
    duration(text, min, max).map(Span::Time).map_err(|reason| match reason {
        Reason::NoUnit { number } => Reason::NoWindowUnit { number },
        Reason::NotADuration { value } => Reason::NotAWindow { value },
        reason => reason,
    })
}

/// A decimal number from zero in units of its `places`th decimal: `1.5` with 2 places is 150. Too large is
/// `u32::MAX`.
fn decimal(text: &str, places: usize) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let part = if part.len() > places { part.trim_end_matches('0') } else { part };
    if !digits(whole) || part.len() > places || !(digits(part) || part.is_empty()) || text.ends_with('.') {
        return None;
    }
    let scaled = format!("{whole}{part:0<places$}");
    Some(scaled.parse().unwrap_or(u32::MAX))
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

/// `SCRIPT|KILL`, `script kill`, `FT.SEARCH` or `FT.*`, in upper case with `|`; none if it is no command's name. A star
/// stands for the rest of a name and is no command by itself.
pub(super) fn redis_command(text: &str) -> Option<String> {
    let mut words = text.split(['|', ' ']);
    let (name, subcommand) = (words.next()?, words.next());
    let is_word = |word: &str| {
        (1..=64).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
    };
    let plain = if subcommand.is_none() { name.strip_suffix('*').unwrap_or(name) } else { name };
    let fits = is_word(plain) && subcommand.is_none_or(is_word) && words.next().is_none();
    fits.then(|| text.replace(' ', "|").to_ascii_uppercase())
}

/// Whether this can be (the beginning of) an SQLSTATE.
pub(super) fn is_sqlstate_prefix(code: &str) -> bool {
    (1..=5).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}
