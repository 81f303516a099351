//! `kiln tags`: what a repository has.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use kiln_image::{Reference, remote};

use crate::failure::print;
use crate::pull::runtime;
use crate::registry_access::AccessArgs;

/// List the tags of a repository at its registry
#[derive(Debug, clap::Args)]
pub(crate) struct TagsArgs {
    /// The repository, with or without docker://
    #[arg(value_name = "REPOSITORY")]
    repository: String,
    /// `json`: as skopeo's list-tags
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Lists tags, one a line.
///
/// # Errors
/// There is no such repository, or it may not be read.
pub(crate) fn run(args: &TagsArgs) -> Result<()> {
    let name = args.repository.strip_prefix("docker://").unwrap_or(&args.repository);
    let reference = Reference::parse(name)?;
    if reference.digest().is_some() || name.ends_with(&format!(":{}", reference.tag().unwrap_or_default())) {
        bail!("{name}: a repository, without tag and digest, is expected");
    }
    let options = args.access.options()?;
    let tags = runtime()?.block_on(remote::tags(&reference, &options));
    let tags = tags.with_context(|| format!("list the tags of {}", reference.familiar_name()))?;
    let mut text = String::new();
    match args.format.as_deref() {
        None => tags.iter().try_for_each(|tag| writeln!(text, "{tag}"))?,
        Some("json") => {
            let listed = serde_json::json!({"Repository": reference.name(), "Tags": tags});
            writeln!(text, "{}", serde_json::to_string_pretty(&listed)?)?;
        }
        Some(other) => bail!("format {other:?}: there is json"),
    }
    print(&text)
}
