//! What a container changed in its root file system, and making an image of it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_image::config::{History, RunConfig};
pub use kiln_image::difference::{Change, ChangeKind};
use kiln_image::{Image, Reference};
use kiln_store::{Snapshot, Store};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use crate::record::Container;
use crate::state::Phase;
use crate::stop::pause;
use crate::{Error, Result};

/// The changes of a container that runs or does not, sorted by path.
///
/// # Errors
/// Its directory cannot be read.
pub fn diff(store: &Store, container: &Container) -> Result<Vec<Change>> {
    let snapshot = Snapshot::open(store, &container.record.layers)?;
    let upper = container.path.join("upper");
    let root = open(CWD, &upper).map_err(|error| Error::io("read", &upper, error))?;
    let mut changes = Vec::new();
    let mut walk = Walk { snapshot: &snapshot, changes: &mut changes };
    walk.directory(&root, Path::new("")).map_err(|error| match error {
        Failure::Read(path, error) => Error::io("read", path, error),
        Failure::Store(error) => error.into(),
    })?;
    changes.sort();
    Ok(changes)
}

enum Failure {
    Read(PathBuf, rustix::io::Errno),
    Store(kiln_store::Error),
}

impl From<kiln_store::Error> for Failure {
    fn from(error: kiln_store::Error) -> Self {
        Self::Store(error)
    }
}

struct Walk<'a> {
    snapshot: &'a Snapshot,
    changes: &'a mut Vec<Change>,
}

/// By real directories only: the container may be at work in there.
fn open(directory: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(directory, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

impl Walk<'_> {
    fn add(&mut self, path: &Path, kind: ChangeKind) {
        self.changes.push(Change { path: Path::new("/").join(path), kind });
    }

    fn directory(&mut self, directory: &OwnedFd, path: &Path) -> Result<(), Failure> {
        use std::os::unix::ffi::OsStrExt;
        let wrong = |error| Failure::Read(path.to_owned(), error);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            names.push(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
        }
        names.retain(|name| name != "." && name != "..");
        if is_opaque(directory) {
            for (name, _) in self.snapshot.read_dir(path)? {
                if !names.contains(&name) {
                    self.add(&path.join(name), ChangeKind::Deleted);
                }
            }
        }
        for name in names {
            let path = path.join(&name);
            // It may have gone a moment ago.
            let Ok(stat) = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                self.add(&path, ChangeKind::Deleted);
                continue;
            }
            let known = self.snapshot.lookup(&path)?.is_some();
            self.add(&path, if known { ChangeKind::Changed } else { ChangeKind::Added });
            if kind == FileType::Directory
                && let Ok(below) = open(directory, &name)
            {
                self.directory(&below, &path)?;
            }
        }
        Ok(())
    }
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 4];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| rustix::fs::fgetxattr(directory, *name, &mut value).is_ok_and(|length| value[..length] == *b"y"))
}

/// What `commit` was asked for.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Who made it.
    pub author: Option<String>,
    /// A message for the history.
    pub message: String,
    /// The changed configuration, when it is changed.
    pub config: Option<RunConfig>,
    /// Its name.
    pub name: Option<Reference>,
    /// Its processes stand still meanwhile, where something can hold them.
    pub pause: bool,
}

/// The configuration that an image of this container has, unless it is changed.
pub fn committed_config(store: &Store, container: &Container) -> Result<RunConfig> {
    let (record, settings) = (&container.record, &container.record.settings);
    let image = Image::open(store, &record.image)?;
    let mut config = image.map(|image| image.config.config).unwrap_or_default();
    let some = |words: &Vec<String>| Some(words.clone()).filter(|words| !words.is_empty());
    config.env = some(&settings.env);
    config.entrypoint = some(&settings.entrypoint);
    config.cmd = some(&settings.cmd);
    config.user.clone_from(&settings.user);
    config.working_dir.clone_from(&settings.workdir);
    config.labels = Some(settings.labels.clone()).filter(|labels| !labels.is_empty());
    let exposed = settings.network.exposed.iter().map(|port| (port.to_string(), serde_json::json!({})));
    config.exposed_ports = Some(exposed.collect()).filter(|ports: &std::collections::BTreeMap<_, _>| !ports.is_empty());
    config.stop_signal.clone_from(&settings.stop_signal);
    config.healthcheck.clone_from(&settings.health);
    Ok(config)
}

/// Makes an image of a container as it is now.
///
/// # Errors
/// Its files cannot be read.
pub fn commit(store: &Store, container: &Container, options: &CommitOptions) -> Result<Image> {
    let record = &container.record;
    let Some(base) = Image::open(store, &record.image)? else {
        return Err(Error::Invalid(format!("the image of container {} is gone", record.name)));
    };
    let paused = options.pause && container.state.phase == Phase::Running && pause(container, true).is_ok();
    let layer = store.commit_copy(&container.path.join("upper"));
    if paused {
        pause(container, false)?;
    }
    let layer = layer?;
    let created = jiff::Timestamp::now().to_string();
    let mut config = base.config;
    config.config = match &options.config {
        Some(config) => config.clone(),
        None => committed_config(store, container)?,
    };
    config.author.clone_from(&options.author);
    config.created = Some(created.clone());
    // Those of the image are shared with it, those of the container are not there before.
    config.rootfs.diff_ids.push(layer.diff_id);
    config.history.push(History {
        created: Some(created),
        created_by: Some(record.settings.command().join(" ")),
        author: options.author.clone(),
        comment: Some(options.message.clone()).filter(|message| !message.is_empty()),
        empty_layer: false,
    });
    let image = Image::commit(store, &config, options.name.as_slice())?;
    store.settle()?;
    Ok(image)
}
