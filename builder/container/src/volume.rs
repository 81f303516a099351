//! `-v`: bind mounts and named volumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_image::Image;
use kiln_sandbox::spec::Mount;
use kiln_store::snapshot::Kind;
use kiln_store::{Snapshot, Store};

use crate::directory::now;
use crate::settings::{MountPoint, MountSource};
use crate::volumes::VolumeRecord;
use crate::{Error, Result, names};
use device::Device;

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
        /// What the host mounts below it later shows in the container, too (`rslave`).
        slave: bool,
    },
    /// `name:/path[:ro]`: a volume that stays; one that is made starts with what the image has there.
    Named {
        /// Its name.
        name: String,
        /// Absolute, in the container.
        target: PathBuf,
        /// No writes.
        readonly: bool,
        /// How it is made when it is not there.
        fresh: NewVolume,
    },
    /// `--mount type=image`: the files of an image, which cannot be changed.
    Image {
        /// Its name, or id.
        name: String,
        /// What of it is shown: a path in the image.
        part: PathBuf,
        /// Absolute, in the container.
        target: PathBuf,
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

/// How a volume is made that is not there yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// What the image has at its place stays out of it.
    pub empty: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its driver's options: see [`crate::create_volume`].
    pub options: BTreeMap<String, String>,
}

pub(crate) mod device;
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
        let (mut readonly, mut slave, mut fresh) = (false, false, NewVolume::default());
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => readonly = true,
                "nocopy" => fresh.empty = true,
                // Labels of SELinux and the like: docker accepts them everywhere.
                "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
                other if propagation(other).is_some() => slave = propagation(other).unwrap_or_default(),
                other => return Err(wrong(&format!("unknown option {other:?}"))),
            }
        }
        let target = PathBuf::from(target);
        match source {
            None => Ok(Self::Anonymous { target }),
            Some(source) if source.starts_with('/') => {
                Ok(Self::Bind { source: PathBuf::from(source), target, readonly, slave })
            }
            Some(source) if source.starts_with('.') => {
                let source = std::path::absolute(source).map_err(|error| Error::io("find", source, error))?;
                Ok(Self::Bind { source, target, readonly, slave })
            }
            Some(source) if source.contains('/') => {
                Err(wrong("a directory of the host is an absolute path, or begins with ./ or ../"))
            }
            Some(name) => {
                names::check("volume", name)?;
                Ok(Self::Named { name: name.to_owned(), target, readonly, fresh })
            }
        }
    }

    /// Where it goes.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. }
            | Self::Named { target, .. }
            | Self::Image { target, .. }
            | Self::Anonymous { target }
            | Self::Tmpfs { target, .. } => target,
        }
    }

    /// The mount as it is kept, with what must be there made.
    pub(crate) fn resolve(&self, store: &Store, image: &Snapshot) -> Result<MountPoint> {
        let mut propagated = false;
        let (source, readonly) = match self {
            Self::Bind { source, readonly, slave, .. } => {
                propagated = *slave;
                if !source.exists() {
                    std::fs::create_dir_all(source).map_err(|error| Error::io("make", source, error))?;
                }
                (MountSource::Bind(source.clone()), *readonly)
            }
            Self::Named { name, target, readonly, fresh } => {
                open(store, name, (image, target), false, fresh)?;
                (MountSource::Volume { name: name.clone(), anonymous: false }, *readonly)
            }
            Self::Anonymous { target } => {
                let name = names::random_id()?;
                open(store, &name, (image, target), true, &NewVolume::default())?;
                (MountSource::Volume { name, anonymous: true }, false)
            }
            Self::Image { name, part, .. } => {
                let layers = Image::find(store, name)?.layers;
                (MountSource::Image { name: name.clone(), layers, part: part.clone() }, true)
            }
            Self::Tmpfs { size, mode, .. } => (MountSource::Tmpfs { size: *size, mode: *mode }, false),
        };
        Ok(MountPoint { source, target: self.target().to_path_buf(), readonly, slave: propagated })
    }
}

/// Whether a word for the propagation of mounts asks for those of the host; none for what kiln has not.
fn propagation(word: &str) -> Option<bool> {
    match word {
        "private" | "rprivate" => Some(false),
        "slave" | "rslave" => Some(true),
        _ => None,
    }
}

/// The mount of a container that starts.
pub(crate) fn mount(store: &Store, mount: &MountPoint) -> Result<Mount> {
    let (target, readonly) = (mount.target.clone(), mount.readonly);
    Ok(match &mount.source {
        MountSource::Bind(source) if mount.slave => Mount::Slave { source: source.clone(), target, readonly },
        MountSource::Bind(source) => Mount::Bind { source: source.clone(), target, readonly },
        MountSource::Volume { name, .. } => {
            let home = store.directory("volumes")?.join(name);
            match VolumeRecord::read(&home).map(|record| device::parse(&record.options)).transpose()?.flatten() {
                Some(Device::Directory(source, fixed)) => Mount::Bind { source, target, readonly: readonly || fixed },
                Some(Device::Memory(size, mode)) => Mount::Tmpfs { target, size, mode },
                None => {
                    let source = home.join("_data");
                    std::fs::create_dir_all(&source).map_err(|error| Error::io("make", &source, error))?;
                    Mount::Bind { source, target, readonly }
                }
            }
        }
        MountSource::Image { layers, part, .. } => Mount::Overlay {
            lower: Snapshot::open(store, layers)?.lower_directories(),
            upper: None,
            source: part.clone(),
            target,
        },
        MountSource::Tmpfs { size, mode } => Mount::Tmpfs { target, size: *size, mode: *mode },
    })
}

/// A volume's data; a new one is filled aside and appears when it is whole.
fn open(
    store: &Store,
    name: &str,
    (image, target): (&Snapshot, &Path),
    anonymous: bool,
    new: &NewVolume,
) -> Result<()> {
    let all = store.directory("volumes")?;
    let home = all.join(name);
    let data = home.join("_data");
    if data.is_dir() {
        let is_elsewhere = || VolumeRecord::read(&home).is_some_and(|record| !record.options.is_empty());
        let is_empty = || std::fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_none());
        // One that was made empty is filled by the first who uses it.
        if !new.empty && is_empty() && !is_elsewhere() {
            fill(store, image, target, &data)?;
        }
        return Ok(());
    }
    device::parse(&new.options)?;
    let aside = all.join(format!(".{}", names::random_id()?));
    let fresh = aside.join("_data");
    std::fs::create_dir_all(&fresh).map_err(|error| Error::io("make", &fresh, error))?;
    if !new.empty && new.options.is_empty() {
        fill(store, image, target, &fresh)?;
    }
    let (labels, options) = (new.labels.clone(), new.options.clone());
    VolumeRecord { anonymous, created: now(), labels, options }.write(&aside)?;
    match std::fs::rename(&aside, &home) {
        Ok(()) => Ok(()),
        // Somebody was quicker.
        Err(_) if data.is_dir() => {
            let _ = std::fs::remove_dir_all(&aside);
            Ok(())
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
            Volume::Bind { source: "/h".into(), target: target.clone(), readonly: true, slave: false }
        );
        let named = |empty| Volume::Named {
            name: "n1".into(),
            target: target.clone(),
            readonly: false,
            fresh: NewVolume { empty, ..NewVolume::default() },
        };
        assert_eq!(Volume::parse("n1:/p").unwrap(), named(false));
        assert_eq!(Volume::parse("n1:/p:nocopy").unwrap(), named(true));
        assert!(matches!(Volume::parse("/:/p:ro,rslave").unwrap(), Volume::Bind { slave: true, readonly: true, .. }));
        for wrong in ["", "p", "n1:p", "n1:/", "/h:/p:what", "a:b:c:d", "n!:/p", "a/b:/p", "/h:/p:shared"] {
            assert!(Volume::parse(wrong).is_err(), "{wrong}");
        }
    }
}
