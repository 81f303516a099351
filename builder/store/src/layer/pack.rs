//! From a changeset to a layer: its tar, written once, is the layer until somebody needs its directory. Files are read
//! by as many threads as there are processors, in pieces that are put together in their order. What an earlier layer
//! has already is not read again ([`compose`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::parts::{Identity, Mark, Part, Parts};
use super::{Compression, Layer, LayerBlob};
use crate::archive::header::{self, Header};
use crate::archive::{BLOCK, padding};
use crate::attributes;
use crate::blob::BlobWriter;
use crate::changeset::{Changeset, Data, Entry, Numbered};
use crate::digest::Algorithm;
use crate::layer_writer::Xattrs;
use crate::metadata::{LayerRow, insert_layer, mark_used, select_layer};
use crate::snapshot::Kind;
use crate::{Blobs, DiffId, Error, Result, Store};

mod compose;

/// A piece ends when it has this many bytes or entries; a larger file is streamed by itself.
const PIECE: u64 = 1 << 20;
const PIECE_ENTRIES: usize = 256;

/// Content is read and passed on in pieces of this size.
const BUFFER: usize = 256 << 10;

/// The caller's files, by the numbers in a [`Changeset`]; asked from several threads.
pub trait Files: Sync {
    /// What the caller's functions fail with.
    type Error: From<Error> + Send;

    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, number: usize) -> Result<File, Self::Error>;

    /// Its extended attributes.
    ///
    /// # Errors
    /// They cannot be read.
    fn xattrs(&self, number: usize, file: &File) -> Result<Vec<(std::ffi::OsString, Vec<u8>)>, Self::Error>;

    /// Called when it was read.
    fn was_read(&self, number: usize, file: &File);
}

type Entries = [(PathBuf, Entry)];

impl Store {
    /// Makes a layer of a changeset; modification times later than `clamp` (seconds since 1970) are set to it.
    /// What `similar`, a layer that was packed before, has of it is taken from there.
    ///
    /// # Errors
    /// A file cannot be read, or became shorter meanwhile; the store cannot be written.
    pub fn pack<F: Files>(
        &self,
        changeset: Changeset,
        clamp: Option<i64>,
        similar: Option<&DiffId>,
        files: &F,
    ) -> Result<Layer, F::Error> {
        let (entries, spool, staging) = changeset.into_sorted();
        let packer = Packer { entries: &entries, first: first_names(&entries), spool, clamp, files };
        let identities = packer.identities();
        let similar = match similar {
            Some(similar) => self.open_parts(similar)?,
            None => None,
        };
        let composed = match &similar {
            Some(similar) => packer.compose(&identities, similar, self.blobs())?,
            None => None,
        };
        let (layer, parts) = match composed {
            Some(composed) => composed,
            None => packer.write_whole(identities, self.blobs())?,
        };
        self.record_packed(layer, &parts)?;
        drop(staging);
        Ok(layer)
    }

    fn record_packed(&self, layer: Layer, parts: &Parts) -> Result<()> {
        // A layer that is here already must not be pruned before it is marked as used, nor its bytes before that.
        let _gate = self.temporary.keep_pruners_out()?;
        if self.blobs().size(&parts.own)?.is_none() {
            return Err(Error::BlobMissing(parts.own));
        }
        if parts.base.is_none() {
            let media_type = Compression::None.media_type().to_owned();
            let blob = LayerBlob { digest: layer.diff_id, size: layer.tar_size, media_type };
            self.remember_form(&layer.diff_id, blob, Compression::None, false)?;
        }
        self.remember_parts(&layer.diff_id, parts)?;
        self.database.change("record layer", |transaction| {
            if select_layer(transaction, &layer.diff_id)?.is_none_or(|row| !self.is_trusted(&row.boot, row.settled)) {
                let boot = self.boot.clone();
                insert_layer(transaction, &LayerRow { layer, reproducible: false, boot, settled: false, used: 0 })?;
            } else {
                mark_used(transaction, &layer.diff_id)?;
            }
            self.pin(&layer.diff_id);
            Ok(())
        })
    }
}

/// For every file with several names, the one that comes first in the tar.
fn first_names(entries: &Entries) -> HashMap<usize, usize> {
    let mut first = HashMap::new();
    for (index, (_, entry)) in entries.iter().enumerate() {
        if let Some(link) = entry.link {
            first.entry(link).or_insert(index);
        }
    }
    first
}

struct Packer<'a, F> {
    entries: &'a Entries,
    first: HashMap<usize, usize>,
    spool: Option<File>,
    clamp: Option<i64>,
    files: &'a F,
}

/// What one thread makes: some entries' headers and content with the length of each, or the number of an entry that is
/// streamed.
enum Piece {
    Bytes(Vec<u8>, Vec<u64>),
    Large(usize),
}

/// The tar on its way out, and how long its entries are.
struct Output {
    writer: BlobWriter,
    lengths: Vec<u64>,
}

impl<F: Files> Packer<'_, F> {
    /// Writes the whole tar.
    fn write_whole(&self, identities: Vec<Identity>, blobs: &Blobs) -> Result<(Layer, Parts), F::Error> {
        let mut out =
            Output { writer: blobs.tar_writer(Algorithm::Sha256)?, lengths: Vec::with_capacity(identities.len()) };
        self.write(&mut out)?;
        let (digest, size, marks) = out.writer.commit_with_marks(None, false)?;
        let marks = marks.iter().filter_map(Mark::of_hasher).collect();
        let mut offset = 0;
        let part = |length| {
            let part = Part { in_base: false, offset, length };
            offset += length;
            part
        };
        let entries = identities.into_iter().zip(out.lengths.into_iter().map(part)).collect();
        let layer = Layer { diff_id: digest, tar_size: size, empty: self.entries.is_empty() };
        Ok((layer, Parts { own: digest, base: None, entries, marks }))
    }

    fn write(&self, out: &mut Output) -> Result<(), F::Error> {
        let ranges = self.pieces();
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(ranges.len());
        if ranges.len() < 2 {
            for range in ranges {
                self.append(self.make(range)?, out)?;
            }
        } else {
            self.write_in_parallel(&ranges, workers, out)?;
        }
        put(&mut out.writer, &[0; 2 * BLOCK])
    }

    /// Every worker makes every so-manieth piece, so that the next one is always known to come from the next worker.
    fn write_in_parallel(
        &self,
        ranges: &[std::ops::Range<usize>],
        workers: usize,
        out: &mut Output,
    ) -> Result<(), F::Error> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pieces: Vec<_> = (0..workers)
                .map(|worker| {
                    let (done, pieces) = sync_channel(2);
                    let ranges = ranges.iter().skip(worker).step_by(workers);
                    let stop = &stop;
                    scope.spawn(move || self.work(ranges, &done, stop));
                    pieces
                })
                .collect();
            for number in 0..ranges.len() {
                let piece = pieces[number % workers].recv().map_err(|_| Error::ThreadLost("a packing thread"));
                let appended = piece.map_err(F::Error::from).and_then(|piece| self.append(piece?, out));
                if appended.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    return appended;
                }
            }
            Ok(())
        })
    }

    fn work<'r>(
        &self,
        ranges: impl Iterator<Item = &'r std::ops::Range<usize>>,
        done: &SyncSender<Result<Piece, F::Error>>,
        stop: &AtomicBool,
    ) {
        for range in ranges {
            if stop.load(Ordering::Relaxed) || done.send(self.make(range.clone())).is_err() {
                return;
            }
        }
    }

    /// Which entries go together.
    fn pieces(&self) -> Vec<std::ops::Range<usize>> {
        let mut pieces = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, (_, entry)) in self.entries.iter().enumerate() {
            let size = size(entry);
            if index > start && (bytes + size > PIECE || index - start >= PIECE_ENTRIES) {
                pieces.push(start..index);
                (start, bytes) = (index, 0);
            }
            bytes += size;
        }
        if start < self.entries.len() {
            pieces.push(start..self.entries.len());
        }
        pieces
    }

    fn make(&self, range: std::ops::Range<usize>) -> Result<Piece, F::Error> {
        if let [(_, entry)] = &self.entries[range.clone()]
            && size(entry) > PIECE
        {
            return Ok(Piece::Large(range.start));
        }
        let (mut bytes, mut lengths) = (Vec::new(), Vec::with_capacity(range.len()));
        for index in range {
            let before = bytes.len();
            self.entry(index, &mut bytes)?;
            lengths.push((bytes.len() - before) as u64);
        }
        Ok(Piece::Bytes(bytes, lengths))
    }

    fn append(&self, piece: Piece, out: &mut Output) -> Result<(), F::Error> {
        match piece {
            Piece::Bytes(bytes, lengths) => {
                out.lengths.extend(lengths);
                put(&mut out.writer, &bytes)
            }
            Piece::Large(index) => {
                let before = out.writer.written();
                self.entry(index, &mut out.writer)?;
                out.lengths.push(out.writer.written() - before);
                Ok(())
            }
        }
    }

    /// One entry's header and content.
    fn entry(&self, index: usize, out: &mut impl Write) -> Result<(), F::Error> {
        let (path, entry) = &self.entries[index];
        if let Some(first) = self.first_name(index, entry) {
            return self.header(path, entry, header::Kind::HardLink, first.as_os_str().as_bytes(), &[], out);
        }
        match &entry.data {
            Data::Numbered(Numbered { number, size, .. }) => {
                let file = self.files.open(*number)?;
                let xattrs = self.files.xattrs(*number, &file)?;
                self.header(path, entry, header::Kind::File, b"", &xattrs, out)?;
                content(path, *size, out, |buffer, _| (&file).read(buffer))?;
                self.files.was_read(*number, &file);
                Ok(())
            }
            Data::Spooled(start, size) => {
                self.header(path, entry, header::Kind::File, b"", &entry.xattrs, out)?;
                let Some(spool) = &self.spool else { return Err(Error::ThreadLost("the spool of a layer").into()) };
                Ok(content(path, *size, out, |buffer, done| spool.read_at(buffer, start + done))?)
            }
            Data::Symlink(target) => {
                let target = target.as_os_str().as_bytes();
                self.header(path, entry, header::Kind::Symlink, target, &entry.xattrs, out)
            }
            Data::Device(_) | Data::None => {
                let kind = match entry.kind {
                    Kind::Directory => header::Kind::Directory,
                    Kind::CharDevice => header::Kind::CharDevice,
                    Kind::BlockDevice => header::Kind::BlockDevice,
                    _ => header::Kind::Fifo,
                };
                self.header(path, entry, kind, b"", &entry.xattrs, out)
            }
        }
    }

    /// The path that a further name of a file is a link to.
    fn first_name(&self, index: usize, entry: &Entry) -> Option<&Path> {
        let first = *self.first.get(&entry.link?)?;
        (first != index).then(|| self.entries[first].0.as_path())
    }

    fn header(
        &self,
        path: &Path,
        entry: &Entry,
        kind: header::Kind,
        link: &[u8],
        xattrs: &Xattrs,
        out: &mut impl Write,
    ) -> Result<(), F::Error> {
        let mut path = path.as_os_str().as_bytes().to_vec();
        if kind == header::Kind::Directory {
            path.push(b'/');
        }
        let device = match entry.data {
            Data::Device(number) => (rustix::fs::major(number), rustix::fs::minor(number)),
            _ => (0, 0),
        };
        let header = Header {
            path: &path,
            kind,
            mode: entry.attributes.mode & 0o7777,
            uid: entry.attributes.uid,
            gid: entry.attributes.gid,
            size: if kind == header::Kind::File { size(entry) } else { 0 },
            mtime: clamped(entry.attributes.mtime, self.clamp),
            link,
            device,
            attributes: attributes::of_layer(xattrs),
        };
        let mut encoded = Vec::with_capacity(BLOCK);
        header.encode(&mut encoded);
        put(out, &encoded)
    }
}

/// Bytes of content in the tar.
fn size(entry: &Entry) -> u64 {
    match entry.data {
        Data::Numbered(Numbered { size, .. }) | Data::Spooled(_, size) => size,
        Data::None | Data::Symlink(_) | Data::Device(_) => 0,
    }
}

fn clamped(mtime: (i64, u32), clamp: Option<i64>) -> (i64, u32) {
    match clamp {
        Some(clamp) if mtime > (clamp, 0) => (clamp, 0),
        _ => mtime,
    }
}

/// Copies exactly `size` bytes, and the padding. `read` is told how many bytes it gave so far.
fn content(
    path: &Path,
    size: u64,
    out: &mut impl Write,
    read: impl Fn(&mut [u8], u64) -> std::io::Result<usize>,
) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(size).map_or(BUFFER, |size| size.min(BUFFER))];
    let mut done = 0;
    while done < size {
        let want = usize::try_from(size - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        match read(&mut buffer[..want], done) {
            Ok(0) => {
                let reason = "it became shorter while it was read: build again when nobody writes to it".to_owned();
                return Err(Error::Archive { entry: path.display().to_string(), reason });
            }
            Ok(count) => {
                put::<Error>(out, &buffer[..count])?;
                done += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
    put(out, &[0; BLOCK][..padding(size) as usize])
}

fn put<E: From<Error>>(out: &mut impl Write, bytes: &[u8]) -> Result<(), E> {
    out.write_all(bytes).map_err(|error| Error::ArchiveWrite(error).into())
}

#[cfg(test)]
mod tests;
