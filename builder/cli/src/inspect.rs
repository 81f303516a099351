//! `kiln inspect`: everything that is known of an image.

mod remote;

use std::io::{self, Write};

use anyhow::{Result, bail};
use kiln_image::Image;
use kiln_image::copy::Location;
use kiln_image::inspect::inspect_json;
use kiln_store::Store;
use serde::Serialize;
use serde_json::Value;

use crate::template::Template;
use remote::RemoteArgs;

/// Show everything that is known of images
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The images: names, ids, beginnings of ids; or, where they are, without fetching them: docker://NAME,
    /// oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// `json`, or a Go template
    #[arg(short, long)]
    format: Option<String>,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Shows images as docker does; those that are missing are named when the others are shown.
///
/// # Errors
/// An image is missing, or the format is wrong.
pub(crate) fn run(args: &InspectArgs, store: &Store) -> Result<()> {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in &args.images {
        let described = if Location::is_explicit(name) {
            args.remote.describe(name)
        } else {
            let described = Image::find(store, name).and_then(|image| inspect_json(store, &image));
            described.map(Some).map_err(anyhow::Error::from)
        };
        match described {
            Ok(Some(described)) => found.push(described),
            Ok(None) => {}
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !found.is_empty() || !args.remote.prints_documents() {
        print(&found, args.format.as_deref())?;
    }
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
