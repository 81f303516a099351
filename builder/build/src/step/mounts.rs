//! What a RUN mounts.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_grammar::mount::Sharing;
use kiln_sandbox::spec::Mount;
use kiln_store::layer::Staging;
use rustix::fs::FlockOperation;

use super::Job;
use crate::plan::StepMount;
use crate::request::Secret;
use crate::{Error, Result};

/// As BuildKit's limit.
const LARGEST_SECRET: u64 = 500 * 1024;

/// Mounts that are ready, with what must live as long as they do.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) list: Vec<Mount>,
    /// `NAME=value` of secrets.
    pub(crate) env: Vec<(String, String)>,
    /// Locks of cache directories, and private ones.
    _locks: Vec<File>,
}

pub(crate) fn prepare(job: &Job<'_>, mounts: &[StepMount], staging: &Staging) -> Result<Mounts> {
    let mut ready = Mounts::default();
    for (number, mount) in mounts.iter().enumerate() {
        match mount {
            StepMount::Bind { from, source, target, writable } => {
                let snapshot = job.snapshot(&job.result_of(*from)?)?;
                let upper = if *writable {
                    Some((
                        staging.scratch(&format!("bind-{number}"))?,
                        staging.scratch(&format!("bind-work-{number}"))?,
                    ))
                } else {
                    None
                };
                ready.list.push(Mount::Overlay {
                    lower: snapshot.lower_directories(),
                    upper,
                    source: PathBuf::from(source),
                    target: PathBuf::from(target),
                });
            }
            StepMount::Cache { id, target, readonly, sharing, mode, uid, gid } => {
                let (directory, lock) = cache_directory(job, id, *sharing, (*mode, *uid, *gid))?;
                ready._locks.push(lock);
                ready.list.push(Mount::Bind { source: directory, target: PathBuf::from(target), readonly: *readonly });
            }
            StepMount::Tmpfs { target, size } => {
                ready.list.push(Mount::Tmpfs { target: PathBuf::from(target), size: *size, mode: 0o1777 });
            }
            StepMount::Secret { id, target, env, mode, uid, gid, .. } => {
                let Some(secret) = job.site.request.secrets.get(id) else { continue };
                let content = read_secret(id, secret)?;
                if let Some(name) = env {
                    ready.env.push((name.clone(), String::from_utf8_lossy(&content).into_owned()));
                }
                if let Some(target) = target {
                    let target = PathBuf::from(target);
                    ready.list.push(Mount::Secret { target, content, mode: *mode, uid: *uid, gid: *gid });
                }
            }
        }
    }
    Ok(ready)
}

fn read_secret(id: &str, secret: &Secret) -> Result<Vec<u8>> {
    match secret {
        Secret::Environment(name) => match std::env::var_os(name) {
            Some(value) => Ok(value.as_bytes().to_vec()),
            None => {
                Err(Error::io("read secret from variable", name, std::io::Error::from(std::io::ErrorKind::NotFound)))
            }
        },
        Secret::File(path) => {
            let io = |error| Error::io("read secret", path, error);
            let mut content = Vec::new();
            File::open(path).map_err(io)?.take(LARGEST_SECRET + 1).read_to_end(&mut content).map_err(io)?;
            if content.len() as u64 > LARGEST_SECRET {
                return Err(io(std::io::Error::other(format!("secret {id:?} is larger than {LARGEST_SECRET} bytes"))));
            }
            Ok(content)
        }
    }
}

/// The directory of a cache mount, held by a lock as its sharing asks.
fn cache_directory(
    job: &Job<'_>,
    id: &str,
    sharing: Sharing,
    (mode, uid, gid): (u32, u32, u32),
) -> Result<(PathBuf, File)> {
    let all = job.site.store.directory("cache")?;
    let name = blake3::hash(id.as_bytes()).to_hex();
    for number in 0.. {
        let home = all.join(if number == 0 { name.to_string() } else { format!("{name}-{number}") });
        let io = |error: std::io::Error| Error::io("prepare cache mount", &home, error);
        std::fs::create_dir_all(&home).map_err(io)?;
        let lock = File::options().create(true).truncate(false).write(true).open(home.join("lock")).map_err(io)?;
        let operation = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Locked => FlockOperation::LockExclusive,
            Sharing::Private => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(&lock, operation) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => continue,
            Err(error) => return Err(io(error.into())),
        }
        let data = home.join("data");
        if !data.exists() {
            make_data(&data, mode, (uid, gid)).map_err(io)?;
        }
        if job.site.request.no_cache && sharing != Sharing::Shared {
            empty(&data).map_err(io)?;
        }
        std::fs::write(home.join("id"), id).map_err(io)?;
        return Ok((data, lock));
    }
    Err(super::internal("cache mount"))
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
