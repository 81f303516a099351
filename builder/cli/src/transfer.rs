//! How pull and push show what moves: bars on a terminal, lines elsewhere, nothing when quiet.

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln_image::registry::TransferProgress;
use kiln_store::Digest;

use crate::images::SHORT_ID;

/// The words for a direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    begin: &'static str,
    moving: &'static str,
    there: &'static str,
    done: &'static str,
}

/// What docker says when it pulls.
pub(crate) const PULL: Words =
    Words { begin: "Pulling fs layer", moving: "Downloading", there: "Already exists", done: "Pull complete" };
/// What docker says when it pushes.
pub(crate) const PUSH: Words =
    Words { begin: "Pushing", moving: "Pushing", there: "Layer already exists", done: "Pushed" };
/// What skopeo says when it copies.
pub(crate) const COPY: Words =
    Words { begin: "Copying blob", moving: "Copying blob", there: "Already exists", done: "Copied" };

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// When the transfer is what the command is about.
    Stdout,
    /// When the standard output belongs to something else, such as a container.
    Stderr,
}

/// Shows a transfer.
pub(crate) struct Display {
    words: Words,
    stream: Stream,
    bars: Option<MultiProgress>,
    quiet: bool,
    blobs: Mutex<HashMap<Digest, ProgressBar>>,
    /// What did not move: nothing is said of its end.
    there: Mutex<HashSet<Digest>>,
}

impl Display {
    pub(crate) fn new(words: Words, stream: Stream, quiet: bool) -> Self {
        let (terminal, target) = match stream {
            Stream::Stdout => (io::stdout().is_terminal(), ProgressDrawTarget::stdout()),
            Stream::Stderr => (io::stderr().is_terminal(), ProgressDrawTarget::stderr()),
        };
        let bars = (terminal && !quiet).then(|| MultiProgress::with_draw_target(target));
        Self { words, stream, bars, quiet, blobs: Mutex::default(), there: Mutex::default() }
    }

    fn line(&self, blob: &Digest, words: &str) {
        if !self.quiet {
            // A reader that went away is noticed when the result is printed.
            let _ = match self.stream {
                Stream::Stdout => writeln!(io::stdout().lock(), "{}: {words}", short(blob)),
                Stream::Stderr => writeln!(io::stderr().lock(), "{}: {words}", short(blob)),
            };
        }
    }

    fn bar(&self, blob: &Digest) -> Option<ProgressBar> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).get(blob).cloned()
    }
}

fn short(blob: &Digest) -> String {
    blob.hex().chars().take(SHORT_ID).collect()
}

impl TransferProgress for Display {
    fn begin(&self, blob: &Digest, size: u64, already_there: bool) {
        let words = if already_there { self.words.there } else { self.words.begin };
        if already_there {
            self.there.lock().unwrap_or_else(PoisonError::into_inner).insert(*blob);
        }
        let Some(bars) = &self.bars else { return self.line(blob, words) };
        let style = ProgressStyle::with_template("{prefix}: {msg:16} {wide_bar} {bytes:>10}/{total_bytes}");
        let bar = ProgressBar::new(size).with_prefix(short(blob)).with_message(words);
        let bar = bars.add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        if already_there {
            bar.set_style(ended());
            bar.finish();
        }
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).insert(*blob, bar);
    }

    fn advance(&self, blob: &Digest, bytes: u64) {
        if let Some(bar) = self.bar(blob) {
            if bar.position() == 0 {
                bar.set_message(self.words.moving);
            }
            bar.inc(bytes);
        }
    }

    fn finish(&self, blob: &Digest) {
        if self.there.lock().unwrap_or_else(PoisonError::into_inner).contains(blob) {
            return;
        }
        match self.bar(blob) {
            Some(bar) => {
                bar.set_style(ended());
                bar.finish_with_message(self.words.done);
            }
            None => self.line(blob, self.words.done),
        }
    }
}

fn ended() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}
