//! `kiln image diff`: what an image changes of another one.

use anyhow::{Result, bail};
use kiln_image::{Image, difference};
use kiln_store::Store;
use serde_json::json;

use crate::failure::print;

/// Show what an image's last layer changes, or what an image changes of another one
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The image
    image: String,
    /// The one that it is compared with
    base: Option<String>,
    /// `json`: lists of what was added, changed and deleted
    #[arg(long)]
    format: Option<String>,
}

/// Shows the changes, as docker's `diff` of a container does.
///
/// # Errors
/// There is no such image.
pub(crate) fn run(args: &DiffArgs, store: &Store) -> Result<()> {
    let image = Image::find(store, &args.image)?;
    let base = args.base.as_ref().map(|name| Image::find(store, name)).transpose()?;
    let changes = difference::between(store, &image, base.as_ref())?;
    match args.format.as_deref() {
        None => {
            print(&changes.iter().map(|at| format!("{} {}\n", at.kind.letter(), at.path.display())).collect::<String>())
        }
        Some("json") => {
            let mut lists = serde_json::Map::new();
            for (name, letter) in [("added", 'A'), ("changed", 'C'), ("deleted", 'D')] {
                let of_kind = changes.iter().filter(|at| at.kind.letter() == letter);
                let paths: Vec<_> = of_kind.map(|at| &at.path).collect();
                if !paths.is_empty() {
                    lists.insert(name.to_owned(), json!(paths));
                }
            }
            print(&(serde_json::to_string_pretty(&lists)? + "\n"))
        }
        Some(other) => bail!("format {other:?}: there is json"),
    }
}
