//! Whether a tar that is read again is still the layer's: by its digest, or by what was noted when it was made, which
//! costs less.

use std::fs::File;
use std::io::{self, Write};

use libdeflater::Crc;

use super::parts::Mark;
use crate::digest::Hasher;
use crate::hashing::{BackgroundHasher, MARK};
use crate::{DiffId, Error, Result, Store};

/// Takes a layer's tar.
pub(super) enum TarCheck {
    /// Its digest is made anew.
    Whole(BackgroundHasher),
    /// It is one that the store wrote itself: only the disk may have changed it.
    Noted(NotedBlocks),
}

/// Compares the CRC-32 of every block with the noted one; what follows the last is hashed on from there.
pub(super) struct NotedBlocks {
    crcs: std::vec::IntoIter<u32>,
    crc: Crc,
    /// Bytes of the block at hand.
    done: usize,
    /// The tar itself.
    file: File,
    /// Goes on where the blocks end.
    rest: Hasher,
    changed: bool,
}

impl NotedBlocks {
    /// `None` when there are no blocks, or something was not noted of one.
    fn new(marks: &[Mark], file: File) -> Option<Self> {
        let places = (1..).map(|block| block * MARK);
        let crcs = marks.iter().zip(places).map(|(mark, place)| mark.crc.filter(|_| mark.place == place));
        let crcs: Vec<u32> = crcs.collect::<Option<_>>()?;
        let rest = Hasher::resume(&marks.last()?.state)?;
        Some(Self { crcs: crcs.into_iter(), crc: Crc::new(), done: 0, file, rest, changed: false })
    }

    fn update(&mut self, mut bytes: &[u8]) {
        const BLOCK: usize = MARK as usize;
        while self.crcs.len() > 0 && !bytes.is_empty() {
            let (block, rest) = bytes.split_at(bytes.len().min(BLOCK - self.done));
            self.crc.update(block);
            self.done += block.len();
            if self.done == BLOCK {
                self.changed |= self.crcs.next() != Some(self.crc.sum());
                (self.crc, self.done) = (Crc::new(), 0);
            }
            bytes = rest;
        }
        self.rest.update(bytes);
    }
}

impl TarCheck {
    /// A file with the same bytes, where there is one.
    pub(super) fn file(&self) -> Result<Option<File>> {
        match self {
            Self::Whole(_) => Ok(None),
            Self::Noted(blocks) => blocks.file.try_clone().map(Some).map_err(Error::ArchiveRead),
        }
    }

    /// # Errors
    /// [`Error::DigestMismatch`]; [`Error::Changed`].
    pub(super) fn finish(self, diff_id: &DiffId) -> Result<()> {
        let actual = match self {
            Self::Whole(hasher) => hasher.finish()?,
            Self::Noted(blocks) if blocks.changed || blocks.crcs.len() > 0 => return Err(Error::Changed(*diff_id)),
            Self::Noted(blocks) => blocks.rest.finish(),
        };
        if actual != *diff_id {
            return Err(Error::mismatch("the layer's directory", diff_id, &actual));
        }
        Ok(())
    }
}

impl Write for TarCheck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Whole(hasher) => hasher.write(bytes),
            Self::Noted(blocks) => {
                blocks.update(bytes);
                Ok(bytes.len())
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// For what [`Store::write_tar`] writes.
    pub(super) fn check_tar(&self, diff_id: &DiffId) -> Result<TarCheck> {
        // What is made of a directory anew is nothing that was noted.
        let stored = self.layer_row(diff_id)?.is_some_and(|row| !row.reproducible);
        let open = if stored { self.open_parts(diff_id)? } else { None };
        // The notes of a list with a base are of the base.
        let whole = open.filter(|open| open.parts.base.is_none());
        let noted = whole.and_then(|open| NotedBlocks::new(&open.parts.marks, open.own));
        Ok(noted.map_or_else(|| TarCheck::Whole(BackgroundHasher::new(diff_id.algorithm())), TarCheck::Noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(tar: &[u8]) -> (Vec<Mark>, DiffId) {
        let mut hasher = BackgroundHasher::marking(crate::digest::Algorithm::Sha256);
        hasher.write_all(tar).unwrap();
        let (digest, marks) = hasher.finish_with_marks().unwrap();
        (marks.iter().filter_map(Mark::of_hasher).collect(), digest)
    }

    fn check(marks: &[Mark], tar: &[u8], diff_id: &DiffId) -> Result<()> {
        let mut check = TarCheck::Noted(NotedBlocks::new(marks, tempfile::tempfile().unwrap()).unwrap());
        for piece in tar.chunks(300_000) {
            check.write_all(piece).unwrap();
        }
        check.finish(diff_id)
    }

    #[test]
    fn every_change_is_seen() {
        let tar: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
        let (marks, diff_id) = marks(&tar);
        assert_eq!(marks.len(), 3);
        check(&marks, &tar, &diff_id).unwrap();
        for place in [0, 1 << 20, (3 << 20) - 1, 3 << 20, tar.len() - 1] {
            let mut changed = tar.clone();
            changed[place] ^= 1;
            assert!(check(&marks, &changed, &diff_id).is_err(), "{place}");
        }
        for length in [0, 1 << 20, 3 << 20, tar.len() - 1] {
            assert!(check(&marks, &tar[..length], &diff_id).is_err(), "{length}");
        }
        assert!(check(&marks, &[tar, vec![0]].concat(), &diff_id).is_err());
    }

    #[test]
    fn without_all_notes_there_are_none() {
        let blocks = |marks: &[Mark]| NotedBlocks::new(marks, tempfile::tempfile().unwrap());
        let (mut marks, _) = marks(&vec![7; 5 << 20]);
        assert!(blocks(&marks).is_some());
        marks[3].crc = None;
        assert!(blocks(&marks).is_none());
        marks.remove(3);
        assert!(blocks(&marks).is_none());
        assert!(blocks(&[]).is_none());
    }
}
