//! Room on the disk that is kept for deletions: they write before they make room, and whoever finds the disk full must
//! be able to delete his way out of it.
//!
//! The room is a file beside the database. It is given up for a change that found no room otherwise, and taken again
//! when the change is made; a process that is killed in between takes it when it next opens the database.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::error::{Error, chain};

/// Bytes that are kept: more than a batch of deletions writes.
const SIZE: u64 = 4 << 20;
/// Bytes that are still worth being kept, when there is no room for more.
const SMALLEST: u64 = 64 << 10;
/// How long after an attempt that did not get all of it the next is made.
const PAUSE: Duration = Duration::from_secs(10);

/// The file.
#[derive(Debug)]
pub(super) struct Reserve {
    file: Option<File>,
    /// Bytes that it has.
    size: u64,
    tried: Option<Instant>,
}

impl Reserve {
    /// Opens the file, or makes it. Without one there is no reserve, and deletions need room as all else does.
    pub(super) fn open(path: &Path) -> Self {
        let open = || {
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            let size = file.metadata()?.len();
            Ok::<_, io::Error>((file, size))
        };
        match open() {
            Ok((file, size)) => Self { file: Some(file), size, tried: None },
            Err(error) => {
                tracing::warn!(error = chain(&Error::io("open", path)(error)), "no room is kept for deletions");
                Self { file: None, size: 0, tried: None }
            }
        }
    }

    /// Makes room; `false` when there was nothing to give.
    pub(super) fn give_up(&mut self) -> bool {
        let given = self.size > 0 && self.file.as_ref().is_some_and(|file| file.set_len(0).is_ok());
        if given {
            self.size = 0;
            self.tried = None;
        }
        given
    }

    /// Takes what it should have, or as much of it as there is room for.
    pub(super) fn take(&mut self) {
        let Some(file) = self.file.as_mut().filter(|_| self.size < SIZE) else { return };
        if self.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return;
        }
        self.tried = Some(Instant::now());
        let sizes = std::iter::successors(Some(SIZE), |size| Some(size / 2));
        for size in sizes.take_while(|size| *size >= SMALLEST && *size > self.size) {
            match fill(file, size) {
                Ok(()) => {
                    self.size = size;
                    return;
                }
                // What a failed attempt did get is in nobody's way.
                Err(error) => {
                    tracing::debug!(error = chain(&error), size, "keep room for deletions");
                    let _ = file.set_len(self.size);
                }
            }
        }
    }
}

/// Gives the file so many bytes that nobody else can have.
fn fill(file: &mut File, size: u64) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| fallocate(&*file, FallocateFlags::empty(), 0, size)) {
        // A file system that allocates nothing beforehand may compress what it is given, too.
        Err(Errno::OPNOTSUPP) => {
            let mut noise = vec![0; usize::try_from(SMALLEST).unwrap_or_default()];
            getrandom::fill(&mut noise).map_err(io::Error::other)?;
            file.set_len(0)?;
            io::Seek::rewind(file)?;
            (0..size / SMALLEST).try_for_each(|_| file.write_all(&noise))
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_is_taken_given_up_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let size = || std::fs::metadata(&path).map(|metadata| (metadata.len(), metadata.blocks() * 512)).unwrap();
        let mut reserve = Reserve::open(&path);
        assert!(!reserve.give_up());
        reserve.take();
        assert!(size().0 == SIZE && size().1 >= SIZE);
        assert!(reserve.give_up() && !reserve.give_up());
        assert_eq!(size(), (0, 0));
        // Killed now, or before, it is as it was left.
        let mut reserve = Reserve::open(&path);
        reserve.take();
        assert!(Reserve::open(&path).give_up());
        assert_eq!(size().0, 0);
        let mut nowhere = Reserve::open(&directory.path().join("missing/reserve"));
        nowhere.take();
        assert!(!nowhere.give_up());
    }
}
