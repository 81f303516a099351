//! `kiln sync`: whole repositories, mirrored.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_image::Platform;
use kiln_image::copy::sync::{self, Destination, Item};
use kiln_image::copy::{self, End, Extra, Which};
use kiln_image::registry::{NoProgress, Options};

use crate::pull::runtime;
use crate::registry_access::{DestinationArgs, SourceArgs};

/// Mirror repositories: every tag of them, from a registry, a directory or a list
///
/// As skopeo's: `--src docker --dest docker` and the like. The list for `--src yaml` names registries, each with
/// `images` (repositories and their tags; [] for all) or `images-by-tag-regex`, and `credentials`, `tls-verify`, `cert-dir`.
#[derive(Debug, clap::Args)]
pub(crate) struct SyncArgs {
    /// A repository (or one image of it), a mirror's directory, or a list
    source: String,
    /// A registry's name, perhaps with a path, or a directory
    destination: String,
    /// What the source is
    #[arg(short, long, value_enum)]
    src: Kind,
    /// What the destination is
    #[arg(short, long, value_enum)]
    dest: Kind,
    /// All images of indexes, and the indexes
    #[arg(short, long)]
    all: bool,
    /// Also what refers to the images: signatures, attestations
    #[arg(long)]
    referrers: bool,
    /// Keep the whole name of the source below the destination, and not its last part only
    #[arg(long)]
    scoped: bool,
    /// Only say what would be copied
    #[arg(long)]
    dry_run: bool,
    /// Go on with the others when one cannot be copied
    #[arg(long)]
    keep_going: bool,
    /// Accepted for skopeo's sake: every byte stays as it is
    #[arg(long, hide = true)]
    preserve_digests: bool,
    #[command(flatten)]
    from: SourceArgs,
    #[command(flatten)]
    to: DestinationArgs,
    /// Credential file, instead of docker's and podman's
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A registry
    Docker,
    /// A directory of images
    Dir,
    /// A list of repositories
    Yaml,
}

/// Mirrors.
///
/// # Errors
/// Something cannot be listed or copied; with `--keep-going` only at the end.
pub(crate) fn run(args: &SyncArgs, root: &Path) -> Result<()> {
    let source = args.from.options(args.authfile.clone())?.remembering(root);
    let target = args.to.options(args.authfile.clone())?;
    let target = Options { places: source.places.clone(), ..target };
    let destination = match args.dest {
        Kind::Docker => Destination::Registry(args.destination.clone()),
        Kind::Dir => Destination::Directory(PathBuf::from(&args.destination)),
        Kind::Yaml => bail!("--dest yaml: a mirror is at a registry or in a directory"),
    };
    let runtime = runtime()?;
    let items = match args.src {
        Kind::Docker => runtime.block_on(sync::of_repository(&args.source, &source)),
        Kind::Dir => sync::of_directory(args.source.as_ref()),
        Kind::Yaml => runtime.block_on(sync::of_list(args.source.as_ref(), &source)),
    };
    let items = items.with_context(|| format!("list what is to be copied from {}", args.source))?;
    let (mut out, mut failed) = (io::stdout(), 0);
    for item in &items {
        match runtime.block_on(mirror(args, item, &destination, &target)) {
            Ok(line) => writeln!(out, "{line}")?,
            Err(error) if args.keep_going => {
                failed += 1;
                writeln!(io::stderr(), "{error:#}")?;
            }
            Err(error) => return Err(error),
        }
    }
    if failed > 0 {
        bail!("{failed} of {} images could not be copied", items.len());
    }
    let done = if args.dry_run { "Would have synced" } else { "Synced" };
    Ok(writeln!(out, "{done} {} images from {}", items.len(), args.source)?)
}

async fn mirror(args: &SyncArgs, item: &Item, destination: &Destination, options: &Options) -> Result<String> {
    let to = item.to(destination, args.scoped)?;
    let line = format!("{} -> {to}", item.from);
    if args.dry_run {
        return Ok(line);
    }
    if let copy::Location::Directory(path) = &to {
        std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    }
    let (from, end) = (End { location: &item.from, options: &item.options }, End { location: &to, options });
    // A mirror's directory has what was to be mirrored.
    let all = args.all || args.src == Kind::Dir;
    let which = if all { Which::All } else { Which::Platform(Platform::host()) };
    let extra = Extra { referrers: args.referrers, ..Extra::default() };
    let copied = copy::copy(&from, &end, &which, &extra, &NoProgress).await;
    copied.with_context(|| format!("copy {line}"))?;
    Ok(line)
}
