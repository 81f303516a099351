//! Base images whose layers are elsewhere, like those of steps that another machine did.

use std::sync::{Arc, OnceLock, PoisonError};

use kiln_image::registry::{Documents, Options, RemoteImage};
use kiln_image::{Image, Platform, Reference};
use kiln_store::metadata::CacheRecord;
use kiln_store::{DiffId, Store};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use super::Exchange;
use crate::key::Key;
use crate::progress::Reporter;
use crate::{Error, Result};

/// Longer documents of an image are not remembered.
const LONGEST_REMEMBERED: usize = 1 << 20;

/// Layers that come at once, as of a pull: each takes memory while it is unpacked.
const AT_ONCE: usize = 4;

/// The base images of a build, and what their layers come by.
pub(super) struct Bases {
    images: std::sync::Mutex<Vec<Base>>,
    /// Unpacking has threads of its own, which need a store of their own to hold.
    store: OnceLock<Arc<Store>>,
    at_once: Semaphore,
    /// Nobody waits for layers any more.
    given_up: watch::Sender<bool>,
}

/// One of them.
struct Base {
    image: Arc<RemoteImage>,
    platform: Platform,
    /// Not all of it is in the store.
    is_partial: bool,
}

impl Default for Bases {
    fn default() -> Self {
        let (images, store) = Default::default();
        Self { images, store, at_once: Semaphore::new(AT_ONCE), given_up: watch::Sender::new(false) }
    }
}

impl Exchange {
    /// The image of a reference at its registry, of which only manifest and config come now.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn base(
        &self,
        store: &Store,
        reference: &Reference,
        platform: &Platform,
        options: &Options,
    ) -> Result<Image> {
        let found = RemoteImage::look_up(store, reference, platform, options);
        let image = self.runtime()?.block_on(found)?;
        if !image.missing(store)?.is_empty() {
            remember(store, &image, platform)?;
        }
        self.offer(store, image, platform)
    }

    /// The same as it was the last time, when not all of it came then; nothing is asked before a layer is needed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn remembered_base(
        &self,
        store: &Store,
        reference: &Reference,
        platform: &Platform,
        options: &Options,
    ) -> Result<Option<Image>> {
        let Some(record) = store.cache_record(&key(reference, platform))? else { return Ok(None) };
        let documents = serde_json::from_slice::<Documents>(&record.value).ok();
        let image = documents.and_then(|documents| RemoteImage::recall(reference, documents, options).ok());
        image.map(|image| self.offer(store, image, platform)).transpose()
    }

    fn offer(&self, store: &Store, image: RemoteImage, platform: &Platform) -> Result<Image> {
        let missing = image.missing(store)?;
        let base = Base { image: Arc::new(image), platform: platform.clone(), is_partial: true };
        missing.iter().for_each(|layer| self.elsewhere.add_base(*layer, &base.image));
        let image = base.image.image().clone();
        self.bases.images.lock().unwrap_or_else(PoisonError::into_inner).push(base);
        self.keep_bases(store)?;
        Ok(image)
    }

    /// The image of a reference that this build goes on from, though its layers may be elsewhere.
    pub(crate) fn known_base(&self, reference: &Reference, platform: &Platform) -> Option<Image> {
        let bases = self.bases.images.lock().unwrap_or_else(PoisonError::into_inner);
        let known = bases.iter().find(|base| base.image.reference() == reference && base.platform == *platform);
        known.map(|base| base.image.image().clone())
    }

    /// Makes images of the store of those of which every layer is here.
    pub(super) fn keep_bases(&self, store: &Store) -> Result<()> {
        let mut bases = self.bases.images.lock().unwrap_or_else(PoisonError::into_inner);
        for base in bases.iter_mut().filter(|base| base.is_partial) {
            if base.image.missing(store)?.is_empty() {
                base.image.keep(store)?;
                store.remove_cache_record(&key(base.image.reference(), &base.platform))?;
                base.is_partial = false;
            }
        }
        Ok(())
    }

    /// Brings a layer of a base image.
    pub(super) fn fetch_base(
        &self,
        store: &Store,
        reporter: &dyn Reporter,
        image: &RemoteImage,
        layer: &DiffId,
    ) -> Result<()> {
        let shared = match self.bases.store.get() {
            Some(shared) => shared,
            None => {
                let opened = Arc::new(Store::open(store.root(), store.privilege())?);
                self.bases.store.get_or_init(|| opened)
            }
        };
        let mut given_up = self.bases.given_up.subscribe();
        let fetch = async {
            // It is never closed; without a permit there would only be more at once.
            let _permit = self.bases.at_once.acquire().await;
            image.fetch(shared, layer, reporter.transfers()).await
        };
        let fetched = self.runtime()?.block_on(async {
            tokio::select! {
                fetched = fetch => Some(fetched),
                _ = given_up.wait_for(|given_up| *given_up) => None,
            }
        });
        let reference = image.reference().familiar();
        match fetched {
            Some(Ok(())) => Ok(()),
            Some(Err(source)) => Err(Error::BaseLayer { reference, layer: Box::new(*layer), source: Box::new(source) }),
            None => Err(crate::step::internal("fetch a base image that nobody waits for")),
        }
    }

    /// Stops whatever is on its way: the build has failed.
    pub(crate) fn give_up(&self) {
        self.bases.given_up.send_replace(true);
    }

    /// Whether any of the layers is one that would have to come.
    pub(crate) fn lacks(&self, layers: &[DiffId]) -> bool {
        layers.iter().any(|layer| self.elsewhere.place(layer).is_some())
    }

    /// What the network is waited for with; there is none before it is needed.
    pub(crate) fn runtime(&self) -> Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let made = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let made = made.map_err(|error| Error::io("start the network runtime for", "the build", error))?;
        Ok(self.runtime.get_or_init(|| made))
    }
}

/// Keeps what came of an image, so that a build that needs none of its layers asks nobody the next time.
fn remember(store: &Store, image: &RemoteImage, platform: &Platform) -> Result<()> {
    let value = serde_json::to_vec(image.documents()).map_err(|_| crate::step::internal("encode a base image"))?;
    if value.len() > LONGEST_REMEMBERED {
        return Ok(());
    }
    let record = CacheRecord {
        key: key(image.reference(), platform),
        step: String::new(),
        parts: Vec::new(),
        value,
        layer: None,
        description: String::new(),
        created: i64::try_from(crate::solve::now() / 1_000_000_000).unwrap_or(i64::MAX),
    };
    Ok(store.put_cache_record(&record)?)
}

fn key(reference: &Reference, platform: &Platform) -> Key {
    let mut hasher = blake3::Hasher::new();
    for word in ["kiln base 1", &reference.to_string(), &platform.to_string()] {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word.as_bytes());
    }
    *hasher.finalize().as_bytes()
}
