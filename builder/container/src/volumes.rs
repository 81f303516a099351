//! The volumes of the store: `volume create`, `ls`, `inspect`, `rm` and `prune`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_store::Store;
use serde::{Deserialize, Serialize};

use crate::directory::{now, remove_tree, write_whole};
use crate::settings::MountSource;
use crate::{Error, Result, list, names};

/// What is kept of a volume beside its data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VolumeRecord {
    /// Nobody named it.
    pub(crate) anonymous: bool,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where its data are, when they are not here.
    pub(crate) options: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
}

impl VolumeRecord {
    pub(crate) fn write(&self, home: &Path) -> Result<()> {
        let path = home.join("volume.json");
        let json = serde_json::to_vec(self).map_err(|error| Error::io("write", &path, error))?;
        write_whole(&path, &json)
    }

    pub(crate) fn read(home: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(home.join("volume.json")).ok()?).ok()
    }
}

/// A volume of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVolume {
    /// Its name.
    pub name: String,
    /// Where its data are.
    pub data: PathBuf,
    /// Nobody named it.
    pub anonymous: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its driver's options.
    pub options: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// Names of the containers that have it.
    pub users: Vec<String>,
}

/// Every volume, by name.
///
/// # Errors
/// The store cannot be read.
pub fn list_volumes(store: &Store) -> Result<Vec<StoredVolume>> {
    let all = store.directory("volumes")?;
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for container in list(store)? {
        for mount in &container.record.settings.mounts {
            if let MountSource::Volume { name, .. } = &mount.source {
                users.entry(name.clone()).or_default().push(container.record.id.clone());
            }
        }
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&all).map_err(|error| Error::io("read", &all, error))? {
        let entry = entry.map_err(|error| Error::io("read", &all, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let data = entry.path().join("_data");
        if name.starts_with('.') || !data.is_dir() {
            continue;
        }
        let record = VolumeRecord::read(&entry.path());
        let created = || entry.metadata().map_or(0, |metadata| metadata.mtime() * 1_000_000_000);
        found.push(StoredVolume {
            users: users.remove(&name).unwrap_or_default(),
            anonymous: record.as_ref().is_some_and(|record| record.anonymous),
            created: record.as_ref().map_or_else(created, |record| record.created),
            options: record.as_ref().map(|record| record.options.clone()).unwrap_or_default(),
            labels: record.map(|record| record.labels).unwrap_or_default(),
            name,
            data,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The volume of this name.
///
/// # Errors
/// There is none.
pub fn find_volume(store: &Store, name: &str) -> Result<StoredVolume> {
    let all = list_volumes(store)?;
    all.into_iter().find(|volume| volume.name == name).ok_or_else(|| Error::Invalid(format!("No such volume: {name}")))
}

/// Makes an empty volume; one that is there stays as it is. Returns its name. `options` are those of docker's driver:
/// `type`, `device` and `o` say what is mounted in place of a directory of the store's.
///
/// # Errors
/// The name is none; the options say what kiln does not mount.
pub fn create_volume(
    store: &Store,
    name: Option<&str>,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
) -> Result<String> {
    crate::volume::device::parse(&options)?;
    let chosen = match name {
        Some(name) => {
            names::check("volume", name)?;
            name.to_owned()
        }
        None => names::random_id()?,
    };
    let all = store.directory("volumes")?;
    if all.join(&chosen).join("_data").is_dir() {
        return Ok(chosen);
    }
    let aside = all.join(format!(".{}", names::random_id()?));
    let data = aside.join("_data");
    std::fs::create_dir_all(&data).map_err(|error| Error::io("make", &data, error))?;
    VolumeRecord { anonymous: name.is_none(), labels, options, created: now() }.write(&aside)?;
    let home = all.join(&chosen);
    match std::fs::rename(&aside, &home) {
        Ok(()) => Ok(chosen),
        // Somebody was quicker.
        Err(_) if home.join("_data").is_dir() => remove_tree(&aside).map(|()| chosen),
        Err(error) => Err(Error::io("make volume", home, error)),
    }
}

/// Removes a volume that no container has.
///
/// # Errors
/// There is none, or a container has it.
pub fn remove_volume(store: &Store, name: &str) -> Result<()> {
    let volume = find_volume(store, name)?;
    if !volume.users.is_empty() {
        let users = volume.users.iter().map(|id| id.get(..12).unwrap_or(id)).collect::<Vec<_>>().join(", ");
        return Err(Error::Invalid(format!("volume {name} is in use by container {users}: remove that first")));
    }
    take_away(store, name)
}

/// Removes it, whoever has it: out of sight first, so that it is gone however far the removal gets.
pub(crate) fn take_away(store: &Store, name: &str) -> Result<()> {
    take_away_in(&store.directory("volumes")?, name)
}

pub(crate) fn take_away_in(all: &Path, name: &str) -> Result<()> {
    let home = all.join(name);
    let aside = all.join(format!(".{}", names::random_id()?));
    match std::fs::rename(&home, &aside) {
        Ok(()) => remove_tree(&aside),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove volume", home, error)),
    }
}

/// Bytes below a directory, as they lie on the disk; hard links count once.
pub fn disk_usage(path: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0;
    let mut open = vec![path.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.len();
            }
        }
    }
    total
}
