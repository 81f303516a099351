//! Reading an archive from a stream that cannot be wound back: the files go into the store's blobs as they come,
//! and the documents that say what they are, which may come last, are read from there.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path};

use kiln_store::digest::Algorithm;
use kiln_store::{Digest, Store};

use super::docker::DockerImage;
use super::entries::{Entries, Entry, Kind};
use crate::image::DOCUMENT_LIMIT;
use crate::layout::{self, LAYOUT_FILE};
use crate::manifest::unpack::{read_config, unpack};
use crate::manifest::{Descriptor, Index, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::{Error, Image, Platform, Reference, Result};

/// Entries of an archive, at most.
const ENTRY_LIMIT: usize = 100_000;
/// Bytes of all names together, at most.
const NAMES_LIMIT: usize = 16 << 20;
/// Links that lead to links, at most.
pub(crate) const LINK_LIMIT: usize = 8;

/// Reads an archive of either kind (plain or compressed); returns the images and the names they were given. Of images for
/// several platforms it is that for `platform`, or else this machine's.
///
/// # Errors
/// It is no archive of images, or damaged; an image is not made for `platform`.
pub fn load(store: &Store, input: &mut dyn Read, platform: Option<&Platform>) -> Result<Vec<(Image, Vec<Reference>)>> {
    let mut input = BufReader::with_capacity(256 << 10, input);
    let start = input.fill_buf().map_err(Error::stream("read the archive"))?;
    let contents = if start.starts_with(&[0x1f, 0x8b]) {
        Contents::read(store, &mut flate2::bufread::MultiGzDecoder::new(input))?
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::Decoder::with_buffer(input).map_err(Error::stream("read the archive"))?;
        Contents::read(store, &mut decoder)?
    } else {
        Contents::read(store, &mut input)?
    };
    if contents.files.contains_key(LAYOUT_FILE) && contents.files.contains_key("index.json") {
        return contents.load_layout(store, platform);
    }
    if contents.files.contains_key("manifest.json") {
        return contents.load_docker(store, platform);
    }
    Err(Error::invalid("image archive", "it has neither docker's manifest.json nor OCI's oci-layout and index.json"))
}

/// How much of an archive's entries there has been.
#[derive(Default)]
pub(crate) struct Limits {
    count: usize,
    names: usize,
}

impl Limits {
    /// One more entry, unless it is one too many.
    pub(crate) fn count(&mut self, entry: &Entry) -> Result<()> {
        let link = match &entry.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => target.len(),
            Kind::File | Kind::Other => 0,
        };
        self.count += 1;
        // A target is kept with the directory that it is seen from.
        self.names += 2 * entry.name.len() + link;
        if self.count > ENTRY_LIMIT || self.names > NAMES_LIMIT {
            return Err(Error::invalid("image archive", "it has more entries than any image needs"));
        }
        Ok(())
    }
}

/// A file of the archive, now a blob of the store.
#[derive(Debug, Clone, Copy)]
struct Stored {
    digest: Digest,
    size: u64,
}

/// The archive's files by their names, which are never used as paths.
#[derive(Default)]
struct Contents {
    files: HashMap<String, Stored>,
    links: HashMap<String, String>,
}

impl Contents {
    fn read(store: &Store, input: &mut dyn Read) -> Result<Self> {
        let mut contents = Self::default();
        let mut entries = Entries::new(input);
        let mut limits = Limits::default();
        while let Some(entry) = entries.next()? {
            limits.count(&entry)?;
            let Some(name) = normal_name(&entry.name) else { continue };
            match &entry.kind {
                Kind::File => {
                    let stored = keep(store, &name, entry.size, &mut entries)?;
                    contents.files.insert(name, stored);
                }
                Kind::Symlink(target) => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    contents.link(&name, &format!("{directory}/{target}"));
                }
                Kind::HardLink(target) => contents.link(&name, target),
                Kind::Other => {}
            }
        }
        Ok(contents)
    }

    fn link(&mut self, name: &str, target: &str) {
        if let Some(target) = normal_name(target) {
            self.links.insert(name.to_owned(), target);
        }
    }

    /// The file of that name, through links.
    fn file(&self, name: &str) -> Result<Stored> {
        let mut wanted = normal_name(name);
        for _ in 0..LINK_LIMIT {
            let Some(name) = wanted else { break };
            if let Some(stored) = self.files.get(&name) {
                return Ok(*stored);
            }
            wanted = self.links.get(&name).cloned();
        }
        Err(Error::invalid("image archive", format!("{name:?}, which it refers to, is not in it")))
    }

    fn document(&self, store: &Store, name: &str) -> Result<Vec<u8>> {
        Ok(store.blobs().read(&self.file(name)?.digest, DOCUMENT_LIMIT)?)
    }

    /// Docker's `manifest.json`, when there is one.
    fn docker_images(&self, store: &Store) -> Result<Vec<DockerImage>> {
        if !self.files.contains_key("manifest.json") {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&self.document(store, "manifest.json")?).map_err(Error::json("manifest.json"))
    }

    fn load_layout(&self, store: &Store, platform: Option<&Platform>) -> Result<Vec<(Image, Vec<Reference>)>> {
        let bytes = self.document(store, "index.json")?;
        let index: Index = serde_json::from_slice(&bytes).map_err(Error::json("index.json"))?;
        let mut images = layout::load_index(store, &index, platform, &mut |_| Ok(()))?;
        for docker in self.docker_images(store)? {
            let id = self.file(&docker.config)?.digest;
            if let Some((image, names)) = images.iter_mut().find(|(image, _)| image.id == id) {
                for name in tags(&docker)? {
                    store.set_reference(&name.tagged_name(), &image.id)?;
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
        Ok(images)
    }

    fn load_docker(&self, store: &Store, platform: Option<&Platform>) -> Result<Vec<(Image, Vec<Reference>)>> {
        let images = self.docker_images(store)?;
        images.iter().map(|docker| self.load_docker_image(store, docker, platform)).collect()
    }

    /// A docker archive has no manifest of the image; what stands here for one is not kept.
    fn load_docker_image(
        &self,
        store: &Store,
        docker: &DockerImage,
        platform: Option<&Platform>,
    ) -> Result<(Image, Vec<Reference>)> {
        let names = tags(docker)?;
        let config = self.file(&docker.config)?;
        match platform {
            Some(platform) => layout::check_platform(store, &config.digest, platform, &names)?,
            None => drop(read_config(store, &config.digest)?),
        }
        let layers = docker.layers.iter().map(|layer| {
            let stored = self.file(layer)?;
            Ok(Descriptor::new(layer_type(store, &stored)?, stored.digest, stored.size))
        });
        let manifest = Manifest {
            annotations: std::collections::BTreeMap::new(),
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: Descriptor::new(OCI_CONFIG, config.digest, config.size),
            layers: layers.collect::<Result<_>>()?,
        };
        let image = unpack(store, &manifest, None, &names)?;
        Ok((image, names))
    }
}

fn tags(docker: &DockerImage) -> Result<Vec<Reference>> {
    docker.repo_tags.iter().map(|tag| Reference::parse(tag)).collect()
}

fn layer_type(store: &Store, layer: &Stored) -> Result<&'static str> {
    let file = store.blobs().get(&layer.digest)?.ok_or(kiln_store::Error::BlobMissing(layer.digest))?;
    let mut start = Vec::new();
    file.take(4).read_to_end(&mut start).map_err(Error::stream("read the layer"))?;
    Ok(layout::layer_type(&start))
}

/// Stores a file as a blob; one whose name is a digest must have it.
fn keep(store: &Store, name: &str, size: u64, content: &mut dyn Read) -> Result<Stored> {
    let expected = layout::digest_of_name(name);
    let algorithm = expected.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let mut writer = store.blobs().writer(algorithm)?;
    let copied = std::io::copy(content, &mut writer).map_err(Error::stream("read the archive"))?;
    if copied != size {
        return Err(Error::invalid("image archive", "it ends in the middle of an entry"));
    }
    let (digest, size) = writer.commit(expected.as_ref(), false)?;
    Ok(Stored { digest, size })
}

/// The components of a name without `.`, with `..` taken back; `None` when it leads above the root.
pub(crate) fn normal_name(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
