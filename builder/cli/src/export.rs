//! `kiln export`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln_store::Store;

use crate::save::{BUFFER, save_file};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Write to this file instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name, id, or beginning of an id
    container: String,
}

/// Writes a container's files as a tar archive.
///
/// # Errors
/// There is no such container; the archive cannot be written.
pub(crate) fn run(args: &ExportArgs, store: &Store) -> Result<()> {
    let container = kiln_container::find(store, &args.container)?;
    let export = |out: &mut dyn Write| kiln_container::export(store, &container, out).map(drop);
    match &args.output {
        Some(path) => save_file(path, 0o600, export),
        None => {
            let out = io::stdout().lock();
            if out.is_terminal() {
                bail!("refusing to write an archive to a terminal: use --output, or redirect");
            }
            let mut out = io::BufWriter::with_capacity(BUFFER, out);
            export(&mut out)?;
            out.flush().context("write the archive")
        }
    }
}
