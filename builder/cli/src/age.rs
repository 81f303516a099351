//! How long ago something was, as docker says it.

use jiff::Timestamp;

/// `2 minutes ago`; `N/A` for a time that is not known.
pub(crate) fn since(created: Option<&str>, now: Timestamp) -> String {
    let Some(created) = created.and_then(|text| text.parse::<Timestamp>().ok()) else { return "N/A".to_owned() };
    format!("{} ago", duration(now.as_second().saturating_sub(created.as_second())))
}

/// A duration in seconds, in its largest unit.
pub(crate) fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, everything else is cut off.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_counts() {
        let hour = 3600;
        let day = 24 * hour;
        let cases = [
            (-5, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (hour, "About an hour"),
            (2 * hour, "2 hours"),
            (47 * hour, "47 hours"),
            (2 * day, "2 days"),
            (14 * day, "2 weeks"),
            (60 * day, "2 months"),
            (730 * day, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(since(None, Timestamp::UNIX_EPOCH), "N/A");
        assert_eq!(since(Some("1970-01-01T00:00:00Z"), Timestamp::from_second(120).expect("time")), "2 minutes ago");
    }
}
