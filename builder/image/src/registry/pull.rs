//! From a registry into the store.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use kiln_store::{DiffId, Digest, Store};
use reqwest::StatusCode;
use reqwest::header::ACCEPT;

use super::session::{Session, limited_body, success};
use super::{Options, TransferProgress, blob};
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::unpack::{pair_layers, read_config, unpack, unpack_layer};
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::{Error, Image, Platform, Reference, Result, credentials};

/// Layers that move at once.
pub(super) const PARALLEL: usize = 4;
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
    platform: &Platform,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Pulled> {
    let registry = reference.registry();
    let scopes = vec![format!("repository:{}:pull", reference.repository())];
    let session = Session::open(registry, credentials::find(registry)?, scopes, options).await?;
    let source = Source { session, reference };
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let (bytes, digest) = source.manifest(&wanted).await?;
    let (manifest, manifest_bytes) = source.resolve(bytes, platform).await?;
    let manifest_digest = store.blobs().put(&manifest_bytes)?;
    // Unpacking blocks, and so runs on threads of its own, which need a store of their own to hold.
    let shared = Arc::new(Store::open(store.root(), store.privilege())?);
    source.fetch_blobs(&shared, &manifest, progress).await?;
    let image = unpack(store, &manifest, Some(manifest_digest), std::slice::from_ref(reference))?;
    store.set_reference(&reference.with_digest(digest).tagged_name(), &image.id)?;
    store.settle()?;
    Ok(Pulled { image, digest })
}

struct Source<'a> {
    session: Session,
    reference: &'a Reference,
}

impl Source<'_> {
    /// A manifest or index by tag or digest; its bytes are those of the digest.
    async fn manifest(&self, wanted: &str) -> Result<(Vec<u8>, Digest)> {
        let url = self.session.url(&format!("{}/manifests/{wanted}", self.reference.repository()))?;
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let response = self.session.send("GET", |http| http.get(url.clone()).header(ACCEPT, &accepted)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::NotFound { what: self.reference.familiar() });
        }
        let response = success("GET", response).await?;
        let promised = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let promised = wanted.parse::<Digest>().ok().or(promised.and_then(|value| value.parse().ok()));
        let bytes = limited_body(response, usize::try_from(DOCUMENT_LIMIT).unwrap_or(usize::MAX)).await?;
        let algorithm = promised.map_or(kiln_store::digest::Algorithm::Sha256, |digest| digest.algorithm());
        let mut hasher = kiln_store::digest::Hasher::new(algorithm);
        hasher.update(&bytes);
        let actual = hasher.finish();
        if let Some(expected) = promised.filter(|expected| *expected != actual) {
            let what = format!("manifest of {}", self.reference.familiar());
            return Err(Error::DigestMismatch { what, expected: Box::new(expected), actual: Box::new(actual) });
        }
        Ok((bytes, actual))
    }

    /// Follows indexes to the image of a platform.
    async fn resolve(&self, mut bytes: Vec<u8>, platform: &Platform) -> Result<(Manifest, Vec<u8>)> {
        let what = format!("manifest of {}", self.reference.familiar());
        for _ in 0..DEPTH_LIMIT {
            match Document::parse(&bytes, &what)? {
                Document::Manifest(manifest) => return Ok((manifest, bytes)),
                Document::Index(index) => {
                    let best = index.candidates(platform).first().map(|entry| entry.digest);
                    let best = best.ok_or_else(|| index.no_platform(platform, &self.reference.familiar()))?;
                    bytes = self.manifest(&best.to_string()).await?.0;
                }
            }
        }
        Err(Error::invalid(what, "indexes are nested too deeply"))
    }

    /// Brings the config and the missing layers into the store, several at once, each unpacked as it is complete.
    async fn fetch_blobs(
        &self,
        store: &Arc<Store>,
        manifest: &Manifest,
        progress: &dyn TransferProgress,
    ) -> Result<()> {
        let config = &manifest.config;
        if config.size > DOCUMENT_LIMIT {
            return Err(Error::invalid(
                format!("config {}", config.digest),
                format!("longer than {DOCUMENT_LIMIT} bytes"),
            ));
        }
        if store.blobs().size(&config.digest)?.is_none() {
            let quiet = super::NoProgress;
            blob::download(&self.session, self.reference.repository(), config, store.blobs(), &quiet).await?;
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

    async fn fetch_layer(
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
        let here = store.blobs().size(&layer.digest)? == Some(layer.size);
        progress.begin(&layer.digest, layer.size, false);
        if here {
            progress.advance(&layer.digest, layer.size);
        } else {
            blob::download(&self.session, self.reference.repository(), layer, store.blobs(), progress).await?;
        }
        let (store, owned) = (Arc::clone(store), layer.clone());
        let unpacked = tokio::task::spawn_blocking(move || unpack_layer(&store, &owned, &diff_id));
        unpacked.await.map_err(|error| Error::invalid("unpacking a layer", error.to_string()))??;
        progress.finish(&layer.digest);
        Ok(())
    }
}
