//! `kiln push`: an image to a registry.

use std::io::{self, Write};

use anyhow::{Context, Result};
use kiln_image::{Image, Reference, registry};
use kiln_store::Store;
use kiln_store::layer::Compression;

use crate::pull::{TlsArgs, runtime};
use crate::transfer::{Display, PUSH, Stream};

/// Upload an image to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// The image, by the name it is to have there; its tag is `latest` if it has none
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// Only print the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Pushes.
///
/// # Errors
/// There is no such image, or the registry does not take it.
pub(crate) fn run(args: &PushArgs, store: &Store) -> Result<()> {
    let reference = Reference::parse(&args.name)?;
    let image = Image::by_reference(store, &reference)?;
    let missing = || kiln_image::Error::NoSuchImage { text: reference.familiar() };
    let image = image.ok_or_else(missing)?;
    let mut out = io::stdout();
    if !args.quiet {
        let tag = reference.tag().unwrap_or_default();
        if !args.name.contains('@') && !args.name.ends_with(&format!(":{tag}")) {
            writeln!(out, "Using default tag: {tag}")?;
        }
        writeln!(out, "The push refers to repository [{}]", reference.name())?;
    }
    let display = Display::new(PUSH, Stream::Stdout, args.quiet);
    let runtime = runtime()?;
    let options = args.tls.options();
    let pushed = registry::push(store, &image, &reference, Compression::Gzip, &options, &display);
    let digest = runtime.block_on(pushed).with_context(|| format!("push {}", reference.familiar()))?;
    if args.quiet {
        writeln!(out, "{reference}")?;
    } else {
        let size = store.blobs().size(&digest)?.unwrap_or_default();
        writeln!(out, "{}: digest: {digest} size: {size}", reference.tag().unwrap_or("pushed"))?;
    }
    Ok(())
}
