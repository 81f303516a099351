//! From a registry into the store. Nothing waits for the disk: what a power loss tears is recognised before it is used
//! again, and can be had again.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use kiln_store::layer::{LayerBlob, Unpacked};
use kiln_store::{DiffId, Digest, Store};
use tokio::sync::mpsc;

use super::download::{DEPTH, Download, Pieces, download};
use super::repository::{Fetched, Repository};
use super::{NoProgress, Options, PARALLEL, TransferProgress};
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::links::Links;
use crate::manifest::unpack::{pair_layers, read_config, unpack, unpack_layer};
use crate::manifest::{Descriptor, Document, Manifest, oci_layer_type};
use crate::{Error, Image, Platform, Reference, Result};

/// Indexes within indexes, at most.
const DEPTH_LIMIT: usize = 4;

/// What was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The digest that the registry has for the reference: of the index, when it is one.
    pub digest: Digest,
}

pub(super) async fn pull(
    store: &Store,
    reference: &Reference,
    names: &[Reference],
    platform: &Platform,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Pulled> {
    let (repository, fetched) = Repository::find(reference, options).await?;
    let digest = fetched.digest;
    let source = Source { repository, reference };
    let (manifest, fetched) = source.resolve(fetched, platform).await?;
    let image = source.fetch(store, &manifest, &fetched.bytes, names, progress).await?;
    store.set_reference(&reference.with_digest(digest).tagged_name(), &image.id)?;
    Ok(Pulled { image, digest })
}

pub(super) async fn pull_all_platforms(
    store: &Store,
    reference: &Reference,
    names: &[Reference],
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<(Option<Digest>, Digest)> {
    let (repository, fetched) = Repository::find(reference, options).await?;
    let source = Source { repository, reference };
    let by_digest = reference.with_digest(fetched.digest);
    let what = format!("manifest of {}", reference.familiar());
    let index = match Document::parse(&fetched.bytes, &what)? {
        Document::Index(index) => index,
        Document::Manifest(manifest) => {
            let names: Vec<_> = names.iter().cloned().chain([by_digest]).collect();
            let image = source.fetch(store, &manifest, &fetched.bytes, &names, progress).await?;
            return Ok((Some(image.id), fetched.digest));
        }
    };
    for entry in &index.manifests {
        let child = source.repository.manifest(&entry.digest.to_string()).await?;
        source.fetch_member(store, &child, progress).await?;
    }
    let digest = store.blobs().put(&fetched.bytes)?;
    for name in names.iter().chain([&by_digest]) {
        store.set_reference(&name.tagged_name(), &digest)?;
    }
    Ok((None, fetched.digest))
}

pub(super) struct Source<'a> {
    pub(super) repository: Repository,
    pub(super) reference: &'a Reference,
}

impl Source<'_> {
    /// Follows indexes to the image of a platform.
    pub(super) async fn resolve(&self, mut fetched: Fetched, platform: &Platform) -> Result<(Manifest, Fetched)> {
        let what = format!("manifest of {}", self.reference.familiar());
        for _ in 0..DEPTH_LIMIT {
            match Document::parse(&fetched.bytes, &what)? {
                Document::Manifest(manifest) => return Ok((manifest, fetched)),
                Document::Index(index) => {
                    let best = index.candidates(platform).first().map(|entry| entry.digest);
                    let best = best.ok_or_else(|| index.no_platform(platform, &self.reference.familiar()))?;
                    fetched = self.repository.manifest(&best.to_string()).await?;
                }
            }
        }
        Err(Error::invalid(what, "indexes are nested too deeply"))
    }

    /// Brings an image into the store.
    async fn fetch(
        &self,
        store: &Store,
        manifest: &Manifest,
        bytes: &[u8],
        names: &[Reference],
        progress: &dyn TransferProgress,
    ) -> Result<Image> {
        let digest = store.blobs().put(bytes)?;
        // Unpacking blocks, and so runs on threads of its own, which need a store of their own to hold.
        let shared = Arc::new(Store::open(store.root(), store.privilege())?);
        self.fetch_blobs(&shared, manifest, progress).await?;
        unpack(store, manifest, Some(digest), names)
    }

    /// Brings a member of an index: an image as one, known by its digest; anything else (attestations, artifacts) as
    /// blobs.
    async fn fetch_member(&self, store: &Store, member: &Fetched, progress: &dyn TransferProgress) -> Result<()> {
        let what = format!("manifest {}", member.digest);
        let links = Links::parse(&member.bytes, &member.media_type, &what)?;
        let is_layer = |blob: &Descriptor| blob.media_type.contains("tar");
        let is_image = links.blobs.iter().skip(1).all(is_layer);
        if is_image && let Ok(Document::Manifest(manifest)) = Document::parse(&member.bytes, &what) {
            let name = self.reference.with_digest(member.digest);
            self.fetch(store, &manifest, &member.bytes, &[name], progress).await?;
            return Ok(());
        }
        if links.is_index() {
            return Err(Error::invalid(what, "an index within an index is pulled by its own digest"));
        }
        for blob in &links.blobs {
            if store.blobs().size(&blob.digest)? != Some(blob.size) {
                download(&self.repository, blob, store.blobs(), &NoProgress).await?;
            }
        }
        store.blobs().put(&member.bytes)?;
        Ok(())
    }

    /// Brings the config and the missing layers into the store, several at once, each unpacked while it comes.
    async fn fetch_blobs(
        &self,
        store: &Arc<Store>,
        manifest: &Manifest,
        progress: &dyn TransferProgress,
    ) -> Result<()> {
        let config = &manifest.config;
        if config.size > DOCUMENT_LIMIT {
            let what = format!("config {}", config.digest);
            return Err(Error::invalid(what, format!("longer than {DOCUMENT_LIMIT} bytes")));
        }
        // What a power loss has damaged is fetched again.
        if !store.blobs().verify(&config.digest)? {
            store.blobs().remove(&config.digest)?;
            download(&self.repository, config, store.blobs(), &NoProgress).await?;
        }
        let config = read_config(store, &config.digest)?;
        let mut seen = HashSet::new();
        let layers = pair_layers(manifest, &config)?.into_iter().filter(|(layer, _)| seen.insert(layer.digest));
        stream::iter(layers.map(Ok))
            .map_ok(|(layer, diff_id)| self.fetch_layer(store, layer, diff_id, progress))
            .try_buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    pub(super) async fn fetch_layer(
        &self,
        store: &Arc<Store>,
        layer: &Descriptor,
        diff_id: DiffId,
        progress: &dyn TransferProgress,
    ) -> Result<()> {
        if store.layer(&diff_id)?.is_some() {
            progress.begin(&layer.digest, layer.size, true);
            return Ok(());
        }
        progress.begin(&layer.digest, layer.size, false);
        if store.blobs().size(&layer.digest)? == Some(layer.size) {
            let (shared, owned) = (Arc::clone(store), layer.clone());
            let unpacked = blocking(move || unpack_layer(&shared, &owned, &diff_id)).await?;
            if unpacked.is_ok() {
                progress.advance(&layer.digest, layer.size);
                progress.finish(&layer.digest);
                return Ok(());
            }
            if store.blobs().verify(&layer.digest)? {
                return unpacked;
            }
            store.blobs().remove(&layer.digest)?;
        }
        self.fetch_and_unpack(store, layer, diff_id, progress).await?;
        progress.finish(&layer.digest);
        Ok(())
    }

    /// Unpacks a layer beside its place while its blob comes; both are kept when both digests are right.
    async fn fetch_and_unpack(
        &self,
        store: &Arc<Store>,
        layer: &Descriptor,
        diff_id: DiffId,
        progress: &dyn TransferProgress,
    ) -> Result<()> {
        let (to_unpacking, pieces) = mpsc::channel(DEPTH);
        let shared = Arc::clone(store);
        let unpacking = tokio::task::spawn_blocking(move || -> Result<Unpacked> {
            Ok(shared.unpack_stream(Pieces::of(pieces), Some(&diff_id))?)
        });
        let mut writer = store.blobs().writer(layer.digest.algorithm())?;
        let mut download = Download::start(&self.repository, layer);
        let received = async {
            while let Some(piece) = download.next().await? {
                writer.write_lent(piece.clone()).map_err(Error::stream("write a blob"))?;
                progress.advance(&layer.digest, piece.len() as u64);
                // When unpacking has failed, the digest of the whole still tells whose fault it is.
                let _ = to_unpacking.send(Ok(piece)).await;
            }
            writer.commit(Some(&layer.digest), false)?;
            Ok(())
        };
        let received: Result<()> = received.await;
        if received.is_err() {
            let _ = to_unpacking.send(Err(Error::stream("fetch a layer")(io::ErrorKind::BrokenPipe.into()))).await;
        }
        drop(to_unpacking);
        let unpacked = unpacking.await.map_err(|error| Error::invalid("unpacking a layer", error.to_string()))?;
        received?;
        let (shared, unpacked) = (Arc::clone(store), unpacked?);
        let media_type = oci_layer_type(&layer.media_type).to_owned();
        let blob = LayerBlob { digest: layer.digest, size: layer.size, media_type };
        blocking(move || shared.keep(&unpacked, &blob)).await??;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::invalid("unpacking a layer", error.to_string()))
}
