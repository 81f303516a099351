//! The files of cache mounts, as archives that come and go: a mount that is new here starts with what another machine
//! had in its own.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_image::manifest::Descriptor;
use kiln_store::digest::Algorithm;
use kiln_store::layer::{Compression, Staging};
use kiln_store::{Blobs, DiffId, Store};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::document::Piece;
use super::location::Location;
use super::transport::Transport;
use super::{Exchange, Source};
use crate::cache::lock_file;
use crate::error::chain;
use crate::progress::{Event, Reporter};
use crate::{Error, Result};

/// What was sent of a mount the last time, beside its data.
pub(in crate::cache) const MEMORY: &str = "sent";
/// How long an export waits for steps of other builds that have the mount.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// An archive of a mount's files in the state in which they were.
#[derive(Serialize, Deserialize)]
struct Memory {
    state: String,
    layer: DiffId,
    tar_size: u64,
    blob: Descriptor,
}

impl Memory {
    fn piece(self) -> Piece {
        Piece { blob: self.blob, diff_id: self.layer, tar_size: self.tar_size }
    }
}

/// A place for a blob that is not the store's.
fn scratch(staging: &Staging) -> Result<Blobs> {
    Ok(Blobs::open(&staging.scratch("mount")?, &staging.scratch("mount-partial")?)?)
}

impl Exchange {
    /// What another machine had in a cache mount, if one had, as the upper directory of a staging. What fails is
    /// reported, and no reason not to build.
    pub(crate) fn fetch_mount(&self, store: &Store, reporter: &dyn Reporter, name: &str) -> Option<Staging> {
        (0..self.sources.len()).find_map(|number| {
            let piece = self.ask(number, store, reporter, |source| source.mount(name))?;
            let unpacked = unpack(store, self.opened(number)?, &piece);
            let report = |error: &Error| reporter.event(Event::Note(&format!("a cache mount: {}", chain(error))));
            unpacked.inspect_err(report).ok()
        })
    }

    /// Sends what is in a cache mount, unless it is there: the archive, or nothing when there is no such mount.
    pub(super) fn send_mount(
        &self,
        store: &Store,
        reporter: &dyn Reporter,
        name: &str,
        (to, place): (&Transport, &Location),
    ) -> Result<Option<Piece>> {
        let home = store.directory("cache")?.join(name);
        if home.join("data").is_dir() {
            match lock(&home)? {
                Some(_lock) => return send_own(store, &home, to).map(Some),
                None => {
                    reporter.event(Event::Note("a cache mount is in use by other builds: it is not sent"));
                    return self.sent_before(store, name, place);
                }
            }
        }
        // It was not needed here: what another machine had is as good.
        for number in 0..self.sources.len() {
            let Some(piece) = self.ask(number, store, reporter, |source| source.mount(name)) else { continue };
            let Some(source) = self.opened(number) else { continue };
            if !to.has(&piece.blob)? {
                let staging = store.stage()?;
                let blobs = scratch(&staging)?;
                source.transport.fetch(&piece.blob, &blobs)?;
                to.send(&piece.blob, open(&blobs, &piece.blob)?)?;
            }
            return Ok(Some(piece));
        }
        Ok(None)
    }

    /// What a target has of a mount.
    fn sent_before(&self, store: &Store, name: &str, place: &Location) -> Result<Option<Piece>> {
        let there = Source::open(store, place, &self.options, self.runtime()?.handle())?;
        there.map_or(Ok(None), |there| there.mount(name))
    }
}

/// Locks a cache mount against every step, if they let go of it in time.
fn lock(home: &Path) -> Result<Option<File>> {
    let begun = Instant::now();
    loop {
        match lock_file::lock(&home.join("lock"), FlockOperation::NonBlockingLockExclusive) {
            Ok(None) if begun.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            lock => return lock.map_err(|error| Error::io("lock cache mount", home, error)),
        }
    }
}

fn unpack(store: &Store, source: &Source, piece: &Piece) -> Result<Staging> {
    let staging = store.stage()?;
    let blobs = scratch(&staging)?;
    source.transport.fetch(&piece.blob, &blobs)?;
    store.unpack_directory(open(&blobs, &piece.blob)?, &piece.diff_id, piece.tar_size, &staging)?;
    Ok(staging)
}

fn open(blobs: &Blobs, blob: &Descriptor) -> Result<File> {
    Ok(blobs.get(&blob.digest)?.ok_or(kiln_store::Error::BlobMissing(blob.digest))?)
}

/// Sends a mount of this store, whose lock is held; it is not even read when it is what it was the last time.
fn send_own(store: &Store, home: &Path, to: &Transport) -> Result<Piece> {
    let data = home.join("data");
    let state = state(&data)?;
    let memory = fs::read(home.join(MEMORY)).ok().and_then(|bytes| serde_json::from_slice::<Memory>(&bytes).ok());
    if let Some(memory) = memory.filter(|memory| memory.state == state)
        && to.has(&memory.blob)?
    {
        return Ok(memory.piece());
    }
    let staging = store.stage()?;
    let blobs = scratch(&staging)?;
    let mut writer = blobs.writer(Algorithm::Sha256)?;
    let (layer, tar_size) = store.archive_directory(&data, &mut writer)?;
    let (digest, size) = writer.commit(None, false)?;
    let blob = Descriptor::new(Compression::Zstd.media_type(), digest, size);
    if !to.has(&blob)? {
        to.send(&blob, open(&blobs, &blob)?)?;
    }
    let memory = Memory { state, layer, tar_size, blob };
    // Without it, the next export only takes longer.
    if let Ok(bytes) = serde_json::to_vec(&memory) {
        let _ = fs::write(home.join(MEMORY), bytes);
    }
    Ok(memory.piece())
}

/// What `stat` says of all files of a tree; another one whenever one of them changed.
fn state(directory: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for entry in walkdir::WalkDir::new(directory).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::io("list cache mount", directory, error))?;
        let stat = entry.metadata().map_err(|error| Error::io("list cache mount", directory, error))?;
        let path = entry.path().as_os_str().as_bytes();
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path);
        let numbers = [stat.ino(), stat.size(), stat.mode().into(), stat.uid().into(), stat.gid().into(), stat.nlink()];
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
        let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()];
        for number in times {
            hasher.update(&number.to_le_bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
