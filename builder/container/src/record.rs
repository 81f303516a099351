//! What is kept of a container, and finding it again.

use std::path::{Path, PathBuf};

use kiln_store::{DiffId, Digest, Store};
use serde::{Deserialize, Serialize};

use crate::settings::{MountSource, Settings};
use crate::state::State;
use crate::{Error, Result};

/// `config.json` of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Nanoseconds since 1970.
    pub created: i64,
    /// How it runs.
    pub settings: Settings,
}

impl Record {
    /// The first 12 digits of its id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Names of the volumes that go with it.
    pub fn anonymous_volumes(&self) -> impl Iterator<Item = &str> {
        self.settings.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, anonymous: true } => Some(name.as_str()),
            _ => None,
        })
    }

    pub(crate) fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join("config.json")).ok()?).ok()
    }
}

/// A container: where it is kept, what it is, and what it is doing.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its directory.
    pub path: PathBuf,
    /// What it is.
    pub record: Record,
    /// What it is doing.
    pub state: State,
}

impl Container {
    pub(crate) fn open(path: PathBuf) -> Option<Self> {
        let record = Record::read(&path)?;
        let state = State::read(&path);
        Some(Self { path, record, state })
    }

    /// Looks again at what it is doing.
    pub fn refresh(&mut self) {
        self.state = State::read(&self.path);
    }
}

/// Every container, newest first.
///
/// # Errors
/// The store cannot be read.
pub fn list(store: &Store) -> Result<Vec<Container>> {
    let all = store.directory("containers")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&all).map_err(|error| Error::io("read", &all, error))? {
        let path = entry.map_err(|error| Error::io("read", &all, error))?.path();
        // Without a config it is a container that is being made or removed.
        found.extend(Container::open(path));
    }
    found.sort_by(|a, b| (b.record.created, &b.record.id).cmp(&(a.record.created, &a.record.id)));
    Ok(found)
}

/// A container by name, id, or the beginning of an id.
///
/// # Errors
/// There is none, or several ids begin so.
pub fn find(store: &Store, text: &str) -> Result<Container> {
    find_in(&store.directory("containers")?, text)
}

/// The same, in the directory of all containers.
pub(crate) fn find_in(all: &Path, text: &str) -> Result<Container> {
    let unknown = || Error::Unknown(text.to_owned());
    if text.is_empty() || text.contains('/') || text.starts_with('.') {
        return Err(unknown());
    }
    if let Some(path) = crate::names::named(all, text).or_else(|| Some(all.join(text)).filter(|path| path.is_dir())) {
        return Container::open(path).ok_or_else(unknown);
    }
    let is_prefix = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let entries = std::fs::read_dir(all).map_err(|error| Error::io("read", all, error))?;
    let mut matching =
        entries.flatten().filter(|entry| is_prefix && entry.file_name().to_string_lossy().starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Container::open(found.path()).ok_or_else(unknown),
        (Some(_), Some(_)) => Err(Error::Invalid(format!("several containers' ids begin with {text}"))),
        (None, _) => Err(unknown()),
    }
}

/// The containers of an image.
///
/// # Errors
/// The store cannot be read.
pub fn users_of_image(store: &Store, image: &Digest) -> Result<Vec<Container>> {
    Ok(list(store)?.into_iter().filter(|container| container.record.image == *image).collect())
}

/// Every layer that a container lies on.
///
/// # Errors
/// The store cannot be read.
pub fn layers_in_use(store: &Store) -> Result<Vec<DiffId>> {
    let mut layers = Vec::new();
    for Container { record, .. } in list(store)? {
        layers.extend(record.layers);
        for mount in record.settings.mounts {
            if let MountSource::Image { layers: mounted, .. } = mount.source {
                layers.extend(mounted);
            }
        }
    }
    layers.sort_unstable();
    layers.dedup();
    Ok(layers)
}
