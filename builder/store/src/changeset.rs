//! What a layer adds, held in memory until it is written as one tar: no file is made for what only has to be packed.
//! (OCI image specification, "Image Layer Filesystem Changeset".)

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::layer::Staging;
use crate::layer_writer::{Attributes, Content, Upper, Xattrs};
use crate::snapshot::Kind;
use crate::{Error, Result};

/// Entries of a layer under construction.
pub struct Changeset {
    entries: HashMap<PathBuf, Entry>,
    /// Files with more than one name so far.
    linked: usize,
    /// Bytes that came from where they cannot be read again.
    spool: Option<File>,
    /// Where the spool is; garbage collection waits while there is one.
    staging: Staging,
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
    pub(crate) data: Data,
    /// Equal for the names of one file.
    pub(crate) link: Option<usize>,
}

/// What a file holds.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Nothing: directories and pipes.
    None,
    /// The caller's file, opened when it is packed.
    Numbered(Numbered),
    /// Bytes of the spool: where they begin, and how many.
    Spooled(u64, u64),
    /// Where a symlink leads.
    Symlink(PathBuf),
    /// A device's number.
    Device(u64),
}

/// A file of the caller's, which is opened when the changeset is packed.
#[derive(Debug, Clone, Copy)]
pub struct Numbered {
    /// What the caller knows it by.
    pub number: usize,
    /// Its size in bytes.
    pub size: u64,
    /// Equal only where content and extended attributes are: where a layer that was packed before has them, they are
    /// taken from there.
    pub content: [u8; 32],
}

/// Where the bytes of a new file come from.
pub enum Bytes<'f> {
    /// A file that is opened later.
    Numbered(Numbered),
    /// A stream, which is read now.
    Stream(&'f mut dyn Read),
}

impl Changeset {
    /// Nothing yet; what has to be set aside is kept beside that staging.
    pub fn new(staging: Staging) -> Self {
        Self { entries: HashMap::new(), linked: 0, spool: None, staging }
    }

    /// Room for that many more entries.
    pub fn reserve(&mut self, entries: usize) {
        self.entries.reserve(entries);
    }

    /// The entries in the order of the tar: by names, each directory before what it holds. And the spool, and what keeps it.
    pub(crate) fn into_sorted(self) -> (Vec<(PathBuf, Entry)>, Option<File>, Staging) {
        let mut entries: Vec<_> = self.entries.into_iter().collect();
        entries.sort_unstable_by(|(a, _), (b, _)| by_names(a.as_os_str().as_bytes(), b.as_os_str().as_bytes()));
        (entries, self.spool, self.staging)
    }

    fn spool(&mut self, path: &Path, bytes: &mut dyn Read) -> Result<Data> {
        let io = |error| Error::io("set aside", path)(error);
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => none.insert(tempfile::tempfile_in(self.staging.work()).map_err(io)?),
        };
        let start = spool.seek(SeekFrom::End(0)).map_err(io)?;
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0;
        loop {
            match bytes.read(&mut buffer) {
                Ok(0) => return Ok(Data::Spooled(start, size)),
                Ok(count) => {
                    spool.write_all(&buffer[..count]).map_err(io)?;
                    size += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
    }

    fn entry(&mut self, path: &Path) -> Result<&mut Entry> {
        self.entries.get_mut(path).ok_or_else(|| Error::io("find in the layer", path)(Errno::NOENT))
    }
}

impl Upper for Changeset {
    type File<'f> = Bytes<'f>;

    fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        Ok(self.entries.get(path).map(|entry| entry.kind))
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf> {
        match self.entries.get(path).map(|entry| &entry.data) {
            Some(Data::Symlink(target)) => Ok(target.clone()),
            _ => Err(Error::io("read symlink", path)(Errno::INVAL)),
        }
    }

    fn make_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()> {
        let xattrs = xattrs.to_vec();
        let entry = Entry { kind: Kind::Directory, attributes, xattrs, data: Data::None, link: None };
        self.entries.insert(path.to_path_buf(), entry);
        Ok(())
    }

    fn change_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()> {
        let entry = self.entry(path)?;
        entry.attributes = attributes;
        for (name, value) in xattrs {
            match entry.xattrs.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.clone_from(value),
                None => entry.xattrs.push((name.clone(), value.clone())),
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        path: &Path,
        content: Content<'_, Bytes<'_>>,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Result<()> {
        let (kind, data) = match content {
            Content::File(Bytes::Numbered(file)) => (Kind::File, Data::Numbered(file)),
            Content::File(Bytes::Stream(bytes)) => (Kind::File, self.spool(path, bytes)?),
            Content::Symlink(target) => (Kind::Symlink, Data::Symlink(target.to_path_buf())),
            Content::Device(kind, number) => (kind, Data::Device(number)),
            Content::Fifo => (Kind::Fifo, Data::None),
        };
        let entry = Entry { kind, attributes, xattrs: xattrs.to_vec(), data, link: None };
        self.entries.insert(path.to_path_buf(), entry);
        Ok(())
    }

    fn link(&mut self, path: &Path, existing: &Path) -> Result<()> {
        let next = self.linked;
        let entry = self.entry(existing)?;
        if entry.link.is_none() {
            entry.link = Some(next);
        }
        let entry = entry.clone();
        self.linked = next + 1;
        self.entries.insert(path.to_path_buf(), entry);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> Result<()> {
        self.entries.remove(path);
        Ok(())
    }
}

/// The order of a walk that visits every directory's names by their bytes: a slash comes before everything else.
fn by_names(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => rank(a).cmp(&rank(b)),
        None => a.len().cmp(&b.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_a_walk_meets_them() {
        let mut paths = ["b", "a.txt", "a/z", "a", "a\u{1}", "a-b/c", "a/b/c", "a/b"];
        paths.sort_by(|a, b| by_names(a.as_bytes(), b.as_bytes()));
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a/z", "a\u{1}", "a-b/c", "a.txt", "b"]);
    }
}
