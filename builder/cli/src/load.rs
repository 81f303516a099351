//! `kiln load`: images out of an archive or a layout directory.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln_image::{Platform, archive, layout};
use kiln_store::Store;

/// Load images from an archive
///
/// Takes what docker, podman, skopeo and kiln save: docker's archives and OCI's, compressed or not, and directories
/// with an OCI layout.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Read this file or directory instead of the standard input
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Of images for several platforms, that for this one [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Only name the images that were loaded
    #[arg(short, long)]
    quiet: bool,
}

/// Loads images.
///
/// # Errors
/// The archive is damaged or is none.
pub(crate) fn run(args: &LoadArgs, store: &Store) -> Result<()> {
    let _ = args.quiet; // there is nothing else to say yet
    let platform = args.platform.as_ref();
    let images = match &args.input {
        Some(path) if path.is_dir() => layout::load(store, path, platform)?,
        Some(path) => {
            let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            archive::load(store, &mut file, platform)?
        }
        None => {
            let mut input = io::stdin().lock();
            if input.is_terminal() {
                bail!("an archive is expected on the standard input: use --input, or redirect");
            }
            archive::load(store, &mut input, platform)?
        }
    };
    store.settle()?;
    let mut out = io::stdout().lock();
    for (image, names) in images {
        if names.is_empty() {
            writeln!(out, "Loaded image ID: {}", image.id)?;
        }
        for name in names {
            writeln!(out, "Loaded image: {}", name.familiar())?;
        }
    }
    Ok(())
}
