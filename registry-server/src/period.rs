//! Lengths of time as people write them: `90s`, `30m`, `1h 30m`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time; in a configuration it is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// So many seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// So many hours.
    pub const fn hours(count: u64) -> Self {
        Self::seconds(count * 60 * 60)
    }

    /// So many days of 24 hours.
    pub const fn days(count: u64) -> Self {
        Self::hours(count * 24)
    }

    /// In whole seconds.
    pub(crate) fn as_seconds(self) -> i64 {
        i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = |reason: String| format!("{text:?} is no length of time such as 90s, 1h or 7d: {reason}");
        let span: Span = text.parse().map_err(|error: jiff::Error| invalid(error.to_string()))?;
        let length =
            span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| invalid(error.to_string()))?;
        Duration::try_from(length).map(Self).map_err(|_| invalid("it is negative".to_owned()))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")]
            .into_iter()
            .find(|(unit, _)| seconds.is_multiple_of(*unit))
        {
            Some((unit, name)) if seconds > 0 => write!(f, "{}{name}", seconds / unit),
            _ => write!(f, "{seconds}s"),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_lengths_of_time() {
        for (text, seconds, shown) in
            [("90s", 90, "90s"), ("2m", 120, "2m"), ("1h 30m", 5_400, "90m"), ("7d", 604_800, "7d"), ("0s", 0, "0s")]
        {
            let period: Period = text.parse().unwrap();
            assert_eq!((period, period.to_string()), (Period::seconds(seconds), shown.to_owned()));
        }
        for text in ["", "7", "-1h", "a week", "1 month"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
