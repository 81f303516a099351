//! `kiln copy`: images between registries, layouts, archives and the store.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_image::bundle::PackedBundle;
use kiln_image::copy::{End, Extra, Location, Scratch, Which};
use kiln_image::index::StoredIndex;
use kiln_image::registry::{self, Options};
use kiln_image::{Image, Platform, Reference, archive, copy, layout};
use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};

use crate::pull::{Compressed, runtime};
use crate::push::push_as;
use crate::registry_access::{DestinationArgs, RetryArgs, SourceArgs};
use crate::save::save_file;
use crate::transfer::{COPY, Display, Stream};

/// Copy an image from one place to another
///
/// Places are written as skopeo has them: docker://NAME for a registry, oci:DIRECTORY[:NAME] for an OCI layout,
/// oci-archive:FILE[:NAME] and docker-archive:FILE[:NAME] for archives, dir:DIRECTORY for a directory of one image's
/// files, containers-storage:NAME or NAME alone for the store. Between registries, layouts and archives nothing is unpacked and every byte stays as it is.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// Where the image is
    #[arg(value_name = "SOURCE")]
    source: Location,
    /// Where it is to be
    #[arg(value_name = "DESTINATION")]
    destination: Location,
    /// Copy all images of an index, and the index
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// skopeo's word for the same: `all`, or `system` for this machine's image
    #[arg(long, value_enum, conflicts_with_all = ["all", "platform"])]
    multi_arch: Option<MultiArch>,
    /// Accepted for skopeo's sake: every byte stays as it is
    #[arg(long, hide = true)]
    preserve_digests: bool,
    /// Accepted for skopeo's sake: signatures are copied with --referrers only
    #[arg(long, hide = true, conflicts_with = "referrers")]
    remove_signatures: bool,
    /// Copy also what refers to the image: signatures, attestations, and what refers to those
    #[arg(long, visible_alias = "recursive")]
    referrers: bool,
    /// Which image of an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Another tag of the copy; may be repeated
    #[arg(long, value_name = "TAG")]
    additional_tag: Vec<String>,
    /// How layers of the store are compressed [default: as they came, and by gzip]; without the store they stay as they
    /// are
    #[arg(long, value_enum)]
    dest_compress_format: Option<Compressed>,
    /// Write the digest of the copy to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    from: SourceArgs,
    #[command(flatten)]
    to: DestinationArgs,
    /// Credential file, instead of docker's and podman's
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    patience: RetryArgs,
}

/// What is copied of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MultiArch {
    System,
    All,
}

impl CopyArgs {
    fn all(&self) -> bool {
        self.all || self.multi_arch == Some(MultiArch::All)
    }

    /// All names at a registry.
    fn targets(&self, target: &Reference) -> Result<Vec<Reference>> {
        let full =
            |tag: &String| if tag.contains(['/', ':']) { tag.clone() } else { format!("{}:{tag}", target.name()) };
        let more = self.additional_tag.iter().map(|tag| Ok(Reference::parse(&full(tag))?));
        std::iter::once(Ok(target.clone())).chain(more).collect()
    }

    fn source_options(&self) -> Result<Options> {
        Ok(self.patience.applied(self.from.options(self.authfile.clone())?))
    }

    fn destination_options(&self) -> Result<Options> {
        Ok(self.patience.applied(self.to.options(self.authfile.clone())?))
    }
}

/// Copies. The store is opened only when it is one of the two places; at its root is also remembered which registry has
/// which blob.
///
/// # Errors
/// The image is missing, or cannot be read or written.
pub(crate) fn run(args: &CopyArgs, root: &Path, open: impl FnOnce() -> Result<Store>) -> Result<()> {
    let display = Display::new(COPY, Stream::Stdout, args.quiet);
    if args.referrers && [&args.source, &args.destination].iter().any(|place| matches!(place, Location::Store(_))) {
        bail!("--referrers: the store keeps no referrers; copy between registries, layouts and archives");
    }
    let digest = match (&args.source, &args.destination) {
        (Location::Store(name), to) => from_store(args, &open()?, name, to, &display)?,
        (_, Location::Store(name)) => to_store(args, &open()?, name, &display)?,
        (from, to) => {
            let from_options = args.source_options()?.remembering(root);
            let to_options = Options { places: from_options.places.clone(), ..args.destination_options()? };
            let from = End { location: from, options: &from_options };
            let to = End { location: to, options: &to_options };
            let which = match (&args.platform, args.all()) {
                (_, true) => Which::All,
                (Some(platform), _) => Which::Platform(platform.clone()),
                _ => Which::Platform(Platform::host()),
            };
            let extra = Extra { names: args.additional_tag.clone(), referrers: args.referrers };
            let copying = copy::copy(&from, &to, &which, &extra, &display);
            let copied = runtime()?.block_on(copying);
            Some(copied.with_context(|| format!("copy {} to {}", args.source, args.destination))?)
        }
    };
    if let (Some(path), Some(digest)) = (&args.digestfile, digest) {
        let mut file = File::create(path).with_context(|| format!("write {}", path.display()))?;
        writeln!(file, "{digest}").with_context(|| format!("write {}", path.display()))?;
    }
    if let (false, Some(digest)) = (args.quiet, digest) {
        writeln!(io::stdout(), "Digest: {digest}")?;
    }
    Ok(())
}

fn from_store(args: &CopyArgs, store: &Store, name: &str, to: &Location, display: &Display) -> Result<Option<Digest>> {
    if let (true, Ok(reference)) = (args.all(), Reference::parse(name))
        && let Some(index) = StoredIndex::open(store, &reference)?
    {
        return index_from_store(args, store, &index, to, display);
    }
    let image = Image::find_for(store, name, args.platform.as_ref())?;
    let compression = args.dest_compress_format.unwrap_or(Compressed::Gzip).into();
    match to {
        Location::Registry(target) => {
            let (runtime, options) = (runtime()?, args.destination_options()?);
            let mut digest = None;
            for target in args.targets(target)? {
                let pushing = push_as(store, &image, &target, args.dest_compress_format, &options, display);
                digest = Some(runtime.block_on(pushing).with_context(|| format!("push {}", target.familiar()))?);
            }
            Ok(digest)
        }
        Location::Layout { path, name } => {
            layout::save_as(store, &image, name.as_deref(), compression, path)?;
            Ok(None)
        }
        Location::Directory(path) => {
            let save = |scratch: &Path| Ok(layout::save_as(store, &image, None, compression, scratch)?);
            by_way_of_layout(path, to, &Extra::default(), display, save)
        }
        Location::Archive { path, name, .. } => {
            let named = |name: &String| if name.contains([':', '/']) { name.clone() } else { format!("{name}:latest") };
            let names = name.iter().chain(&args.additional_tag).map(|name| Reference::parse(&named(name)));
            let names = names.collect::<Result<Vec<_>, _>>()?;
            save_file(path, 0o600, |out| archive::save(store, &[(image.clone(), names)], compression, out))?;
            Ok(None)
        }
        Location::Store(to) => {
            let to = Reference::parse(to)?;
            store.set_reference(&to.tagged_name(), &image.id)?;
            Ok(None)
        }
    }
}

/// An index with all its images.
fn index_from_store(
    args: &CopyArgs,
    store: &Store,
    index: &StoredIndex,
    to: &Location,
    display: &Display,
) -> Result<Option<Digest>> {
    if args.dest_compress_format.is_some() {
        bail!("--dest-compress-format: an index stays as it is, and so do its images");
    }
    match to {
        Location::Registry(target) => {
            let (runtime, options) = (runtime()?, args.destination_options()?);
            for target in args.targets(target)? {
                let pushing = registry::push_index(store, index, &target, &options, display);
                runtime.block_on(pushing).with_context(|| format!("push {}", target.familiar()))?;
            }
            Ok(Some(index.digest))
        }
        Location::Layout { path, .. } | Location::Directory(path) | Location::Archive { path, .. } => {
            let whole = PackedBundle::of_index(store, index)?;
            let whole = whole.with_context(|| format!("not all of {} is here", index.name.familiar()))?;
            let extra = Extra { names: args.additional_tag.clone(), ..Extra::default() };
            by_way_of_layout(path, to, &extra, display, |scratch| Ok(whole.save_layout(store, &[], scratch)?))
        }
        Location::Store(to) => {
            store.set_reference(&Reference::parse(to)?.tagged_name(), &index.digest)?;
            Ok(Some(index.digest))
        }
    }
}

/// Copies what is saved as a layout first, which is the form that the store has; beside `path`, where it goes.
fn by_way_of_layout(
    path: &Path,
    to: &Location,
    extra: &Extra,
    display: &Display,
    save: impl FnOnce(&Path) -> Result<()>,
) -> Result<Option<Digest>> {
    let beside = path.parent().filter(|parent| parent.is_dir()).unwrap_or(".".as_ref());
    let scratch = Scratch::within(beside)?;
    save(scratch.path())?;
    let from = Location::Layout { path: scratch.path().to_path_buf(), name: None };
    let options = Options::default();
    let (from, to) = (End { location: &from, options: &options }, End { location: to, options: &options });
    Ok(Some(runtime()?.block_on(copy::copy(&from, &to, &Which::All, extra, display))?))
}

fn to_store(args: &CopyArgs, store: &Store, name: &str, display: &Display) -> Result<Option<Digest>> {
    let name = Reference::parse(name)?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let names = [name];
    let options = args.source_options()?;
    let failed = || format!("copy {}", args.source);
    if let Location::Registry(from) = &args.source {
        if args.all() {
            let pulling = registry::pull_all_platforms(store, from, &names, &options, display);
            return Ok(Some(runtime()?.block_on(pulling).with_context(failed)?.1));
        }
        let pulling = registry::pull_as(store, from, &names, &platform, &options, display);
        return Ok(Some(runtime()?.block_on(pulling).with_context(failed)?.digest));
    }
    let from = End { location: &args.source, options: &options };
    let which = if args.all() { Which::All } else { Which::Platform(platform) };
    let copying = copy::into_store(store, &from, &which, &names, display);
    runtime()?.block_on(copying).with_context(failed)?;
    Ok(None)
}

impl From<Compressed> for Compression {
    fn from(format: Compressed) -> Self {
        match format {
            Compressed::Gzip => Self::Gzip,
            Compressed::Zstd => Self::Zstd,
            Compressed::None => Self::None,
        }
    }
}
