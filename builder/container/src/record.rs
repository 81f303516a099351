//! What is kept of a container.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use kiln_store::{DiffId, Digest, Store};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, names};

/// `config.json` of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// Unique among containers.
    pub name: String,
    /// The image's id.
    pub image: Digest,
    /// What the user called the image.
    pub image_name: String,
    /// The image's layers, lowest first.
    pub layers: Vec<DiffId>,
    /// The argument vector.
    pub command: Vec<String>,
    /// Seconds since 1970.
    pub created: i64,
    /// Names of volumes that go with it.
    #[serde(default)]
    pub anonymous_volumes: Vec<String>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its process runs.
    Running,
    /// It ended: exit status, and when (seconds since 1970).
    Exited(u8, i64),
    /// Whoever ran it was killed, and it with them.
    Dead,
}

/// A container's directory, with its lock held.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the directory of a new container. Names are given under one lock, so that none is given twice.
    pub(crate) fn create(
        store: &Store,
        name: Option<&str>,
        fill: impl FnOnce(String, String) -> Record,
    ) -> Result<(Self, Record)> {
        let all = store.directory("containers")?;
        let _naming = lock(&all.join(".names"), FlockOperation::LockExclusive)?;
        sweep(&all);
        let taken = list(store)?;
        let owner =
            |name: &str| taken.iter().find(|(record, _)| record.name == name).map(|(record, _)| record.id.clone());
        let name = match name {
            None => names::random_name(&|name| owner(name).is_some())?,
            Some(name) => {
                names::check(name)?;
                if let Some(id) = owner(name) {
                    return Err(Error::NameTaken { name: name.to_owned(), id: id.chars().take(12).collect() });
                }
                name.to_owned()
            }
        };
        let id = names::random_id()?;
        let path = all.join(&id);
        for directory in ["", "upper", "work", "stubs"] {
            let directory = path.join(directory);
            std::fs::create_dir_all(&directory).map_err(|error| Error::io("make", &directory, error))?;
        }
        open_to_all(&path.join("upper"))?;
        let held = lock(&path.join("lock"), FlockOperation::LockExclusive)?;
        let record = fill(id, name);
        let json = serde_json::to_vec_pretty(&record).map_err(|error| Error::io("write", &path, error))?;
        write_whole(&path.join("config.json"), &json)?;
        Ok((Self { path, _lock: held }, record))
    }

    /// Keeps how it ended.
    pub(crate) fn end(&self, status: u8) -> Result<()> {
        write_whole(&self.path.join("status"), format!("{status} {}\n", now()).as_bytes())
    }
}

/// Removes what a kiln that was killed while it made (or removed) a container left. The caller holds the lock that
/// containers are made under.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.join("config.json").exists() {
            let _ = remove_tree(&path);
        }
    }
}

/// The upper directory is `/` of the container.
fn open_to_all(upper: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(upper, mode).map_err(|error| Error::io("set mode of", upper, error))
}

pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|error| Error::io("write", path, error))
}

fn lock(path: &Path, operation: FlockOperation) -> Result<File> {
    let io = |error: std::io::Error| Error::io("lock", path, error);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
    rustix::fs::flock(&file, operation).map_err(|error| io(error.into()))?;
    Ok(file)
}

/// Every container with its state, newest first.
///
/// # Errors
/// The store cannot be read.
pub fn list(store: &Store) -> Result<Vec<(Record, State)>> {
    let all = store.directory("containers")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&all).map_err(|error| Error::io("read", &all, error))? {
        let path = entry.map_err(|error| Error::io("read", &all, error))?.path();
        // A directory without a config is a container that was never finished: it is nobody's.
        let Ok(json) = std::fs::read(path.join("config.json")) else { continue };
        let Ok(record) = serde_json::from_slice::<Record>(&json) else { continue };
        found.push((record, state(&path)));
    }
    found.sort_by(|a, b| (b.0.created, &b.0.id).cmp(&(a.0.created, &a.0.id)));
    Ok(found)
}

fn state(path: &Path) -> State {
    let ended = || {
        let text = std::fs::read_to_string(path.join("status")).ok()?;
        let mut words = text.split_whitespace();
        Some(State::Exited(words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    if let Some(ended) = ended() {
        return ended;
    }
    match lock(&path.join("lock"), FlockOperation::NonBlockingLockShared) {
        // It may have ended since.
        Ok(_) => ended().unwrap_or(State::Dead),
        Err(_) => State::Running,
    }
}

/// A container by name, id, or the beginning of an id.
///
/// # Errors
/// There is none, or several ids begin so.
pub fn find(store: &Store, text: &str) -> Result<(Record, State)> {
    let mut all = list(store)?;
    if let Some(at) = all.iter().position(|(record, _)| record.name == text || record.id == text) {
        return Ok(all.swap_remove(at));
    }
    let is_prefix = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut matching = all.into_iter().filter(|(record, _)| is_prefix && record.id.starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Error::Invalid(format!("several containers' ids begin with {text}"))),
        (None, _) => Err(Error::Unknown(text.to_owned())),
    }
}

/// Removes a container that does not run, its anonymous volumes too when `volumes`; returns its name.
///
/// # Errors
/// There is none; it runs; its files cannot be removed.
pub fn remove(store: &Store, text: &str, volumes: bool) -> Result<String> {
    let (record, state) = find(store, text)?;
    if state == State::Running {
        return Err(Error::Running(record.name));
    }
    remove_files(store, &record, volumes)?;
    Ok(record.name)
}

/// Removes a container's directory.
pub(crate) fn remove_files(store: &Store, record: &Record, volumes: bool) -> Result<()> {
    let path = store.directory("containers")?.join(&record.id);
    // Without its config it is nobody's, however far the removal gets.
    let _ = std::fs::remove_file(path.join("config.json"));
    remove_tree(&path)?;
    if volumes {
        let all = store.directory("volumes")?;
        record.anonymous_volumes.iter().try_for_each(|name| remove_tree(&all.join(name)))?;
    }
    Ok(())
}

/// Directories that their owner may not search are opened first: root of a user namespace may do that, and no more.
fn remove_tree(path: &Path) -> Result<()> {
    if std::fs::remove_dir_all(path).is_ok() || !path.exists() {
        return Ok(());
    }
    open_directories(path);
    std::fs::remove_dir_all(path).map_err(|error| Error::io("remove", path, error))
}

fn open_directories(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_directories(&entry.path());
        }
    }
}

/// Names of the containers that an image may not be taken from.
///
/// # Errors
/// The store cannot be read.
pub fn uses_image(store: &Store, image: &Digest) -> Result<Vec<String>> {
    Ok(list(store)?.into_iter().filter(|(record, _)| record.image == *image).map(|(record, _)| record.name).collect())
}

/// Every layer that a container lies on.
///
/// # Errors
/// The store cannot be read.
pub fn layers_in_use(store: &Store) -> Result<Vec<DiffId>> {
    let mut layers: Vec<DiffId> = list(store)?.into_iter().flat_map(|(record, _)| record.layers).collect();
    layers.sort_unstable();
    layers.dedup();
    Ok(layers)
}
