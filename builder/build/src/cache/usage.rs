//! What the build cache takes: `du`.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_store::{DiffId, Store};
use rustix::fs::FlockOperation;

use super::exchange::mounts::MEMORY;
use super::lock_file;
use crate::failed_step::{self, FailedStep};
use crate::step::mounts::{FRESH, MAKING};
use crate::{Error, Result};

/// What kind of thing an entry is; the names are BuildKit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The layer of a step.
    Regular,
    /// The directory of a cache mount.
    CacheMount,
    /// What a step that failed left.
    FailedStep,
}

impl Kind {
    /// `regular`, `exec.cachemount`, `internal`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::CacheMount => "exec.cachemount",
            Self::FailedStep => "internal",
        }
    }
}

/// One entry of the build cache.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The layer's diffID, or the cache mount's hash, in hex; of a failed step the time.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// The step, or the cache mount's id.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970, to the minute.
    pub last_used: i64,
    /// How often, counted at most once a minute; 0 when that is not known.
    pub uses: u64,
    /// A running build has it.
    pub in_use: bool,
    /// An image or a container has it too: pruning it frees nothing.
    pub shared: bool,
    /// The layer, when it is one.
    pub layer: Option<DiffId>,
}

/// Everything the build cache has, least recently used first. `keep` are layers that containers need.
///
/// # Errors
/// The store cannot be read.
pub fn list(store: &Store, keep: &HashSet<DiffId>) -> Result<Vec<Entry>> {
    let mut entries = layers(store, keep)?;
    entries.extend(mounts(store)?);
    entries.extend(failed_steps(store)?);
    entries.sort_by(|a, b| (a.last_used, a.created, &a.id).cmp(&(b.last_used, b.created, &b.id)));
    Ok(entries)
}

fn layers(store: &Store, keep: &HashSet<DiffId>) -> Result<Vec<Entry>> {
    let layers = store.cached_layer_usage()?;
    Ok(layers
        .into_iter()
        .map(|layer| Entry {
            id: layer.diff_id.hex(),
            kind: Kind::Regular,
            description: layer.description,
            size: layer.size,
            created: layer.created,
            last_used: layer.last_used,
            uses: layer.uses,
            in_use: false,
            shared: layer.shared || keep.contains(&layer.diff_id),
            layer: Some(layer.diff_id),
        })
        .collect())
}

fn mounts(store: &Store) -> Result<Vec<Entry>> {
    let all = store.directory("cache")?;
    let mut entries = Vec::new();
    for home in std::fs::read_dir(&all).map_err(|error| Error::io("list cache mounts in", &all, error))? {
        let home = home.map_err(|error| Error::io("list cache mounts in", &all, error))?;
        let Ok(id) = std::fs::read_to_string(home.path().join("id")) else { continue };
        let time = |name: &str| std::fs::metadata(home.path().join(name)).map_or(0, |metadata| metadata.mtime());
        entries.push(Entry {
            id: home.file_name().to_string_lossy().into_owned(),
            kind: Kind::CacheMount,
            description: format!("cache mount {id}"),
            size: size(&home.path().join("data")),
            created: time("lock"),
            last_used: time("id"),
            uses: 0,
            in_use: is_held(&home.path().join("lock")),
            shared: false,
            layer: None,
        });
    }
    Ok(entries)
}

fn failed_steps(store: &Store) -> Result<Vec<Entry>> {
    let entry = |step: FailedStep| Entry {
        id: step.id(),
        kind: Kind::FailedStep,
        description: format!("failed: {}", step.name()),
        size: size(&step.upper()),
        created: step.time(),
        last_used: step.time(),
        uses: 0,
        in_use: step.is_open(),
        shared: false,
        layer: None,
    };
    Ok(failed_step::all(store)?.into_iter().map(entry).collect())
}

/// Removes what a failed step left, unless somebody looks around in it.
pub(super) fn remove_failed_step(store: &Store, entry: &Entry) -> Result<Option<u64>> {
    let removed = failed_step::remove(store, &failed_step::directory(store, &entry.id))?;
    Ok(removed.then_some(entry.size))
}

/// Whether a step has the mount at the moment.
fn is_held(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Bytes that a tree takes on the disk; hard links count once.
fn size(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    let entries = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
    let metadata = entries.filter_map(|entry| entry.metadata().ok());
    metadata
        .filter(|metadata| metadata.nlink() < 2 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())))
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

/// Removes a cache mount that nobody uses; `None` when somebody does.
pub(super) fn remove_mount(store: &Store, entry: &Entry) -> Result<Option<u64>> {
    let home = store.directory("cache")?.join(&entry.id);
    let io = |error| Error::io("remove cache mount", &home, error);
    let lock = home.join("lock");
    let held = match lock_file::lock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(Some(held)) => lock_file::Held::new(&lock, held),
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    for name in ["data", FRESH] {
        store.discard(&home.join(name))?;
    }
    for name in ["id", MAKING, MEMORY] {
        let _ = std::fs::remove_file(home.join(name));
    }
    drop(held);
    // Not empty when a build came meanwhile: then it is that build's.
    let _ = std::fs::remove_dir(&home);
    Ok(Some(entry.size))
}
