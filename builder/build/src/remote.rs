//! Files that are not on this host: behind HTTP, or in a git repository. They become a layer of the store, so that
//! whatever takes files from a stage can take them too; what is there already is only asked after.

mod git;
mod http;
mod location;

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use kiln_store::changeset::Changeset;
use kiln_store::layer::Files;
use kiln_store::layer_writer::{Attributes, LayerWriter};
use kiln_store::metadata::CacheRecord;
use kiln_store::{DiffId, Snapshot, Store};
use serde::{Deserialize, Serialize};

pub use location::{GitSource, Location};

use crate::{Error, Result, archive};

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// From where.
    pub source: Remote,
    /// What it must be.
    pub checksum: Option<String>,
    /// What becomes of a file that is an archive.
    pub form: Form,
}

/// From where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// A URL.
    Http(String),
    /// A repository.
    Git(GitSource),
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It stays a file.
    File,
    /// It is an archive: what counts is what is in it.
    Unpacked,
}

/// The only file of a layer that was fetched by URL, and its name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The layer.
    pub layer: DiffId,
    /// The file's name, when it is a file.
    pub name: Option<String>,
}

/// Fetches into the store. `epoch` sets later times back to it; `no_cache` forgets what was fetched before.
///
/// # Errors
/// It cannot be had, or is not what the checksum says.
pub fn fetch(store: &Store, fetch: &Fetch, epoch: Option<i64>, no_cache: bool) -> Result<Fetched> {
    let site = Site { store, epoch, no_cache };
    match &fetch.source {
        Remote::Http(url) => http::fetch(&site, url, fetch.checksum.as_deref(), fetch.form),
        Remote::Git(source) => git::fetch(&site, source, fetch.checksum.as_deref()),
    }
}

/// What an archive on standard input holds.
///
/// # Errors
/// It is damaged.
pub fn unpack(store: &Store, archive: &mut std::fs::File, name: &str, epoch: Option<i64>) -> Result<DiffId> {
    Site { store, epoch, no_cache: false }.unpack(archive, name)
}

struct Site<'a> {
    store: &'a Store,
    epoch: Option<i64>,
    no_cache: bool,
}

/// Writes the layer of what was fetched.
type Writer<'a> = LayerWriter<'a, Changeset>;

/// Everything is written as it comes: no file is left to be read later.
struct NoFiles;

impl Files for NoFiles {
    type Error = Error;

    fn open(&self, _: usize) -> Result<File> {
        Err(Error::Internal("fetch: a file is missing".to_owned()))
    }

    fn xattrs(&self, _: usize, _: &File) -> Result<Vec<(OsString, Vec<u8>)>> {
        Ok(Vec::new())
    }

    fn was_read(&self, _: usize, _: &File) {}
}

/// Attributes of directories that nobody described: no clock is involved.
const PLAIN_DIRECTORY: Attributes = Attributes { uid: 0, gid: 0, mode: 0o755, mtime: (0, 0) };

impl Site<'_> {
    /// A layer of files that `write` writes.
    fn layer(&self, write: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Result<DiffId> {
        let nothing = Snapshot::open(self.store, &[])?;
        let mut writer = LayerWriter::new(&nothing, Changeset::new(self.store.stage()?), PLAIN_DIRECTORY);
        write(&mut writer)?;
        Ok(self.store.pack(writer.into_upper(), self.epoch, None, &NoFiles)?.diff_id)
    }

    fn unpack(&self, archive: &mut std::fs::File, name: &str) -> Result<DiffId> {
        self.layer(|writer| {
            let changes = archive::Changes { owner: None, chmod: None };
            archive::unpack(archive, name, writer, Path::new(""), &changes)
        })
    }

    /// What was remembered under a key, as long as its layer is here.
    fn recall<T: for<'de> Deserialize<'de>>(&self, key: &[u8; 32], layer: impl Fn(&T) -> DiffId) -> Result<Option<T>> {
        if self.no_cache {
            return Ok(None);
        }
        let Some(record) = self.store.cache_record(key)? else { return Ok(None) };
        let Ok(value) = serde_json::from_slice::<T>(&record.value) else { return Ok(None) };
        Ok(self.store.layer(&layer(&value))?.map(|_| value))
    }

    fn remember<T: Serialize>(&self, key: [u8; 32], value: &T, layer: DiffId) -> Result<()> {
        let encoded = serde_json::to_vec(value).map_err(|_| Error::Internal("encode a cache record".to_owned()))?;
        let created = i64::try_from(crate::solve::now() / 1_000_000_000).unwrap_or(i64::MAX);
        let record = CacheRecord {
            key,
            step: String::new(),
            parts: Vec::new(),
            value: encoded,
            layer: Some(layer),
            description: String::new(),
            created,
        };
        Ok(self.store.put_cache_record(&record)?)
    }

    /// A key of what is fetched: `words` say what, the rest is the same for all.
    fn key(&self, kind: &str, words: &[&str]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for word in ["kiln remote 1", kind, &format!("{:?}", self.epoch)].iter().chain(words) {
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}
