//! `-v`: bind mounts and named volumes.

use std::path::{Path, PathBuf};

use kiln_sandbox::spec::Mount;
use kiln_store::snapshot::Kind;
use kiln_store::{Snapshot, Store};

use crate::directory::now;
use crate::settings::{MountPoint, MountSource};
use crate::volumes::VolumeRecord;
use crate::{Error, Result, names};

/// One `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// `/host:/path[:ro]`: a file or directory of the host; a missing directory is made, as docker does.
    Bind {
        /// Absolute, on the host.
        source: PathBuf,
        /// Absolute, in the container.
        target: PathBuf,
        /// No writes.
        readonly: bool,
    },
    /// `name:/path[:ro]`: a volume that stays; one that is made starts with what the image has there.
    Named {
        /// Its name.
        name: String,
        /// Absolute, in the container.
        target: PathBuf,
        /// No writes.
        readonly: bool,
    },
    /// `/path`: a volume that goes with the container.
    Anonymous {
        /// Absolute, in the container.
        target: PathBuf,
    },
    /// `--tmpfs`: memory.
    Tmpfs {
        /// Absolute, in the container.
        target: PathBuf,
        /// Bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
}

mod mount;

impl Volume {
    /// Parses docker's `-v`.
    ///
    /// # Errors
    /// Text that is no volume; says what is expected.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Invalid(format!("invalid volume {text:?}: {why}"));
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts.as_slice() {
            [target] => (None, *target, ""),
            [source, target] => (Some(*source), *target, ""),
            [source, target, options] => (Some(*source), *target, *options),
            _ => return Err(wrong("expected [SOURCE:]TARGET[:OPTIONS]")),
        };
        if !target.starts_with('/') || target.trim_matches('/').is_empty() {
            return Err(wrong("the path in the container must be absolute, and not /"));
        }
        let mut readonly = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => readonly = true,
                // Labels of SELinux and the like: docker accepts them everywhere.
                "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" => {}
                other => return Err(wrong(&format!("unknown option {other:?}"))),
            }
        }
        let target = PathBuf::from(target);
        match source {
            None => Ok(Self::Anonymous { target }),
            Some(source) if source.starts_with('/') => {
                Ok(Self::Bind { source: PathBuf::from(source), target, readonly })
            }
            Some(source) if source.starts_with('.') || source.contains('/') => {
                let source = std::path::absolute(source).map_err(|error| Error::io("find", source, error))?;
                Ok(Self::Bind { source, target, readonly })
            }
            Some(name) => {
                names::check(name)?;
                Ok(Self::Named { name: name.to_owned(), target, readonly })
            }
        }
    }

    /// Where it goes.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. }
            | Self::Named { target, .. }
            | Self::Anonymous { target }
            | Self::Tmpfs { target, .. } => target,
        }
    }

    /// The mount as it is kept, with what must be there made.
    pub(crate) fn resolve(&self, store: &Store, image: &Snapshot) -> Result<MountPoint> {
        let (source, readonly) = match self {
            Self::Bind { source, readonly, .. } => {
                if !source.exists() {
                    std::fs::create_dir_all(source).map_err(|error| Error::io("make", source, error))?;
                }
                (MountSource::Bind(source.clone()), *readonly)
            }
            Self::Named { name, target, readonly } => {
                open(store, name, image, target, false)?;
                (MountSource::Volume { name: name.clone(), anonymous: false }, *readonly)
            }
            Self::Anonymous { target } => {
                let name = names::random_id()?;
                open(store, &name, image, target, true)?;
                (MountSource::Volume { name, anonymous: true }, false)
            }
            Self::Tmpfs { size, mode, .. } => (MountSource::Tmpfs { size: *size, mode: *mode }, false),
        };
        Ok(MountPoint { source, target: self.target().to_path_buf(), readonly })
    }
}

/// The mount of a container that starts.
pub(crate) fn mount(store: &Store, mount: &MountPoint) -> Result<Mount> {
    let (target, readonly) = (mount.target.clone(), mount.readonly);
    Ok(match &mount.source {
        MountSource::Bind(source) => Mount::Bind { source: source.clone(), target, readonly },
        MountSource::Volume { name, .. } => {
            let source = store.directory("volumes")?.join(name).join("_data");
            std::fs::create_dir_all(&source).map_err(|error| Error::io("make", &source, error))?;
            Mount::Bind { source, target, readonly }
        }
        MountSource::Tmpfs { size, mode } => Mount::Tmpfs { target, size: *size, mode: *mode },
    })
}

/// A volume's data; a new one is filled aside and appears when it is whole.
fn open(store: &Store, name: &str, image: &Snapshot, target: &Path, anonymous: bool) -> Result<PathBuf> {
    let all = store.directory("volumes")?;
    let home = all.join(name);
    let data = home.join("_data");
    if data.is_dir() {
        // One that was made empty is filled by the first who uses it.
        if std::fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_none()) {
            fill(store, image, target, &data)?;
        }
        return Ok(data);
    }
    let aside = all.join(format!(".{}", names::random_id()?));
    let fresh = aside.join("_data");
    std::fs::create_dir_all(&fresh).map_err(|error| Error::io("make", &fresh, error))?;
    fill(store, image, target, &fresh)?;
    VolumeRecord { anonymous, created: now(), ..VolumeRecord::default() }.write(&aside)?;
    match std::fs::rename(&aside, &home) {
        Ok(()) => Ok(data),
        // Somebody was quicker.
        Err(_) if data.is_dir() => {
            let _ = std::fs::remove_dir_all(&aside);
            Ok(data)
        }
        Err(error) => Err(Error::io("make volume", home, error)),
    }
}

/// What the image has at the volume's place, with its directory's owner and mode.
fn fill(store: &Store, image: &Snapshot, target: &Path, data: &Path) -> Result<()> {
    match image.resolve(target, true)? {
        (_, Some(node)) if node.kind == Kind::Directory => Ok(image.copy_directory(store, &node.path, data)?),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let target = PathBuf::from("/p");
        assert_eq!(Volume::parse("/p").unwrap(), Volume::Anonymous { target: target.clone() });
        assert_eq!(
            Volume::parse("/h:/p:ro").unwrap(),
            Volume::Bind { source: "/h".into(), target: target.clone(), readonly: true }
        );
        assert_eq!(Volume::parse("n1:/p").unwrap(), Volume::Named { name: "n1".into(), target, readonly: false });
        for wrong in ["", "p", "n1:p", "n1:/", "/h:/p:what", "a:b:c:d", "n!:/p"] {
            assert!(Volume::parse(wrong).is_err(), "{wrong}");
        }
    }
}
