//! `kiln save`: images into an archive or a layout directory.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_image::bundle::{PackedBundle, save_archive};
use kiln_image::index::StoredIndex;
use kiln_image::whole_file::WholeFile;
use kiln_image::{Image, Platform, Reference};
use kiln_store::Store;
use kiln_store::layer::Compression;

/// Save images to an archive
///
/// The archive is docker's and an OCI layout at once, so docker, podman, skopeo and every OCI tool read it.
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// The images: names, ids, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The form; the two archives are the same
    #[arg(long, value_enum, default_value_t = Format::DockerArchive)]
    format: Format,
    /// Of names that stand for several images, only those for this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Write to this file (or directory, for oci-dir) instead of the standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    DockerArchive,
    OciArchive,
    OciDir,
}

/// Bytes that are written at once.
pub(crate) const BUFFER: usize = 256 << 10;

/// Saves images.
///
/// # Errors
/// An image is missing, or the archive cannot be written; then a file that was there before is unharmed.
pub(crate) fn run(args: &SaveArgs, store: &Store) -> Result<()> {
    let bundles = find(store, &args.images, args.platform.as_ref())?;
    let save = |out: &mut dyn Write| {
        let bundles: Vec<(&PackedBundle, &[Reference])> =
            bundles.iter().map(|(bundle, names)| (bundle, names.as_slice())).collect();
        save_archive(store, &bundles, out)
    };
    match (args.format, &args.output) {
        (Format::OciDir, None) => bail!("oci-dir is a directory: say which with --output"),
        (Format::OciDir, Some(directory)) => {
            let saved = bundles.iter().map(|(bundle, names)| bundle.save_layout(store, names, directory));
            Ok(saved.collect::<Result<(), _>>()?)
        }
        (_, Some(file)) => save_file(file, 0o600, save),
        (_, None) => {
            let out = io::stdout().lock();
            if out.is_terminal() {
                bail!("refusing to write an archive to a terminal: use --output, or redirect");
            }
            let mut out = BufWriter::with_capacity(BUFFER, out);
            save(&mut out)?;
            out.flush().context("write the archive")
        }
    }
}

/// The images and indexes in the order they were first named, each with the names it was named by.
fn find(store: &Store, texts: &[String], platform: Option<&Platform>) -> Result<Vec<(PackedBundle, Vec<Reference>)>> {
    let mut bundles = Vec::new();
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for text in texts {
        if platform.is_some() {
            let image = Image::find_for(store, text, platform)?;
            let name = Reference::parse(text).ok();
            let name = name.filter(|name| store.reference(&name.tagged_name()).is_ok_and(|known| known.is_some()));
            images.push((image, name.into_iter().collect()));
            continue;
        }
        if let Ok(name) = Reference::parse(text)
            && let Some(index) = StoredIndex::open(store, &name)?
            && let Some(packed) = PackedBundle::of_index(store, &index)?
        {
            bundles.push((packed, vec![name]));
            continue;
        }
        let image = Image::find(store, text)?;
        let name = Reference::parse(text).ok().filter(|name| name.tag().is_some());
        let name = match name {
            Some(name) => store.reference(&name.tagged_name())?.filter(|id| *id == image.id).map(|_| name),
            None => None,
        };
        match images.iter_mut().find(|(known, _)| known.id == image.id) {
            Some((_, names)) => names.extend(name),
            None => images.push((image, name.into_iter().collect())),
        }
    }
    for (image, names) in images {
        bundles.push((PackedBundle::of_image(store, &image, Compression::Gzip)?, names));
    }
    Ok(bundles)
}

/// Writes an archive with these permissions (less the umask), which appears when it is whole.
pub(crate) fn save_file<E>(path: &Path, mode: u32, save: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<()>
where
    anyhow::Error: From<E>,
{
    let failed = || format!("write {}", path.display());
    // A device or a pipe is written as it is; a file takes its place when it is whole.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let mut out = BufWriter::with_capacity(BUFFER, File::options().write(true).open(path).with_context(failed)?);
        save(&mut out)?;
        return out.flush().with_context(failed);
    }
    let mut file = WholeFile::new(path, mode).with_context(failed)?;
    let mut out = BufWriter::with_capacity(BUFFER, file.file());
    save(&mut out)?;
    out.flush().with_context(failed)?;
    drop(out);
    file.place().with_context(failed)
}
