//! Which bytes of which blobs a packed layer's tar is made of, entry by entry: so that the layer of the next build can
//! be made of what did not change of this one, and store only the rest.
//!
//! A list of parts is a blob of its own: a head of 160 bytes, then 48 bytes for each entry of the tar, in its order, then
//! what a hasher of the whole tar below knew at some of its places, and the CRC-32 of the bytes between these.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::archive::BLOCK;
use crate::digest::{Algorithm, Hasher};
use crate::hashing;
use crate::metadata::BlobRow;
use crate::{DiffId, Digest, Result, Store};

use super::LayerBlob;

/// What the list is called in the metadata's column of media types; it never leaves the store.
const MEDIA_TYPE: &str = "application/vnd.kiln.layer.parts.v1";
const MAGIC: &[u8; 16] = b"kiln parts 0001\n";
const HEAD: usize = 160;
const RECORD: usize = 48;
/// Bytes of one mark with its place.
const MARK: usize = 128;
/// Bytes of these for whether there is a CRC, and which.
const CRC: usize = 5;
/// Set in a place that is in the base.
const IN_BASE: u64 = 1 << 63;
/// A list for more than four million entries is none of ours.
const MOST: u64 = 200 << 20;
/// The zeros that end a tar.
const END: u64 = 2 * BLOCK as u64;

/// What an entry's bytes in the tar are a function of. All zeros: of nothing that another build could know.
pub(super) type Identity = [u8; 32];

/// Where some bytes of a tar are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) in_base: bool,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// What was known of a tar's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its bytes.
    pub(super) place: u64,
    /// The state of a hasher of them.
    pub(super) state: Vec<u8>,
    /// The CRC-32 of those since the mark before; lists of older versions do not have it.
    pub(super) crc: Option<u32>,
}

impl Mark {
    /// `None` for algorithms whose state cannot be kept.
    pub(super) fn of_hasher(mark: &hashing::Mark) -> Option<Self> {
        Some(Self { place: mark.place, state: mark.hasher.state()?, crc: Some(mark.crc) })
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let end = bytes.len() + MARK;
        bytes.extend(self.place.to_le_bytes());
        bytes.push(u8::try_from(self.state.len()).unwrap_or(0));
        bytes.extend(&self.state);
        bytes.resize(end - CRC, 0);
        bytes.push(u8::from(self.crc.is_some()));
        bytes.extend(self.crc.unwrap_or(0).to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (place, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (rest, crc) = rest.split_last_chunk::<CRC>()?;
        let crc = if crc[0] == 1 { crc[1..].first_chunk().copied().map(u32::from_le_bytes) } else { None };
        Some(Self { place: u64::from_le_bytes(*place), state: rest.get(..usize::from(*length))?.to_vec(), crc })
    }
}

/// The list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// The blob that was written for this layer.
    pub(super) own: Digest,
    /// The tar of an earlier layer, which is whole.
    pub(super) base: Option<Digest>,
    pub(super) entries: Vec<(Identity, Part)>,
    /// What was known while the whole tar was made that is the base (or, without one, the layer's own), by place.
    pub(super) marks: Vec<Mark>,
}

impl Parts {
    /// The last state that was taken within so many bytes.
    pub(super) fn mark_within(&self, bytes: u64) -> Option<(u64, Hasher)> {
        let mark = self.marks.iter().rev().find(|mark| mark.place <= bytes)?;
        Some((mark.place, Hasher::resume(&mark.state)?))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.entries.len() * RECORD);
        bytes.extend(MAGIC);
        bytes.extend(self.own.hex().as_bytes());
        bytes.extend(self.base.map_or_else(|| " ".repeat(64), |base| base.hex()).as_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        bytes.resize(HEAD, b'\n');
        for (identity, part) in &self.entries {
            bytes.extend(identity);
            bytes.extend((part.offset | if part.in_base { IN_BASE } else { 0 }).to_le_bytes());
            bytes.extend(part.length.to_le_bytes());
        }
        for mark in &self.marks {
            mark.encode(&mut bytes);
        }
        bytes
    }

    /// `None` for what is no list of ours.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let digest = |hex: &[u8]| Digest::from_hex(Algorithm::Sha256, std::str::from_utf8(hex).ok()?).ok();
        let head = head.strip_prefix(MAGIC)?;
        let own = digest(&head[..64])?;
        let base = if head[64] == b' ' { None } else { Some(digest(&head[64..128])?) };
        let count = usize::try_from(u64::from_le_bytes(*head[128..].first_chunk()?)).ok()?;
        let (records, marks) = rest.split_at_checked(count.checked_mul(RECORD)?)?;
        let entries = records.chunks_exact(RECORD).map(|record| {
            let (identity, rest) = record.split_first_chunk::<32>()?;
            let (place, rest) = rest.split_first_chunk()?;
            let (place, length) = (u64::from_le_bytes(*place), u64::from_le_bytes(*rest.first_chunk()?));
            Some((*identity, Part { in_base: place & IN_BASE != 0, offset: place & !IN_BASE, length }))
        });
        let marks = marks.chunks_exact(MARK).map(Mark::decode);
        Some(Self { own, base, entries: entries.collect::<Option<_>>()?, marks: marks.collect::<Option<_>>()? })
    }
}

/// A list whose blobs are open.
pub(super) struct OpenParts {
    pub(super) parts: Parts,
    pub(super) own: File,
    pub(super) base: Option<File>,
}

impl OpenParts {
    pub(super) fn file(&self, part: Part) -> Option<&File> {
        if part.in_base { self.base.as_ref() } else { Some(&self.own) }
    }

    /// The tar, from its beginning.
    pub(super) fn into_reader(self) -> PartsReader {
        PartsReader { open: self, next: 0, done: 0, end: END }
    }
}

/// Reads the parts one after the other, and the end of the tar.
pub(super) struct PartsReader {
    open: OpenParts,
    /// The part at hand, and how much of it was read.
    next: usize,
    done: u64,
    /// Zeros that are still to come.
    end: u64,
}

impl Read for PartsReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((_, part)) = self.open.parts.entries.get(self.next) {
            if self.done == part.length {
                (self.next, self.done) = (self.next + 1, 0);
                continue;
            }
            // Parts that lie one after the other are read at once.
            let mut left = part.length - self.done;
            let mut last = *part;
            for (_, part) in &self.open.parts.entries[self.next + 1..] {
                let follows = part.in_base == last.in_base && part.offset == last.offset + last.length;
                if !follows || left >= buffer.len() as u64 {
                    break;
                }
                left += part.length;
                last = *part;
            }
            let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let file = self.open.file(*part).ok_or(io::ErrorKind::UnexpectedEof)?;
            let count = file.read_at(&mut buffer[..want], part.offset + self.done)?;
            if count == 0 && want > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.advance(count as u64);
            return Ok(count);
        }
        let count = usize::try_from(self.end).map_or(buffer.len(), |end| end.min(buffer.len()));
        buffer[..count].fill(0);
        self.end -= count as u64;
        Ok(count)
    }
}

impl PartsReader {
    fn advance(&mut self, mut count: u64) {
        while let Some((_, part)) = self.open.parts.entries.get(self.next) {
            let left = part.length - self.done;
            if count < left {
                self.done += count;
                return;
            }
            count -= left;
            (self.next, self.done) = (self.next + 1, 0);
        }
    }
}

impl Store {
    /// The parts of a layer, when they are known and their blobs are here and, after an unclean boot, intact.
    pub(super) fn open_parts(&self, diff_id: &DiffId) -> Result<Option<OpenParts>> {
        let Some(row) = self.blob_rows(diff_id)?.into_iter().find(|row| row.compression.is_none()) else {
            return Ok(None);
        };
        let opened = self.open_list(&row.blob.digest)?;
        if self.is_trusted(&row.boot, row.settled) {
            return Ok(opened);
        }
        let intact = match opened {
            None => false,
            Some(opened) => {
                let mut hasher = Hasher::new(diff_id.algorithm());
                io::copy(&mut opened.into_reader(), &mut hasher).is_ok() && hasher.finish() == *diff_id
            }
        };
        if !intact {
            self.delete_blob(diff_id, &row.blob.digest)?;
            return Ok(None);
        }
        let list = row.blob.digest;
        self.insert_blob(diff_id, &BlobRow { settled: true, ..row })?;
        self.open_list(&list)
    }

    /// Whether there are parts, without a look at each.
    pub(super) fn has_parts(&self, diff_id: &DiffId) -> Result<bool> {
        let Some(row) = self.blob_rows(diff_id)?.into_iter().find(|row| row.compression.is_none()) else {
            return Ok(false);
        };
        if self.is_trusted(&row.boot, row.settled) {
            return Ok(self.blobs().size(&row.blob.digest)? == Some(row.blob.size));
        }
        Ok(self.open_parts(diff_id)?.is_some())
    }

    fn open_list(&self, list: &Digest) -> Result<Option<OpenParts>> {
        let Some(parts) = self.read_list(list) else { return Ok(None) };
        let Some(own) = self.blobs().get(&parts.own)? else { return Ok(None) };
        let base = match &parts.base {
            None => None,
            Some(base) => match self.blobs().get(base)? {
                None => return Ok(None),
                found => found,
            },
        };
        Ok(Some(OpenParts { parts, own, base }))
    }

    fn read_list(&self, list: &Digest) -> Option<Parts> {
        Parts::decode(&self.blobs().read(list, MOST).ok()?)
    }

    pub(super) fn remember_parts(&self, diff_id: &DiffId, parts: &Parts) -> Result<()> {
        let bytes = parts.encode();
        let digest = self.blobs().put(&bytes)?;
        let blob = LayerBlob { digest, size: bytes.len() as u64, media_type: MEDIA_TYPE.to_owned() };
        let boot = self.boot.clone();
        self.insert_blob(diff_id, &BlobRow { blob, compression: None, original: false, boot, settled: false })
    }

    /// The blobs that a form of a layer is made of besides its own.
    pub(crate) fn blobs_of_form(&self, row: &BlobRow) -> Vec<Digest> {
        let list = if row.compression.is_none() { self.read_list(&row.blob.digest) } else { None };
        list.map_or_else(Vec::new, |parts| std::iter::once(parts.own).chain(parts.base).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_and_garbage_is_none() {
        let part = |in_base, offset, length| Part { in_base, offset, length };
        let entries = vec![([1; 32], part(true, 7, 512)), ([0; 32], part(false, 0, 1 << 40))];
        let mark = |place, crc| Mark { place, state: vec![5; 105], crc };
        let marks = vec![mark(1 << 20, Some(0)), mark(2 << 20, Some(u32::MAX)), mark(3 << 20, None)];
        let mut parts = Parts { own: Digest::of(b"own"), base: None, entries, marks };
        assert_eq!(Parts::decode(&parts.encode()), Some(parts.clone()));
        parts.base = Some(Digest::of(b"base"));
        let bytes = parts.encode();
        assert_eq!(Parts::decode(&bytes), Some(parts));
        for length in [0, 10, HEAD - 1] {
            assert_eq!(Parts::decode(&bytes[..length]), None);
        }
        assert_eq!(Parts::decode(&vec![b' '; bytes.len()]), None);
    }
}
