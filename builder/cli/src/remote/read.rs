//! Reading what is at a registry, raw.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kiln_image::copy::{End, Location, Which};
use kiln_image::remote::{self, Seen, View};
use kiln_image::{Platform, Reference, registry, validate};

use super::{At, options};
use crate::failure::print;
use crate::pull::runtime;
use crate::registry_access::AccessArgs;
use crate::transfer::{COPY, Display, Stream};

/// Write a blob to the standard output
#[derive(Debug, clap::Args)]
pub(super) struct BlobArgs {
    /// The blob: REPOSITORY@DIGEST
    #[arg(value_name = "REPOSITORY@DIGEST")]
    blob: String,
    #[command(flatten)]
    access: AccessArgs,
}

/// List the repositories of a registry
#[derive(Debug, clap::Args)]
pub(super) struct CatalogArgs {
    /// Its host, and port
    registry: String,
    /// With the registry's name before each
    #[arg(long)]
    full_ref: bool,
    #[command(flatten)]
    access: AccessArgs,
}

fn document(at: &At, root: &Path, view: View) -> Result<Vec<u8>> {
    let options = options(&at.access, root)?;
    let from = End { location: &at.image, options: &options };
    let which = match (view, at.which()) {
        (View::Config, Which::All) => Which::Platform(Platform::host()),
        (_, which) => which,
    };
    let seen = runtime()?.block_on(remote::document(&from, &which, view));
    match seen.with_context(|| format!("read {}", at.image))? {
        Seen::Bytes(bytes) => Ok(bytes),
        Seen::Described(_) => bail!("{}: no document", at.image),
    }
}

pub(super) fn digest(at: &At, root: &Path) -> Result<()> {
    if let (Location::Registry(reference), None) = (&at.image, &at.platform) {
        // Without the manifest, where the registry tells.
        let found = runtime()?.block_on(remote::digest(reference, &options(&at.access, root)?));
        let digest = found.with_context(|| format!("read {}", at.image))?;
        return print(&format!("{}\n", digest.with_context(|| format!("{} not found", reference.familiar()))?));
    }
    print(&format!("{}\n", kiln_store::Digest::of(&document(at, root, View::Manifest)?)))
}

pub(super) fn manifest(at: &At, root: &Path) -> Result<()> {
    Ok(io::stdout().write_all(&document(at, root, View::Manifest)?)?)
}

pub(super) fn config(at: &At, root: &Path) -> Result<()> {
    Ok(io::stdout().write_all(&document(at, root, View::Config)?)?)
}

pub(super) fn blob(args: &BlobArgs, root: &Path) -> Result<()> {
    let reference = Reference::parse(args.blob.strip_prefix("docker://").unwrap_or(&args.blob))?;
    let digest = reference.digest().with_context(|| format!("{}: not REPOSITORY@DIGEST", args.blob))?;
    let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let options = options(&args.access, root)?;
    let reading = remote::blob(&reference, digest, &options, &mut out);
    runtime()?.block_on(reading).with_context(|| format!("read {}", args.blob))?;
    Ok(out.flush()?)
}

pub(super) fn catalog(args: &CatalogArgs, root: &Path) -> Result<()> {
    let found = runtime()?.block_on(registry::repositories(&args.registry, &options(&args.access, root)?));
    let names = found.with_context(|| format!("list the repositories of {}", args.registry))?;
    let line = |name: &String| match args.full_ref {
        true => format!("{}/{name}\n", args.registry),
        false => format!("{name}\n"),
    };
    print(&names.iter().map(line).collect::<String>())
}

pub(super) fn validate(at: &At, root: &Path) -> Result<()> {
    let options = options(&at.access, root)?;
    let from = End { location: &at.image, options: &options };
    let display = Display::new(COPY, Stream::Stderr, true);
    let validated = runtime()?.block_on(validate::validate(&from, &at.which(), &display));
    let found = validated.with_context(|| format!("FAIL: {}", at.image))?;
    let validate::Validated { manifests, blobs, bytes } = found;
    print(&format!("PASS: {} ({manifests} manifests, {blobs} blobs, {bytes} bytes)\n", at.image))
}
