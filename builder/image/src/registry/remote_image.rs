//! An image of a registry of which only the manifest and the config came: its layers come when somebody needs them.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use kiln_store::{DiffId, Digest, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::content::Content;
use super::pull::Source;
use super::repository::{Fetched, Repository};
use super::{Options, TransferProgress};
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::unpack::pair_layers;
use crate::manifest::{Descriptor, Document};
use crate::remote::small;
use crate::{Error, Image, ImageConfig, Platform, Reference, Result};

/// An image of which only the manifest and the config came.
pub struct RemoteImage {
    reference: Reference,
    options: Options,
    documents: Documents,
    image: Image,
    layers: Vec<(Descriptor, DiffId)>,
    /// Where its layers are; looked for when the first is wanted.
    repository: OnceCell<Repository>,
}

/// What came of an image, to be kept for another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// What the registry has for the reference: of the index, when it is one.
    digest: Digest,
    manifest_digest: Digest,
    manifest: String,
    config: String,
}

impl RemoteImage {
    /// Asks a registry for the image of a platform.
    ///
    /// # Errors
    /// It is not there; what the registry gives is not what its digests say.
    pub async fn look_up(store: &Store, reference: &Reference, platform: &Platform, options: &Options) -> Result<Self> {
        let (repository, fetched) = Repository::find(reference, options).await?;
        let digest = fetched.digest;
        let source = Source { repository, reference };
        let Fetched { bytes, digest: manifest_digest, .. } = source.resolve(fetched, platform).await?.1;
        let what = format!("manifest of {}", reference.familiar());
        let Document::Manifest(manifest) = Document::parse(&bytes, &what)? else {
            return Err(Error::invalid(what, "an index, not an image"));
        };
        let config = source.config(store, &manifest.config).await?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| Error::invalid(&what, "it is not text"));
        let documents = Documents { digest, manifest_digest, manifest: text(bytes)?, config: text(config)? };
        let found = Self::recall(reference, documents, options)?;
        Ok(Self { repository: OnceCell::new_with(Some(source.repository)), ..found })
    }

    /// The image of documents that came another time; nothing is asked.
    ///
    /// # Errors
    /// They are not those of an image.
    pub fn recall(reference: &Reference, documents: Documents, options: &Options) -> Result<Self> {
        let what = format!("manifest of {}", reference.familiar());
        let Document::Manifest(manifest) = Document::parse(documents.manifest.as_bytes(), &what)? else {
            return Err(Error::invalid(what, "an index, not an image"));
        };
        let id = manifest.config.digest;
        let config = ImageConfig::from_bytes(documents.config.as_bytes(), &id)?;
        let layers = pair_layers(&manifest, &config)?;
        let layers: Vec<(Descriptor, DiffId)> = layers.into_iter().map(|(blob, layer)| (blob.clone(), layer)).collect();
        let diff_ids = config.rootfs.diff_ids.clone();
        let (manifest, elsewhere) = (Some(documents.manifest_digest), BTreeMap::new());
        let image = Image { id, config, layers: diff_ids, manifest, elsewhere };
        let (reference, options) = (reference.clone(), options.clone());
        Ok(Self { reference, options, documents, image, layers, repository: OnceCell::new() })
    }

    /// What it was asked for as.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The image; its layers may be missing.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What came of it.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Those of its layers that the store has not, each once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn missing(&self, store: &Store) -> Result<Vec<DiffId>> {
        let mut missing = Vec::new();
        for (_, layer) in &self.layers {
            if !missing.contains(layer) && store.layer(layer)?.is_none() {
                missing.push(*layer);
            }
        }
        Ok(missing)
    }

    /// One of its layers, as the registry has it.
    pub fn layer(&self, layer: &DiffId) -> Option<&Descriptor> {
        self.layers.iter().find(|(_, diff_id)| diff_id == layer).map(|(blob, _)| blob)
    }

    /// Brings one of its layers into the store, unpacked while it comes; both of its digests are verified.
    ///
    /// # Errors
    /// It cannot be had, or is not what the manifest and the config say.
    pub async fn fetch(&self, store: &Arc<Store>, layer: &DiffId, progress: &dyn TransferProgress) -> Result<()> {
        let blob = self.layer(layer).ok_or_else(|| Error::NotFound { what: format!("layer {layer}") })?;
        let find = || async {
            let by_digest = self.reference.with_digest(self.documents.manifest_digest);
            Repository::find(&by_digest, &self.options).await.map(|(repository, _)| repository)
        };
        let repository = self.repository.get_or_try_init(find).await?.clone();
        Source { repository, reference: &self.reference }.fetch_layer(store, blob, *layer, progress).await
    }

    /// Makes it an image of the store under its name, as a pull does; its layers must be there.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep(&self, store: &Store) -> Result<Image> {
        let Documents { digest, manifest_digest, manifest, config } = &self.documents;
        for (digest, text) in [(&self.image.id, config), (manifest_digest, manifest)] {
            let mut writer = store.blobs().writer(digest.algorithm())?;
            writer.write_all(text.as_bytes()).map_err(Error::stream("write a blob"))?;
            writer.commit(Some(digest), false)?;
        }
        let names = [self.reference.clone(), self.reference.with_digest(*digest)];
        Image::record(store, self.image.id, self.image.config.clone(), Some(*manifest_digest), &names)
    }
}

impl Source<'_> {
    /// The bytes of a config: the store's, or else the registry's; verified.
    async fn config(&self, store: &Store, blob: &Descriptor) -> Result<Vec<u8>> {
        let blobs = store.blobs();
        if blobs.size(&blob.digest)? == Some(blob.size) && blobs.verify(&blob.digest)? {
            return Ok(blobs.read(&blob.digest, DOCUMENT_LIMIT)?);
        }
        small(&Content::Remote(self.repository.clone()), blob).await
    }
}
