//! What a container wrote: `<time> stdout|stderr F|P <bytes>` a line, as Kubernetes' CRI logs; `P` is a line that goes
//! on in the next one. The bytes are kept as they came.

mod read;

use std::fs::File;
use std::io::Write;
use std::path::Path;

pub use read::{LogOptions, follow};

use crate::protocol::Stream;
use crate::{Error, Result};

/// The name of a log in its container's directory.
pub(crate) const LOG: &str = "log";

/// Writes one.
#[derive(Debug)]
pub(crate) struct Log(Option<File>);

impl Log {
    /// Goes on with the log of a container; `none` writes nothing.
    pub(crate) fn open(directory: &Path, driver: Option<&str>) -> Result<Self> {
        if driver == Some("none") {
            return Ok(Self(None));
        }
        let path = directory.join(LOG);
        let file = File::options().create(true).append(true).open(&path);
        Ok(Self(Some(file.map_err(|error| Error::io("open", path, error))?)))
    }

    /// Writes nothing.
    pub(crate) fn nowhere() -> Self {
        Self(None)
    }

    /// Best effort: a full disk must not end the container.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let Some(file) = &mut self.0 else { return };
        let now = jiff::Timestamp::now();
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (tag, line) = line.strip_suffix(b"\n").map_or(('P', line), |line| ('F', line));
            let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
            let _ = write!(lines, "{now:.9} {name} {tag} ");
            lines.extend_from_slice(line);
            lines.push(b'\n');
        }
        let _ = file.write_all(&lines);
    }
}
