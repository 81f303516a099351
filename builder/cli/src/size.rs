//! Sizes as docker writes them: three digits in powers of 1000, memory four in powers of 1024.

const DECIMAL: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
/// What rounds to one more digit before the point.
const LONGER: [f64; 3] = [9.995, 99.95, 999.5];

/// `1234567` is `1.23MB`.
pub(crate) fn human(bytes: u64) -> String {
    // What rounds to 1000 is one of the next unit.
    write(bytes, (1000.0, 999.5), 3, &DECIMAL)
}

/// `1500000` is `1.431MiB`.
pub(crate) fn binary(bytes: u64) -> String {
    write(bytes, (1024.0, 1024.0), 4, &BINARY)
}

/// Divides by `base` while there is at least `next` of a unit, and shows so many digits.
fn write(bytes: u64, (base, next): (f64, f64), digits: usize, units: &[&str]) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a few digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= next && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let decimals = digits - 1 - LONGER[..digits - 1].iter().filter(|longer| value >= **longer).count();
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + units[unit]
}

#[cfg(test)]
mod tests {
    use super::{binary, human};

    #[test]
    fn three_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (77_800_000, "77.8MB"),
            (123_456_789, "123MB"),
            (999_900, "1MB"),
            (99_960, "100kB"),
            (9_996, "10kB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn memory_in_powers_of_1024() {
        let cases =
            [(0, "0B"), (1024, "1KiB"), (1_500_000, "1.431MiB"), (64 << 20, "64MiB"), (25_000_000_000, "23.28GiB")];
        for (bytes, text) in cases {
            assert_eq!(binary(bytes), text);
        }
    }
}
