//! A live screen: a line per running step with its last output, finished steps above.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln_build::Request;
use kiln_build::progress::{Event, VertexId};
use kiln_store::Digest;

use super::{Painter, Source, Transfer};

pub(super) struct Live {
    source: Source,
    screen: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: HashMap<VertexId, (ProgressBar, String)>,
    blobs: HashMap<Digest, ProgressBar>,
}

impl Live {
    pub(super) fn new(request: &Request) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { source: Source::of(request), screen, state: Mutex::default() }
    }

    fn line(&self, text: &str) {
        // A screen that cannot be drawn on is not worth failing a build for.
        let _ = self.screen.println(text);
    }

    fn start(&self, state: &mut State, id: VertexId, name: &str) {
        let bar = self.screen.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed:>4}  {wide_msg:.dim}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        state.steps.insert(id, (bar, name.to_owned()));
    }

    fn end(&self, state: &mut State, id: VertexId, mark: &str, note: &str) {
        if let Some((bar, name)) = state.steps.remove(&id) {
            bar.finish_and_clear();
            self.line(format!("{mark} {name}  {note}").trim_end());
        }
    }
}

impl Painter for Live {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started(id, name) => self.start(&mut state, id, name),
            Event::Cached(id) => self.end(&mut state, id, "✓", "CACHED"),
            Event::Done(id, time) => self.end(&mut state, id, "✓", &format!("{:.1}s", time.as_secs_f64())),
            Event::Failed(id, error) => self.end(&mut state, id, "✗", error),
            Event::Missed(id, why) => {
                if let Some((bar, _)) = state.steps.get(&id) {
                    bar.set_message(format!("not cached: {why}"));
                }
            }
            Event::Output(id, _, bytes) => {
                if let Some((bar, _)) = state.steps.get(&id) {
                    let text = String::from_utf8_lossy(bytes);
                    let last = text.lines().rev().find(|line| !line.trim().is_empty());
                    bar.set_message(last.unwrap_or_default().trim().to_owned());
                }
            }
            Event::Warning(diagnostic) => self.line(self.source.render(diagnostic, true).trim_end()),
            Event::Planned(_) | Event::Layer(..) => {}
            Event::Note(text) => self.line(text),
            Event::Image(id) => self.line(&format!("✓ image {id}")),
            Event::Named(name) => self.line(&format!("✓ named {name}")),
        }
    }

    fn transfer(&self, transfer: Transfer<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match transfer {
            Transfer::Begin { already_there: true, .. } => {}
            Transfer::Begin { blob, size, .. } => {
                let bar = self.screen.add(ProgressBar::new(size));
                if let Ok(style) = ProgressStyle::with_template("  {prefix} [{bar:30}] {bytes}/{total_bytes}") {
                    bar.set_style(style);
                }
                bar.set_prefix(blob.hex().chars().take(12).collect::<String>());
                state.blobs.insert(*blob, bar);
            }
            Transfer::Advance { blob, bytes } => {
                if let Some(bar) = state.blobs.get(blob) {
                    bar.inc(bytes);
                }
            }
            Transfer::Finish { blob } => {
                if let Some(bar) = state.blobs.remove(blob) {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn finish(&self) {
        // Nothing of a failed build's running lines stays on the screen.
        let _ = self.screen.clear();
    }
}
