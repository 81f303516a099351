//! `kiln manifest …`: indexes, made of images that are here or at a registry.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use kiln_image::copy::{End, Location, Which};
use kiln_image::index::{self, StoredIndex};
use kiln_image::manifest::{Descriptor, Index};
use kiln_image::remote::{self, Seen, View};
use kiln_image::{Platform, Reference, registry};
use kiln_store::{Digest, Store};
use serde_json::{Value, json};

use crate::failure::print;
use crate::pull::runtime;
use crate::registry_access::AccessArgs;
use crate::transfer::{Display, PUSH, Stream};

/// Make, look at and push indexes: one name for images of several platforms
#[derive(Debug, clap::Args)]
pub(crate) struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

#[derive(Debug, Subcommand)]
enum ManifestCommand {
    /// Make an index of images
    Create(CreateArgs),
    /// Add an image to an index
    Add(AddArgs),
    /// Say more of an image in an index
    Annotate(AddArgs),
    /// Take an image out of an index
    Remove(RemoveArgs),
    /// Show an index, or the manifest of an image, here or at a registry
    Inspect(InspectArgs),
    /// Tell by the exit code whether there is such an index
    Exists(NameArgs),
    /// Send an index and its images to a registry
    Push(PushArgs),
    /// Forget indexes
    Rm(RmArgs),
}

/// Make an index of images
///
/// The images are those of the store, and else the registry's; the name of an index stands for all its images.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The index's name
    list: Reference,
    /// The images
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Add to an index that is there already
    #[arg(short, long)]
    amend: bool,
    /// A key and value of the index
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// How the registry is reached.
#[derive(Debug, clap::Args)]
struct RegistryArgs {
    /// docker's word for --tls-verify=false
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    access: AccessArgs,
}

impl RegistryArgs {
    fn options(&self) -> Result<registry::Options> {
        let options = self.access.options()?;
        Ok(registry::Options { insecure: options.insecure || self.insecure, ..options })
    }
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The index
    list: Reference,
    /// The image: a name, or the digest of its manifest
    #[arg(value_name = "IMAGE")]
    image: String,
    /// What it runs on: linux, …
    #[arg(long)]
    os: Option<String>,
    /// amd64, arm64, …
    #[arg(long)]
    arch: Option<String>,
    /// v7, v8, …
    #[arg(long)]
    variant: Option<String>,
    /// A key and value of the image in the index
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The index
    list: Reference,
    /// The digest of the image's manifest
    digest: Digest,
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// The index
    list: Reference,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// The index or image; docker's second argument is the image
    #[arg(required = true, num_args = 1..=2, value_name = "[LIST] NAME")]
    names: Vec<String>,
    /// Show the platforms' manifests too
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, clap::Args)]
struct PushArgs {
    /// The index
    list: Reference,
    /// Its name at the registry, if another; with or without docker://
    destination: Option<String>,
    /// Forget the index when it is pushed
    #[arg(short, long, alias = "rm")]
    purge: bool,
    /// Accepted for podman's sake: all images are pushed
    #[arg(long, hide = true)]
    all: bool,
    /// Only print the digest
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, clap::Args)]
struct RmArgs {
    /// The indexes
    #[arg(required = true)]
    lists: Vec<Reference>,
}

/// Runs the command.
///
/// # Errors
/// There is no such index or image, or the registry does not give or take it.
pub(crate) fn run(args: &ManifestArgs, store: &Store) -> Result<()> {
    match &args.command {
        ManifestCommand::Create(args) => create(args, store),
        ManifestCommand::Add(args) => add(args, store),
        ManifestCommand::Annotate(args) => annotate(args, store),
        ManifestCommand::Remove(args) => remove(args, store),
        ManifestCommand::Inspect(args) => inspect(args, store),
        ManifestCommand::Exists(args) => find(store, &args.list).map(drop),
        ManifestCommand::Push(args) => push(args, store),
        ManifestCommand::Rm(args) => args.lists.iter().try_for_each(|list| {
            find(store, list)?.remove(store)?;
            Ok(())
        }),
    }
}

fn find(store: &Store, name: &Reference) -> Result<StoredIndex> {
    StoredIndex::open(store, name)?.with_context(|| format!("no such manifest: {}", name.familiar()))
}

fn create(args: &CreateArgs, store: &Store) -> Result<()> {
    let known = StoredIndex::open(store, &args.list)?;
    let mut index = match known {
        Some(known) if args.amend => known.index,
        Some(_) => bail!("refusing to amend an existing manifest list with no --amend flag"),
        None if store.reference(&args.list.tagged_name())?.is_some() => {
            bail!("{} is an image", args.list.familiar())
        }
        None => Index::empty(),
    };
    for name in &args.images {
        for entry in members(store, name, &args.registry)? {
            insert(&mut index, entry);
        }
    }
    for text in &args.annotation {
        let (key, value) = pair(text)?;
        index.annotations.insert(key, value);
    }
    StoredIndex::put(store, &args.list, index)?;
    Ok(writeln!(io::stdout(), "Created manifest list {}", args.list)?)
}

fn members(store: &Store, name: &str, registry: &RegistryArgs) -> Result<Vec<Descriptor>> {
    let name = name.strip_prefix("docker://").or(name.strip_prefix("containers-storage:")).unwrap_or(name);
    let reference = Reference::parse(name)?;
    let found = runtime()?.block_on(index::members(store, &reference, &registry.options()?));
    found.with_context(|| format!("find {}", reference.familiar()))
}

/// Adds an entry, or puts it in the place of the same one.
fn insert(index: &mut Index, entry: Descriptor) {
    match index.manifests.iter_mut().find(|known| known.digest == entry.digest) {
        Some(known) => *known = entry,
        None => index.manifests.push(entry),
    }
}

fn add(args: &AddArgs, store: &Store) -> Result<()> {
    let mut index = find(store, &args.list)?.index;
    let mut added = members(store, &args.image, &args.registry)?;
    if let [only] = added.as_mut_slice() {
        args.change(only)?;
    }
    for entry in added {
        insert(&mut index, entry);
    }
    let index = StoredIndex::put(store, &args.list, index)?;
    Ok(writeln!(io::stdout(), "{}", index.digest)?)
}

fn annotate(args: &AddArgs, store: &Store) -> Result<()> {
    let mut index = find(store, &args.list)?.index;
    let digest = match args.image.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => match members(store, &args.image, &args.registry)?.as_slice() {
            [only] => only.digest,
            _ => bail!("{} is an index: name one of its images by digest", args.image),
        },
    };
    let entry = index.manifests.iter_mut().find(|entry| entry.digest == digest);
    let entry = entry.with_context(|| format!("{} is not in {}", args.image, args.list.familiar()))?;
    args.change(entry)?;
    StoredIndex::put(store, &args.list, index)?;
    Ok(())
}

impl AddArgs {
    fn change(&self, entry: &mut Descriptor) -> Result<()> {
        if self.os.is_some() || self.arch.is_some() || self.variant.is_some() {
            let known = entry.platform.clone().unwrap_or_else(Platform::host);
            let variant = self.variant.as_deref().or(known.variant.as_deref());
            let arch = self.arch.as_deref().unwrap_or(&known.architecture);
            entry.platform = Some(Platform::new(self.os.as_deref().unwrap_or(&known.os), arch, variant));
        }
        for text in &self.annotation {
            let (key, value) = pair(text)?;
            entry.annotations.insert(key, value);
        }
        Ok(())
    }
}

fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("annotation {text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn remove(args: &RemoveArgs, store: &Store) -> Result<()> {
    let mut index = find(store, &args.list)?.index;
    let before = index.manifests.len();
    index.manifests.retain(|entry| entry.digest != args.digest);
    if index.manifests.len() == before {
        bail!("{} is not in {}", args.digest, args.list.familiar());
    }
    let index = StoredIndex::put(store, &args.list, index)?;
    Ok(writeln!(io::stdout(), "{}", index.digest)?)
}

fn inspect(args: &InspectArgs, store: &Store) -> Result<()> {
    let Some(name) = args.names.last() else { bail!("which?") };
    let name = name.strip_prefix("docker://").unwrap_or(name);
    let reference = Reference::parse(name)?;
    let options = args.registry.options()?;
    let document = match StoredIndex::open(store, &reference)? {
        Some(index) => serde_json::from_slice(&index.bytes)?,
        None => remote_document(&reference, &options)?,
    };
    let shown = if args.verbose { verbose(&reference, &document, &options)? } else { document };
    print(&format!("{}\n", serde_json::to_string_pretty(&shown)?))
}

fn remote_document(reference: &Reference, options: &registry::Options) -> Result<Value> {
    let location = Location::Registry(reference.clone());
    let from = End { location: &location, options };
    let seen = runtime()?.block_on(remote::inspect(&from, &Which::All, View::Manifest));
    match seen.with_context(|| format!("inspect {}", reference.familiar()))? {
        Seen::Described(value) => Ok(value),
        Seen::Bytes(bytes) => Ok(serde_json::from_slice(&bytes)?),
    }
}

/// The index with the manifests of its images, where the registry has them.
fn verbose(reference: &Reference, document: &Value, options: &registry::Options) -> Result<Value> {
    let Some(entries) = document.get("manifests").and_then(Value::as_array) else {
        return Ok(json!({"Ref": reference.to_string(), "SchemaV2Manifest": document}));
    };
    let described = entries.iter().map(|entry| {
        let digest: Digest = entry.get("digest").and_then(Value::as_str).unwrap_or_default().parse()?;
        let member = reference.with_digest(digest);
        let manifest = remote_document(&member, options)?;
        Ok(json!({"Ref": member.to_string(), "Descriptor": entry, "SchemaV2Manifest": manifest}))
    });
    Ok(Value::Array(described.collect::<Result<_>>()?))
}

fn push(args: &PushArgs, store: &Store) -> Result<()> {
    let index = find(store, &args.list)?;
    let to = match &args.destination {
        Some(name) => Reference::parse(name.strip_prefix("docker://").unwrap_or(name))?,
        None => args.list.clone(),
    };
    let display = Display::new(PUSH, Stream::Stdout, args.quiet);
    let options = args.registry.options()?;
    let pushed = runtime()?.block_on(registry::push_index(store, &index, &to, &options, &display));
    let digest = pushed.with_context(|| format!("push {}", to.familiar()))?;
    if args.purge {
        index.remove(store)?;
    }
    Ok(writeln!(io::stdout(), "{digest}")?)
}
