//! `build --check`: everything that can be said of a Dockerfile without running a step or asking a registry.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_grammar::lint::Settings;
use kiln_grammar::{Diagnostic, Dockerfile, Span};
use kiln_image::{Image, ImageConfig, Platform, Reference};
use kiln_store::{Digest, Store};

use crate::plan::check::{KnownImages, findings, settings};
use crate::plan::{self, ImageSource};
use crate::progress::{Event, Reporter};
use crate::{Error, Request, Result};

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// What the checks found, in the order of the file.
    pub findings: Vec<Diagnostic>,
    /// Doubtful places that no check is about.
    pub notes: Vec<Diagnostic>,
    /// Why it would not build.
    pub error: Option<Error>,
}

/// Parses, plans and checks. What precedes an error is found nevertheless.
pub fn check(store: &Store, request: &Request) -> Report {
    let (dockerfile, error) = kiln_grammar::parse_up_to_error(&request.dockerfile);
    let images = Here { store, request };
    let mut error = error.map(Error::Dockerfile);
    let (settings, unknown) = match settings(&dockerfile, request) {
        Ok(settings) => {
            let unknown = unknown_checks(&dockerfile, &settings);
            (settings, unknown)
        }
        Err(wrong) => {
            error.get_or_insert(wrong);
            (Settings::default(), Vec::new())
        }
    };
    if error.is_none() {
        error = plan::make(&dockerfile, request, &images).err();
    }
    let findings = findings(&dockerfile, request, &images).into_list(&settings);
    let other = dockerfile.warnings.into_iter().filter(|warning| warning.check.is_none());
    Report { findings, notes: unknown.into_iter().chain(other).collect(), error }
}

/// Tells what the checks find of a build, and fails it when they are to.
pub(crate) fn report(store: &Store, request: &Request, dockerfile: &Dockerfile, reporter: &dyn Reporter) -> Result<()> {
    let settings = settings(dockerfile, request)?;
    for note in unknown_checks(dockerfile, &settings) {
        reporter.event(Event::Warning(&note));
    }
    let images = Here { store, request };
    let findings = findings(dockerfile, request, &images).into_list(&settings);
    for finding in &findings {
        reporter.event(Event::Warning(finding));
    }
    if !settings.error || findings.is_empty() {
        return Ok(());
    }
    let mut checks: Vec<&str> = findings.iter().filter_map(|finding| Some(finding.check?.name())).collect();
    checks.sort_unstable();
    checks.dedup();
    Err(Error::Checks(checks.join(", ")))
}

fn unknown_checks(dockerfile: &Dockerfile, settings: &Settings) -> Vec<Diagnostic> {
    let span = dockerfile.directives.check.as_ref().map_or(Span::default(), |check| check.span);
    settings.unknown.iter().map(|message| Diagnostic::warning(message.clone(), span)).collect()
}

/// The images of the store. For one that is not there stands an empty one: a plan is possible nevertheless.
struct Here<'a> {
    store: &'a Store,
    request: &'a Request,
}

impl KnownImages for Here<'_> {
    fn config(&self, reference: &Reference) -> Option<ImageConfig> {
        let Request { platform, exchange, .. } = self.request;
        let known = exchange.known_base(reference, platform);
        let image = known.or_else(|| Image::by_reference_for(self.store, reference, platform).ok()?);
        image.map(|image| image.config)
    }
}

impl ImageSource for Here<'_> {
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image> {
        Ok(Image::by_reference_for(self.store, reference, platform)?.unwrap_or_else(|| self.unknown()))
    }

    fn layout(&self, _: &Path, _: Option<&str>, _: &Platform) -> Result<Image> {
        Ok(self.unknown())
    }
}

impl Here<'_> {
    fn unknown(&self) -> Image {
        let Platform { architecture, os, variant, .. } = self.request.platform.clone();
        let config = ImageConfig { architecture, os, variant, ..ImageConfig::default() };
        Image { id: Digest::of(b""), config, layers: Vec::new(), manifest: None, elsewhere: BTreeMap::new() }
    }
}
