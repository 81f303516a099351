//! Sizes, times and digests for people.

use jiff::Timestamp;
use maud::{Markup, html};

/// `3.4 MB`, as docker writes sizes.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `3 days ago`, with the exact time behind it.
pub(super) fn age(seconds: i64) -> Markup {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    let exact = time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    html! { time datetime=(time) title=(exact) { (ago(Timestamp::now().as_second().saturating_sub(seconds))) } }
}

/// The time of a document, where it has one that can be read.
pub(super) fn age_of(text: &str) -> Markup {
    match text.parse::<Timestamp>() {
        // What has no clock is dated to the epoch.
        Ok(time) if time.as_second() > 0 => age(time.as_second()),
        Ok(_) => html! { "not recorded" },
        Err(_) => html! { (text) },
    }
}

fn ago(seconds: i64) -> String {
    const UNITS: [(i64, &str); 6] =
        [(31_536_000, "year"), (2_592_000, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let unit = UNITS.into_iter().find(|(length, _)| seconds >= *length);
    match unit {
        None => "just now".to_owned(),
        Some((_, "second")) => "just now".to_owned(),
        Some((length, name)) => {
            let count = seconds / length;
            format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
        }
    }
}

/// `1 tag`, `2 tags`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The first digits of a digest, with all of it behind them.
pub(super) fn digest(text: &str) -> Markup {
    let short: String = text.split_once(':').map_or(text, |(_, hex)| hex).chars().take(12).collect();
    html! { code.digest title=(text) { (short) } }
}

/// What an instruction of a history was, without what shells and builders put around it.
pub(super) fn instruction(created_by: &str) -> String {
    let text = created_by.trim().trim_end_matches("# buildkit").trim_end();
    if let Some((_, rest)) = text.split_once("#(nop)") {
        return rest.trim().to_owned();
    }
    match text.strip_prefix("/bin/sh -c ") {
        Some(rest) => format!("RUN {rest}"),
        None => match text.strip_prefix("RUN /bin/sh -c ") {
            Some(rest) => format!("RUN {rest}"),
            None => text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_960, "10 kB"),
            (999_600, "1.0 MB"),
            (4_321_000_000, "4.3 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [
            (-5, "just now"),
            (0, "just now"),
            (61, "1 minute ago"),
            (7_300, "2 hours ago"),
            (86_400 * 800, "2 years ago"),
        ] {
            assert_eq!(ago(seconds), text);
        }
        assert_eq!((count(1, "tag"), count(0, "tag")), ("1 tag".to_owned(), "0 tags".to_owned()));
    }

    #[test]
    fn instructions_lose_their_wrapping() {
        for (written, shown) in [
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD [\"sh\"]"),
            ("/bin/sh -c apt-get update", "RUN apt-get update"),
            ("RUN /bin/sh -c make # buildkit", "RUN make"),
            ("COPY . . # buildkit", "COPY . ."),
            ("", ""),
        ] {
            assert_eq!(instruction(written), shown);
        }
    }
}
