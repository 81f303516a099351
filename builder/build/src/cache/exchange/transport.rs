//! Manifests and blobs of a registry or a directory, for threads that may block.

use std::fs::File;
use std::future::Future;
use std::path::Path;

use kiln_image::Reference;
use kiln_image::artifacts::Artifacts;
use kiln_image::manifest::Descriptor;
use kiln_image::registry::Options;
use kiln_store::Blobs;
use tokio::runtime::Handle;

use crate::Result;

/// Where bytes are.
pub(super) struct Transport {
    artifacts: Artifacts,
    runtime: Handle,
}

impl Transport {
    pub(super) fn registry(reference: &Reference, write: bool, options: &Options, runtime: &Handle) -> Result<Self> {
        let artifacts = runtime.block_on(Artifacts::in_registry(reference, write, options))?;
        Ok(Self { artifacts, runtime: runtime.clone() })
    }

    pub(super) fn directory(path: &Path, runtime: &Handle) -> Self {
        Self { artifacts: Artifacts::in_layout(path), runtime: runtime.clone() }
    }

    fn wait<T>(&self, work: impl Future<Output = kiln_image::Result<T>>) -> Result<T> {
        Ok(self.runtime.block_on(work)?)
    }

    /// The manifest of a tag or digest.
    pub(super) fn manifest(&self, wanted: &str) -> Result<Option<Vec<u8>>> {
        self.wait(self.artifacts.manifest(wanted))
    }

    /// Points a tag at a manifest whose blobs are there.
    pub(super) fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        self.wait(self.artifacts.put_manifest(tag, media_type, bytes))
    }

    /// The bytes of a small blob, which comes into `blobs`.
    pub(super) fn read(&self, blob: &Descriptor, limit: u64, blobs: &Blobs) -> Result<Vec<u8>> {
        self.wait(self.artifacts.read(blob, limit, blobs))
    }

    /// Brings a blob into `blobs`, verified.
    pub(super) fn fetch(&self, blob: &Descriptor, blobs: &Blobs) -> Result<()> {
        self.wait(self.artifacts.fetch(blob, blobs))
    }

    /// Whether a blob is there.
    pub(super) fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.wait(self.artifacts.has(blob))
    }

    /// Sends a blob that is not there.
    pub(super) fn send(&self, blob: &Descriptor, content: File) -> Result<()> {
        self.wait(self.artifacts.send(blob, content))
    }

    /// Removes what nothing in a directory leads to.
    pub(super) fn remove_unreferenced(&self) -> Result<()> {
        Ok(self.artifacts.remove_unreferenced()?)
    }
}
