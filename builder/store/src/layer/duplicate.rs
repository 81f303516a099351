//! A layer out of a directory that stays as it is: a container's upper directory.

use std::path::Path;

use super::Layer;
use crate::archive::decompress::buffered;
use crate::archive::writer::Treatment;
use crate::{Error, Result, Store};

impl Store {
    /// Makes a layer of what a directory (overlay's upper directory) has now, and leaves the directory alone.
    ///
    /// # Errors
    /// It cannot be read, or changed while it was.
    pub fn commit_copy(&self, directory: &Path) -> Result<Layer> {
        let staging = self.stage()?;
        let io = Error::io("copy", directory);
        let (mut read, mut write) = match std::io::pipe() {
            Ok(ends) => ends,
            Err(error) => return Err(io(error)),
        };
        let (written, unpacked) = std::thread::scope(|scope| {
            let writing = scope.spawn(move || self.write_directory(directory, Treatment::Read, &mut write));
            let unpacked = self.unpack_into(&staging, buffered(&mut read), None);
            drop(read);
            (writing.join(), unpacked)
        });
        // What stopped the writer comes first: the reader then only noticed that the archive ends early.
        written.map_err(|_| Error::ThreadLost("the reading thread"))??;
        unpacked?;
        self.commit(staging, None)
    }
}
