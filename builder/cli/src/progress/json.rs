//! `--progress=json`: one object per line on standard error, `event` first.

use kiln_build::Request;
use kiln_build::progress::{Event, Stream};
use serde_json::json;

use super::{Painter, Source, Transfer};
use crate::failure::tell;

pub(super) struct Json {
    source: Source,
}

impl Json {
    pub(super) fn new(request: &Request) -> Self {
        Self { source: Source::of(request) }
    }
}

impl Painter for Json {
    fn event(&self, event: Event<'_>) {
        let value = match event {
            Event::Started(id, name) => json!({"event": "started", "vertex": id, "name": name}),
            Event::Cached(id) => json!({"event": "cached", "vertex": id}),
            Event::Missed(id, why) => json!({"event": "missed", "vertex": id, "reason": why}),
            Event::Output(id, stream, bytes) => {
                let stream = if stream == Stream::Stdout { "stdout" } else { "stderr" };
                json!({"event": "output", "vertex": id, "stream": stream, "text": String::from_utf8_lossy(bytes)})
            }
            Event::Done(id, time) => json!({"event": "done", "vertex": id, "seconds": time.as_secs_f64()}),
            Event::Failed(id, error) => json!({"event": "failed", "vertex": id, "error": error}),
            Event::Planned(_) => return,
            Event::Layer(id, bytes) => json!({"event": "layer", "vertex": id, "bytes": bytes}),
            Event::Warning(diagnostic) => {
                let text = self.source.render(diagnostic, false);
                json!({"event": "warning", "message": diagnostic.message, "text": text})
            }
            Event::Note(text) => json!({"event": "note", "text": text}),
            Event::Image(id) => json!({"event": "image", "id": id.to_string()}),
            Event::Named(name) => json!({"event": "named", "name": name.to_string()}),
        };
        tell(&format!("{value}\n"));
    }

    fn transfer(&self, transfer: Transfer<'_>) {
        let value = match transfer {
            Transfer::Begin { blob, size, already_there } => {
                json!({"event": "blob", "digest": blob.to_string(), "size": size, "exists": already_there})
            }
            Transfer::Finish { blob } => json!({"event": "blob-done", "digest": blob.to_string()}),
            Transfer::Advance { .. } => return,
        };
        tell(&format!("{value}\n"));
    }
}
