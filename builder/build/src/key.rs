//! Cache keys: the content of everything that can change a step's result, and nothing else.

use std::cell::RefCell;
use std::os::unix::ffi::OsStrExt;

use kiln_store::DiffId;
use kiln_store::snapshot::Kind;
use serde::{Deserialize, Serialize};

use crate::selection::Selection;

/// Changed whenever the meaning of a key or of a record changes.
const VERSION: &str = "kiln cache key 4";

/// The part that says which kind of step a key is of.
pub(crate) const KIND: &str = "instruction";

/// A cache key.
pub(crate) type Key = [u8; 32];

/// What a key was made of, kept with the record to explain a later miss.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// Name and value, in order.
    pub(crate) named: Vec<(String, String)>,
    /// Copied files: path and the beginning of the hash of all that counts of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<(String, u64)>,
}

/// Collects the parts of a key.
pub(crate) struct KeyBuilder {
    hasher: blake3::Hasher,
    parts: Parts,
}

impl KeyBuilder {
    /// A key of that kind of step.
    pub(crate) fn new(kind: &str) -> Self {
        let mut builder = Self { hasher: blake3::Hasher::new(), parts: Parts::default() };
        builder.feed(VERSION.as_bytes());
        builder.part(KIND, kind);
        builder
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// Adds a named value.
    pub(crate) fn part(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        self.feed(name.as_bytes());
        self.feed(value.as_bytes());
        self.parts.named.push((name, value));
    }

    /// Adds words that another part shows: where one ends counts, but tells nobody anything.
    pub(crate) fn boundaries(&mut self, words: &[String]) {
        words.iter().for_each(|word| self.feed(&(word.len() as u64).to_le_bytes()));
    }

    /// Adds a stack of layers.
    pub(crate) fn layers(&mut self, name: &str, layers: &[DiffId]) {
        self.part(name, LAST_STACK.with_borrow_mut(|last| last.hash(layers)).to_hex().to_string());
    }

    /// Adds the files of a COPY: names, kinds, modes, owners, content, links, attributes; no times. `keeps_paths`
    /// with `--parents`.
    pub(crate) fn files(&mut self, selection: &Selection, keeps_paths: bool) {
        let mut bytes = Vec::with_capacity(1 << 16);
        for (index, matched) in selection.matches.iter().enumerate() {
            self.feed(&(index as u64).to_le_bytes());
            // A directory's content goes where the destination says: its own name is seen by nobody.
            if keeps_paths || matched.node.kind != Kind::Directory {
                self.feed(matched.name.as_bytes());
            }
            for item in &matched.items {
                let path = item.path().as_os_str().as_bytes();
                bytes.extend((path.len() as u64).to_le_bytes());
                bytes.extend(path);
                item.describe(&mut bytes);
                if bytes.len() >= 1 << 15 {
                    self.feed(&bytes);
                    bytes.clear();
                }
            }
            self.feed(&bytes);
            bytes.clear();
        }
    }

    /// The key and its parts.
    pub(crate) fn finish(self) -> (Key, Parts) {
        (*self.hasher.finalize().as_bytes(), self.parts)
    }
}

thread_local! {
    static LAST_STACK: RefCell<Stack> = RefCell::default();
}

/// A stack of layers and its hash so far. Most stacks are the one before with a layer more: what is hashed for a step
/// does not grow with the number of those below it.
#[derive(Default)]
struct Stack {
    layers: Vec<DiffId>,
    hasher: blake3::Hasher,
}

impl Stack {
    fn hash(&mut self, layers: &[DiffId]) -> blake3::Hash {
        if !layers.starts_with(&self.layers) {
            *self = Self::default();
        }
        for layer in &layers[self.layers.len()..] {
            self.hasher.update(layer.to_string().as_bytes());
            self.layers.push(*layer);
        }
        self.hasher.finalize()
    }
}

impl Parts {
    /// For the store.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        zstd::bulk::compress(&json, 1).unwrap_or_default()
    }

    /// From the store; `None` when it is of another version of kiln.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(&zstd::stream::decode_all(bytes).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_has_one_hash_whatever_was_hashed_before() {
        let layers: Vec<DiffId> = (0..9_u8).map(|number| DiffId::of(&[number])).collect();
        let alone = |layers: &[DiffId]| Stack::default().hash(layers);
        let mut stack = Stack::default();
        let (first, other) = (&layers[..2], [layers[7], layers[8]]);
        for wanted in [&layers[..3], &layers[..5], &other, &[], first, &layers[..4], &layers[1..], &layers[..]] {
            assert_eq!(stack.hash(wanted), alone(wanted), "{wanted:?}");
        }
        assert_ne!(alone(&layers[..3]), alone(&layers[..4]));
    }
}
