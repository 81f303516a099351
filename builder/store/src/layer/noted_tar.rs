//! A layer's tar that the store wrote itself. When it was made, the CRC-32 of every block was noted: whoever reads it
//! again compares these, in any order and on any core, which costs less than to hash the whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use libdeflater::Crc;

use super::parts::Mark;
use crate::digest::Hasher;
use crate::hashing::MARK;
use crate::{DiffId, Error, Result, Store};

/// Bytes of a block that has a CRC.
pub(super) const NOTED: usize = MARK as usize;

/// The CRC-32 of some bytes.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The tar. Only the disk may have changed it.
pub(super) struct NotedTar {
    diff_id: DiffId,
    file: File,
    crcs: Vec<u32>,
    /// Of all that was noted.
    hasher: Hasher,
}

/// Some of its blocks, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Place<'t> {
    tar: &'t NotedTar,
    offset: u64,
    crcs: &'t [u32],
}

impl Place<'_> {
    /// In bytes.
    pub(super) fn length(&self) -> usize {
        self.crcs.len() * NOTED
    }

    /// What was noted of each block.
    pub(super) fn crcs(&self) -> &[u32] {
        self.crcs
    }

    /// Reads all of it into `bytes`.
    ///
    /// # Errors
    /// [`Error::Changed`]
    pub(super) fn read(&self, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.resize(self.length(), 0);
        self.tar.read(self.offset, bytes)?;
        let same = bytes.chunks(NOTED).map(crc32).eq(self.crcs.iter().copied());
        if same { Ok(()) } else { Err(Error::Changed(self.tar.diff_id)) }
    }

    /// Reads bytes to look at, unchecked, from `offset` within it.
    pub(super) fn sample(&self, offset: usize, sample: &mut [u8]) -> Result<()> {
        self.tar.read(self.offset + offset as u64, sample)
    }
}

impl NotedTar {
    /// `None` when there are no blocks, or something was not noted of one.
    fn new(diff_id: DiffId, file: File, marks: &[Mark]) -> Option<Self> {
        let places = (1..).map(|block| block * MARK);
        let crcs = marks.iter().zip(places).map(|(mark, place)| mark.crc.filter(|_| mark.place == place));
        let crcs: Vec<u32> = crcs.collect::<Option<_>>()?;
        Some(Self { diff_id, file, crcs, hasher: Hasher::resume(&marks.last()?.state)? })
    }

    /// The tar in places of so many bytes, without what is left behind the last.
    pub(super) fn places(&self, length: usize) -> impl Iterator<Item = Place<'_>> {
        let places = self.crcs.chunks_exact(length / NOTED).zip((0..).step_by(length));
        places.map(|(crcs, offset)| Place { tar: self, offset, crcs })
    }

    /// What follows the [`NotedTar::places`] of so many bytes.
    ///
    /// # Errors
    /// [`Error::Changed`]
    pub(super) fn read_rest(&self, length: usize) -> Result<Vec<u8>> {
        let crcs = self.crcs.chunks_exact(length / NOTED).remainder();
        let noted = self.crcs.len() as u64 * MARK;
        let last = Place { tar: self, offset: noted - crcs.len() as u64 * MARK, crcs };
        let size = self.file.metadata().map_err(Error::ArchiveRead)?.len();
        // A tar that has grown is none of ours, and need not be read.
        let end = size.checked_sub(noted).filter(|end| *end < MARK).and_then(|end| usize::try_from(end).ok());
        let end = end.ok_or(Error::Changed(self.diff_id))?;
        let mut rest = Vec::with_capacity(last.length() + end);
        last.read(&mut rest)?;
        rest.resize(last.length() + end, 0);
        let end = &mut rest[last.length()..];
        self.read(noted, end)?;
        let mut hasher = self.hasher.clone();
        hasher.update(end);
        if hasher.finish() == self.diff_id { Ok(rest) } else { Err(Error::Changed(self.diff_id)) }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed(self.diff_id),
            _ => Error::ArchiveRead(error),
        })
    }
}

impl Store {
    /// A layer's tar, where it is here and was noted.
    pub(super) fn noted_tar(&self, diff_id: &DiffId) -> Result<Option<NotedTar>> {
        // What is made of a directory anew is nothing that was noted.
        let stored = self.layer_row(diff_id)?.is_some_and(|row| !row.reproducible);
        let open = if stored { self.open_parts(diff_id)? } else { None };
        // The notes of a list with a base are of the base.
        let whole = open.filter(|open| open.parts.base.is_none() && open.parts.own == *diff_id);
        Ok(whole.and_then(|open| NotedTar::new(*diff_id, open.own, &open.parts.marks)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;
    use crate::digest::Algorithm;
    use crate::hashing::BackgroundHasher;

    /// As a store would have noted `tar`, of which the disk has made `bytes`.
    pub(in super::super) fn noted(tar: &[u8], bytes: &[u8]) -> NotedTar {
        let (marks, diff_id) = marks(tar);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        NotedTar::new(diff_id, file, &marks).unwrap()
    }

    fn marks(tar: &[u8]) -> (Vec<Mark>, DiffId) {
        let mut hasher = BackgroundHasher::marking(Algorithm::Sha256);
        hasher.write_all(tar).unwrap();
        let (digest, marks) = hasher.finish_with_marks().unwrap();
        (marks.iter().filter_map(Mark::of_hasher).collect(), digest)
    }

    /// All of it, read in blocks of this length; `None` when a change was noticed.
    fn read_all(tar: &NotedTar, length: usize) -> Option<Vec<u8>> {
        let read = || -> Result<Vec<u8>> {
            let (mut all, mut block) = (Vec::new(), Vec::new());
            for place in tar.places(length) {
                place.read(&mut block)?;
                all.extend_from_slice(&block);
            }
            all.extend(tar.read_rest(length)?);
            Ok(all)
        };
        match read() {
            Err(Error::Changed(_)) => None,
            read => Some(read.unwrap()),
        }
    }

    #[test]
    fn every_change_is_seen() {
        let tar: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
        for length in [NOTED, 2 * NOTED] {
            assert!(read_all(&noted(&tar, &tar), length).as_ref() == Some(&tar));
            for place in [0, 1 << 20, (3 << 20) - 1, 3 << 20, tar.len() - 1] {
                let mut changed = tar.clone();
                changed[place] ^= 1;
                assert!(read_all(&noted(&tar, &changed), length).is_none(), "{place}");
            }
            for end in [0, 1 << 20, 3 << 20, tar.len() - 1] {
                assert!(read_all(&noted(&tar, &tar[..end]), length).is_none(), "{end}");
            }
            for more in [1, 5 << 20] {
                assert!(read_all(&noted(&tar, &[&tar[..], &vec![0; more]].concat()), length).is_none(), "{more}");
            }
        }
    }

    #[test]
    fn without_all_notes_there_are_none() {
        let (mut marks, diff_id) = marks(&vec![7; 5 << 20]);
        let noted = |marks: &[Mark]| NotedTar::new(diff_id, tempfile::tempfile().unwrap(), marks);
        assert!(noted(&marks).is_some());
        marks[3].crc = None;
        assert!(noted(&marks).is_none());
        marks.remove(3);
        assert!(noted(&marks).is_none());
        assert!(noted(&[]).is_none());
    }
}
