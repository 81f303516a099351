//! Names of the store that stand for several images: the index is a blob, the name points at it, and each of its images
//! is one of the store, or is known by where it can be had.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};

use crate::copy::copy_manifest;
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::links::Links;
use crate::manifest::unpack::read_config;
use crate::manifest::{DOCKER_CONFIG, Descriptor, Document, Index, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, pack};
use crate::registry::content::Content;
use crate::registry::download::download;
use crate::registry::repository::{Access, Fetched, Repository, wanted};
use crate::registry::{NoProgress, Options, PARALLEL, TransferProgress, upload};
use crate::{Error, Image, Platform, Reference, Result};

/// An index of the store.
#[derive(Debug, Clone)]
pub struct StoredIndex {
    /// Its name.
    pub name: Reference,
    /// Of its bytes.
    pub digest: Digest,
    /// As it came, or as it was made.
    pub bytes: Vec<u8>,
    /// What they say.
    pub index: Index,
}

impl StoredIndex {
    /// The index of this exact name; `None` when there is none, or an image.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(store: &Store, name: &Reference) -> Result<Option<Self>> {
        let Some(digest) = store.reference(&name.tagged_name())? else { return Ok(None) };
        if store.image(&digest)?.is_some() || store.blobs().size(&digest)?.is_none() {
            return Ok(None);
        }
        let bytes = store.blobs().read(&digest, DOCUMENT_LIMIT)?;
        let what = format!("index {digest}");
        if !Links::parse(&bytes, "", &what)?.is_index() {
            return Ok(None);
        }
        let index = serde_json::from_slice(&bytes).map_err(Error::json(what))?;
        Ok(Some(Self { name: name.clone(), digest, bytes, index }))
    }

    /// Keeps an index under a name.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put(store: &Store, name: &Reference, index: Index) -> Result<Self> {
        let bytes = serde_json::to_vec(&index).map_err(Error::json("image index"))?;
        let digest = store.blobs().put(&bytes)?;
        store.set_reference(&name.tagged_name(), &digest)?;
        Ok(Self { name: name.clone(), digest, bytes, index })
    }

    /// The image for a platform, if it is in the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn image(&self, store: &Store, platform: &Platform) -> Result<Option<Image>> {
        for entry in self.index.candidates(platform) {
            if let Some(image) = image_of(store, entry)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Those of its images that are in the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn images(&self, store: &Store) -> Result<Vec<Image>> {
        let found = self.index.images().map(|entry| image_of(store, entry));
        found.filter_map(Result::transpose).collect()
    }

    /// Takes the name away, and those of its images that are known by no other; returns the names.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn remove(self, store: &Store) -> Result<Vec<Reference>> {
        let own = self.images(store)?;
        store.remove_reference(&self.name.tagged_name())?;
        let mut gone = vec![self.name.clone()];
        let names: Vec<Reference> =
            store.references()?.iter().filter_map(|(name, _)| Reference::parse(name).ok()).collect();
        let of_repository = names.iter().filter(|name| name.name() == self.name.name());
        let mut others = HashMap::new();
        for name in of_repository.clone() {
            if let Some(other) = Self::open(store, name)?
                && (name.tag().is_some() || other.digest != self.digest)
            {
                others.extend(other.index.manifests.iter().map(|entry| (entry.digest, ())));
                others.insert(other.digest, ());
            }
        }
        let members = self.index.manifests.iter().map(|entry| entry.digest).chain([self.digest]);
        let members: Vec<Digest> = members.filter(|digest| !others.contains_key(digest)).collect();
        for name in of_repository.filter(|name| name.digest().is_some_and(|digest| members.contains(digest))) {
            let Some(id) = store.remove_reference(&name.tagged_name())? else { continue };
            gone.push(name.clone());
            if !store.references()?.iter().any(|(_, other)| *other == id) {
                store.remove_image(&id)?;
            }
        }
        let elsewhere = images_in_indexes(store)?;
        for image in own.into_iter().filter(|image| !elsewhere.contains(&image.id)) {
            if !store.references()?.iter().any(|(_, other)| *other == image.id) {
                store.remove_image(&image.id)?;
            }
        }
        Ok(gone)
    }

    /// Takes one of its images away unless another name has it; the index stays as it is. Returns the digests that named
    /// the image in the index's repository.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn remove_image(&self, store: &Store, image: &Image) -> Result<Vec<Reference>> {
        let others = indexes(store)?.into_iter().filter(|index| index.digest != self.digest);
        let others = others.map(|index| index.images(store)).collect::<Result<Vec<_>>>()?;
        let mut gone = Vec::new();
        for name in
            image.names(store)?.into_iter().filter(|name| name.tag().is_none() && name.name() == self.name.name())
        {
            store.remove_reference(&name.tagged_name())?;
            gone.push(name);
        }
        let is_named = store.references()?.iter().any(|(_, id)| *id == image.id);
        if !is_named && !others.iter().flatten().any(|other| other.id == image.id) {
            store.remove_image(&image.id)?;
        }
        Ok(gone)
    }
}

/// The images that some index of the store has.
///
/// # Errors
/// The store cannot be read.
pub fn images_in_indexes(store: &Store) -> Result<HashSet<Digest>> {
    let mut found = HashSet::new();
    for index in indexes(store)? {
        found.extend(index.images(store)?.into_iter().map(|image| image.id));
    }
    Ok(found)
}

/// The names of the indexes that have this image.
pub(crate) fn names_with(store: &Store, id: &Digest) -> Result<Vec<Reference>> {
    let mut names = Vec::new();
    for index in indexes(store)? {
        if index.images(store)?.iter().any(|image| image.id == *id) {
            names.push(index.name);
        }
    }
    Ok(names)
}

fn indexes(store: &Store) -> Result<Vec<StoredIndex>> {
    let mut found = Vec::new();
    for (name, id) in store.references()? {
        if store.image(&id)?.is_some() {
            continue;
        }
        let Ok(name) = Reference::parse(&name) else { continue };
        found.extend(StoredIndex::open(store, &name)?);
    }
    Ok(found)
}

/// The image of an index's entry, when it is in the store: by the manifest that it came or went with, or else by what
/// the manifest says.
pub(crate) fn image_of(store: &Store, entry: &Descriptor) -> Result<Option<Image>> {
    if let Some(record) = store.image_by_manifest(&entry.digest)? {
        return Image::open(store, &record.id);
    }
    if store.blobs().size(&entry.digest)?.is_none() {
        return Ok(None);
    }
    let bytes = store.blobs().read(&entry.digest, DOCUMENT_LIMIT)?;
    match Document::parse(&bytes, &format!("manifest {}", entry.digest)) {
        Ok(Document::Manifest(manifest)) => Image::open(store, &manifest.config.digest),
        _ => Ok(None),
    }
}

/// What is to be in an index, found by name: images of the store, and else the registry's. All of them, when the name is
/// an index itself. Nothing but manifests and configs is fetched.
///
/// # Errors
/// There is no such image.
pub async fn members(store: &Store, name: &Reference, options: &Options) -> Result<Vec<Descriptor>> {
    if let Some(index) = StoredIndex::open(store, name)? {
        return Ok(index.index.manifests);
    }
    if let Some(image) = Image::by_reference(store, name)? {
        return Ok(vec![member_of_store(store, &image)?]);
    }
    let (repository, fetched) = Repository::find(name, options).await?;
    let what = format!("manifest of {}", name.familiar());
    match Document::parse(&fetched.bytes, &what)? {
        Document::Index(index) => {
            for entry in &index.manifests {
                let child = repository.manifest(&entry.digest.to_string()).await?;
                remember(store, name, &child)?;
            }
            Ok(index.manifests)
        }
        Document::Manifest(manifest) => {
            if manifest.config.size > DOCUMENT_LIMIT {
                return Err(Error::invalid(what, format!("its config is longer than {DOCUMENT_LIMIT} bytes")));
            }
            download(&repository, &manifest.config, store.blobs(), &NoProgress).await?;
            remember(store, name, &fetched)?;
            let platform = read_config(store, &manifest.config.digest)?.platform();
            let media_type = manifest.media_type().to_owned();
            let entry = Descriptor::new(&media_type, fetched.digest, fetched.bytes.len() as u64);
            Ok(vec![Descriptor { platform: Some(platform), ..entry }])
        }
    }
}

fn member_of_store(store: &Store, image: &Image) -> Result<Descriptor> {
    let packed = pack(store, image, Compression::Gzip)?;
    store.blobs().put(&packed.bytes)?;
    Image::record(store, image.id, image.config.clone(), Some(packed.digest), &[])?;
    let entry = Descriptor::new(&packed.media_type, packed.digest, packed.bytes.len() as u64);
    Ok(Descriptor { platform: Some(image.platform()), ..entry })
}

/// Keeps a manifest, and where it is.
fn remember(store: &Store, name: &Reference, fetched: &Fetched) -> Result<()> {
    let digest = store.blobs().put(&fetched.bytes)?;
    let place = name.with_digest(fetched.digest).tagged_name();
    if store.reference(&place)?.is_none() {
        store.set_reference(&place, &digest)?;
    }
    Ok(())
}

/// Sends an index with its images; what the registry has is not sent. Images that are not in the store are copied from
/// where they were found.
pub(crate) async fn push(
    store: &Store,
    index: &StoredIndex,
    to: &Reference,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let places = places(store, index)?;
    let mut mounts: Vec<String> = places
        .values()
        .filter(|place| place.registry() == to.registry() && place.repository() != to.repository())
        .map(|place| place.repository().to_owned())
        .collect();
    mounts.sort();
    mounts.dedup();
    let target = Repository::open(to, Access::Push, &mounts, options).await?;
    for entry in &index.index.manifests {
        let digest = entry.digest.to_string();
        if target.digest(&digest).await?.is_some() {
            continue;
        }
        if push_member(store, &target, entry, progress).await? {
            continue;
        }
        let missing = || Error::NotFound { what: format!("manifest {digest}") };
        let place = places.get(&entry.digest).ok_or_else(missing)?;
        let from = Repository::open(place, Access::Pull, &[], options).await?;
        let mount = (place.registry() == to.registry()).then(|| place.repository().to_owned());
        copy_manifest(from, target.clone(), mount, &entry.digest, progress).await?;
    }
    let media_type = index.index.media_type.as_deref().unwrap_or(OCI_INDEX);
    target.put_manifest(&wanted(to), &index.bytes, media_type).await?;
    store.set_reference(&to.with_digest(index.digest).tagged_name(), &index.digest)?;
    Ok(index.digest)
}

/// Sends an image of which everything is in the store, under a name.
pub(crate) async fn push_image(
    store: &Store,
    entry: &Descriptor,
    to: &Reference,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let target = Repository::open(to, Access::Push, &[], options).await?;
    if !push_member(store, &target, entry, progress).await? {
        return Err(Error::NotFound { what: format!("manifest {}", entry.digest) });
    }
    let bytes = store.blobs().read(&entry.digest, DOCUMENT_LIMIT)?;
    target.put_manifest(&wanted(to), &bytes, &entry.media_type).await.map(drop)
}

/// Where the members of an index can be had.
fn places(store: &Store, index: &StoredIndex) -> Result<HashMap<Digest, Reference>> {
    let names = store.references()?.into_iter().filter_map(|(name, _)| Reference::parse(&name).ok());
    let wanted = |digest: &Digest| index.index.manifests.iter().any(|entry| entry.digest == *digest);
    Ok(names.filter_map(|name| Some((name.digest().copied().filter(|digest| wanted(digest))?, name))).collect())
}

/// Sends a member of which everything is in the store; `false` when something is not.
async fn push_member(
    store: &Store,
    target: &Repository,
    entry: &Descriptor,
    progress: &dyn TransferProgress,
) -> Result<bool> {
    if store.blobs().size(&entry.digest)?.is_none() {
        return Ok(false);
    }
    let bytes = store.blobs().read(&entry.digest, DOCUMENT_LIMIT)?;
    let links = Links::parse(&bytes, &entry.media_type, &format!("manifest {}", entry.digest))?;
    let mut blobs = Vec::new();
    for blob in &links.blobs {
        let Some(file) = store.blobs().get(&blob.digest)? else { return Ok(false) };
        blobs.push((blob, Content::File { file: std::sync::Arc::new(file), offset: 0 }));
    }
    let sending = blobs.iter().map(|(blob, content)| async move {
        let small = matches!(blob.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG);
        let progress: &dyn TransferProgress = if small { &NoProgress } else { progress };
        let there = upload::exists(target, &blob.digest).await?;
        progress.begin(&blob.digest, blob.size, there);
        if !there {
            upload::upload(target, blob, None, content, progress).await?;
            progress.finish(&blob.digest);
        }
        Ok::<(), Error>(())
    });
    stream::iter(sending).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    let media_type = if links.media_type.is_empty() { OCI_MANIFEST } else { &links.media_type };
    target.put_manifest(&entry.digest.to_string(), &bytes, media_type).await?;
    Ok(true)
}
