//! The cache of other machines: records and layers that come from and go to registries, directories and images.
//!
//! ```text
//! location   what `--cache-from` and `--cache-to` name
//! document   records as bytes, and the manifests that carry them
//! transport  manifests and blobs of a registry or a directory
//! source     where a key is looked up: in a document, or under a tag of its own
//! elsewhere  layers that are fetched when a step first needs their files
//! base       base images whose layers are among them
//! mounts     the files of cache mounts
//! passing    layers of a result that is only passed on
//! known      what a build used and made
//! export     it goes out, as far as it is not there
//! ```
//!
//! Nothing is asked before a step is not found here, so that a warm build needs no network.

mod base;
pub(crate) mod document;
mod elsewhere;
mod export;
mod known;
pub mod location;
pub(super) mod mounts;
mod passing;
mod source;
mod transport;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use kiln_image::registry::Options;
use kiln_store::layer::LayerBlob;
use kiln_store::{DiffId, Store};
use tokio::runtime::Runtime;

use crate::cache::record::Value;
use crate::error::chain;
use crate::key::Key;
use crate::progress::{Event, Reporter};
use crate::{Error, Result};

use base::Bases;
use document::Piece;
use elsewhere::{Elsewhere, Place};
pub(crate) use known::Known;
use location::{Location, Target};
use source::Source;

/// What builds exchange with the caches of others. Builds of several platforms share one.
#[derive(Default)]
pub struct Exchange {
    sources: Vec<Offer>,
    targets: Vec<Target>,
    options: Options,
    runtime: OnceLock<Runtime>,
    elsewhere: Elsewhere,
    bases: Bases,
    known: Mutex<Known>,
}

/// A source that is opened when it is first asked.
struct Offer {
    location: Location,
    source: OnceLock<Option<Source>>,
    /// It failed: it is not asked again.
    broken: AtomicBool,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<&Location> = self.sources.iter().map(|offer| &offer.location).collect();
        out.debug_struct("Exchange").field("sources", &sources).field("targets", &self.targets).finish_non_exhaustive()
    }
}

impl Exchange {
    /// With these places; nothing is asked yet.
    pub fn new(sources: Vec<Location>, targets: Vec<Target>, options: Options) -> Self {
        let offer = |location| Offer { location, source: OnceLock::new(), broken: AtomicBool::new(false) };
        let sources = sources.into_iter().map(offer).collect();
        Self { sources, targets, options, ..Self::default() }
    }

    /// What a step gave elsewhere. Its layer is here, or is fetched by [`Exchange::ensure`], or nobody has it: then it
    /// does until it is taken back by [`Exchange::withdraw`].
    pub(crate) fn step(&self, store: &Store, reporter: &dyn Reporter, key: &Key) -> Result<Option<Value>> {
        let mut promised = None;
        for number in 0..self.sources.len() {
            let Some((record, piece)) = self.ask(number, store, reporter, |source| source.record(key)) else {
                continue;
            };
            let Some(value) = record.value() else { continue };
            if store.layer(&value.layer)?.is_some() {
                elsewhere::keep(store, &record)?;
                return Ok(Some(value));
            }
            let Some(piece) = piece else {
                promised = promised.or(Some(value));
                continue;
            };
            if self.elsewhere.add(number, piece, record) {
                return Ok(Some(value));
            }
        }
        Ok(promised.filter(|value| self.elsewhere.promise(&value.layer)))
    }

    /// When an image was first built elsewhere, as its config says it.
    pub(crate) fn first_built(&self, store: &Store, reporter: &dyn Reporter, key: &Key) -> Option<String> {
        let ask = |number| self.ask(number, store, reporter, |source| source.record(key));
        (0..self.sources.len()).filter_map(ask).find_map(|(record, _)| record.created)
    }

    /// Fetches those of the layers that are not here, several at once.
    ///
    /// # Errors
    /// [`Error::CacheLost`]: the layer will not be offered again. [`Error::BaseLayer`].
    pub(crate) fn ensure(&self, store: &Store, reporter: &dyn Reporter, layers: &[DiffId]) -> Result<()> {
        if !self.lacks(layers) && !layers.iter().any(|layer| self.elsewhere.is_promised(layer)) {
            return Ok(());
        }
        let brought = self.elsewhere.ensure(store, layers, |layer, place, step| match place {
            Place::Cache(source, piece) => self.fetch_piece(store, reporter, (*source, piece), step),
            Place::Base(image) => self.fetch_base(store, reporter, image, layer),
        });
        self.keep_bases(store)?;
        brought
    }

    /// Brings a layer from a source.
    fn fetch_piece(
        &self,
        store: &Store,
        reporter: &dyn Reporter,
        (source, piece): (usize, &Piece),
        step: &str,
    ) -> Result<()> {
        let Piece { blob, diff_id, tar_size } = piece;
        if store.blobs().size(&blob.digest)? != Some(blob.size) {
            reporter.event(Event::Note(&format!("fetching from cache: {step} ({} bytes)", blob.size)));
            let source = self.opened(source).ok_or_else(|| crate::step::internal("fetch a layer"))?;
            source.transport.fetch(blob, store.blobs())?;
        }
        let form = LayerBlob { digest: blob.digest, size: blob.size, media_type: blob.media_type.clone() };
        store.adopt_blob(&form, diff_id, *tar_size)?;
        Ok(())
    }

    /// The places that were asked for a step of this name, each with whether it knows one.
    pub(crate) fn asked(&self, step: &str) -> Vec<(String, bool)> {
        let asked = self.sources.iter().filter(|offer| !offer.broken.load(Ordering::Relaxed)).filter_map(|offer| {
            let source = offer.source.get()?.as_ref()?;
            Some((offer.location.to_string(), source.knows_step(step)))
        });
        asked.collect()
    }

    /// Whether there is anything to ask.
    pub(crate) fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Takes back what was told of layers that nobody has, as their files are needed; whether there were any.
    pub(crate) fn withdraw(&self, layers: &[DiffId]) -> bool {
        self.elsewhere.withdraw(layers)
    }

    /// Notes what a build used and made.
    pub(crate) fn note(&self, known: Known) {
        if !self.targets.is_empty() {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).merge(known);
        }
    }

    /// Whether images are to carry their cache.
    pub fn is_inline(&self) -> bool {
        self.targets.iter().any(|target| target.location == Location::Inline)
    }

    fn opened(&self, number: usize) -> Option<&Source> {
        self.sources.get(number)?.source.get()?.as_ref()
    }

    /// Asks a source; one that cannot be asked is reported once and left out from then on.
    fn ask<T>(
        &self,
        number: usize,
        store: &Store,
        reporter: &dyn Reporter,
        question: impl FnOnce(&Source) -> Result<Option<T>>,
    ) -> Option<T> {
        let offer = self.sources.get(number)?;
        if offer.broken.load(Ordering::Relaxed) {
            return None;
        }
        let left_out = |error: &Error| {
            if !offer.broken.swap(true, Ordering::Relaxed) {
                let location = &offer.location;
                reporter.event(Event::Note(&format!("cache from {location} is left out: {}", chain(error))));
            }
        };
        let opened = || Source::open(store, &offer.location, &self.options, self.runtime()?.handle());
        let open = || match opened() {
            Ok(source) => {
                let found = if source.is_some() { "importing cache from" } else { "there is no cache at" };
                reporter.event(Event::Note(&format!("{found} {}", offer.location)));
                source
            }
            Err(error) => {
                left_out(&error);
                None
            }
        };
        let source = offer.source.get_or_init(open).as_ref()?;
        question(source).unwrap_or_else(|error| {
            left_out(&error);
            None
        })
    }
}
