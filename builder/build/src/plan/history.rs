//! The `created_by` text of each instruction, as BuildKit writes it: image scanners and `history` readers parse it.

use kiln_image::config::Healthcheck;

/// What history's comment says of lines made from a Dockerfile.
pub(super) const COMMENT: &str = "buildkit.dockerfile.v0";

/// RUN, COPY and ADD carry this mark; WORKDIR does not.
pub(super) const LAYER_MARK: &str = " # buildkit";

/// `["a" "b"]`: Go's `%q` of a list of strings.
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Go's `%q` of a string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\x0b' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// HEALTHCHECK's line: Go's `%q` of docker's structure.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    let test = quoted_list(check.test.as_deref().unwrap_or_default());
    let times = [check.interval, check.timeout, check.start_period, check.start_interval];
    let times: Vec<String> = times.iter().map(|&nanoseconds| quoted(&go_duration(nanoseconds))).collect();
    format!("HEALTHCHECK &{{{test} {} {}}}", times.join(" "), quoted_number(check.retries))
}

/// Go's `%q` of an integer: a character literal.
fn quoted_number(number: i64) -> String {
    match u32::try_from(number).ok().and_then(char::from_u32) {
        Some('\'') => "'\\''".to_owned(),
        Some('\\') => "'\\\\'".to_owned(),
        Some('\n') => "'\\n'".to_owned(),
        Some('\t') => "'\\t'".to_owned(),
        Some('\r') => "'\\r'".to_owned(),
        Some('\x07') => "'\\a'".to_owned(),
        Some('\x08') => "'\\b'".to_owned(),
        Some('\x0b') => "'\\v'".to_owned(),
        Some('\x0c') => "'\\f'".to_owned(),
        Some(c) if (c as u32) < 0x20 || c == '\x7f' => format!("'\\x{:02x}'", c as u32),
        Some(c) => format!("'{c}'"),
        None => "'\u{fffd}'".to_owned(),
    }
}

/// `1h2m3.5s`, as Go prints durations.
fn go_duration(nanoseconds: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if nanoseconds < SECOND {
        let (unit, scale) = match nanoseconds {
            n if n < 1_000 => ("ns", 1),
            n if n < 1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanoseconds, scale));
    }
    let (hours, minutes) = (nanoseconds / (3600 * SECOND), nanoseconds / (60 * SECOND) % 60);
    let seconds = decimal(nanoseconds % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: i64, scale: i64) -> String {
    let (whole, rest) = (value / scale, value % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_formats() {
        assert_eq!(go_duration(300_000_000_000), "5m0s");
        assert_eq!(go_duration(1_500_000_000), "1.5s");
        assert_eq!(go_duration(3_723_000_000_000), "1h2m3s");
        assert_eq!(go_duration(1_500_000), "1.5ms");
        assert_eq!(quoted_list(&["sh".to_owned(), "a \"b\"".to_owned()]), r#"["sh" "a \"b\""]"#);
        assert_eq!(quoted_number(3), "'\\x03'");
        assert_eq!(quoted_number(48), "'0'");
    }
}
