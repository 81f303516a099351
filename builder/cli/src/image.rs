//! `kiln image …`: the commands about images under one roof, as docker has them too.

mod diff;
pub(crate) mod tree;

use anyhow::Result;
use clap::Subcommand;
use kiln_store::Store;

use crate::{history, images, import, inspect, load, pull, push, rmi, save, system, tag};

/// Everything about images
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Remove images, or names of images
    #[command(visible_alias = "remove")]
    Rm(rmi::RmiArgs),
    /// Show everything about images
    Inspect(inspect::InspectArgs),
    /// Show how an image was made
    History(history::HistoryArgs),
    /// Make an image from a root file system tar
    Import(import::ImportArgs),
    /// Write images to an archive that docker and OCI tools read
    Save(save::SaveArgs),
    /// Read images from an archive or an OCI layout
    Load(load::LoadArgs),
    /// Fetch an image from a registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(push::PushArgs),
    /// Show what an image's last layer changes, or what an image changes of another one
    Diff(diff::DiffArgs),
    /// Show the layers of an image, and which images end with them
    Tree(tree::TreeArgs),
    /// Remove the images that nothing needs
    Prune(system::ImagePruneArgs),
}

/// Does what the command of the same name does.
///
/// # Errors
/// That command's.
pub(crate) fn run(args: &ImageArgs, store: &Store) -> Result<()> {
    match &args.command {
        ImageCommand::Ls(args) => images::run(args, store),
        ImageCommand::Tag(args) => tag::run(args, store),
        ImageCommand::Rm(args) => rmi::run(args, store),
        ImageCommand::Inspect(args) => inspect::run(args, store),
        ImageCommand::History(args) => history::run(args, store),
        ImageCommand::Import(args) => import::run(args, store),
        ImageCommand::Save(args) => save::run(args, store),
        ImageCommand::Load(args) => load::run(args, store),
        ImageCommand::Pull(args) => pull::run(args, store),
        ImageCommand::Push(args) => push::run(args, store),
        ImageCommand::Diff(args) => diff::run(args, store),
        ImageCommand::Tree(args) => tree::run(args, store),
        ImageCommand::Prune(args) => system::prune_images(args, store),
    }
}
