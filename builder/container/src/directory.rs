//! The directory of a container: made whole or not at all, and held by whoever runs the container.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_store::Store;
use rustix::fs::FlockOperation;

use crate::record::Record;
use crate::runtime::Runtime;
use crate::state::State;
use crate::{Error, Result, names};

/// Where containers are while they are made or removed.
const ASIDE: &str = ".aside";
/// A mark in the directory of a container that is removed with its anonymous volumes.
const WITH_VOLUMES: &str = "with-volumes";

/// A container's directory, with its lock held.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    pub(crate) lock: File,
}

impl Home {
    /// Makes the directory of a new container. Names are given under one lock, so that none is given twice.
    pub(crate) fn create(
        store: &Store,
        name: Option<&str>,
        fill: impl FnOnce(String, String) -> Record,
    ) -> Result<(Self, Record)> {
        let all = store.directory("containers")?;
        name.map_or(Ok(()), |name| names::check("container", name))?;
        let _naming = names::lock_all(&all)?;
        sweep(&all);
        let name = match name {
            None => names::random_name(&|name| names::named(&all, name).is_some())?,
            Some(name) => match names::named(&all, name).and_then(|path| Record::read(&path)) {
                Some(owner) => {
                    return Err(Error::NameTaken { name: name.to_owned(), id: owner.short_id().to_owned() });
                }
                None => name.to_owned(),
            },
        };
        let id = names::random_id()?;
        let aside = all.join(ASIDE).join(&id);
        for directory in ["", "upper", "work", "stubs"] {
            let directory = aside.join(directory);
            std::fs::create_dir_all(&directory).map_err(|error| Error::io("make", &directory, error))?;
        }
        open_to_all(&aside.join("upper"))?;
        let held = lock(&aside.join("lock"), FlockOperation::LockExclusive)?;
        let record = fill(id, name);
        write_record(&aside, &record)?;
        State::default().write(&aside)?;
        names::give(&all, &record.name, &record.id)?;
        let path = all.join(&record.id);
        std::fs::rename(&aside, &path).map_err(|error| Error::io("make container", &path, error))?;
        Ok((Self { path, lock: held }, record))
    }

    /// Takes the lock of a container that nobody runs.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>> {
        match lock(&path.join("lock"), FlockOperation::NonBlockingLockExclusive) {
            // It may have been removed meanwhile.
            Ok(held) if path.join("config.json").exists() => Ok(Some(Self { path: path.to_owned(), lock: held })),
            Ok(_) => Ok(None),
            Err(Error::Io { source, .. })
                if matches!(source.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::NotFound) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// With a lock that another process has handed over.
    pub(crate) fn adopt(path: PathBuf, lock: OwnedFd) -> Self {
        Self { path, lock: File::from(lock) }
    }

    /// Removes the container, its anonymous volumes too when `volumes`.
    pub(crate) fn remove(self, record: &Record, volumes: bool) -> Result<()> {
        self.retire(record, volumes)?.clear()
    }

    /// Takes the container out of sight, and its anonymous volumes away when `volumes`: its name is free from here on.
    pub(crate) fn retire(self, record: &Record, volumes: bool) -> Result<Retired> {
        if let Some(runtime) = Runtime::of(record, &self.path) {
            // Should it still hold one whose supervisor was killed.
            runtime.delete(&record.id);
        }
        let Some(all) = self.path.parent() else { return Err(Error::Unknown(record.name.clone())) };
        let aside = all.join(ASIDE).join(&record.id);
        let with_volumes = volumes && record.anonymous_volumes().next().is_some();
        if with_volumes {
            let mark = self.path.join(WITH_VOLUMES);
            File::create(&mark).map_err(|error| Error::io("make", mark, error))?;
        }
        let _ = std::fs::create_dir(all.join(ASIDE));
        {
            let _naming = names::lock_all(all)?;
            names::take_away(all, &record.name, &record.id);
            std::fs::rename(&self.path, &aside).map_err(|error| Error::io("remove", &self.path, error))?;
        }
        if with_volumes {
            take_volumes_away(all, record)?;
        }
        Ok(Retired { aside, _lock: self.lock })
    }
}

/// What is left of a container that nobody finds any more. One that is not cleared is by whoever makes the next
/// container.
#[derive(Debug)]
pub(crate) struct Retired {
    aside: PathBuf,
    _lock: File,
}

impl Retired {
    /// Removes it.
    pub(crate) fn clear(self) -> Result<()> {
        remove_tree(&self.aside)
    }
}

fn take_volumes_away(all: &Path, record: &Record) -> Result<()> {
    let Some(root) = all.parent() else { return Ok(()) };
    record.anonymous_volumes().try_for_each(|name| crate::volumes::take_away_in(&root.join("volumes"), name))
}

/// Keeps what a container is.
pub(crate) fn write_record(directory: &Path, record: &Record) -> Result<()> {
    let path = directory.join("config.json");
    let json = serde_json::to_vec_pretty(record).map_err(|error| Error::io("write", &path, error))?;
    write_whole(&path, &json)
}

/// Removes what a kiln that was killed while it made or removed a container left: nobody holds its lock. The caller
/// holds the lock that containers are made under.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all.join(ASIDE)).into_iter().flatten().flatten() {
        let path = entry.path();
        if lock(&path.join("lock"), FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if path.join(WITH_VOLUMES).exists()
            && let Some(record) = Record::read(&path)
        {
            let _ = take_volumes_away(all, &record);
        }
        let _ = remove_tree(&path);
    }
}

/// The upper directory is `/` of the container.
fn open_to_all(upper: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(upper, mode).map_err(|error| Error::io("set mode of", upper, error))
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|error| Error::io("write", path, error))
}

pub(crate) fn lock(path: &Path, operation: FlockOperation) -> Result<File> {
    let io = |error: std::io::Error| Error::io("lock", path, error);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)).map_err(|error| io(error.into()))?;
    Ok(file)
}

/// Directories that their owner may not search are opened first: root of a user namespace may do that, and no more.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
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
