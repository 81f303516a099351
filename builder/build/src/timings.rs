//! `--timings`: one page that needs nothing else, with the steps on a time axis, the critical path, and the DAG.

mod chart;
mod graph;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::progress::VertexId;
use crate::recording::{Recording, Step};

const STYLE: &str = include_str!("timings/page.css");

/// What the page is drawn from.
struct Drawn {
    steps: BTreeMap<VertexId, Step>,
    critical: Vec<VertexId>,
    total: Duration,
}

/// The page. `title` is what was built.
pub fn page(recording: &Recording, title: &str) -> String {
    let steps = recording.steps();
    let total = steps.values().filter_map(|step| step.ended).max().unwrap_or_default().max(Duration::from_millis(1));
    let drawn = Drawn { critical: recording.critical_path(), total, steps };
    let title = escape(title);
    let mut out = String::new();
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}: build timings</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}\
         <h2>Time</h2>\n{}<h2>Steps and what they need</h2>\n{}<h2>Details</h2>\n{}</body>\n</html>\n",
        summary(&drawn),
        chart::draw(&drawn),
        graph::draw(&drawn),
        table(&drawn)
    );
    out
}

fn summary(drawn: &Drawn) -> String {
    let cached = drawn.steps.values().filter(|step| step.cached).count();
    let bytes: u64 = drawn.steps.values().filter_map(|step| step.bytes).sum();
    let busy: Duration = drawn.steps.values().map(duration).sum();
    let facts = [
        (seconds(drawn.total), "in all"),
        (drawn.steps.len().to_string(), "steps"),
        (cached.to_string(), "from the cache"),
        (human(bytes), "in new layers"),
        (format!("{:.1}×", busy.as_secs_f64() / drawn.total.as_secs_f64()), "steps at once, on average"),
    ];
    let mut out = "<ul class=\"facts\">\n".to_owned();
    for (value, label) in facts {
        let _ = writeln!(out, "<li><b>{value}</b> {label}</li>");
    }
    out.push_str(
        "</ul>\n<p class=\"legend\"><span class=\"key ran\"></span> done <span class=\"key critical\"></span> done, on \
         the critical path <span class=\"key cached\"></span> from the cache <span class=\"key failed\"></span> failed</p>\n",
    );
    out
}

fn table(drawn: &Drawn) -> String {
    let mut out = "<table>\n<tr><th>Step</th><th class=\"number\">Begun</th><th class=\"number\">Took</th>\
                   <th class=\"number\">Layer</th><th>Why</th></tr>\n"
        .to_owned();
    for (id, step) in &drawn.steps {
        let why = match (&step.error, &step.reason, step.cached) {
            (Some(error), ..) => format!("failed: {error}"),
            (_, Some(reason), _) => reason.clone(),
            (_, _, true) => "cached".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "<tr class=\"{}\"><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td>{}</td></tr>",
            drawn.class(*id),
            escape(&step.name),
            seconds(step.begun),
            seconds(duration(step)),
            step.bytes.map(human).unwrap_or_default(),
            escape(&why)
        );
    }
    out + "</table>\n"
}

impl Drawn {
    /// How a step is coloured.
    fn class(&self, id: VertexId) -> &'static str {
        match &self.steps[&id] {
            step if step.error.is_some() => "failed",
            step if step.cached => "cached",
            _ if self.critical.contains(&id) => "critical",
            _ => "ran",
        }
    }
}

fn duration(step: &Step) -> Duration {
    step.ended.unwrap_or(step.begun).saturating_sub(step.begun)
}

/// `1.23 s`, `45 ms`.
fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        time if time >= 1.0 => format!("{time:.2} s"),
        time => format!("{:.0} ms", time * 1000.0),
    }
}

fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// For text and attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// The beginning of a text, for a narrow place.
fn shorten(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}
