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
    short(input).unwrap_or_else(|| any(input))
}

/// A line of one or two digits, which most are: no loop, and a quarter of the instructions.
#[inline]
fn short(input: &[u8]) -> Option<Number> {
    let (value, len) = match *input {
        [_, ones @ b'0'..=b'9', b'\r', b'\n', ..] => (ones - b'0', 4),
        [_, tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
            ((tens - b'0') * 10 + (ones - b'0'), 5)
        }
        _ => return None,
    };
    Some(Number::Good { value: i64::from(value), len })
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

    /// Every line of up to five bytes behind the type, of each kind of byte that matters.
    #[test]
    fn a_short_line_reads_as_any_other() {
        const BYTES: &[u8] = b"0159-\r\n+ x";
        let mut lines = vec![b"$".to_vec()];
        let mut read = 0;
        while let Some(line) = lines.pop() {
            if let Some(short) = short(&line) {
                assert_eq!(short, any(&line), "{}", line.escape_ascii());
                read += 1;
            }
            if line.len() < 6 {
                lines.extend(BYTES.iter().map(|byte| [&line[..], &[*byte]].concat()));
            }
        }
        // One digit of four and up to two bytes of ten behind it, or two digits, the first not 0, and one byte at most.
        assert_eq!(read, 4 * (1 + 10 + 100) + 3 * 4 * (1 + 10));
    }
}
