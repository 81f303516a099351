//! Everything that a step writes, kept when it fails: the screen shows only the end.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_store::Store;

/// Bytes of one log, at most: what comes after them only the screen shows.
const LARGEST: u64 = 64 << 20;
/// Logs that are kept.
const KEPT: usize = 20;

/// The log of a step that runs. A log that cannot be written is no reason to fail a build.
pub(crate) struct StepLog {
    directory: Option<PathBuf>,
    /// Without a name until it is kept: a process that dies leaves nothing.
    file: Mutex<Option<(File, u64)>>,
}

impl StepLog {
    pub(crate) fn begin(store: &Store) -> Self {
        let directory = store.directory("logs").ok();
        let file = directory.as_deref().and_then(|directory| unnamed(directory).ok());
        Self { directory, file: Mutex::new(file.map(|file| (file, 0))) }
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((open, length)) = file.as_mut() else { return };
        let room = usize::try_from(LARGEST.saturating_sub(*length)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        match open.write_all(bytes) {
            Ok(()) => *length += bytes.len() as u64,
            Err(_) => *file = None,
        }
    }

    /// Gives it a name; the oldest go.
    pub(crate) fn keep(self, step: &str) -> Option<PathBuf> {
        let directory = self.directory?;
        let (file, length) = self.file.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        if length == 0 {
            return None;
        }
        let path = directory.join(format!("{}-{}.log", moment(), short_name(step)));
        let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let flags = rustix::fs::AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(rustix::fs::CWD, source, rustix::fs::CWD, &path, flags).ok()?;
        remove_oldest(&directory);
        Some(path)
    }
}

fn unnamed(directory: &Path) -> rustix::io::Result<File> {
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, rustix::fs::Mode::from_raw_mode(0o600)).map(File::from)
}

/// Nanoseconds since 1970: names sort by age.
fn moment() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// `[builder 2/4] RUN make all` as `builder-2-4-RUN-make-all`.
fn short_name(step: &str) -> String {
    let words: Vec<&str> =
        step.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-").chars().take(60).collect()
}

fn remove_oldest(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut logs: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for log in logs.iter().rev().skip(KEPT) {
        // another build may have been faster
        let _ = fs::remove_file(log);
    }
}
