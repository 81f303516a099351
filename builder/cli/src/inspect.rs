//! `kiln inspect`: everything that is known of an image.

use std::io::{self, Write};

use anyhow::{Result, bail};
use kiln_image::Image;
use kiln_image::inspect::inspect_json;
use kiln_store::Store;
use serde::Serialize;
use serde_json::Value;

use crate::template::Template;

/// Show everything that is known of images
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The images: names, ids, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// `json`, or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// Shows images as docker does; those that are missing are named when the others are shown.
///
/// # Errors
/// An image is missing, or the format is wrong.
pub(crate) fn run(args: &InspectArgs, store: &Store) -> Result<()> {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in &args.images {
        match Image::find(store, name).and_then(|image| inspect_json(store, &image)) {
            Ok(described) => found.push(described),
            Err(error) => failures.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    print(&found, args.format.as_deref())?;
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// Prints descriptions: an array, or a template for each.
pub(crate) fn print(found: &[Value], format: Option<&str>) -> Result<()> {
    let mut out = io::stdout().lock();
    match format {
        None | Some("") => {
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut bytes = Vec::new();
            found.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indent))?;
            out.write_all(&bytes)?;
            writeln!(out)?;
        }
        Some("json") => {
            for described in found {
                writeln!(out, "{}", serde_json::to_string(described)?)?;
            }
        }
        Some(format) => {
            let template = Template::parse(format)?;
            for described in found {
                writeln!(out, "{}", template.render(described)?)?;
            }
        }
    }
    Ok(())
}
