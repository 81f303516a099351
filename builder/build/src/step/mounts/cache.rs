//! Cache mounts: directories that stay from build to build.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_grammar::mount::Sharing;
use kiln_store::DiffId;
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::cache::lock_file;
use crate::progress::VertexId;
use crate::step::{Job, internal};
use crate::{Error, Result};

/// The lock of whoever makes a new cache's data, in the cache's directory.
pub(crate) const MAKING: &str = "making";
/// Where the data are until they are whole.
pub(crate) const FRESH: &str = "fresh";

/// A cache as a mount asks for it.
pub(super) struct Wanted<'a> {
    pub(super) id: &'a str,
    pub(super) sharing: Sharing,
    /// Mode, owner and group of a new one.
    pub(super) owner: (u32, u32, u32),
    /// Whose files a new one starts with.
    pub(super) from: Option<VertexId>,
    /// The directory of it that is mounted.
    pub(super) source: &'a str,
}

/// What a cache is called in the store. Caches of one id that start with different files are different caches.
pub(crate) fn cache_name(id: &str, base: &[DiffId]) -> String {
    let key = base.iter().fold(id.to_owned(), |key, layer| format!("{key}\0{layer}"));
    blake3::hash(key.as_bytes()).to_hex().to_string()
}

/// The directory of a cache mount, held by a lock as its sharing asks.
pub(super) fn open(job: &Job<'_>, wanted: &Wanted<'_>) -> Result<(PathBuf, File)> {
    let &Wanted { id, sharing, .. } = wanted;
    let all = job.site.store.directory("cache")?;
    let base = job.result_of(wanted.from)?;
    let name = cache_name(id, &base);
    for number in 0.. {
        let home = all.join(if number == 0 { name.clone() } else { format!("{name}-{number}") });
        let io = |error: std::io::Error| Error::io("prepare cache mount", &home, error);
        let operation = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Locked => FlockOperation::LockExclusive,
            Sharing::Private => FlockOperation::NonBlockingLockExclusive,
        };
        let lock = loop {
            std::fs::create_dir_all(&home).map_err(io)?;
            match lock_file::lock(&home.join("lock"), operation) {
                // Pruned between the two.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                lock => break lock.map_err(io)?,
            }
        };
        let Some(lock) = lock else { continue };
        let data = home.join("data");
        if job.is_uncached() && sharing != Sharing::Shared && data.exists() {
            empty(&data).map_err(io)?;
            fill(job, &base, &data)?;
        }
        // Before the data: whoever is killed while it makes them leaves something that can be pruned.
        std::fs::write(home.join("id"), id).map_err(io)?;
        if !data.exists() {
            make_once(&home, &data, |fresh| make(job, fresh, &base, wanted))?;
        }
        return Ok((below(&data, wanted.source)?, lock));
    }
    Err(internal("cache mount"))
}

/// What a new cache starts with: the files that another machine had in it, or those of a stage.
fn make(job: &Job<'_>, fresh: &Path, base: &[DiffId], wanted: &Wanted<'_>) -> Result<()> {
    let io = |error| Error::io("prepare cache mount", fresh, error);
    let (mode, uid, gid) = wanted.owner;
    let site = job.site;
    let fetch = || site.request.exchange.fetch_mount(site.store, site.reporter, &cache_name(wanted.id, base));
    let fetched = if job.is_uncached() { None } else { fetch() };
    if let Some(fetched) = &fetched {
        std::fs::rename(fetched.upper(), fresh).map_err(io)?;
    }
    make_data(fresh, mode, (uid, gid)).map_err(io)?;
    if fetched.is_none() {
        fill(job, base, fresh)?;
    }
    Ok(())
}

/// Has the data of a cache made unless they are there. They appear only when they are whole, and one step makes them
/// while the others wait for it: a rename alone replaces a directory that is still empty under the step that has it.
fn make_once(home: &Path, data: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let io = |error| Error::io("prepare cache mount", data, error);
    let making = home.join(MAKING);
    let lock = lock_file::lock(&making, FlockOperation::LockExclusive).map_err(io)?;
    let _held = lock.map(|lock| lock_file::Held::new(&making, lock)).ok_or_else(|| internal("cache mount"))?;
    if data.exists() {
        return Ok(());
    }
    let fresh = home.join(FRESH);
    match std::fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    make(&fresh)?;
    std::fs::rename(&fresh, data).map_err(io)
}

/// What the cache starts with.
fn fill(job: &Job<'_>, base: &[DiffId], data: &Path) -> Result<()> {
    if base.is_empty() {
        return Ok(());
    }
    Ok(job.snapshot(base)?.copy_directory(job.site.store, Path::new(""), data)?)
}

/// A directory of the cache; no symlink in it leads out.
fn below(data: &Path, source: &str) -> Result<PathBuf> {
    let source = source.trim_matches('/');
    if source.is_empty() || source == "." {
        return Ok(data.to_path_buf());
    }
    let io = |error: Errno| Error::io("find in the cache mount", source, error);
    let root = rustix::fs::open(data, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found =
        rustix::fs::openat2(&root, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(io)?;
    let real = |file: &OwnedFd| rustix::fs::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new());
    let path = real(&found).map_err(io)?;
    Ok(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
}

fn make_data(data: &Path, mode: u32, (uid, gid): (u32, u32)) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(data)?;
    // With one mapped id ownership cannot be given away: the one id there is owns it.
    match std::os::unix::fs::chown(data, Some(uid), Some(gid)) {
        Err(error) if error.raw_os_error() != Some(22) => return Err(error),
        _ => {}
    }
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(mode))
}

fn empty(directory: &Path) -> std::io::Result<()> {
    for entry in walkdir::WalkDir::new(directory).min_depth(1).max_depth(1) {
        let entry = entry?;
        if entry.file_type().is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;

    /// The steps of a build that all want a cache that is not there yet.
    #[test]
    fn everybody_gets_the_same_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("data");
        let all = Barrier::new(4);
        let make = |fresh: &Path| {
            std::thread::sleep(Duration::from_millis(50));
            std::fs::create_dir(fresh).map_err(|error| Error::io("make", fresh, error))
        };
        let open = || {
            all.wait();
            make_once(home.path(), &data, make).expect("data");
            std::fs::metadata(&data).expect("data").ino()
        };
        let seen: Vec<u64> = std::thread::scope(|scope| {
            let steps: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            steps.into_iter().map(|step| step.join().expect("a step")).collect()
        });
        let now = std::fs::metadata(&data).expect("data").ino();
        assert!(seen.iter().all(|directory| *directory == now), "{seen:?} and at the end {now}");
        let left: Vec<_> = std::fs::read_dir(home.path()).expect("a directory").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_a_killed_step_left_is_made_again() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(home.path().join(FRESH).join("half")).expect("half of it");
        std::fs::write(home.path().join(MAKING), "").expect("its lock");
        let data = home.path().join("data");
        make_once(home.path(), &data, |fresh| std::fs::create_dir(fresh).map_err(|e| Error::io("make", fresh, e)))
            .expect("data");
        assert_eq!(std::fs::read_dir(&data).expect("data").count(), 0);
    }
}
