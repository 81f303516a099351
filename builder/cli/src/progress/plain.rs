//! `#3 [2/4] RUN make` … `#3 1.204 text` … `#3 DONE 2.1s`: the lines that readers of docker's log know.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use kiln_build::Request;
use kiln_build::progress::{Event, VertexId};

use super::{Painter, Source, Transfer};
use crate::failure::tell;

pub(super) struct Plain {
    source: Source,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where lines go, if not to standard error.
    file: Option<File>,
    /// Number, begin, and the unfinished last line of each vertex.
    steps: HashMap<VertexId, Step>,
    count: usize,
}

struct Step {
    number: usize,
    begun: Instant,
    rest: Vec<u8>,
}

/// A line longer than this is printed in pieces.
const LONGEST_LINE: usize = 16 * 1024;

impl Plain {
    pub(super) fn new(request: &Request) -> Self {
        Self { source: Source::of(request), state: Mutex::default() }
    }

    pub(super) fn to_file(file: File, request: &Request) -> Self {
        let state = State { file: Some(file), ..State::default() };
        Self { source: Source::of(request), state: Mutex::new(state) }
    }
}

impl State {
    fn tell(&mut self, text: &str) {
        match &mut self.file {
            // As with a terminal that is gone, a full disk does not end the build.
            Some(file) => drop(file.write_all(text.as_bytes())),
            None => tell(text),
        }
    }

    fn start(&mut self, id: VertexId, name: &str) {
        self.count += 1;
        self.tell(&format!("#{} {name}\n", self.count));
        self.steps.insert(id, Step { number: self.count, begun: Instant::now(), rest: Vec::new() });
    }

    fn say(&mut self, id: VertexId, text: &str) {
        if let Some(step) = self.steps.get_mut(&id) {
            let mut lines = String::new();
            if !step.rest.is_empty() {
                let rest = std::mem::take(&mut step.rest);
                lines = step.line(&rest);
            }
            let number = step.number;
            self.tell(&format!("{lines}#{number} {text}\n"));
        }
    }

    fn output(&mut self, id: VertexId, bytes: &[u8]) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        step.rest.extend_from_slice(bytes);
        let mut lines = String::new();
        let mut from = 0;
        while let Some(end) = step.rest[from..].iter().position(|&byte| byte == b'\n') {
            lines.push_str(&step.line(&step.rest[from..from + end]));
            from += end + 1;
        }
        step.rest.drain(..from);
        if step.rest.len() > LONGEST_LINE {
            let rest = std::mem::take(&mut step.rest);
            lines.push_str(&step.line(&rest));
        }
        self.tell(&lines);
    }
}

impl Step {
    fn line(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        format!("#{} {:.3} {}\n", self.number, self.begun.elapsed().as_secs_f64(), text.trim_end_matches('\r'))
    }
}

impl Painter for Plain {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started(id, name) => state.start(id, name),
            Event::Cached(id) => state.say(id, "CACHED"),
            Event::Missed(id, why) => state.say(id, &format!("not cached: {why}")),
            Event::Output(id, _, bytes) => state.output(id, bytes),
            Event::Done(id, time) => state.say(id, &format!("DONE {:.1}s", time.as_secs_f64())),
            Event::Failed(id, error) => state.say(id, &format!("ERROR: {error}")),
            Event::Warning(diagnostic) => {
                state.tell(&format!("{}\n", self.source.render(diagnostic, false).trim_end()));
            }
            Event::Planned(_) | Event::Layer(..) => {}
            Event::Note(text) => state.tell(&format!("{text}\n")),
            Event::Image(id) => {
                state.count += 1;
                let count = state.count;
                state.tell(&format!("#{count} exporting to image\n#{count} writing image {id} done\n"));
            }
            Event::Named(name) => {
                let count = state.count;
                state.tell(&format!("#{count} naming to {name} done\n"));
            }
        }
    }

    fn transfer(&self, transfer: Transfer<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match transfer {
            Transfer::Begin { blob, already_there: true, .. } => state.tell(&format!("   {blob} already exists\n")),
            Transfer::Begin { blob, size, .. } => state.tell(&format!("   {blob} {size} bytes\n")),
            Transfer::Finish { blob } => state.tell(&format!("   {blob} done\n")),
            Transfer::Advance { .. } => {}
        }
    }
}
