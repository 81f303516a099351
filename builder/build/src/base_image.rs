//! Base images: those of the store first, a registry's when they are not there or `--pull` asks.

use std::path::Path;
use std::sync::Mutex;

use kiln_image::registry::{self, TransferProgress};
use kiln_image::{Image, Platform, Reference};
use kiln_store::Store;

use crate::plan::ImageSource;
use crate::{Error, Result};

/// The store, and the registries behind it.
pub struct BaseImages<'a> {
    store: &'a Store,
    always_pull: bool,
    options: registry::Options,
    progress: &'a dyn TransferProgress,
    /// One pull at a time: what it unpacks is parallel within.
    pulling: Mutex<()>,
}

impl<'a> BaseImages<'a> {
    /// `always_pull` asks the registry even for images that are there.
    pub fn new(
        store: &'a Store,
        always_pull: bool,
        options: registry::Options,
        progress: &'a dyn TransferProgress,
    ) -> Self {
        Self { store, always_pull, options, progress, pulling: Mutex::new(()) }
    }

    fn local(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>> {
        let image = Image::by_reference(self.store, reference)?;
        Ok(image.filter(|image| platform.accepts(&image.platform())))
    }
}

impl ImageSource for BaseImages<'_> {
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image> {
        if !self.always_pull
            && let Some(image) = self.local(reference, platform)?
        {
            return Ok(image);
        }
        let _one = self.pulling.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("start the network runtime for", reference.to_string(), error))?;
        let pulled = runtime.block_on(registry::pull(self.store, reference, platform, &self.options, self.progress));
        Ok(pulled?)
    }

    fn layout(&self, directory: &Path, wanted: Option<&str>, platform: &Platform) -> Result<Image> {
        Ok(kiln_image::layout::load_one(self.store, directory, wanted, platform)?)
    }
}
