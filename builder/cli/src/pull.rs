//! `kiln pull`: an image from a registry.

use std::io::{self, Write};

use anyhow::{Context, Result};
use kiln_image::registry::{self, Options};
use kiln_image::{Image, Platform, Reference};
use kiln_store::Store;

use crate::transfer::{Display, PULL, Stream};

/// Download an image from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The image; without tag and digest, its tag is `latest`
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
    /// What it is to run on, if not on machines like this: os[/architecture[/variant]]
    #[arg(long)]
    platform: Option<Platform>,
    /// Only print the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

/// How much a registry is trusted.
#[derive(Debug, clap::Args)]
pub(crate) struct TlsArgs {
    /// Require HTTPS with a valid certificate; `--tls-verify=false` takes any, and plain HTTP (registries on loopback
    /// always may)
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    tls_verify: bool,
}

impl TlsArgs {
    pub(crate) fn options(&self) -> Options {
        Options { insecure: !self.tls_verify }
    }
}

/// Pulls.
///
/// # Errors
/// The image cannot be had, or is not what its digests say.
pub(crate) fn run(args: &PullArgs, store: &Store) -> Result<()> {
    let reference = Reference::parse(&args.name)?;
    let tag = reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), ToString::to_string);
    let mut out = io::stdout();
    if !args.quiet {
        if reference.digest().is_none() && !args.name.ends_with(&format!(":{tag}")) {
            writeln!(out, "Using default tag: {tag}")?;
        }
        writeln!(out, "{tag}: Pulling from {}", reference.repository())?;
    }
    let before = Image::by_reference(store, &reference)?.map(|image| image.id);
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let display = Display::new(PULL, Stream::Stdout, args.quiet);
    let runtime = runtime()?;
    let options = args.tls.options();
    let pulled = registry::pull_with_digest(store, &reference, &platform, &options, &display);
    let pulled = runtime.block_on(pulled).with_context(|| format!("pull {}", reference.familiar()))?;
    if !args.quiet {
        let news = if before == Some(pulled.image.id) { "Image is up to date" } else { "Downloaded newer image" };
        writeln!(out, "Digest: {}\nStatus: {news} for {}", pulled.digest, reference.familiar())?;
    }
    writeln!(out, "{reference}")?;
    Ok(())
}

/// What transfers run on: they wait for the network in one thread, and unpack in others.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}
