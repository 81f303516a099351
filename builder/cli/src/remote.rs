//! `kiln remote`: crane's and oras' commands. Images are looked at and changed where they are, and nothing is pulled.

mod auth;
mod edit;
mod read;
mod referrer;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Subcommand;
use kiln_image::copy::{Location, Which};
use kiln_image::registry::Options;
use kiln_image::{Platform, Reference};
use kiln_store::{Digest, Store};

use crate::failure::print;
use crate::registry_access::AccessArgs;
use crate::tags;

/// Look at images, and change them, where they are: digest, blob, mutate, rebase, attach, …
///
/// The commands are crane's, and so are names: NAME alone is a registry's. docker://NAME, oci:DIRECTORY[:NAME],
/// oci-archive:FILE, docker-archive:FILE and dir:DIRECTORY are understood as well.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoteArgs {
    #[command(subcommand)]
    command: RemoteCommand,
}

#[derive(Debug, Subcommand)]
enum RemoteCommand {
    /// Print the digest of an image's manifest, or of the index
    Digest(At),
    /// Print the manifest of an image, or the index, byte for byte
    Manifest(At),
    /// Print the config of an image, byte for byte
    Config(At),
    /// Write a blob to the standard output
    Blob(read::BlobArgs),
    /// List the tags of a repository
    Ls(tags::TagsArgs),
    /// List the repositories of a registry
    Catalog(read::CatalogArgs),
    /// Read everything of an image, and of all images of an index, and verify it
    Validate(At),
    /// Give an image at a registry another tag
    Tag(edit::TagArgs),
    /// Delete a tag, or a manifest by its digest
    Delete(At),
    /// Put layers on an image, or make an image of them
    Append(edit::AppendArgs),
    /// Change an image's config and annotations
    Mutate(edit::MutateArgs),
    /// Put an image on another base
    Rebase(edit::RebaseArgs),
    /// Make one layer of all of an image's
    Flatten(edit::FlattenArgs),
    /// Change indexes: append, filter
    Index(edit::IndexArgs),
    /// Print credentials and tokens: get, token
    Auth(auth::AuthArgs),
    /// Attach files to an image: signatures, bills of materials, …
    Attach(referrer::AttachArgs),
    /// List what refers to an image
    #[command(visible_alias = "discover")]
    Referrers(referrer::ReferrersArgs),
}

/// An image, and how its registry is reached.
#[derive(Debug, clap::Args)]
struct At {
    /// The image
    #[arg(value_name = "IMAGE", value_parser = place)]
    image: Location,
    /// Of an index: the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    access: AccessArgs,
}

impl At {
    /// One image, or the index.
    fn which(&self) -> Which {
        self.platform.clone().map_or(Which::All, Which::Platform)
    }
}

/// A place; a name alone is a registry's.
fn place(text: &str) -> Result<Location, kiln_image::Error> {
    if Location::is_explicit(text) { Location::parse(text) } else { Reference::parse(text).map(Location::Registry) }
}

/// What a registry's options are in these commands.
fn options(access: &AccessArgs, root: &Path) -> Result<Options> {
    Ok(access.options()?.remembering(root))
}

/// Runs the command. The store is opened only where layers are unpacked.
///
/// # Errors
/// The image is not there, cannot be read, or is not taken.
pub(crate) fn run(args: &RemoteArgs, root: &Path, open: impl FnOnce() -> Result<Store>) -> Result<()> {
    match &args.command {
        RemoteCommand::Digest(at) => read::digest(at, root),
        RemoteCommand::Manifest(at) => read::manifest(at, root),
        RemoteCommand::Config(at) => read::config(at, root),
        RemoteCommand::Blob(args) => read::blob(args, root),
        RemoteCommand::Ls(args) => tags::run(args),
        RemoteCommand::Catalog(args) => read::catalog(args, root),
        RemoteCommand::Validate(at) => read::validate(at, root),
        RemoteCommand::Tag(args) => edit::tag(args, root),
        RemoteCommand::Delete(at) => edit::delete(at, root),
        RemoteCommand::Append(args) => edit::append(args, root),
        RemoteCommand::Mutate(args) => edit::mutate(args, root),
        RemoteCommand::Rebase(args) => edit::rebase(args, root),
        RemoteCommand::Flatten(args) => edit::flatten(args, &open()?),
        RemoteCommand::Index(args) => edit::index(args, root),
        RemoteCommand::Auth(args) => auth::run(args),
        RemoteCommand::Attach(args) => referrer::attach(args, root),
        RemoteCommand::Referrers(args) => referrer::list(args, root),
    }
}

/// Prints where a copy is: by its digest, as crane does.
fn print_place(to: &Location, digest: &Digest) -> Result<()> {
    match to {
        Location::Registry(reference) => print(&format!("{}@{digest}\n", reference.name())),
        _ => print(&format!("{digest}\n")),
    }
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}
