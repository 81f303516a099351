//! Reading everything of an image where it is, and comparing it with what its manifest and config say.

use std::collections::HashSet;
use std::pin::Pin;

use kiln_store::{Blobs, Digest};

use crate::copy::{End, Source, Which, choose, keep};
use crate::edit::diff_id_of;
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::links::Links;
use crate::manifest::unpack::pair_layers;
use crate::manifest::{DOCKER_CONFIG, Document, OCI_CONFIG};
use crate::registry::TransferProgress;
use crate::registry::repository::Fetched;
use crate::{Error, ImageConfig, Result};

/// Indexes within indexes, at most.
const DEPTH_LIMIT: usize = 4;

/// What was read and found right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validated {
    /// Manifests, indexes among them.
    pub manifests: usize,
    /// Blobs, each once.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads an image, or an index with all that it names: sizes and digests of everything, and the diffIDs of layers.
///
/// # Errors
/// Something is missing or is not what it should be.
pub async fn validate(from: &End<'_>, which: &Which, progress: &dyn TransferProgress) -> Result<Validated> {
    let source = Source::open(from).await?;
    let root = choose(&source, which).await?;
    let scratch = tempfile::tempdir().map_err(Error::stream("make a temporary directory"))?;
    let blobs = Blobs::open(&scratch.path().join("blobs"), &scratch.path().join("tmp"))?;
    let mut reading = Reading { source, blobs, progress, seen: HashSet::new(), found: Validated::default() };
    reading.document(root, 0).await?;
    Ok(reading.found)
}

struct Reading<'a> {
    source: Source,
    blobs: Blobs,
    progress: &'a dyn TransferProgress,
    seen: HashSet<Digest>,
    found: Validated,
}

impl Reading<'_> {
    fn document(&mut self, manifest: Fetched, depth: usize) -> Pin<Box<dyn Future<Output = Result<()>> + '_>> {
        Box::pin(async move {
            let what = format!("manifest {}", manifest.digest);
            if depth > DEPTH_LIMIT {
                return Err(Error::invalid(what, "indexes are nested too deeply"));
            }
            let links = Links::parse(&manifest.bytes, &manifest.media_type, &what)?;
            self.found.manifests += 1;
            for entry in &links.manifests {
                let child = self.source.manifest(entry).await?;
                if child.bytes.len() as u64 != entry.size {
                    let reason = format!("{} bytes, but {what} says {}", child.bytes.len(), entry.size);
                    return Err(Error::invalid(format!("manifest {}", entry.digest), reason));
                }
                self.document(child, depth + 1).await?;
            }
            let config = links.blobs.first().filter(|blob| is_config(&blob.media_type));
            for blob in &links.blobs {
                if self.seen.insert(blob.digest) {
                    self.progress.begin(&blob.digest, blob.size, false);
                    keep(&self.blobs, blob, &self.source.content(blob)?, self.progress).await?;
                    self.found.blobs += 1;
                    self.found.bytes += blob.size;
                    self.progress.finish(&blob.digest);
                }
            }
            if let Some(config) = config {
                self.layers(&manifest, &config.digest, &what).await?;
            }
            // Layers of another image may be the same, and are fetched again then: the disk matters more.
            for blob in &links.blobs {
                self.blobs.remove(&blob.digest)?;
                self.seen.remove(&blob.digest);
            }
            Ok(())
        })
    }

    /// Compares the layers with what the config says of them.
    async fn layers(&self, manifest: &Fetched, config: &Digest, what: &str) -> Result<()> {
        let Document::Manifest(parsed) = Document::parse(&manifest.bytes, what)? else { return Ok(()) };
        let config = ImageConfig::from_bytes(&self.blobs.read(config, DOCUMENT_LIMIT)?, config)?;
        for (layer, diff_id) in pair_layers(&parsed, &config)? {
            let file = self.blobs.get(&layer.digest)?.ok_or(kiln_store::Error::BlobMissing(layer.digest))?;
            let reading = tokio::task::spawn_blocking(move || diff_id_of(file));
            let what = format!("layer {} unpacked", layer.digest);
            let actual = reading.await.map_err(|error| Error::invalid(what.clone(), error.to_string()))??;
            if actual != diff_id {
                let (expected, actual) = (Box::new(diff_id), Box::new(actual));
                return Err(Error::DigestMismatch { what, expected, actual });
            }
        }
        Ok(())
    }
}

fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}
