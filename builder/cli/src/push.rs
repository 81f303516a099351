//! `kiln push`: images to a registry.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln_image::bundle::PackedBundle;
use kiln_image::copy::{self, Conversion, End, Extra, Location};
use kiln_image::index::StoredIndex;
use kiln_image::registry::{self, Options};
use kiln_image::{Image, Platform, Reference};
use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};

use crate::pull::{Compressed, Format, runtime};
use crate::registry_access::AccessArgs;
use crate::transfer::{Display, PUSH, Stream};

/// Upload images to a registry
///
/// A name that stands for an index is pushed with all its images.
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// The image, by the name it is to have there; its tag is `latest` if it has none
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// The name it is to have there, if another; with or without docker://
    #[arg(value_name = "DESTINATION", conflicts_with = "all_tags")]
    destination: Option<String>,
    /// Every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Of a name that stands for several images, only that for this platform
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "all_tags")]
    platform: Option<Platform>,
    /// Compress all layers so [default: those that never left this machine by gzip, others stay as they came]
    #[arg(long, value_enum, alias = "compression")]
    compression_format: Option<Compressed>,
    /// How hard that tries, with the layers that need it: 0 to 9 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(0..=22))]
    compression_level: Option<i32>,
    /// Compress all layers anew, also those that came compressed
    #[arg(long)]
    force_compression: bool,
    /// Whose media types the manifest uses [default: as it came, and else OCI's]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Write the manifest's digest to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Only print the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Pushes.
///
/// # Errors
/// There is no such image, or the registry does not take it.
pub(crate) fn run(args: &PushArgs, store: &Store) -> Result<()> {
    let reference = Reference::parse(&args.name);
    let options = args.access.options()?;
    let pushing = Pushing { args, store, options };
    if let Some(destination) = &args.destination {
        let destination = Reference::parse(destination.strip_prefix("docker://").unwrap_or(destination))?;
        pushing.announce(&destination, None)?;
        return pushing.one(&args.name, &destination);
    }
    let reference = reference?;
    let tag = reference.tag().unwrap_or_default();
    let tagged = args.name.contains('@') || args.name.ends_with(&format!(":{tag}"));
    if !args.all_tags {
        pushing.announce(&reference, (!tagged).then_some(tag))?;
        return pushing.one(&args.name, &reference);
    }
    if tagged {
        bail!("tag can't be used with --all-tags/-a");
    }
    pushing.announce(&reference, None)?;
    let names = store.references()?.into_iter().filter_map(|(name, _)| Reference::parse(&name).ok());
    let names: Vec<Reference> = names.filter(|name| name.tag().is_some() && name.name() == reference.name()).collect();
    if names.is_empty() {
        bail!("An image does not exist locally with the tag: {}", reference.familiar_name());
    }
    names.iter().try_for_each(|name| pushing.one(&name.to_string(), name))
}

struct Pushing<'a> {
    args: &'a PushArgs,
    store: &'a Store,
    options: Options,
}

impl Pushing<'_> {
    fn announce(&self, reference: &Reference, default_tag: Option<&str>) -> Result<()> {
        if self.args.quiet {
            return Ok(());
        }
        let mut out = io::stdout();
        if let Some(tag) = default_tag {
            writeln!(out, "Using default tag: {tag}")?;
        }
        Ok(writeln!(out, "The push refers to repository [{}]", reference.name())?)
    }

    fn one(&self, name: &str, to: &Reference) -> Result<()> {
        let display = Display::new(PUSH, Stream::Stdout, self.args.quiet);
        let runtime = runtime()?;
        let digest = match (self.index(name)?, &self.args.platform) {
            (Some(index), Some(platform)) => {
                let missing = || kiln_image::Error::NoSuchImage { text: format!("{name} for {platform}") };
                let image = index.image(self.store, platform)?.ok_or_else(missing)?;
                runtime.block_on(self.image_to(&image, to, &display))
            }
            (Some(index), None) => runtime.block_on(self.index_to(&index, to, &display)),
            (None, platform) => {
                let image = self.image(name, to)?;
                let found = image.platform();
                if let Some(platform) = platform.as_ref().filter(|platform| !platform.accepts(&found)) {
                    bail!("image with reference {name} does not provide the specified platform ({platform})");
                }
                runtime.block_on(self.image_to(&image, to, &display))
            }
        };
        let digest = digest.with_context(|| format!("push {}", to.familiar()))?;
        self.report(to, &digest)
    }

    fn conversion(&self) -> Conversion {
        let PushArgs { compression_format, compression_level: level, force_compression, format, .. } = *self.args;
        // Without a format, it is the usual one that a level is for.
        let usual = (level.is_some() || force_compression).then_some(Compressed::Gzip);
        Conversion {
            compression: compression_format.or(usual).map(Into::into),
            level,
            forced: force_compression,
            manifest_type: format.map(Into::into),
        }
    }

    async fn image_to(&self, image: &Image, to: &Reference, display: &Display) -> kiln_image::Result<Digest> {
        let PushArgs { compression_format, compression_level, force_compression, format, .. } = *self.args;
        if compression_level.is_none() && format.is_none() {
            let usual = force_compression.then_some(Compressed::Gzip);
            return push_as(self.store, image, to, compression_format.or(usual), &self.options, display).await;
        }
        let forced = force_compression || compression_format.is_some();
        let packed = PackedBundle::of_image_as(self.store, image, &Conversion { forced, ..self.conversion() })?;
        packed.push(self.store, to, false, &self.options, display).await
    }

    async fn index_to(&self, index: &StoredIndex, to: &Reference, display: &Display) -> kiln_image::Result<Digest> {
        let conversion = self.conversion();
        if conversion.is_nothing() {
            return registry::push_index(self.store, index, to, &self.options, display).await;
        }
        // Its layers are all compressed already.
        let conversion = Conversion { forced: conversion.forced || conversion.level.is_some(), ..conversion };
        let missing =
            || kiln_image::Error::NoSuchImage { text: format!("{} with all its parts", index.name.familiar()) };
        let packed = PackedBundle::of_index(self.store, index)?.ok_or_else(missing)?;
        let (location, options) = (Location::Registry(to.clone()), self.options.remembering(self.store.root()));
        let (end, extra) = (End { location: &location, options: &options }, Extra { conversion, ..Extra::default() });
        copy::from_store(self.store, &packed.root, &end, &extra, display).await
    }

    fn index(&self, name: &str) -> Result<Option<StoredIndex>> {
        let Ok(reference) = Reference::parse(name) else { return Ok(None) };
        Ok(StoredIndex::open(self.store, &reference)?)
    }

    /// docker pushes names only; with a name for the other end, whatever means an image is pushed.
    fn image(&self, name: &str, to: &Reference) -> Result<Image> {
        if self.args.destination.is_some() {
            return Ok(Image::find(self.store, name)?);
        }
        let missing = || kiln_image::Error::NoSuchImage { text: to.familiar() };
        Ok(Image::by_reference(self.store, to)?.ok_or_else(missing)?)
    }

    fn report(&self, to: &Reference, digest: &Digest) -> Result<()> {
        if let Some(path) = &self.args.digestfile {
            std::fs::write(path, digest.to_string()).with_context(|| format!("write {}", path.display()))?;
        }
        let mut out = io::stdout();
        if self.args.quiet {
            return Ok(writeln!(out, "{to}")?);
        }
        write!(out, "{}: digest: {digest}", to.tag().unwrap_or("pushed"))?;
        // An index in another form is there alone.
        if let Some(size) = self.store.blobs().size(digest)? {
            write!(out, " size: {size}")?;
        }
        Ok(writeln!(out)?)
    }
}

/// Pushes; in a form that was asked for, or as docker would.
pub(crate) async fn push_as(
    store: &Store,
    image: &Image,
    to: &Reference,
    form: Option<Compressed>,
    options: &Options,
    display: &Display,
) -> kiln_image::Result<Digest> {
    match form {
        Some(form) => registry::push_recompressed(store, image, to, form.into(), options, display).await,
        None => registry::push(store, image, to, Compression::Gzip, options, display).await,
    }
}
