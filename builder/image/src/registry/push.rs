//! From the store to a registry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{TryStreamExt, stream};
use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};
use reqwest::header::CONTENT_TYPE;

use super::pull::PARALLEL;
use super::session::{Session, success};
use super::{NoProgress, Options, TransferProgress, blob};
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::{Descriptor, Document, Packed, pack};
use crate::{Error, Image, Reference, Result, credentials};

/// Repositories that blobs may be mounted from, at most: each is a scope of the token.
const MOUNT_LIMIT: usize = 8;

pub(super) async fn push(
    store: &Store,
    image: &Image,
    reference: &Reference,
    compression: Compression,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let registry = reference.registry();
    let mounts = Mounts::find(store, reference)?;
    let mut scopes = vec![format!("repository:{}:pull,push", reference.repository())];
    scopes.extend(mounts.repositories.iter().map(|repository| format!("repository:{repository}:pull")));
    let session = Session::open(registry, credentials::find(registry)?, scopes, options).await?;
    let packed = pack_apart(store, image, compression).await?;
    let what = format!("manifest {}", packed.digest);
    let Document::Manifest(manifest) = Document::parse(&packed.bytes, &what)? else {
        return Err(Error::invalid(what, "an index, not an image"));
    };
    let target = Target { session, repository: reference.repository(), mounts };
    let mut seen = HashSet::new();
    let layers = manifest.layers.iter().filter(|layer| seen.insert(layer.digest)).map(|layer| (layer, progress));
    // The config is too small to be shown.
    let config: (&Descriptor, &dyn TransferProgress) = (&manifest.config, &NoProgress);
    stream::iter(layers.chain([config]).map(Ok))
        .map_ok(|(blob, progress)| target.send(store, blob, progress))
        .try_buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    target.put_manifest(reference, &packed).await?;
    store.blobs().put(&packed.bytes)?;
    let names = [reference.with_digest(packed.digest)];
    Image::record(store, image.id, image.config.clone(), Some(packed.digest), &names)?;
    store.settle()?;
    Ok(packed.digest)
}

/// Compression blocks, and so runs on a thread of its own, which needs a store of its own to hold.
async fn pack_apart(store: &Store, image: &Image, compression: Compression) -> Result<Packed> {
    let shared = Arc::new(Store::open(store.root(), store.privilege())?);
    let image = image.clone();
    let packed = tokio::task::spawn_blocking(move || pack(&shared, &image, compression));
    packed.await.map_err(|error| Error::invalid("compressing the layers", error.to_string()))?
}

struct Target<'a> {
    session: Session,
    repository: &'a str,
    mounts: Mounts,
}

impl Target<'_> {
    async fn send(&self, store: &Store, blob: &Descriptor, progress: &dyn TransferProgress) -> Result<()> {
        if blob::exists(&self.session, self.repository, &blob.digest).await? {
            progress.begin(&blob.digest, blob.size, true);
            return Ok(());
        }
        progress.begin(&blob.digest, blob.size, false);
        let from = self.mounts.blobs.get(&blob.digest).map(String::as_str);
        blob::upload(&self.session, self.repository, blob, from, store.blobs(), progress).await?;
        progress.finish(&blob.digest);
        Ok(())
    }

    async fn put_manifest(&self, reference: &Reference, packed: &Packed) -> Result<()> {
        let digest = packed.digest.to_string();
        let url = format!("{}/manifests/{}", self.repository, reference.tag().unwrap_or(&digest));
        let url = self.session.url(&url)?;
        let request = |http: &reqwest::Client| {
            http.put(url.clone()).header(CONTENT_TYPE, &packed.media_type).body(packed.bytes.clone())
        };
        let response = self.session.send("PUT", request).await?;
        success("PUT", response).await?;
        Ok(())
    }
}

/// Other repositories of the registry that are known, by what was pulled and pushed, to have blobs we may need.
struct Mounts {
    repositories: Vec<String>,
    blobs: HashMap<Digest, String>,
}

impl Mounts {
    fn find(store: &Store, target: &Reference) -> Result<Self> {
        let mut mounts = Self { repositories: Vec::new(), blobs: HashMap::new() };
        for (name, id) in store.references()? {
            let Ok(other) = Reference::parse(&name) else { continue };
            let at_the_registry = other.tag().is_none() && other.registry() == target.registry();
            if !at_the_registry || other.repository() == target.repository() {
                continue;
            }
            let Some(manifest) = store.image(&id)?.and_then(|image| image.manifest) else { continue };
            let Ok(bytes) = store.blobs().read(&manifest, DOCUMENT_LIMIT) else { continue };
            let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "manifest") else { continue };
            if !mounts.repositories.iter().any(|known| known == other.repository()) {
                if mounts.repositories.len() == MOUNT_LIMIT {
                    break;
                }
                mounts.repositories.push(other.repository().to_owned());
            }
            for layer in manifest.layers {
                mounts.blobs.entry(layer.digest).or_insert_with(|| other.repository().to_owned());
            }
        }
        Ok(mounts)
    }
}
