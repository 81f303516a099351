//! The flags of `build` that are about the cache.

mod exchange;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use kiln_build::cache::limit::Limit;
use kiln_build::dry_run::{self, Outlook, PlannedStep};
use kiln_build::plan::ImageSource;
use kiln_build::recording::Recording;
use kiln_build::{Request, timings};
use kiln_store::Store;
use serde_json::json;

use crate::config::Config;
use crate::failure::{print, tell};
use crate::progress::{Mode, Screen};

/// What of the cache is used, kept and shown.
#[derive(Debug, Default, clap::Args)]
pub(super) struct CacheArgs {
    /// Steps that run at once [default: four for each processor]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// The build cache may take so much: the least recently used goes first [also build.cache-limit in kiln/config.toml]
    #[arg(long, value_name = "SIZE", env = "KILN_CACHE_LIMIT")]
    cache_limit: Option<String>,
    /// Say at the end which steps were not in the cache, and why
    #[arg(long)]
    explain: bool,
    /// Show what would be done and what is in the cache, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Run every step of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    #[command(flatten)]
    pub(super) exchange: exchange::ExchangeArgs,
    /// Write a page that shows when each step ran, and what the build waited for
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "kiln-timings.html")]
    timings: Option<PathBuf>,
}

impl CacheArgs {
    /// `--no-cache-filter`, as the plan calls stages.
    pub(super) fn uncached_stages(&self) -> Vec<String> {
        self.no_cache_filter.iter().map(|stage| stage.to_lowercase()).collect()
    }

    pub(super) fn limit(&self, store: &Store) -> Result<Arc<Limit>> {
        let text = match &self.cache_limit {
            Some(text) => Some(text.clone()),
            None => Config::read()?.build.cache_limit,
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Arc::default()) };
        Ok(Arc::new(Limit::new(Some(super::bytes(&text)?), crate::cache::kept_layers(store)?)))
    }

    /// What is told when a build is over, also when it failed.
    pub(super) fn afterwards(&self, recording: &Recording, request: &Request) -> Result<()> {
        if self.explain {
            tell(&explanation(recording));
        }
        if let Some(path) = &self.timings {
            let names: Vec<String> = request.names.iter().map(kiln_image::Reference::familiar).collect();
            let title = if names.is_empty() { request.dockerfile_name.clone() } else { names.join(", ") };
            std::fs::write(path, timings::page(recording, &title))
                .with_context(|| format!("write the timings to {}", path.display()))?;
        }
        Ok(())
    }
}

fn explanation(recording: &Recording) -> String {
    let steps = recording.steps();
    let mut text = String::new();
    for step in steps.values() {
        if let Some(reason) = &step.reason {
            text.push_str(&format!("{}\n    not cached: {reason}\n", step.name));
        }
    }
    let cached = steps.values().filter(|step| step.cached).count();
    let ran = steps.values().filter(|step| step.reason.is_some()).count();
    format!("{text}{cached} steps from the cache, {ran} done\n")
}

/// Shows the plan, and whether each step is in the cache.
pub(super) fn dry_run(
    store: &Store,
    request: &Request,
    images: &dyn ImageSource,
    screen: &Screen,
    mode: Mode,
) -> Result<ExitCode> {
    let steps = match dry_run::dry_run(store, request, images, screen) {
        Ok(steps) => steps,
        Err(error) => return super::fail(&error, request),
    };
    screen.finish();
    let show = if matches!(mode, Mode::Json) { show_json } else { show };
    steps.iter().try_for_each(|step| print(&show(step)))?;
    Ok(ExitCode::SUCCESS)
}

fn show(step: &PlannedStep) -> String {
    let name = &step.name;
    match &step.outlook {
        Outlook::Base => format!("BASE    {name}\n"),
        Outlook::Cached => format!("CACHED  {name}\n"),
        Outlook::Runs(reason) => format!("RUN     {name}\n        {reason}\n"),
        Outlook::Open(input) => format!("OPEN    {name}\n        depends on what comes out of {input}\n"),
    }
}

fn show_json(step: &PlannedStep) -> String {
    let (outlook, reason) = match &step.outlook {
        Outlook::Base => ("base", None),
        Outlook::Cached => ("cached", None),
        Outlook::Runs(reason) => ("run", Some(reason.clone())),
        Outlook::Open(input) => ("open", Some(format!("depends on what comes out of {input}"))),
    };
    let value = json!({"event": "planned", "vertex": step.id, "name": step.name, "outlook": outlook, "reason": reason});
    format!("{value}\n")
}
