//! A layer made of what an earlier one has, and the rest.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use super::{BUFFER, Files, Packer, clamped, put};
use crate::archive::BLOCK;
use crate::changeset::{Data, Numbered};
use crate::digest::Algorithm;
use crate::hashing::BackgroundHasher;
use crate::layer::Layer;
use crate::layer::parts::{Identity, OpenParts, Part, Parts};
use crate::{Blobs, Error, Result};

/// A layer is written as a whole when more than one in so many of its bytes is new.
const NEW: u64 = 4;

/// What no entry is.
const NOBODY: Identity = [0; 32];

impl<F: Files> Packer<'_, F> {
    /// What the bytes of each entry are a function of.
    pub(super) fn identities(&self) -> Vec<Identity> {
        (0..self.entries.len()).map(|index| self.identity(index).unwrap_or(NOBODY)).collect()
    }

    fn identity(&self, index: usize) -> Option<Identity> {
        let (path, entry) = &self.entries[index];
        let mut hasher = blake3::Hasher::new();
        let mut feed = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let attributes = &entry.attributes;
        let (seconds, nanoseconds) = clamped(attributes.mtime, self.clamp);
        feed(path.as_os_str().as_bytes());
        feed(&[entry.kind as u8]);
        feed(&seconds.to_le_bytes());
        for number in [attributes.uid, attributes.gid, attributes.mode, nanoseconds] {
            feed(&number.to_le_bytes());
        }
        for (name, value) in &entry.xattrs {
            feed(name.as_bytes());
            feed(value);
        }
        if let Some(first) = self.first_name(index, entry) {
            feed(b"link");
            feed(first.as_os_str().as_bytes());
            return Some(*hasher.finalize().as_bytes());
        }
        match &entry.data {
            Data::None => feed(b"nothing"),
            Data::Numbered(Numbered { size, content, .. }) => {
                feed(b"file");
                feed(&size.to_le_bytes());
                feed(content);
            }
            Data::Spooled(..) => return None,
            Data::Symlink(target) => {
                feed(b"symlink");
                feed(target.as_os_str().as_bytes());
            }
            Data::Device(number) => {
                feed(b"device");
                feed(&number.to_le_bytes());
            }
        }
        Some(*hasher.finalize().as_bytes())
    }

    /// The layer with as much as possible of `similar`; `None` when that is too little.
    pub(super) fn compose(
        &self,
        identities: &[Identity],
        similar: &OpenParts,
        blobs: &Blobs,
    ) -> Result<Option<(Layer, Parts)>, F::Error> {
        let known: HashMap<&Identity, Part> =
            similar.parts.entries.iter().filter(|(id, _)| *id != NOBODY).map(|(id, part)| (id, *part)).collect();
        // The whole tar that `similar` is, or is made of, stays the base: there is never more than one.
        let whole = similar.base.is_none();
        let (base, base_digest) = match (&similar.base, similar.parts.base) {
            (Some(base), Some(digest)) => (base, digest),
            _ => (&similar.own, similar.parts.own),
        };
        let of_base = |part: &Part| whole || part.in_base;
        let found: Vec<Option<Part>> = identities.iter().map(|id| known.get(id).copied()).collect();
        let (mut old, mut new) = (0, 0);
        for ((_, entry), found) in self.entries.iter().zip(&found) {
            match found.filter(of_base) {
                Some(part) => old += part.length,
                None => new += super::size(entry) + BLOCK as u64,
            }
        }
        if new > old / NEW {
            return Ok(None);
        }
        let (hashed, tar) = match similar.parts.mark_within(unchanged_beginning(&found, of_base)) {
            Some((hashed, hasher)) => (hashed, BackgroundHasher::from(hasher)),
            None => (0, BackgroundHasher::new(Algorithm::Sha256)),
        };
        let own = blobs.tar_writer(Algorithm::Sha256)?;
        let mut composer = Composer { base, tar, hashed, own, size: 0, run: None, buffer: vec![0; BUFFER] };
        let mut entries = Vec::with_capacity(self.entries.len());
        for (index, found) in found.into_iter().enumerate() {
            let part = match found {
                Some(part) if of_base(&part) => composer.take(part)?,
                Some(part) => composer.copy(&similar.own, part)?,
                None => {
                    composer.flush()?;
                    let offset = composer.own.written();
                    self.entry(index, &mut New(&mut composer))?;
                    Part { in_base: false, offset, length: composer.own.written() - offset }
                }
            };
            entries.push((identities[index], part));
        }
        let (layer, own) = composer.finish()?;
        Ok(Some((layer, Parts { own, base: Some(base_digest), entries, marks: similar.parts.marks.clone() })))
    }
}

/// How many bytes the tar begins with that the base begins with, too.
fn unchanged_beginning(found: &[Option<Part>], of_base: impl Fn(&Part) -> bool) -> u64 {
    let mut same = 0;
    for part in found {
        match part.filter(&of_base) {
            Some(part) if part.offset == same => same += part.length,
            _ => break,
        }
    }
    same
}

/// Hashes the tar, and writes what is new of it.
struct Composer<'a> {
    base: &'a File,
    tar: BackgroundHasher,
    /// Bytes at the beginning of the base that `tar` knows already.
    hashed: u64,
    own: crate::blob::BlobWriter,
    size: u64,
    /// Bytes of the base that come next: where they begin and end.
    run: Option<(u64, u64)>,
    buffer: Vec<u8>,
}

impl Composer<'_> {
    /// An entry that is in the base.
    fn take(&mut self, part: Part) -> Result<Part> {
        let part = Part { in_base: true, ..part };
        match &mut self.run {
            Some((_, end)) if *end == part.offset => *end += part.length,
            _ => {
                self.flush()?;
                self.run = Some((part.offset, part.offset + part.length));
            }
        }
        Ok(part)
    }

    /// Hashes what was taken.
    fn flush(&mut self) -> Result<()> {
        let Some((start, end)) = self.run.take() else { return Ok(()) };
        // Only the first run begins where the base does.
        let mut done = if self.size == 0 && start == 0 { self.hashed } else { start };
        while done < end {
            let want = usize::try_from(end - done).map_or(BUFFER, |left| left.min(BUFFER));
            self.base.read_exact_at(&mut self.buffer[..want], done).map_err(Error::ArchiveRead)?;
            self.tar.write_all(&self.buffer[..want]).map_err(Error::ArchiveWrite)?;
            done += want as u64;
        }
        self.size += end - start;
        Ok(())
    }

    /// An entry that only the earlier layer's own blob has.
    fn copy(&mut self, file: &File, part: Part) -> Result<Part> {
        self.flush()?;
        let offset = self.own.written();
        let mut done = 0;
        while done < part.length {
            let want = usize::try_from(part.length - done).map_or(BUFFER, |left| left.min(BUFFER));
            let mut bytes = std::mem::take(&mut self.buffer);
            file.read_exact_at(&mut bytes[..want], part.offset + done).map_err(Error::ArchiveRead)?;
            put::<Error>(&mut New(self), &bytes[..want])?;
            self.buffer = bytes;
            done += want as u64;
        }
        Ok(Part { in_base: false, offset, length: part.length })
    }

    fn finish(mut self) -> Result<(Layer, crate::Digest)> {
        self.flush()?;
        self.tar.write_all(&[0; 2 * BLOCK]).map_err(Error::ArchiveWrite)?;
        let empty = self.size == 0;
        let diff_id = self.tar.finish()?;
        let (own, _) = self.own.commit(None, false)?;
        Ok((Layer { diff_id, tar_size: self.size + 2 * BLOCK as u64, empty }, own))
    }
}

/// Bytes that go into the tar and are kept.
struct New<'a, 'b>(&'a mut Composer<'b>);

impl Write for New<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.0.own.write(bytes)?;
        self.0.tar.write_all(&bytes[..count])?;
        self.0.size += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
