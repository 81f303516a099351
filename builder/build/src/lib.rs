//! Plan, cache, solve, commit: a Dockerfile and a context to an image.
//!
//! ```text
//! Dockerfile ─ grammar ─▶ AST ─ plan ─▶ vertices ─ solve ─▶ layers ─ assemble ─▶ image
//! ```
//!
//! Every vertex is looked up by the content of what it is made from ([`key`]) before anything is materialised.

mod archive;
mod assemble;
pub mod base_image;
pub mod cache;
pub mod check;
mod chmod;
pub mod context;
pub mod context_listing;
pub mod dry_run;
pub mod error;
mod explain;
pub mod export;
pub mod failed_step;
mod foreign;
mod key;
pub mod locate;
mod parallel;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod provenance;
pub mod recording;
pub mod remote;
pub mod request;
pub mod sbom;
mod selection;
mod solve;
mod squash;
mod step;
pub mod timings;
mod tree;

pub use error::Error;
pub use request::Request;

use std::borrow::Cow;

use kiln_image::Image;
use kiln_store::Store;

use crate::progress::Reporter;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Builds the request's target for each of its platforms and commits it to the store; under the request's names when
/// there is one platform. Images are in the order of [`Request::platforms`].
///
/// # Errors
/// A Dockerfile that is wrong, a base image that cannot be had, a step that failed; nothing is tagged then.
pub fn build(
    store: &Store,
    request: &Request,
    images: &dyn plan::ImageSource,
    reporter: &dyn Reporter,
) -> Result<Vec<Image>> {
    let (dockerfile, error) = kiln_grammar::parse_up_to_error(&request.dockerfile);
    for warning in dockerfile.warnings.iter().filter(|warning| warning.check.is_none()) {
        reporter.event(progress::Event::Warning(warning));
    }
    let request = &*match &error {
        Some(_) => Cow::Borrowed(request),
        None => plan::arguments::with_epoch(&dockerfile, request)?,
    };
    let planned = match error {
        Some(error) => Err(Error::Dockerfile(error)),
        None => plan::make(&dockerfile, request, images),
    };
    let checked = check::report(store, request, &dockerfile, reporter);
    let plan = planned?;
    checked?;
    if let Some(note) = &plan.unconsumed {
        reporter.event(progress::Event::Note(note));
    }
    solve::ahead::fetch_while(store, request, &plan, reporter, || {
        let open = |directory: &Option<_>| context::Context::open(store, directory.as_ref());
        let contexts = plan.contexts.iter().map(open).collect::<Result<Vec<_>>>()?;
        failed_step::discard(store)?;
        foreign::check(store, request, &plan, &contexts, reporter)?;
        let solution = solve::solve(store, request, &plan, &contexts, reporter)?;
        contexts.iter().try_for_each(|context| context.remember(store))?;
        assemble::commit(store, request, &plan, &solution, reporter)
    })
}
