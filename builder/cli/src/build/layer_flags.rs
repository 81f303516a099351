//! Flags that say what becomes of layers, history and stages.

use kiln_build::request::{Layering, Squash};

/// The label that says what made an image.
const IDENTITY: &str = "io.kiln.version";

/// The flags.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Layers")]
pub(super) struct LayerArgs {
    /// Make one layer of all that the build makes
    #[arg(long)]
    squash: bool,
    /// Make one layer of everything, the base image's layers too
    #[arg(long, conflicts_with = "squash")]
    squash_all: bool,
    /// Keep the layer of each step; `--layers=false` is --squash
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    layers: bool,
    /// Let the image not tell how it was made
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    omit_history: bool,
    /// Keep the stages that were built as images without names
    #[arg(long)]
    save_stages: bool,
    /// Give the image the label io.kiln.version
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    identity_label: bool,
}

impl LayerArgs {
    pub(super) fn layering(&self) -> Layering {
        let squash = match (self.squash_all, self.squash || !self.layers) {
            (true, _) => Squash::All,
            (false, true) => Squash::New,
            (false, false) => Squash::Nothing,
        };
        Layering { squash, omit_history: self.omit_history, save_stages: self.save_stages }
    }

    /// The label of --identity-label.
    pub(super) fn identity(&self) -> Option<(String, String)> {
        self.identity_label.then(|| (IDENTITY.to_owned(), env!("CARGO_PKG_VERSION").to_owned()))
    }
}
