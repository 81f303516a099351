//! The flags of `build` that are about the caches of other machines: docker's, buildctl's, buildah's and kaniko's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kiln_build::cache::exchange::Exchange;
use kiln_build::cache::exchange::location::{self, Location, Target};
use kiln_image::Reference;
use kiln_image::registry::Options;

/// Where steps' results come from and go to.
#[derive(Debug, Default, clap::Args)]
pub(in crate::build) struct ExchangeArgs {
    /// Take the results of steps from there: type=registry|keyed,ref=NAME, type=local,src=DIR, or just a name
    #[arg(long = "cache-from", visible_alias = "import-cache", value_name = "PLACE")]
    cache_from: Vec<String>,
    /// Send the results of steps there: type=registry|keyed,ref=NAME, type=local,dest=DIR or type=inline, with
    /// mode=min|max and mounts=true for what is in cache mounts
    #[arg(long = "cache-to", visible_alias = "export-cache", value_name = "PLACE")]
    cache_to: Vec<String>,
    /// Take the results of steps from this repository and send them there, each under a tag of its own
    #[arg(long, value_name = "REPOSITORY")]
    cache_repo: Option<Reference>,
    /// Use no result that was made longer ago, e.g. 24h; 0 is --no-cache
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cache_ttl: Option<Duration>,
    /// Take the results of steps from --cache-repo, and send nothing there
    #[arg(long, requires = "cache_repo")]
    no_push_cache: bool,
    /// Accepted for kaniko's sake: `--cache=false` is --no-cache
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cache: Option<bool>,
    /// Accepted for kaniko's sake: every step's result is kept
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cache_copy_layers: Option<bool>,
    /// Accepted for kaniko's sake
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cache_run_layers: Option<bool>,
}

impl ExchangeArgs {
    /// The places; none is asked yet. `inline` as with BuildKit's build argument: the image carries its cache.
    pub(in crate::build) fn open(&self, options: &Options, inline: bool) -> Result<Arc<Exchange>> {
        let sources: Vec<Vec<Location>> =
            self.cache_from.iter().map(|text| location::sources(text)).collect::<Result<_, _>>()?;
        let mut sources: Vec<Location> = sources.into_iter().flatten().collect();
        let mut targets: Vec<Target> =
            self.cache_to.iter().map(|text| location::target(text)).collect::<Result<_, _>>()?;
        if inline {
            targets.push(location::target("type=inline")?);
        }
        if let Some(repository) = &self.cache_repo {
            sources.push(Location::Keyed(repository.clone()));
            if !self.no_push_cache {
                targets.push(Target::keyed(repository.clone()));
            }
        }
        Ok(Arc::new(Exchange::new(sources, targets, options.clone())))
    }

    /// `--cache-ttl`.
    pub(in crate::build) fn ttl(&self) -> Option<Duration> {
        self.cache_ttl
    }

    /// What was made before is not to be used at all.
    pub(in crate::build) fn uses_nothing(&self) -> bool {
        self.cache_ttl.is_some_and(|ttl| ttl.is_zero()) || self.cache == Some(false)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    crate::create::duration(text).map(|nanoseconds| Duration::from_nanos(nanoseconds.unsigned_abs()))
}
