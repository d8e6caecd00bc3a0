//! The line that both directions count by: a type byte, a strict decimal, CRLF.

/// Digits of a length; one more could overflow, and no server accepts as much.
const DIGITS_MAX: usize = 18;

/// A length line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// The line has not ended yet; it cannot be longer than 22 bytes.
    Partial,
    /// The value, and the length of the line with its type byte and its CRLF.
    Good { value: i64, len: usize },
    /// No strict decimal, or no CRLF behind it.
    Bad,
}

/// Reads `<type><strict decimal>\r\n`: no leading zero, no plus sign, no blank, as Redis's `string2ll`.
#[inline]
pub(super) fn number(input: &[u8]) -> Number {
    match short(input) {
        Some((value, len)) => Number::Good { value: i64::from(value), len },
        None => any(input),
    }
}

/// A line of one to four digits, which most are: no loop, and a third of the instructions. The value, and the length of the
/// line.
#[inline]
fn short(input: &[u8]) -> Option<(u16, usize)> {
    let digit = |byte: u8| u16::from(byte - b'0');
    match *input {
        [_, a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a), 4)),
        [_, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a) * 10 + digit(b), 5)),
        [_, a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 6))
        }
        [_, a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', d @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((digit(a) * 1000 + digit(b) * 100 + digit(c) * 10 + digit(d), 7))
        }
        _ => None,
    }
}

/// The length of the string that `input` begins with, from its type byte to its CRLF, if it is whole and has fewer than ten
/// thousand bytes: what keys and most values are. Any other is for somebody else to read.
#[inline]
pub(super) fn short_string(input: &[u8]) -> Option<usize> {
    let (length, from) = short(input)?;
    let end = from + usize::from(length);
    matches!(input.get(end..), Some([b'\r', b'\n', ..])).then_some(end + 2)
}

/// Any line.
fn any(input: &[u8]) -> Number {
    let mut digits = input.get(1..).unwrap_or_default();
    let negative = digits.first() == Some(&b'-');
    if negative {
        digits = digits.get(1..).unwrap_or_default();
    }
    let mut value: i64 = 0;
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < DIGITS_MAX => value = value * 10 + i64::from(byte - b'0'),
            b'\r' => {
                let padded = digits.first() == Some(&b'0') && (at > 1 || negative);
                if at == 0 || padded {
                    return Number::Bad;
                }
                return match digits.get(at + 1) {
                    None => Number::Partial,
                    Some(b'\n') => Number::Good {
                        value: if negative { -value } else { value },
                        len: at + 3 + usize::from(negative),
                    },
                    Some(_) => Number::Bad,
                };
            }
            _ => return Number::Bad,
        }
    }
    Number::Partial
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of up to six bytes behind the type, of each kind of byte that matters.
    #[test]
    fn a_short_line_reads_as_any_other() {
        const BYTES: &[u8] = b"059-\r\nx";
        let mut lines = vec![b"$".to_vec()];
        let mut read = 0;
        while let Some(line) = lines.pop() {
            if let Some((value, len)) = short(&line) {
                let short = Number::Good { value: value.into(), len };
                assert_eq!(short, any(&line), "{}", line.escape_ascii());
                read += 1;
            }
            if line.len() < 7 {
                lines.extend(BYTES.iter().map(|byte| [&line[..], &[*byte]].concat()));
            }
        }
        // Of three digits one may be anything and the first of several not 0; behind CRLF there may be what fits.
        let behind = |bytes: u32| (0..=bytes).map(|n| 7usize.pow(n)).sum::<usize>();
        assert_eq!(read, 3 * behind(3) + 6 * behind(2) + 18 * behind(1) + 54 * behind(0));
    }

    #[test]
    fn a_short_string_is_whole() {
        assert_eq!(short_string(b"$3\r\nabc\r\n"), Some(9));
        assert_eq!(short_string(b"$0\r\n\r\n$"), Some(6));
        for other in
            ["$3\r\nabc\r", "$3\r\nabc", "$3\r\nab\r\n", "$2\r\nabc\r\n", "$-1\r\n", "$03\r\nabc\r\n"]
        {
            assert_eq!(short_string(other.as_bytes()), None, "{other:?}");
        }
        let long = format!("$9999\r\n{}\r\n", "x".repeat(9999));
        assert_eq!(short_string(long.as_bytes()), Some(long.len()));
    }
}
