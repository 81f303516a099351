//! Changing images at a registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use kiln_image::copy::{self, End, Extra, Location, Which};
use kiln_image::edit::{self, Changes};
use kiln_image::registry;
use kiln_image::{Platform, Reference, remote};
use kiln_store::Store;
use kiln_store::layer::Compression;

use super::{At, options, pair, place, print_place};
use crate::pull::runtime;
use crate::registry_access::AccessArgs;
use crate::transfer::{COPY, Display, Stream};

/// Give an image at a registry another tag
#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// The tag
    tag: String,
    #[command(flatten)]
    access: AccessArgs,
}

/// Where a changed image goes, and how registries are reached.
#[derive(Debug, clap::Args)]
struct Destination {
    /// What the changed image is called; a registry's name, or any place
    #[arg(short, long = "tag", visible_alias = "new_tag", value_name = "IMAGE", value_parser = place)]
    to: Location,
    /// Of an index: the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    access: AccessArgs,
}

impl Destination {
    fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }
}

/// Put layers on an image, or make an image of them
#[derive(Debug, clap::Args)]
pub(super) struct AppendArgs {
    /// The image; without one, the layers are all there is
    #[arg(short, long, value_name = "IMAGE", value_parser = place)]
    base: Option<Location>,
    /// Tar files, compressed or not, lowest first; may be repeated
    #[arg(
        short = 'f',
        long = "new_layer",
        visible_alias = "new-layer",
        value_name = "FILE",
        required = true,
        value_delimiter = ','
    )]
    layers: Vec<PathBuf>,
    #[command(flatten)]
    to: Destination,
}

/// Change an image's config and annotations
#[derive(Debug, clap::Args)]
pub(super) struct MutateArgs {
    /// The image
    #[arg(value_name = "IMAGE", value_parser = place)]
    image: Location,
    /// The command's first word; may be repeated. "" for none
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    entrypoint: Option<Vec<String>>,
    /// Further words of the command; may be repeated. "" for none
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    cmd: Option<Vec<String>>,
    /// A variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A label; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// An annotation of the manifest; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// The user
    #[arg(short, long)]
    user: Option<String>,
    /// The directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// A port, such as 80/tcp; may be repeated
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    exposed_ports: Vec<String>,
    /// What it says it runs on
    #[arg(long, value_name = "OS/ARCH")]
    set_platform: Option<Platform>,
    /// Tar files to put on top; may be repeated
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    append: Vec<PathBuf>,
    #[command(flatten)]
    to: Destination,
}

/// Put an image on another base
#[derive(Debug, clap::Args)]
pub(super) struct RebaseArgs {
    /// The image
    #[arg(value_name = "IMAGE", value_parser = place)]
    image: Location,
    /// The image that it was built on
    #[arg(long = "old_base", visible_alias = "old-base", value_name = "IMAGE", value_parser = place)]
    old_base: Location,
    /// The image that it is to lie on
    #[arg(long = "new_base", visible_alias = "new-base", value_name = "IMAGE", value_parser = place)]
    new_base: Location,
    #[command(flatten)]
    to: Destination,
}

/// Make one layer of all of an image's
///
/// It is unpacked in the store for that, and removed again.
#[derive(Debug, clap::Args)]
pub(super) struct FlattenArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: Reference,
    #[command(flatten)]
    to: Destination,
}

/// Change indexes: append, filter
#[derive(Debug, clap::Args)]
pub(super) struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    /// Add images to an index, or make one of them
    Append(IndexAppendArgs),
    /// Keep only the images for some platforms
    Filter(IndexFilterArgs),
}

#[derive(Debug, clap::Args)]
struct IndexAppendArgs {
    /// The index; without one, a new one is made
    #[arg(value_name = "INDEX", value_parser = place)]
    index: Option<Location>,
    /// An image, or an index whose images are added; may be repeated
    #[arg(short, long, value_name = "IMAGE", required = true, value_parser = place)]
    manifest: Vec<Location>,
    /// What it is called; a registry's name, or any place
    #[arg(short, long = "tag", value_name = "INDEX", value_parser = place)]
    to: Location,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct IndexFilterArgs {
    /// The index
    #[arg(value_name = "INDEX", value_parser = place)]
    index: Location,
    /// A platform to keep; may be repeated
    #[arg(long, value_name = "OS/ARCH", required = true)]
    platform: Vec<Platform>,
    /// What it is called; a registry's name, or any place
    #[arg(short, long = "tag", value_name = "INDEX", value_parser = place)]
    to: Location,
    #[command(flatten)]
    access: AccessArgs,
}

fn display() -> Display {
    Display::new(COPY, Stream::Stderr, false)
}

pub(super) fn tag(args: &TagArgs, root: &Path) -> Result<()> {
    let options = options(&args.access, root)?;
    let from = Location::Registry(args.image.clone());
    let to = Location::Registry(Reference::parse(&format!("{}:{}", args.image.name(), args.tag))?);
    let (from, to) = (End { location: &from, options: &options }, End { location: &to, options: &options });
    let extra = Extra::default();
    let copying = copy::copy(&from, &to, &Which::All, &extra, &registry::NoProgress);
    runtime()?.block_on(copying).with_context(|| format!("tag {}", args.image.familiar()))?;
    Ok(())
}

pub(super) fn delete(at: &At, root: &Path) -> Result<()> {
    let Location::Registry(reference) = &at.image else { bail!("{}: not at a registry", at.image) };
    let options = options(&at.access, root)?;
    let deleting = remote::delete(reference, &options);
    runtime()?.block_on(deleting).with_context(|| format!("delete {}", reference.familiar()))?;
    Ok(())
}

pub(super) fn append(args: &AppendArgs, root: &Path) -> Result<()> {
    let changes = Changes { layers: args.layers.clone(), ..Changes::default() };
    change(args.base.as_ref(), &changes, &args.to, root)
}

pub(super) fn mutate(args: &MutateArgs, root: &Path) -> Result<()> {
    let words = |given: &Option<Vec<String>>| {
        given.as_ref().map(|words| words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>())
    };
    let changes = Changes {
        entrypoint: words(&args.entrypoint),
        cmd: words(&args.cmd),
        env: args.env.iter().map(|text| pair(text)).collect::<Result<_>>()?,
        labels: args.label.iter().map(|text| pair(text)).collect::<Result<_>>()?,
        annotations: args.annotation.iter().map(|text| pair(text)).collect::<Result<_>>()?,
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        exposed_ports: args.exposed_ports.clone(),
        platform: args.set_platform.clone(),
        layers: args.append.clone(),
    };
    change(Some(&args.image), &changes, &args.to, root)
}

fn change(from: Option<&Location>, changes: &Changes, to: &Destination, root: &Path) -> Result<()> {
    let options = options(&to.access, root)?;
    let from = from.map(|location| End { location, options: &options });
    let end = End { location: &to.to, options: &options };
    let (display, platform) = (display(), to.platform());
    let changing = edit::change(from.as_ref(), &end, &platform, changes, &display);
    let digest = runtime()?.block_on(changing).with_context(|| format!("make {}", to.to))?;
    print_place(&to.to, &digest)
}

pub(super) fn rebase(args: &RebaseArgs, root: &Path) -> Result<()> {
    let options = options(&args.to.access, root)?;
    let end = |location| End { location, options: &options };
    let (display, platform) = (display(), args.to.platform());
    let (from, old, new, to) = (end(&args.image), end(&args.old_base), end(&args.new_base), end(&args.to.to));
    let rebasing = edit::rebase(&from, (&old, &new), &to, &platform, &display);
    let digest = runtime()?.block_on(rebasing).with_context(|| format!("rebase {}", args.image))?;
    print_place(&args.to.to, &digest)
}

pub(super) fn flatten(args: &FlattenArgs, store: &Store) -> Result<()> {
    let options = args.to.access.options()?;
    let Location::Registry(to) = &args.to.to else { bail!("{}: not at a registry", args.to.to) };
    let (display, platform) = (display(), args.to.platform());
    let before: Vec<_> = store.images()?.into_iter().map(|image| image.id).collect();
    let work = async {
        let pulling = registry::pull_as(store, &args.image, &[], &platform, &options, &display);
        let image = pulling.await.with_context(|| format!("pull {}", args.image.familiar()))?.image;
        let flat = edit::flatten(store, &image)?;
        let pushing = registry::push(store, &flat, to, Compression::Gzip, &options, &display);
        let digest = pushing.await.with_context(|| format!("push {}", to.familiar()))?;
        Ok::<_, anyhow::Error>((vec![image.id, flat.id], digest))
    };
    let (images, digest) = runtime()?.block_on(work)?;
    for (name, id) in store.references()? {
        if images.contains(&id) && !before.contains(&id) {
            store.remove_reference(&name)?;
        }
    }
    for id in images.iter().filter(|id| !before.contains(id)) {
        store.remove_image(id)?;
    }
    print_place(&args.to.to, &digest)
}

pub(super) fn index(args: &IndexArgs, root: &Path) -> Result<()> {
    let display = display();
    let (to, made) = match &args.command {
        IndexCommand::Append(args) => {
            let options = options(&args.access, root)?;
            let end = |location| End { location, options: &options };
            let (base, more, to) = (args.index.as_ref().map(end), args.manifest.iter().map(end), end(&args.to));
            let more: Vec<_> = more.collect();
            (&args.to, runtime()?.block_on(copy::index::append(base.as_ref(), &more, &to, &display)))
        }
        IndexCommand::Filter(args) => {
            let options = options(&args.access, root)?;
            let end = |location| End { location, options: &options };
            let (from, to) = (end(&args.index), end(&args.to));
            (&args.to, runtime()?.block_on(copy::index::filter(&from, &to, &args.platform, &display)))
        }
    };
    print_place(to, &made.with_context(|| format!("make {to}"))?)
}
