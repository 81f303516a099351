//! Base images: those of the store first, a registry's when they are not there or `--pull` asks.

use std::path::Path;
use std::sync::Mutex;

use kiln_image::registry::{self, TransferProgress};
use kiln_image::{Image, Platform, Reference};
use kiln_store::Store;

use crate::cache::exchange::Exchange;
use crate::plan::ImageSource;
use crate::{Error, Request, Result};

/// When a registry is asked for a base image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// When the store has it not.
    #[default]
    Missing,
    /// In any case.
    Always,
    /// In any case; when that fails, what the store has will do.
    Newer,
    /// Not at all.
    Never,
}

/// The store, and the registries behind it.
pub struct BaseImages<'a> {
    store: &'a Store,
    pull: Pull,
    options: registry::Options,
    progress: &'a dyn TransferProgress,
    /// One pull at a time: what it unpacks is parallel within.
    pulling: Mutex<()>,
    /// What brings layers when they are needed; without it they come at once.
    later: Option<&'a Exchange>,
}

impl<'a> BaseImages<'a> {
    /// Asks registries when `pull` says so.
    pub fn new(store: &'a Store, pull: Pull, options: registry::Options, progress: &'a dyn TransferProgress) -> Self {
        Self { store, pull, options, progress, pulling: Mutex::new(()), later: None }
    }

    /// The same for a build: of an image only the config comes at once, and its layers when a step needs their files, or
    /// the result has them.
    #[must_use]
    pub fn for_build(self, request: &'a Request) -> Self {
        Self { later: Some(&request.exchange), ..self }
    }

    fn local(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>> {
        let image = Image::by_reference_for(self.store, reference, platform)?;
        Ok(image.filter(|image| platform.accepts(&image.platform())))
    }

    fn image_for_build(&self, exchange: &Exchange, reference: &Reference, platform: &Platform) -> Result<Image> {
        if self.pull == Pull::Missing
            && let Some(image) = exchange.remembered_base(self.store, reference, platform, &self.options)?
        {
            return Ok(image);
        }
        let found = exchange.base(self.store, reference, platform, &self.options);
        self.or_local(reference, platform, found)
    }

    fn or_local(&self, reference: &Reference, platform: &Platform, found: Result<Image>) -> Result<Image> {
        match found {
            Err(error) if self.pull == Pull::Newer => self.local(reference, platform)?.ok_or(error),
            found => found,
        }
    }
}

impl ImageSource for BaseImages<'_> {
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image> {
        if matches!(self.pull, Pull::Missing | Pull::Never)
            && let Some(image) = self.local(reference, platform)?
        {
            return Ok(image);
        }
        if self.pull == Pull::Never {
            return Err(Error::Image(kiln_image::Error::NoSuchImage { text: reference.familiar() }));
        }
        if let Some(exchange) = self.later {
            return self.image_for_build(exchange, reference, platform);
        }
        let _one = self.pulling.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("start the network runtime for", reference.to_string(), error))?;
        let pulled = runtime.block_on(registry::pull(self.store, reference, platform, &self.options, self.progress));
        self.or_local(reference, platform, pulled.map_err(Error::from))
    }

    fn layout(&self, directory: &Path, wanted: Option<&str>, platform: &Platform) -> Result<Image> {
        Ok(kiln_image::layout::load_one(self.store, directory, wanted, platform)?)
    }
}
