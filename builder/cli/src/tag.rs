//! `kiln tag`: another name for an image.

use anyhow::{Result, bail};
use kiln_image::index::StoredIndex;
use kiln_image::{Image, Reference};
use kiln_store::Store;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// The image: a name, an id, or the beginning of an id
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// The new name; its tag is `latest` if it has none
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: Reference,
}

/// Names an image.
///
/// # Errors
/// There is no such image.
pub(crate) fn run(args: &TagArgs, store: &Store) -> Result<()> {
    if args.target.digest().is_some() {
        bail!("refusing to create a tag with a digest: {}", args.target);
    }
    let index = match Reference::parse(&args.source) {
        Ok(source) => StoredIndex::open(store, &source)?,
        Err(_) => None,
    };
    let named = match index {
        Some(index) => index.digest,
        None => Image::find(store, &args.source)?.id,
    };
    store.set_reference(&args.target.tagged_name(), &named)?;
    Ok(())
}
