//! `kiln copy`: images between registries, layouts, archives and the store.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_image::bundle::PackedBundle;
use kiln_image::copy::{Conversion, End, Extra, Location, Which};
use kiln_image::index::StoredIndex;
use kiln_image::registry::{self, Options};
use kiln_image::{Image, Platform, Reference, archive, copy, layout};
use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};

use crate::pull::{Compressed, Format, runtime};
use crate::push::push_as;
use crate::registry_access::{DestinationArgs, RetryArgs, SourceArgs};
use crate::save::save_file;
use crate::transfer::{COPY, Display, Stream};

/// Copy an image from one place to another
///
/// Places are written as skopeo has them: docker://NAME for a registry, oci:DIRECTORY[:NAME] for an OCI layout,
/// oci-archive:FILE[:NAME] and docker-archive:FILE[:NAME] for archives, dir:DIRECTORY for a directory of one image's
/// files, containers-storage:NAME or NAME alone for the store. Between registries, layouts and archives nothing is unpacked, and every byte stays as it is unless another form is asked for.
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
    #[arg(long, hide = true, conflicts_with_all = ["format", "dest_compress_format", "dest_compress", "dest_decompress"])]
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
    /// How layers are compressed there [default: as they are; by gzip those of the store that never left it]
    #[arg(long, value_enum)]
    dest_compress_format: Option<Compressed>,
    /// How hard that tries: 0 to 9 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(0..=22), allow_negative_numbers = true)]
    dest_compress_level: Option<i32>,
    /// Accepted for skopeo's sake: no layer stays in another form
    #[arg(long, hide = true, requires = "dest_compress_format")]
    dest_force_compress_format: bool,
    /// skopeo's word for --dest-compress-format gzip
    #[arg(long, hide = true, conflicts_with = "dest_compress_format")]
    dest_compress: bool,
    /// skopeo's word for --dest-compress-format none
    #[arg(long, hide = true, conflicts_with_all = ["dest_compress_format", "dest_compress"])]
    dest_decompress: bool,
    /// Whose media types manifests use there [default: as they are]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
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

/// Why the store takes no image in another form.
const UNCHANGED: &str = "the store keeps images as they come: --format and --dest-compress-format are for other places";

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

    /// How layers are to be compressed, if anybody says.
    fn compressed(&self) -> Option<Compressed> {
        match (self.dest_compress, self.dest_decompress) {
            (true, _) => Some(Compressed::Gzip),
            (_, true) => Some(Compressed::None),
            _ => self.dest_compress_format,
        }
    }

    fn conversion(&self) -> Conversion {
        Conversion {
            compression: self.compressed().map(Into::into),
            level: self.dest_compress_level,
            forced: false,
            manifest_type: self.format.map(Into::into),
        }
    }

    /// What a copy of the store is besides.
    fn extra(&self, conversion: Conversion) -> Extra {
        Extra { names: self.additional_tag.clone(), referrers: false, conversion }
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
    if !matches!(args.source, Location::Store(_)) {
        check_level(args)?;
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
            let extra = Extra { referrers: args.referrers, ..args.extra(args.conversion()) };
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
    let conversion = args.conversion();
    let unchanged = conversion.is_nothing() && conversion.level.is_none();
    match to {
        Location::Registry(target) if args.format.is_none() && conversion.level.is_none() => {
            let (runtime, options) = (runtime()?, args.destination_options()?);
            let mut digest = None;
            for target in args.targets(target)? {
                let pushing = push_as(store, &image, &target, args.compressed(), &options, display);
                digest = Some(runtime.block_on(pushing).with_context(|| format!("push {}", target.familiar()))?);
            }
            Ok(digest)
        }
        Location::Layout { path, name } if unchanged => {
            layout::save_as(store, &image, name.as_deref(), Compression::Gzip, path)?;
            Ok(None)
        }
        Location::Archive { path, name, .. } if unchanged => {
            let named = |name: &String| if name.contains([':', '/']) { name.clone() } else { format!("{name}:latest") };
            let names = name.iter().chain(&args.additional_tag).map(|name| Reference::parse(&named(name)));
            let names = names.collect::<Result<Vec<_>, _>>()?;
            let images = [(image, names)];
            save_file(path, 0o600, |out| archive::save(store, &images, Compression::Gzip, out))?;
            Ok(None)
        }
        Location::Store(_) if !unchanged => bail!(UNCHANGED),
        Location::Store(to) => {
            let to = Reference::parse(to)?;
            store.set_reference(&to.tagged_name(), &image.id)?;
            Ok(None)
        }
        _ => {
            let forced = conversion.compression.is_some();
            let packed = PackedBundle::of_image_as(store, &image, &Conversion { forced, ..conversion })?;
            packed_from_store(args, store, &packed, to, Conversion::default(), display)
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
    check_level(args)?;
    let conversion = args.conversion();
    match to {
        Location::Registry(target) if conversion.is_nothing() => {
            let (runtime, options) = (runtime()?, args.destination_options()?);
            for target in args.targets(target)? {
                let pushing = registry::push_index(store, index, &target, &options, display);
                runtime.block_on(pushing).with_context(|| format!("push {}", target.familiar()))?;
            }
            Ok(Some(index.digest))
        }
        Location::Store(_) if !conversion.is_nothing() => bail!(UNCHANGED),
        Location::Store(to) => {
            store.set_reference(&Reference::parse(to)?.tagged_name(), &index.digest)?;
            Ok(Some(index.digest))
        }
        _ => {
            let whole = PackedBundle::of_index(store, index)?;
            let whole = whole.with_context(|| format!("not all of {} is here", index.name.familiar()))?;
            packed_from_store(args, store, &whole, to, conversion, display)
        }
    }
}

/// Copies what is packed in the store.
fn packed_from_store(
    args: &CopyArgs,
    store: &Store,
    packed: &PackedBundle,
    to: &Location,
    conversion: Conversion,
    display: &Display,
) -> Result<Option<Digest>> {
    let options = args.destination_options()?.remembering(store.root());
    let end = End { location: to, options: &options };
    let extra = args.extra(conversion);
    let copying = copy::from_store(store, &packed.root, &end, &extra, display);
    Ok(Some(runtime()?.block_on(copying).with_context(|| format!("copy {} to {to}", args.source))?))
}

/// A level that nothing is compressed at.
fn check_level(args: &CopyArgs) -> Result<()> {
    if args.dest_compress_level.is_some() && args.compressed().is_none() {
        bail!("--dest-compress-level: layers stay as they are unless --dest-compress-format says otherwise");
    }
    Ok(())
}

fn to_store(args: &CopyArgs, store: &Store, name: &str, display: &Display) -> Result<Option<Digest>> {
    if !args.conversion().is_nothing() {
        bail!(UNCHANGED);
    }
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
