//! `kiln image tree`: an image's layers, and which names they are the last layer of. `kiln images --tree`: which
//! platforms names stand for.

use std::fmt::Write;

use anyhow::Result;
use kiln_image::index::StoredIndex;
use kiln_image::{Image, Reference, listing};
use kiln_store::{Digest, Store};

use crate::failure::print;
use crate::images::shown_id;
use crate::size;

/// Show the layers of an image, and which images end with them
#[derive(Debug, clap::Args)]
pub(crate) struct TreeArgs {
    /// The image: a name, an id, or the beginning of an id
    image: String,
}

/// Shows the layers, lowest first.
///
/// # Errors
/// There is no such image.
pub(crate) fn run(args: &TreeArgs, store: &Store) -> Result<()> {
    let image = Image::find(store, &args.image)?;
    let mut named: Vec<(Digest, String)> = Vec::new();
    for (name, id) in store.references()? {
        let Ok(name) = Reference::parse(&name) else { continue };
        if name.tag().is_some() && store.image(&id)?.is_some() {
            named.push((id, name.familiar()));
        }
    }
    let of = |id: Digest| named.iter().filter(move |(known, _)| *known == id).map(|(_, name)| name.as_str());
    let mut text = format!("Image ID: {}\n", shown_id(&image.id, false));
    writeln!(text, "Tags:     [{}]", of(image.id).collect::<Vec<_>>().join(" "))?;
    writeln!(text, "Size:     {}", size::human(listing::size(store, &image)?))?;
    if image.layers.is_empty() {
        text.push_str("No Image Layers\n");
        return print(&text);
    }
    text.push_str("Image Layers\n");
    let others = store.images()?;
    for (at, layer) in image.layers.iter().enumerate() {
        let branch = if at + 1 == image.layers.len() { "└──" } else { "├──" };
        let bytes = store.layer(layer)?.map_or(0, |layer| layer.tar_size);
        write!(text, "{branch} ID: {} Size: {}", shown_id(layer, false), size::human(bytes))?;
        let stack = &image.layers[..=at];
        let ending = others.iter().filter(|other| other.layers == stack).flat_map(|other| of(other.id));
        let ending: Vec<&str> = ending.collect();
        if !ending.is_empty() {
            write!(text, " Top Layer of: [{}]", ending.join(" "))?;
        }
        text.push('\n');
    }
    print(&text)
}

/// The rows of `images --tree`: each name, and below it the platforms that it stands for.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn platforms(store: &Store, is_shown: impl Fn(&Reference) -> bool) -> Result<()> {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for (name, id) in store.references()? {
        let Ok(name) = Reference::parse(&name) else { continue };
        if name.tag().is_none() || !is_shown(&name) {
            continue;
        }
        let Some(index) = StoredIndex::open(store, &name)? else {
            if let Some(image) = Image::open(store, &id)? {
                rows.push(row(store, name.familiar(), &image)?);
            }
            continue;
        };
        let start = rows.len();
        let mut total = (0, 0);
        rows.push([name.familiar(), shown_id(&index.digest, false), String::new(), String::new()]);
        let members: Vec<_> = index.index.images().collect();
        for (at, entry) in members.iter().enumerate() {
            let branch = if at + 1 == members.len() { "└─" } else { "├─" };
            let platform = entry.platform.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
            let record = store.image_by_manifest(&entry.digest)?;
            let image = record.map(|record| Image::open(store, &record.id)).transpose()?.flatten();
            let (unpacked, content) = match &image {
                Some(image) => (listing::size(store, image)?, listing::content_size(store, image)?),
                None => (0, 0),
            };
            total = (total.0 + unpacked, total.1 + content);
            let id = shown_id(&entry.digest, false);
            rows.push([format!("{branch} {platform}"), id, size::human(unpacked), size::human(content)]);
        }
        rows[start][2] = size::human(total.0);
        rows[start][3] = size::human(total.1);
    }
    let headings = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE"].map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&headings]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let mut text = String::new();
    for [name, id, unpacked, content] in [&headings].into_iter().chain(&rows) {
        let [names, ids, wide, last] = [width(0), width(1), width(2), width(3)];
        writeln!(text, "{name:<names$}   {id:<ids$}   {unpacked:>wide$}   {content:>last$}")?;
    }
    print(&text)
}

fn row(store: &Store, name: String, image: &Image) -> Result<[String; 4]> {
    let (unpacked, content) = (listing::size(store, image)?, listing::content_size(store, image)?);
    Ok([name, shown_id(&image.id, false), size::human(unpacked), size::human(content)])
}
