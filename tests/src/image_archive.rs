//! Reading what `save` wrote, docker's or kiln's: a tar with `manifest.json`.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use serde::Deserialize;
use serde_json::Value;
use tar::Archive;

use crate::layer::{Filesystem, decompress};

/// One image of an archive.
#[derive(Debug)]
pub struct ArchivedImage {
    /// Its names.
    pub names: Vec<String>,
    /// The config blob.
    pub config: Value,
    /// The config blob as it came.
    pub config_bytes: Vec<u8>,
    /// The layer tars, lowest first, as they came.
    pub layers: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Every image of an archive.
pub fn read_archive(bytes: &[u8]) -> io::Result<Vec<ArchivedImage>> {
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    let mut links = Vec::new();
    for entry in Archive::new(decompress(bytes)?).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        // docker 20.10 writes a layer that comes twice as a symlink to the other one, before or after it.
        if let Some(target) = entry.link_name()? {
            links.push((path, target.to_string_lossy().trim_start_matches("../").to_owned()));
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(path, content);
    }
    for (path, target) in links {
        let content = files.get(&target).cloned();
        let content = content.ok_or_else(|| io::Error::other(format!("{path} is a link to {target}, which is not")))?;
        files.insert(path, content);
    }
    let file =
        |name: &str| files.get(name).cloned().ok_or_else(|| io::Error::other(format!("no {name} in the archive")));
    let items: Vec<ManifestItem> = serde_json::from_slice(&file("manifest.json")?)?;
    items
        .into_iter()
        .map(|item| {
            let config_bytes = file(&item.config)?;
            Ok(ArchivedImage {
                names: item.repo_tags.unwrap_or_default(),
                config: serde_json::from_slice(&config_bytes)?,
                config_bytes,
                layers: item.layers.iter().map(|layer| file(layer)).collect::<io::Result<_>>()?,
            })
        })
        .collect()
}

impl ArchivedImage {
    /// The flattened root file system.
    pub fn filesystem(&self) -> io::Result<Filesystem> {
        let mut root = Filesystem::default();
        for layer in &self.layers {
            root.apply(layer)?;
        }
        Ok(root)
    }
}
