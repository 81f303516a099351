//! `kiln registry gc`, `scrub` and `import`: what a registry's owner does besides serving it.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use kiln_registry_server::{CollectionReport, Config, ImportReport, ScrubReport};
use serde::Serialize;

/// Remove what nothing leads to: blobs, manifests, abandoned uploads, and tags by the rules
///
/// A server that has the directory open does it, by its own rules, while it goes on serving; without one it is done
/// here. The server also does it by itself, every hour unless it is configured otherwise.
#[derive(Debug, Args)]
pub(super) struct CollectArguments {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    output: Output,
}

/// Read and hash every blob and manifest, and put aside what is damaged
///
/// A damaged blob is never served; its file goes to `quarantine` in the registry's directory. Pushing the blob again
/// heals it, in every repository. Exits with 1 when something is damaged.
#[derive(Debug, Args)]
pub(super) struct ScrubArguments {
    #[command(flatten)]
    output: Output,
}

/// Take over the data directory of a `distribution` registry (registry:2, registry:3)
///
/// Every manifest is copied with the blobs it refers to, and every tag; every digest is verified. DIR is only read.
/// No server may have either directory open. An interrupted import is simply run again. Exits with 1 when something
/// could not be taken over.
#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The root directory of its filesystem storage: the one with `docker/registry/v2`
    #[arg(value_name = "DIR")]
    source: PathBuf,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Output {
    /// Only print what matters to a script: nothing, or what is wrong
    #[arg(long, short)]
    quiet: bool,

    /// How the result is printed: `json`, or for people
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "text"], default_value = "text")]
    format: String,
}

impl Output {
    /// Prints a result as JSON, or by `text`.
    fn print<T: Serialize>(
        &self,
        result: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        let printed = match self.format.as_str() {
            "json" => serde_json::to_writer_pretty(&mut stdout, result)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(stdout)),
            _ if self.quiet => Ok(()),
            _ => text(&mut stdout),
        };
        printed.and_then(|()| stdout.flush()).context("write to standard output")
    }
}

/// `kiln registry gc`.
pub(super) async fn collect(arguments: CollectArguments, config: &Config) -> anyhow::Result<()> {
    let report = kiln_registry_server::collect(config, arguments.dry_run).await?;
    arguments.output.print(&report, |out| print_collection(&report, out))
}

fn print_collection(report: &CollectionReport, out: &mut dyn Write) -> io::Result<()> {
    for removed in &report.removed {
        let kind = removed.kind.name();
        match &removed.repository {
            Some(repository) => writeln!(out, "{kind:<9} {repository} {}", removed.name)?,
            None => writeln!(out, "{kind:<9} {}", removed.name)?,
        }
    }
    let CollectionReport { tags, manifests, blobs, uploads, files, bytes, .. } = report;
    let verb = if report.dry_run { "would remove" } else { "removed" };
    writeln!(
        out,
        "{verb} {tags} tags, {manifests} manifests, {blobs} blobs, {uploads} uploads, {files} lost files: {bytes} bytes"
    )
}

/// `kiln registry scrub`.
pub(super) async fn scrub(arguments: &ScrubArguments, config: &Config) -> anyhow::Result<()> {
    let report = kiln_registry_server::scrub(config).await?;
    arguments.output.print(&report, |out| {
        writeln!(out, "read {} blobs and {} manifests: {} bytes", report.blobs, report.manifests, report.bytes)
    })?;
    match report.is_clean() {
        true => Ok(()),
        false => bail!("{}", found(&report)),
    }
}

fn found(report: &ScrubReport) -> String {
    let mut lines = vec!["the registry is damaged; push these again to heal them".to_owned()];
    lines.extend(report.damaged.iter().map(|damage| {
        let repositories = damage.repositories.join(", ");
        format!("{} {}: {} ({repositories})", damage.kind, damage.digest, damage.reason)
    }));
    lines.extend(report.database.iter().map(|line| format!("database: {line}")));
    lines.join("\n  ")
}

/// `kiln registry import`.
pub(super) async fn import(arguments: &ImportArguments, config: &Config) -> anyhow::Result<()> {
    let report = kiln_registry_server::import(config, &arguments.source).await?;
    arguments.output.print(&report, |out| print_import(&report, out))?;
    match report.skipped.len() {
        0 => Ok(()),
        count => {
            let mut lines = vec![format!("{count} things could not be taken over")];
            lines.extend(report.skipped.iter().map(|skipped| format!("{}: {}", skipped.name, skipped.reason)));
            bail!("{}", lines.join("\n  "))
        }
    }
}

fn print_import(report: &ImportReport, out: &mut dyn Write) -> io::Result<()> {
    let ImportReport { repositories, manifests, tags, blobs, bytes, .. } = report;
    writeln!(out, "took over {repositories} repositories, {manifests} manifests, {tags} tags")?;
    writeln!(out, "copied {blobs} blobs: {bytes} bytes")
}
