//! From the store to a registry.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_store::layer::Compression;
use kiln_store::{DiffId, Digest, Store};
use reqwest::Url;
use tokio::sync::{Mutex, mpsc};
use tokio_util::bytes::Bytes;

use super::content::Content;
use super::repository::{Access, Repository};
use super::{NoProgress, Options, PARALLEL, TransferProgress, upload};
use crate::manifest::{Descriptor, Document, Form, Packed, pack_as, unpacked_layers};
use crate::{Error, Image, Reference, Result};

/// Layers that are compressed at once; each keeps all cores busy while it lasts, but begins and ends alone.
const COMPRESSED_AT_ONCE: usize = 2;
/// Layers of fewer bytes are compressed before they are sent: then the registry can be asked whether it has them.
const STREAMED_FROM: u64 = 1 << 20;
/// Compressed blocks that wait for the network.
const DEPTH: usize = 4;

pub(super) async fn push(
    store: &Store,
    image: &Image,
    reference: &Reference,
    form: Form,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let repository = Repository::open(reference, Access::Push, &[], options).await?;
    // Compression blocks, and so runs on threads of its own, which need a store of their own to hold.
    let shared = Arc::new(Store::open(store.root(), store.privilege())?);
    let target = Target { repository, store: shared, sent: Mutex::default() };
    let layers = unpacked_layers(store, image, form)?;
    stream::iter(layers)
        .map(|layer| target.compress(layer, form.compression, progress))
        .buffer_unordered(COMPRESSED_AT_ONCE)
        .try_collect::<()>()
        .await?;
    let (shared, owned) = (Arc::clone(&target.store), image.clone());
    // What was sent while it was made is not here.
    let form = Form { remembered: true, ..form };
    let packed = blocking(move || pack_as(&shared, &owned, form)).await??;
    let what = format!("manifest {}", packed.digest);
    let Document::Manifest(manifest) = Document::parse(&packed.bytes, &what)? else {
        return Err(Error::invalid(what, "an index, not an image"));
    };
    let mut seen = target.sent.lock().await.clone();
    let layers = manifest.layers.iter().filter(|layer| seen.insert(layer.digest)).map(|layer| (layer, progress));
    // The config is too small to be shown.
    let config: (&Descriptor, &dyn TransferProgress) = (&manifest.config, &NoProgress);
    stream::iter(layers.chain([config]).map(Ok))
        .map_ok(|(blob, progress)| target.send(blob, progress))
        .try_buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let digest = packed.digest.to_string();
    let name = reference.tag().unwrap_or(&digest);
    target.repository.put_manifest(name, &packed.bytes, &packed.media_type).await?;
    record(store, image, reference, &packed, form.forced)?;
    Ok(packed.digest)
}

/// Remembers what the image is called there.
fn record(store: &Store, image: &Image, reference: &Reference, packed: &Packed, forced: bool) -> Result<()> {
    store.blobs().put(&packed.bytes)?;
    if forced || !image.elsewhere.is_empty() {
        // What another form of it is called there does not change what it is here; if it is here at all.
        return Ok(());
    }
    let names = [reference.with_digest(packed.digest)];
    Image::record(store, image.id, image.config.clone(), Some(packed.digest), &names)?;
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::invalid("compressing the layers", error.to_string()))
}

struct Target {
    repository: Repository,
    store: Arc<Store>,
    /// What has arrived already.
    sent: Mutex<HashSet<Digest>>,
}

impl Target {
    /// Compresses a layer, and sends it meanwhile if it is large; unless the registry has what it was compressed to
    /// before.
    async fn compress(&self, layer: DiffId, compression: Compression, progress: &dyn TransferProgress) -> Result<()> {
        let size = self.store.layer(&layer)?.map_or(0, |layer| layer.tar_size);
        if size < STREAMED_FROM {
            let store = Arc::clone(&self.store);
            blocking(move || store.compress(&layer, compression)).await??;
            return Ok(());
        }
        let known = self.store.remembered_blob(&layer, compression)?;
        let location = match &known {
            Some(blob) if upload::exists(&self.repository, &blob.digest).await? => None,
            Some(blob) => upload::open(&self.repository, &blob.digest, None).await?,
            None => Some(upload::start(&self.repository).await?),
        };
        progress.begin(&layer, size, location.is_none());
        match location {
            Some(location) => self.stream(layer, size, compression, location, progress).await?,
            None => self.sent.lock().await.extend(known.map(|blob| blob.digest)),
        }
        progress.finish(&layer);
        Ok(())
    }

    /// Sends a layer while it is compressed. If that fails, it is compressed once more, and sent as a whole.
    async fn stream(
        &self,
        layer: DiffId,
        size: u64,
        compression: Compression,
        location: Url,
        progress: &dyn TransferProgress,
    ) -> Result<()> {
        let (pieces, sent) = mpsc::channel(DEPTH);
        let (told, mut blocks) = mpsc::unbounded_channel();
        let store = Arc::clone(&self.store);
        let compressing = tokio::task::spawn_blocking(move || {
            store.compress_to(&layer, compression, &mut |block| {
                // When the network has failed, nobody takes it; nobody listens when the push was given up.
                let _ = pieces.blocking_send(Bytes::from(block));
                let _ = told.send(());
            })
        });
        let telling = async {
            let (mut rest, block) = (size, compression.block_size());
            while blocks.recv().await.is_some() {
                let step = rest.min(block);
                rest -= step;
                progress.advance(&layer, step);
            }
        };
        let streaming = upload::stream_pieces(&self.repository, location, sent);
        let (compressed, streamed, ()) = tokio::join!(compressing, streaming, telling);
        let blob = compressed.map_err(|error| Error::invalid("compressing a layer", error.to_string()))??;
        let finished = match streamed {
            Ok(location) => upload::finish(&self.repository, location, &blob.digest).await,
            Err(error) => Err(error),
        };
        match finished {
            Ok(()) => {}
            Err(error @ Error::Denied { .. }) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "an upload while compressing failed");
                let store = Arc::clone(&self.store);
                let blob = blocking(move || store.compress(&layer, compression)).await??;
                self.send(&Descriptor::new(&blob.media_type, blob.digest, blob.size), &NoProgress).await?;
            }
        }
        self.sent.lock().await.insert(blob.digest);
        Ok(())
    }

    async fn send(&self, blob: &Descriptor, progress: &dyn TransferProgress) -> Result<()> {
        if upload::exists(&self.repository, &blob.digest).await? {
            progress.begin(&blob.digest, blob.size, true);
            return Ok(());
        }
        progress.begin(&blob.digest, blob.size, false);
        let file = self.store.blobs().get(&blob.digest)?.ok_or(kiln_store::Error::BlobMissing(blob.digest))?;
        let content = Content::File { file: Arc::new(file), offset: 0 };
        upload::upload(&self.repository, blob, None, &content, progress).await?;
        progress.finish(&blob.digest);
        Ok(())
    }
}
