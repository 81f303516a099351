//! What refers to an image: attached and listed, as oras does.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kiln_image::copy::End;
use kiln_image::manifest::Index;
use kiln_image::referrer::{self, Attached};

use super::{At, options, pair, print_place};
use crate::failure::print;
use crate::pull::runtime;
use crate::transfer::{COPY, Display, Stream};

/// What a file is, when nobody says.
const FILE_TYPE: &str = "application/octet-stream";

/// Attach files to an image: signatures, bills of materials, …
#[derive(Debug, clap::Args)]
pub(super) struct AttachArgs {
    #[command(flatten)]
    at: At,
    /// Files, each with or without its media type
    #[arg(value_name = "FILE[:TYPE]")]
    files: Vec<String>,
    /// What they are together: application/spdx+json, …
    #[arg(long, value_name = "TYPE")]
    artifact_type: String,
    /// An annotation of the artifact; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
}

/// List what refers to an image
#[derive(Debug, clap::Args)]
pub(super) struct ReferrersArgs {
    #[command(flatten)]
    at: At,
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// `json`: as the registry's list
    #[arg(long)]
    format: Option<String>,
}

pub(super) fn attach(args: &AttachArgs, root: &Path) -> Result<()> {
    let options = options(&args.at.access, root)?;
    let subject = End { location: &args.at.image, options: &options };
    let file = |text: &String| match text.split_once(':') {
        Some((path, kind)) if !kind.is_empty() => Attached { path: path.into(), media_type: kind.to_owned() },
        _ => Attached { path: text.into(), media_type: FILE_TYPE.to_owned() },
    };
    let files: Vec<Attached> = args.files.iter().map(file).collect();
    let annotations = args.annotation.iter().map(|text| pair(text)).collect::<Result<_>>()?;
    let (which, display) = (args.at.which(), Display::new(COPY, Stream::Stderr, false));
    let attaching = referrer::attach(&subject, &which, &args.artifact_type, &files, annotations, &display);
    let digest = runtime()?.block_on(attaching).with_context(|| format!("attach to {}", args.at.image))?;
    print_place(&args.at.image, &digest)
}

pub(super) fn list(args: &ReferrersArgs, root: &Path) -> Result<()> {
    let options = options(&args.at.access, root)?;
    let from = End { location: &args.at.image, options: &options };
    let which = args.at.which();
    let listing = referrer::referrers(&from, &which, args.artifact_type.as_deref());
    let found = runtime()?.block_on(listing).with_context(|| format!("list what refers to {}", args.at.image))?;
    let (_, found) = found;
    let mut text = String::new();
    match args.format.as_deref() {
        Some("json") => {
            let index = Index { manifests: found, ..Index::empty() };
            writeln!(text, "{}", serde_json::to_string_pretty(&index)?)?;
        }
        Some(other) => bail!("format {other:?}: there is json"),
        None => {
            for entry in &found {
                writeln!(text, "{}  {}", entry.digest, referrer::artifact_type(entry))?;
            }
        }
    }
    print(&text)
}
