//! Where a key is looked up: in a document that is read once, or under a tag of its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_image::ImageConfig;
use kiln_image::manifest::{Descriptor, Document as ImageDocument};
use kiln_image::registry::Options;
use kiln_store::{Blobs, DiffId, Store};
use tokio::runtime::Handle;

use super::document::{self, Contents, DOCUMENT, Document, INLINE, LARGEST, Manifest, Piece, Record};
use super::location::Location;
use super::transport::Transport;
use crate::key::Key;
use crate::{Error, Result};

/// Images of an index that are looked into, at most.
const MOST_IMAGES: usize = 64;
/// Media type of BuildKit's own caches.
const BUILDKIT: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Where BuildKit keeps the cache of an image in its config.
const BUILDKIT_INLINE: &str = "moby.buildkit.cache.v0";

/// An open source.
pub(super) struct Source {
    pub(super) transport: Transport,
    known: Known,
}

/// What is known of a source.
enum Known {
    /// Everything.
    All(Contents),
    /// What was asked for: each key and mount is a tag.
    Asked(Mutex<HashMap<String, Option<Contents>>>),
}

impl Source {
    /// Opens it; `None` when there is nothing.
    pub(super) fn open(
        store: &Store,
        location: &Location,
        options: &Options,
        runtime: &Handle,
    ) -> Result<Option<Self>> {
        let (transport, tag) = match location {
            Location::Inline => return Ok(None),
            Location::Keyed(reference) => {
                let transport = Transport::registry(reference, false, options, runtime)?;
                return Ok(Some(Self { transport, known: Known::Asked(Mutex::default()) }));
            }
            Location::Registry(reference) => {
                let digest = reference.digest().map(ToString::to_string);
                let tag = digest.unwrap_or_else(|| reference.tag().unwrap_or("latest").to_owned());
                (Transport::registry(reference, false, options, runtime)?, tag)
            }
            Location::Local(path, tag) => (Transport::directory(path, runtime), tag.clone()),
        };
        let Some(bytes) = transport.manifest(&tag)? else { return Ok(None) };
        // What is only looked at once has no place among the store's blobs.
        let staging = store.stage()?;
        let blobs = Blobs::open(&staging.scratch("documents")?, &staging.scratch("partial")?)?;
        let contents = Reader { transport: &transport, blobs: &blobs, tag: &tag }.read(&bytes)?;
        Ok(contents.map(|contents| Self { transport, known: Known::All(contents) }))
    }

    /// The record of a key, and where its layer is, if it is there.
    pub(super) fn record(&self, key: &Key) -> Result<Option<(Record, Option<Piece>)>> {
        self.ask(&document::record_tag(key), |contents| {
            let record = contents.records.get(key)?;
            Some((record.clone(), record.layer.and_then(|layer| contents.pieces.get(&layer).cloned())))
        })
    }

    /// Whether there is a record of a step of this name, as far as can be told without asking for a key.
    pub(super) fn knows_step(&self, name: &str) -> bool {
        match &self.known {
            Known::All(contents) => contents.records.values().any(|record| record.is_of(name)),
            Known::Asked(_) => false,
        }
    }

    /// The archive of a cache mount.
    pub(super) fn mount(&self, name: &str) -> Result<Option<Piece>> {
        let piece =
            |contents: &Contents, layer: &DiffId| -> Option<Piece> { Some(contents.pieces.get(layer)?.clone()) };
        self.ask(&document::mount_tag(name), |contents| piece(contents, contents.mounts.get(name)?))
    }

    fn ask<T>(&self, tag: &str, find: impl Fn(&Contents) -> Option<T>) -> Result<Option<T>> {
        let asked = match &self.known {
            Known::All(contents) => return Ok(find(contents)),
            Known::Asked(asked) => asked,
        };
        if let Some(known) = asked.lock().unwrap_or_else(PoisonError::into_inner).get(tag) {
            return Ok(known.as_ref().and_then(find));
        }
        let contents = match self.transport.manifest(tag)? {
            Some(bytes) => Some(Manifest::parse(&bytes)?.entry()?),
            None => None,
        };
        let found = contents.as_ref().and_then(find);
        asked.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.to_owned(), contents);
        Ok(found)
    }
}

/// Reads what a tag leads to.
struct Reader<'a> {
    transport: &'a Transport,
    blobs: &'a Blobs,
    tag: &'a str,
}

impl Reader<'_> {
    /// A document, or the caches inside of an image or of all images of an index.
    fn read(&self, bytes: &[u8]) -> Result<Option<Contents>> {
        let Ok(ImageDocument::Index(index)) = ImageDocument::parse(bytes, self.tag) else { return self.single(bytes) };
        if index.manifests.iter().any(|entry| entry.media_type == BUILDKIT) {
            return Err(of_buildkit());
        }
        let mut contents: Option<Contents> = None;
        for entry in index.manifests.iter().filter(|entry| !entry.is_index()).take(MOST_IMAGES) {
            let Some(bytes) = self.transport.manifest(&entry.digest.to_string())? else { continue };
            if let Some(more) = self.single(&bytes)? {
                contents.get_or_insert_default().merge(more);
            }
        }
        Ok(contents)
    }

    fn single(&self, bytes: &[u8]) -> Result<Option<Contents>> {
        let manifest = Manifest::parse(bytes)?;
        if manifest.config.media_type == DOCUMENT {
            let document = self.transport.read(&manifest.config, LARGEST, self.blobs)?;
            return Document::parse(&document)?.read(&manifest.layers).map(Some);
        }
        if manifest.config.media_type == BUILDKIT {
            return Err(of_buildkit());
        }
        // An artifact, such as an attestation.
        if ImageDocument::parse(bytes, self.tag).is_err() {
            return Ok(None);
        }
        let config = self.transport.read(&manifest.config, LARGEST, self.blobs)?;
        let config = ImageConfig::from_bytes(&config, &manifest.config.digest)?;
        inline(&config, &manifest.layers)
    }
}

/// BuildKit's keys are digests over its own description of a step and of all steps before it. Nothing in such a cache
/// tells which files, variables or mounts a layer was made of, so that no hit in it can be proved.
fn of_buildkit() -> Error {
    Error::CacheDocument("BuildKit made it, whose keys do not tell what a layer was made of".to_owned())
}

/// The cache inside of an image: of its layers it tells the sizes, and the image the rest.
fn inline(config: &ImageConfig, blobs: &[Descriptor]) -> Result<Option<Contents>> {
    let Some(inline) = config.other.get(INLINE) else {
        return if config.other.contains_key(BUILDKIT_INLINE) { Err(of_buildkit()) } else { Ok(None) };
    };
    let document: Document =
        serde_json::from_value(inline.clone()).map_err(|error| Error::CacheDocument(error.to_string()))?;
    let own = config.rootfs.diff_ids.iter().zip(blobs);
    let blob_of = |layer: &DiffId| own.clone().find(|(diff_id, _)| *diff_id == layer).map(|(_, blob)| blob.clone());
    let blobs: Option<Vec<Descriptor>> = document.layers.iter().map(|content| blob_of(&content.diff_id)).collect();
    let blobs = blobs.ok_or_else(|| Error::CacheDocument("it speaks of layers that its image has not".to_owned()))?;
    document.read(&blobs).map(Some)
}
