//! Which files were hashed before, by what `stat` says of them, so that only what moved is read again.
//!
//! One record is 88 bytes, little endian: inode, device, size, mtime, ctime (seconds and nanoseconds), hash.
//! A file that changed so shortly before it was hashed that a second change could bear the same times is not recorded.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use kiln_store::Store;
use kiln_store::snapshot::Node;

use crate::tree::{ContentHash, Tree};
use crate::{Result, tree};

const RECORD: usize = 88;
const MAGIC: &[u8; 8] = b"kilnfp01";
/// More than this many records of one context: those not seen in this build are dropped.
const MOST: usize = 1_000_000;
/// The coarsest clock a file system may stamp with.
const GRANULARITY_NS: i128 = 20_000_000;
/// For file systems that keep whole seconds only (some even ones).
const COARSE_NS: i128 = 2_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    size: u64,
    mtime: i128,
    ctime: i128,
    hash: ContentHash,
}

/// The fingerprints of one context.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    known: HashMap<(u64, u64), Fingerprint>,
    seen: Mutex<HashMap<(u64, u64), Fingerprint>>,
}

impl Fingerprints {
    pub(super) fn load(store: &Store, root: &Path) -> Result<Self> {
        let bytes = store.fingerprints(&root.to_string_lossy())?.unwrap_or_default();
        let known = bytes.strip_prefix(MAGIC).map(decode).unwrap_or_default();
        Ok(Self { known, seen: Mutex::default() })
    }

    /// Writes what was learnt; nothing when nothing was.
    pub(super) fn save(&self, store: &Store, root: &Path) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().all(|(key, fingerprint)| self.known.get(key) == Some(fingerprint)) {
            return Ok(());
        }
        let mut bytes = MAGIC.to_vec();
        bytes.reserve((self.known.len() + seen.len()) * RECORD);
        if self.known.len() + seen.len() <= MOST {
            for (key, fingerprint) in self.known.iter().filter(|(key, _)| !seen.contains_key(key)) {
                encode(&mut bytes, *key, fingerprint);
            }
        }
        for (key, fingerprint) in seen.iter() {
            encode(&mut bytes, *key, fingerprint);
        }
        Ok(store.put_fingerprints(&root.to_string_lossy(), &bytes)?)
    }

    /// The content hashes of files, reading only those that are not known.
    pub(super) fn hash(&self, tree: &super::Context, nodes: &[&Node]) -> Result<Vec<ContentHash>> {
        let mut hashes = vec![[0; 32]; nodes.len()];
        let mut missing = Vec::new();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (index, node) in nodes.iter().enumerate() {
                let known = seen.get(&node.inode).or_else(|| self.known.get(&node.inode)).copied();
                match known.filter(|known| known.is_of(node)) {
                    Some(known) => {
                        hashes[index] = known.hash;
                        seen.insert(node.inode, known);
                    }
                    None => missing.push(index),
                }
            }
        }
        if missing.is_empty() {
            return Ok(hashes);
        }
        let begun = now();
        let files: Vec<&Node> = missing.iter().map(|&index| nodes[index]).collect();
        let read = tree::hash_in_parallel(tree as &dyn Tree, &files)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for ((&index, node), hash) in missing.iter().zip(&files).zip(read) {
            hashes[index] = hash;
            let fingerprint = Fingerprint::of(node, hash);
            if fingerprint.is_settled(begun) {
                seen.insert(node.inode, fingerprint);
            }
        }
        Ok(hashes)
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
    fn is_settled(&self, begun: i128) -> bool {
        let newest = self.mtime.max(self.ctime);
        let coarse = self.ctime % 1_000_000_000 == 0;
        newest + if coarse { COARSE_NS } else { GRANULARITY_NS } < begun
    }
}

fn now() -> i128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

fn join((seconds, nanoseconds): (i64, u32)) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

fn encode(out: &mut Vec<u8>, (inode, device): (u64, u64), fingerprint: &Fingerprint) {
    out.extend(inode.to_le_bytes());
    out.extend(device.to_le_bytes());
    out.extend(fingerprint.size.to_le_bytes());
    out.extend(fingerprint.mtime.to_le_bytes());
    out.extend(fingerprint.ctime.to_le_bytes());
    out.extend(fingerprint.hash);
}

fn decode(bytes: &[u8]) -> HashMap<(u64, u64), Fingerprint> {
    let mut known = HashMap::with_capacity(bytes.len() / RECORD);
    for record in bytes.chunks_exact(RECORD) {
        let mut fields = Fields(record);
        let key = (u64::from_le_bytes(fields.take()), u64::from_le_bytes(fields.take()));
        let size = u64::from_le_bytes(fields.take());
        let mtime = i128::from_le_bytes(fields.take());
        let ctime = i128::from_le_bytes(fields.take());
        known.insert(key, Fingerprint { size, mtime, ctime, hash: fields.take() });
    }
    known
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
