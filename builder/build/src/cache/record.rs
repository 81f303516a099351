//! What a cache record says.

use kiln_store::metadata::CacheRecord;
use kiln_store::{DiffId, Store};
use serde::{Deserialize, Serialize};

use super::exchange::document::parse_key;
use crate::Result;
use crate::key::{Key, Parts};
use crate::step::internal;

/// What the cache has of a step: what the step gave, and the keys that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) value: Value,
    /// Needs no look at files.
    pub(crate) quick: Option<Key>,
    pub(crate) key: Key,
}

/// A record's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Value {
    pub(crate) layer: DiffId,
    /// Nanoseconds since 1970 when it was made: history's time.
    pub(crate) made: i128,
    /// Of a record whose key needs no look at files: the key of the files, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_key: Option<String>,
}

impl Hit {
    /// Of the key that it was found by.
    pub(crate) fn of(key: Key, value: Value) -> Self {
        match value.content_key.as_deref().and_then(parse_key) {
            Some(content) => Self { value, quick: Some(key), key: content },
            None => Self { value, quick: None, key },
        }
    }
}

impl Value {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Keeps it under a key; `step` is empty for a key that explains nothing.
    pub(crate) fn put(&self, store: &Store, key: Key, parts: &Parts, step: &str, description: &str) -> Result<()> {
        let record = CacheRecord {
            key,
            step: step.to_owned(),
            parts: parts.encode(),
            value: serde_json::to_vec(self).map_err(|_| internal("encode a cache record"))?,
            layer: Some(self.layer),
            description: description.to_owned(),
            created: i64::try_from(self.made / 1_000_000_000).unwrap_or(i64::MAX),
        };
        Ok(store.put_cache_record(&record)?)
    }
}
