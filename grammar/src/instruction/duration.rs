//! Durations as Go writes them: `1h2m3.5s`, `500ms`, `0`.

use std::time::Duration;

/// The unit's name and its nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The duration, or `None` for one that is less than zero.
pub(super) fn parse(text: &str) -> Result<Option<Duration>, &'static str> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err("expected a number and a unit");
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanoseconds, behind) = component(rest)?;
        total = total.checked_add(nanoseconds).filter(|sum| i64::try_from(*sum).is_ok()).ok_or("too long")?;
        rest = behind;
    }
    Ok((!negative || total == 0).then(|| Duration::from_nanos(total)))
}

/// One number with its unit, in nanoseconds, and what follows it.
fn component(text: &str) -> Result<(u64, &str), &'static str> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err("expected a number");
    }
    let unit_end = rest.find(|character: char| character == '.' || character.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, behind) = rest.split_at(unit_end);
    if unit.is_empty() {
        return Err("expected a unit: `h`, `m`, `s`, `ms`, `us` or `ns`");
    }
    let (_, scale) =
        UNITS.iter().find(|(name, _)| *name == unit).ok_or("unknown unit: use `h`, `m`, `s`, `ms`, `us` or `ns`")?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| "too long")? };
    let mut nanoseconds = whole.checked_mul(*scale).ok_or("too long")?;
    let mut place = *scale;
    for digit in fraction.bytes() {
        // exact for every unit: what is below a nanosecond is cut off digit by digit
        place /= 10;
        nanoseconds = nanoseconds.checked_add(u64::from(digit - b'0') * place).ok_or("too long")?;
    }
    Ok((nanoseconds, behind))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("1ns", 1),
            ("500ms", 500_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("2.s", 2_000_000_000),
            ("+3s", 3_000_000_000),
            ("1µs", 1_000),
            ("0.000000001s", 1),
        ] {
            assert_eq!(parse(text), Ok(Some(Duration::from_nanos(nanoseconds))), "{text}");
        }
        assert_eq!(parse("-1s"), Ok(None));
        assert_eq!(parse("-0s"), Ok(Some(Duration::ZERO)));
    }

    #[test]
    fn durations_that_are_none() {
        for text in ["", "-", "30", "1d", "s", ".s", "1 s", "1s ", "99999999999999999999h", "9999999h", "é", "1sm"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
