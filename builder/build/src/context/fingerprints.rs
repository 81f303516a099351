//! Which files were hashed before, by what `stat` says of them, so that only what moved is read again.
//!
//! One record is 72 bytes, little endian: device, inode, size, mtime, ctime (nanoseconds since 1970), hash; sorted by
//! device and inode, so that a file is found where the bytes lie. A file that changed so shortly before it was hashed
//! that a second change could bear the same times is not recorded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use kiln_store::Store;
use kiln_store::snapshot::Node;

use crate::tree::{ContentHash, Tree};
use crate::{Result, tree};

const RECORD: usize = 72;
const MAGIC: &[u8; 8] = b"kilnfp02";
/// More than this many records of one context: only those of this build are kept.
const MOST: usize = 1_000_000;
/// The coarsest clock a file system may stamp with.
const GRANULARITY: i64 = 20_000_000;
/// For file systems that keep whole seconds only (some even ones).
const COARSE: i64 = 2_000_000_000;

/// Device and inode.
type File = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    size: u64,
    mtime: i64,
    ctime: i64,
    hash: ContentHash,
}

/// The fingerprints of one context.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    known: Vec<u8>,
    fresh: Mutex<BTreeMap<File, Fingerprint>>,
}

impl Fingerprints {
    pub(super) fn load(store: &Store, root: &Path) -> Result<Self> {
        let mut known = store.fingerprints(&root.to_string_lossy())?.unwrap_or_default();
        if known.starts_with(MAGIC) && (known.len() - MAGIC.len()).is_multiple_of(RECORD) {
            known.drain(..MAGIC.len());
        } else {
            known.clear();
        }
        Ok(Self { known, fresh: Mutex::default() })
    }

    /// Writes what was learnt; nothing when nothing was.
    pub(super) fn save(&self, store: &Store, root: &Path) -> Result<()> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_empty() {
            return Ok(());
        }
        let mut all = fresh.clone();
        if all.len() + self.known.len() / RECORD <= MOST {
            for (file, fingerprint) in self.known.chunks_exact(RECORD).map(decode) {
                all.entry(file).or_insert(fingerprint);
            }
        }
        let mut bytes = Vec::with_capacity(MAGIC.len() + all.len() * RECORD);
        bytes.extend(MAGIC);
        all.iter().for_each(|(file, fingerprint)| encode(&mut bytes, *file, fingerprint));
        Ok(store.put_fingerprints(&root.to_string_lossy(), &bytes)?)
    }

    /// The record of a file. `next` is where the last search ended: files that lie together were often made one after
    /// the other, and so were their inodes.
    fn find(&self, file: File, next: &mut usize) -> Option<Fingerprint> {
        let record = |index: usize| self.known.get(index * RECORD..(index + 1) * RECORD);
        let (mut low, mut high) = (0_usize, self.known.len() / RECORD);
        let mut middle = if *next < high { *next } else { low.midpoint(high) };
        while low < high {
            let found = record(middle)?;
            match file_of(found).cmp(&file) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    *next = middle + 1;
                    return Some(decode(found).1);
                }
            }
            middle = low.midpoint(high);
        }
        None
    }

    /// The content hashes of files, reading only those that are not known.
    pub(super) fn hash(&self, tree: &super::Context, nodes: &[&Node]) -> Result<Vec<ContentHash>> {
        let known = self.known(nodes);
        let missing: Vec<usize> = (0..nodes.len()).filter(|&index| known[index].is_none()).collect();
        let mut hashes: Vec<ContentHash> = known.into_iter().map(Option::unwrap_or_default).collect();
        if missing.is_empty() {
            return Ok(hashes);
        }
        let begun = now();
        let files: Vec<&Node> = missing.iter().map(|&index| nodes[index]).collect();
        let read = tree::hash_in_parallel(tree as &dyn Tree, &files)?;
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        for ((&index, node), hash) in missing.iter().zip(&files).zip(read) {
            hashes[index] = hash;
            let fingerprint = Fingerprint::of(node, hash);
            if fingerprint.is_settled(begun) {
                fresh.insert(key(node), fingerprint);
            }
        }
        Ok(hashes)
    }
}

/// Files that one thread looks up sooner than another could be started.
const SHARE: usize = 2048;

impl Fingerprints {
    /// The hashes of those files that are what they were, looked up on all processors.
    fn known(&self, nodes: &[&Node]) -> Vec<Option<ContentHash>> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |node: &&Node, next: &mut usize| {
            let known = fresh.get(&key(node)).copied().or_else(|| self.find(key(node), next));
            known.filter(|known| known.is_of(node)).map(|known| known.hash)
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let share = nodes.len().div_ceil(processors).max(SHARE);
        let mut found = vec![None; nodes.len()];
        std::thread::scope(|scope| {
            for (nodes, found) in nodes.chunks(share).zip(found.chunks_mut(share)) {
                let look_up = move || {
                    let mut next = 0;
                    nodes.iter().zip(found).for_each(|(node, found)| *found = find(node, &mut next));
                };
                if nodes.len() < share { look_up() } else { drop(scope.spawn(look_up)) }
            }
        });
        found
    }
}

impl Fingerprint {
    fn of(node: &Node, hash: ContentHash) -> Self {
        Self { size: node.size, mtime: join(node.mtime), ctime: join(node.ctime), hash }
    }

    fn is_of(&self, node: &Node) -> bool {
        self.size == node.size && self.mtime == join(node.mtime) && self.ctime == join(node.ctime)
    }

    /// Old enough that a later change must bear a later time.
    fn is_settled(&self, begun: i64) -> bool {
        let coarse = self.ctime % 1_000_000_000 == 0;
        self.mtime.max(self.ctime).saturating_add(if coarse { COARSE } else { GRANULARITY }) < begun
    }
}

fn key(node: &Node) -> File {
    (node.inode.1, node.inode.0)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970; the ends of time for what does not fit (before 1677, after 2262).
fn join((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanoseconds))
}

fn encode(out: &mut Vec<u8>, (device, inode): File, fingerprint: &Fingerprint) {
    out.extend(device.to_le_bytes());
    out.extend(inode.to_le_bytes());
    out.extend(fingerprint.size.to_le_bytes());
    out.extend(fingerprint.mtime.to_le_bytes());
    out.extend(fingerprint.ctime.to_le_bytes());
    out.extend(fingerprint.hash);
}

fn file_of(record: &[u8]) -> File {
    let mut fields = Fields(record);
    (u64::from_le_bytes(fields.take()), u64::from_le_bytes(fields.take()))
}

fn decode(record: &[u8]) -> (File, Fingerprint) {
    let mut fields = Fields(record);
    let file = (u64::from_le_bytes(fields.take()), u64::from_le_bytes(fields.take()));
    let size = u64::from_le_bytes(fields.take());
    let mtime = i64::from_le_bytes(fields.take());
    let ctime = i64::from_le_bytes(fields.take());
    (file, Fingerprint { size, mtime, ctime, hash: fields.take() })
}

/// The rest of a record; what is missing reads as zeros.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        let mut field = [0; N];
        field[..head.len()].copy_from_slice(head);
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(size: u64) -> Fingerprint {
        Fingerprint { size, mtime: 5, ctime: -7, hash: [u8::try_from(size).unwrap(); 32] }
    }

    #[test]
    fn records_are_found_where_they_lie() {
        let mut known = Vec::new();
        for inode in [1, 3, 5, 7, 9] {
            encode(&mut known, (2, inode), &fingerprint(inode));
        }
        let fingerprints = Fingerprints { known, fresh: Mutex::default() };
        for start in 0..7 {
            for inode in [1, 3, 5, 7, 9] {
                let mut next = start;
                assert_eq!(fingerprints.find((2, inode), &mut next), Some(fingerprint(inode)));
                assert_eq!(next as u64, inode.div_ceil(2));
            }
            for file in [(2, 0), (2, 4), (2, 10), (1, 3), (3, 3)] {
                let mut next = start;
                assert_eq!((fingerprints.find(file, &mut next), next), (None, start));
            }
        }
    }

    #[test]
    fn what_just_changed_is_not_remembered() {
        let at = |ctime| Fingerprint { size: 1, mtime: 0, ctime, hash: [0; 32] };
        let now = 10 * 1_000_000_000;
        assert!(at(now - GRANULARITY - 1).is_settled(now));
        assert!(!at(now - GRANULARITY + 1).is_settled(now));
        assert!(!at(now - 1_000_000_000).is_settled(now), "whole seconds: a coarse clock");
        assert!(at(now - 3_000_000_000).is_settled(now));
    }
}
