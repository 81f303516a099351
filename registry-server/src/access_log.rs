//! The access log: a line of JSON for every request, written by a thread of its own so that no request waits for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, chain};

/// Lines that wait to be written; further ones are dropped, and counted.
const MOST_WAITING: usize = 8_192;

/// One request, as it was answered.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) time: String,
    pub(crate) client: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) status: u16,
    /// Bytes of the request's body that were read.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// Until the answer's head; a blob's bytes follow it.
    pub(crate) milliseconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
}

/// The open log. Dropping it writes what waits.
#[derive(Debug)]
pub(crate) struct AccessLog {
    lines: Option<mpsc::SyncSender<Entry>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) dropped: AtomicU64,
}

/// Where the lines go.
enum Sink {
    Stream(Box<dyn Write + Send>),
    File { path: PathBuf, writer: BufWriter<File> },
}

impl AccessLog {
    /// `None` where no log is configured.
    pub(crate) fn open(target: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(target) = target else { return Ok(None) };
        let mut sink = match target.to_str() {
            Some("stdout") => Sink::Stream(Box::new(BufWriter::new(io::stdout()))),
            Some("stderr") => Sink::Stream(Box::new(BufWriter::new(io::stderr()))),
            _ => Sink::file(target).map_err(Error::io("open", target))?,
        };
        let (lines, queue) = mpsc::sync_channel::<Entry>(MOST_WAITING);
        let work = move || {
            while let Ok(entry) = queue.recv() {
                let mut result = sink.write(&entry);
                for entry in queue.try_iter() {
                    result = result.and_then(|()| sink.write(&entry));
                }
                if let Err(error) = result.and_then(|()| sink.flush()) {
                    tracing::error!(error = chain(&error), "write the access log");
                    // A full disk stays full for a while.
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(work);
        let thread = Some(thread.map_err(Error::io("start the thread for", target))?);
        Ok(Some(Self { lines: Some(lines), thread, dropped: AtomicU64::new(0) }))
    }

    pub(crate) fn write(&self, entry: Entry) {
        if self.lines.as_ref().is_none_or(|lines| lines.try_send(entry).is_err()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Sink {
    fn file(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self::File { path: path.to_path_buf(), writer: BufWriter::new(file) })
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let writer: &mut dyn Write = match self {
            Self::Stream(writer) => writer,
            Self::File { writer, .. } => writer,
        };
        serde_json::to_writer(&mut *writer, entry)?;
        writer.write_all(b"\n")
    }

    /// Writes what is buffered; a file that was moved away (as logrotate does) is made anew for what follows.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(writer) => writer.flush(),
            Self::File { path, writer } => {
                writer.flush()?;
                let open = writer.get_ref().metadata()?;
                let moved =
                    fs::metadata(&path).map_or(true, |named| (named.dev(), named.ino()) != (open.dev(), open.ino()));
                if moved {
                    *self = Self::file(&path.clone())?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: u16) -> Entry {
        Entry {
            time: "2030-01-01T00:00:00Z".to_owned(),
            client: ([127, 0, 0, 1], 1).into(),
            user: None,
            method: "GET".to_owned(),
            target: "/v2/\n\"".to_owned(),
            status,
            received: 0,
            sent: 2,
            milliseconds: 0.5,
            agent: Some("a".to_owned()),
        }
    }

    #[test]
    fn lines_are_json_and_a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut sink = Sink::file(&path).unwrap();
        sink.write(&entry(200)).unwrap();
        sink.flush().unwrap();
        fs::rename(&path, &moved).unwrap();
        sink.flush().unwrap();
        drop(sink);
        let log = AccessLog::open(Some(&path)).unwrap().unwrap();
        log.write(entry(404));
        drop(log);
        for (path, status) in [(moved, 200), (path, 404)] {
            let text = fs::read_to_string(path).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((line["status"].as_u64(), line["target"].as_str()), (Some(status), Some("/v2/\n\"")));
        }
        assert!(AccessLog::open(None).unwrap().is_none());
    }
}
