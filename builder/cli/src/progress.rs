//! Drawing what a build says: plain lines, a live screen, JSON lines, or nothing.

mod json;
mod live;
mod plain;

use std::io::IsTerminal;

use kiln_build::Request;
use kiln_build::progress::{Event, Reporter};
use kiln_build::recording::Recording;
use kiln_image::registry::TransferProgress;
use kiln_store::Digest;

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// A live screen on a terminal, plain lines elsewhere
    Auto,
    /// Plain lines
    Plain,
    /// A live screen
    Tty,
    /// One JSON object per line
    #[value(alias = "rawjson")]
    Json,
    /// Nothing
    Quiet,
}

/// What draws.
trait Painter: Send + Sync {
    fn event(&self, event: Event<'_>);
    fn transfer(&self, transfer: Transfer<'_>);
    fn finish(&self) {}
}

/// What happens to a blob.
enum Transfer<'a> {
    Begin { blob: &'a Digest, size: u64, already_there: bool },
    Advance { blob: &'a Digest, bytes: u64 },
    Finish { blob: &'a Digest },
}

/// The screen of one build.
pub(crate) struct Screen {
    painter: Option<Box<dyn Painter>>,
    /// What happened, for whoever asks afterwards.
    pub(crate) recording: Recording,
}

impl Screen {
    /// Chooses who draws. The request gives warnings their source.
    pub(crate) fn new(mode: Mode, request: &Request) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let painter: Option<Box<dyn Painter>> = match mode {
            Mode::Quiet => None,
            Mode::Json => Some(Box::new(json::Json::new(request))),
            Mode::Tty => Some(Box::new(live::Live::new(request))),
            Mode::Auto if terminal => Some(Box::new(live::Live::new(request))),
            Mode::Auto | Mode::Plain => Some(Box::new(plain::Plain::new(request))),
        };
        Self { painter, recording: Recording::default() }
    }

    /// Plain lines into a file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn to_file(path: &std::path::Path, request: &Request) -> anyhow::Result<Self> {
        use anyhow::Context;
        let file = std::fs::File::create(path).with_context(|| format!("write the log to {}", path.display()))?;
        Ok(Self { painter: Some(Box::new(plain::Plain::to_file(file, request))), recording: Recording::default() })
    }

    /// Leaves the terminal as it should be.
    pub(crate) fn finish(&self) {
        if let Some(painter) = &self.painter {
            painter.finish();
        }
    }

    fn transfer(&self, transfer: Transfer<'_>) {
        if let Some(painter) = &self.painter {
            painter.transfer(transfer);
        }
    }
}

impl Reporter for Screen {
    fn event(&self, event: Event<'_>) {
        self.recording.event(&event);
        if let Some(painter) = &self.painter {
            painter.event(event);
        }
    }

    fn transfers(&self) -> &dyn TransferProgress {
        self
    }
}

impl TransferProgress for Screen {
    fn begin(&self, blob: &Digest, size: u64, already_there: bool) {
        self.transfer(Transfer::Begin { blob, size, already_there });
    }

    fn advance(&self, blob: &Digest, bytes: u64) {
        self.transfer(Transfer::Advance { blob, bytes });
    }

    fn finish(&self, blob: &Digest) {
        self.transfer(Transfer::Finish { blob });
    }
}

/// The Dockerfile, for warnings.
struct Source {
    name: String,
    text: Vec<u8>,
}

impl Source {
    fn of(request: &Request) -> Self {
        Self { name: request.dockerfile_name.clone(), text: request.dockerfile.clone() }
    }

    /// What a check found is a line here: `--check` shows it whole.
    fn render(&self, diagnostic: &kiln_grammar::Diagnostic, color: bool) -> String {
        let Some(check) = diagnostic.check else { return diagnostic.render(&self.name, &self.text, color) };
        let (line, column) = kiln_grammar::Diagnostic::line_column(&self.text, diagnostic.span.start);
        format!("warning: {}: {} ({}:{line}:{column})", check.name(), diagnostic.message, self.name)
    }
}
