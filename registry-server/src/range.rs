//! Byte ranges: what a `Range` header asks of a blob, and what a `Content-Range` header says of an upload's chunk.

/// Bytes from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What a `Range` header means for content of a known size (RFC 9110, section 14).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    /// All of it: no range, or one that is ignored (another unit, several ranges).
    All,
    /// That part.
    Part(ByteRange),
    /// Nothing that the content has.
    Unsatisfiable,
}

impl Requested {
    /// Reads the header's value for content of `size` bytes.
    pub(crate) fn parse(header: &str, size: u64) -> Self {
        let Some(ranges) = header.trim().strip_prefix("bytes=") else { return Self::All };
        let Some((first, last)) = ranges.trim().split_once('-') else { return Self::Unsatisfiable };
        if ranges.contains(',') {
            return Self::All;
        }
        let part = match (first, last) {
            ("", suffix) => number(suffix).map(|suffix| (size.saturating_sub(suffix), size)),
            (first, "") => number(first).map(|first| (first, size)),
            (first, last) => match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Some((first, last.saturating_add(1).min(size))),
                _ => None,
            },
        };
        match part {
            Some((start, end)) if start < end => Self::Part(ByteRange { start, end }),
            _ => Self::Unsatisfiable,
        }
    }
}

impl ByteRange {
    pub(crate) fn length(self) -> u64 {
        self.end - self.start
    }

    /// A chunk's `Content-Range`: `<first>-<last>`, both inclusive; clients also write it `bytes <first>-<last>/<size>`.
    pub(crate) fn parse_content_range(header: &str) -> Option<Self> {
        let range = header.trim();
        let range = range.strip_prefix("bytes").map_or(range, |rest| rest.trim_start_matches([' ', '=']));
        let range = range.split_once('/').map_or(range, |(range, _)| range);
        let (first, last) = range.split_once('-')?;
        let (start, last) = (number(first)?, number(last)?);
        let end = last.checked_add(1)?;
        (start < end).then_some(Self { start, end })
    }
}

/// Decimal digits only: no sign, no spaces.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_2048_bytes() {
        let part = |start, end| Requested::Part(ByteRange { start, end });
        for (header, expected) in [
            ("bytes=500-1499", part(500, 1500)),
            ("bytes=500-", part(500, 2048)),
            ("bytes=-500", part(1548, 2048)),
            ("bytes=-5000", part(0, 2048)),
            ("bytes=2000-5000", part(2000, 2048)),
            ("bytes=0-18446744073709551615", part(0, 2048)),
            ("bytes=500-0", Requested::Unsatisfiable),
            ("bytes=5000-10000", Requested::Unsatisfiable),
            ("bytes=2048-", Requested::Unsatisfiable),
            ("bytes=-0", Requested::Unsatisfiable),
            ("bytes=-", Requested::Unsatisfiable),
            ("bytes=", Requested::Unsatisfiable),
            ("bytes=+1-2", Requested::Unsatisfiable),
            ("bytes=99999999999999999999-", Requested::Unsatisfiable),
            ("bytes=0-1,3-4", Requested::All),
            ("lines=0-1", Requested::All),
        ] {
            assert_eq!(Requested::parse(header, 2048), expected, "{header}");
        }
        assert_eq!(Requested::parse("bytes=0-", 0), Requested::Unsatisfiable);
    }

    #[test]
    fn content_ranges() {
        let range = ByteRange { start: 5, end: 10 };
        for header in ["5-9", "bytes 5-9/100", "bytes=5-9", "bytes 5-9/*"] {
            assert_eq!(ByteRange::parse_content_range(header), Some(range), "{header}");
        }
        for header in ["", "5", "5-", "-9", "9-5", "a-b", "0-18446744073709551615", "5-9-10"] {
            assert_eq!(ByteRange::parse_content_range(header), None, "{header}");
        }
    }
}
