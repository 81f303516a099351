//! `kiln pull`: images from a registry.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use kiln_image::copy::ManifestType;
use kiln_image::registry::{self, Options};
use kiln_image::{Image, Platform, Reference, remote};
use kiln_store::{Digest, Store};

use crate::failure::tell;
use crate::registry_access::AccessArgs;
use crate::transfer::{Display, PULL, Stream};

/// Download images from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The images; without tag and digest, their tag is `latest`
    #[arg(value_name = "NAME[:TAG|@DIGEST]", required = true)]
    names: Vec<String>,
    /// Every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// What it is to run on, if not on machines like this: os[/architecture[/variant]]
    #[arg(long)]
    platform: Option<Platform>,
    /// The images for all platforms, and the index that names them
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Only print the image's name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    access: AccessArgs,
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
        Options { insecure: !self.tls_verify, ..Options::default() }
    }
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compressed {
    /// What everything reads
    Gzip,
    /// Smaller and faster; docker reads it since version 23
    Zstd,
    /// Not at all
    None,
}

/// Whose media types manifests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// OCI's
    Oci,
    /// docker's, schema 2: without annotations, and layers without zstd
    #[value(alias = "docker")]
    V2s2,
}

impl From<Format> for ManifestType {
    fn from(format: Format) -> Self {
        match format {
            Format::Oci => Self::Oci,
            Format::V2s2 => Self::Docker,
        }
    }
}

/// Pulls.
///
/// # Errors
/// An image cannot be had, or is not what its digests say.
pub(crate) fn run(args: &PullArgs, store: &Store) -> Result<()> {
    let runtime = runtime()?;
    let pulling = Pulling { args, store, runtime: &runtime, options: args.access.options()? };
    for name in &args.names {
        let name = name.strip_prefix("docker://").unwrap_or(name);
        let reference = Reference::parse(name)?;
        if args.all_tags {
            pulling.all_tags(name, &reference)?;
        } else {
            pulling.one(name, &reference)?;
        }
    }
    Ok(())
}

struct Pulling<'a> {
    args: &'a PullArgs,
    store: &'a Store,
    runtime: &'a tokio::runtime::Runtime,
    options: Options,
}

impl Pulling<'_> {
    fn all_tags(&self, name: &str, reference: &Reference) -> Result<()> {
        if reference.digest().is_some() || name.ends_with(&format!(":{}", reference.tag().unwrap_or_default())) {
            bail!("tag can't be used with --all-tags/-a");
        }
        let tags = self.runtime.block_on(remote::tags(reference, &self.options));
        let tags = tags.with_context(|| format!("list the tags of {}", reference.familiar_name()))?;
        let mut news = false;
        for tag in tags {
            news |= self.fetch(&Reference::parse(&format!("{}:{tag}", reference.name()))?)?.1;
        }
        self.status(news, &reference.familiar_name())?;
        Ok(writeln!(io::stdout(), "{}", reference.name())?)
    }

    fn one(&self, name: &str, reference: &Reference) -> Result<()> {
        let tag = reference.tag().unwrap_or_default();
        if !self.args.quiet && reference.digest().is_none() && !name.ends_with(&format!(":{tag}")) {
            writeln!(io::stdout(), "Using default tag: {tag}")?;
        }
        let (_, news) = self.fetch(reference)?;
        self.status(news, &reference.familiar())?;
        Ok(writeln!(io::stdout(), "{reference}")?)
    }

    /// Pulls one reference; returns its digest, and whether something new came.
    fn fetch(&self, reference: &Reference) -> Result<(Digest, bool)> {
        let tag =
            reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), ToString::to_string);
        if !self.args.quiet {
            writeln!(io::stdout(), "{tag}: Pulling from {}", reference.repository())?;
        }
        let before = Image::by_reference(self.store, reference)?.map(|image| image.id);
        let display = Display::new(PULL, Stream::Stdout, self.args.quiet);
        let pulled = if self.args.all_platforms {
            {
                let names = std::slice::from_ref(reference);
                let pulling = registry::pull_all_platforms(self.store, reference, names, &self.options, &display);
                self.runtime.block_on(pulling)
            }
        } else {
            let platform = self.args.platform.clone().unwrap_or_else(Platform::host);
            let pulling = registry::pull_with_digest(self.store, reference, &platform, &self.options, &display);
            self.runtime.block_on(pulling).map(|pulled| {
                warn_of_platform(&platform, &pulled.image.platform());
                (Some(pulled.image.id), pulled.digest)
            })
        };
        let (image, digest) = pulled.with_context(|| format!("pull {}", reference.familiar()))?;
        if !self.args.quiet {
            writeln!(io::stdout(), "Digest: {digest}")?;
        }
        Ok((digest, image.is_none() || image != before))
    }

    fn status(&self, news: bool, name: &str) -> Result<()> {
        if self.args.quiet {
            return Ok(());
        }
        let news = if news { "Downloaded newer image" } else { "Image is up to date" };
        Ok(writeln!(io::stdout(), "Status: {news} for {name}")?)
    }
}

/// A name that is one image means that image, whatever it was made for.
fn warn_of_platform(wanted: &Platform, found: &Platform) {
    if !wanted.accepts(found) {
        let text = "does not match the expected platform";
        tell(&format!("WARNING: image platform ({found}) {text} ({wanted})\n"));
    }
}

/// What transfers run on: they wait for the network in one thread, and unpack in others.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}
