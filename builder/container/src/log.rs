//! What a container wrote: `<time> stdout|stderr F|P <bytes>` a line, as Kubernetes' CRI logs; `P` is a line that goes
//! on in the next one. The bytes are kept as they came.

mod read;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use read::{LogOptions, follow};
use serde::{Deserialize, Serialize};

use crate::protocol::Stream;
use crate::{Error, Result};

/// The name of a log in its container's directory.
const LOG: &str = "log";

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes of a file; any number when not given.
    pub size: Option<u64>,
    /// Files: the one that is written to, and those before it. One when not given.
    pub files: Option<u32>,
}

/// A file of the log: 0 is written to, 1 the one before.
pub(crate) fn file(directory: &Path, number: u32) -> PathBuf {
    directory.join(if number == 0 { LOG.to_owned() } else { format!("{LOG}.{number}") })
}

/// Writes one.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    directory: PathBuf,
    size: u64,
    limits: LogLimits,
}

impl Log {
    /// Goes on with the log of a container; `none` writes nothing.
    pub(crate) fn open(directory: &Path, driver: Option<&str>, limits: LogLimits) -> Result<Self> {
        if driver == Some("none") {
            return Ok(Self::nowhere());
        }
        let path = file(directory, 0);
        let opened = File::options().create(true).append(true).open(&path);
        let file = opened.map_err(|error| Error::io("open", path, error))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Self { file: Some(file), directory: directory.to_owned(), size, limits })
    }

    /// Writes nothing.
    pub(crate) fn nowhere() -> Self {
        Self { file: None, directory: PathBuf::new(), size: 0, limits: LogLimits::default() }
    }

    /// Best effort: a full disk must not end the container.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let now = jiff::Timestamp::now();
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (tag, line) = line.strip_suffix(b"\n").map_or(('P', line), |line| ('F', line));
            let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
            let _ = write!(lines, "{now:.9} {name} {tag} ");
            lines.extend_from_slice(line);
            lines.push(b'\n');
        }
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.limits.size.is_some_and(|limit| self.size.saturating_add(length) > limit) {
            self.turn_over();
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(&lines);
            self.size += length;
        }
    }

    /// Begins a new file; the oldest one goes.
    fn turn_over(&mut self) {
        let last = self.limits.files.unwrap_or(1).max(1) - 1;
        for number in (0..last).rev() {
            let _ = std::fs::rename(file(&self.directory, number), file(&self.directory, number + 1));
        }
        let path = file(&self.directory, 0);
        // Whoever reads it keeps the old one: a new file, not an emptied one.
        let _ = std::fs::remove_file(&path);
        if let Ok(fresh) = File::options().create(true).append(true).open(&path) {
            self.file = Some(fresh);
            self.size = 0;
        }
    }
}
