//! Looking at an image where it is: in a registry, a layout or an archive.

use anyhow::{Context, Result};
use kiln_image::Platform;
use kiln_image::copy::{End, Location, Which};
use kiln_image::remote::{self, Seen, View};
use serde_json::Value;

use crate::failure::print;
use crate::pull::runtime;
use crate::registry_access::AccessArgs;

/// What is looked at, and how the registry is reached.
#[derive(Debug, clap::Args)]
pub(super) struct RemoteArgs {
    /// Of an image elsewhere: print its manifest, or the index, byte for byte
    #[arg(long)]
    raw: bool,
    /// Of an image elsewhere: print its config, byte for byte
    #[arg(long, conflicts_with = "raw")]
    config: bool,
    /// Of an index, here or elsewhere: the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(super) platform: Option<Platform>,
    #[command(flatten)]
    access: AccessArgs,
}

impl RemoteArgs {
    /// Whether documents are printed as they are.
    pub(super) fn prints_documents(&self) -> bool {
        self.raw || self.config
    }

    /// The description; `None` when a document was printed instead.
    pub(super) fn describe(&self, place: &str) -> Result<Option<Value>> {
        let location = Location::parse(place)?;
        let view = match (self.raw, self.config) {
            (true, _) => View::Manifest,
            (_, true) => View::Config,
            _ => View::Described,
        };
        let options = self.access.options()?;
        let from = End { location: &location, options: &options };
        let which = Which::Platform(self.platform.clone().unwrap_or_else(Platform::host));
        let seen = runtime()?.block_on(remote::inspect(&from, &which, view));
        match seen.with_context(|| format!("inspect {place}"))? {
            Seen::Described(described) => Ok(Some(described)),
            Seen::Bytes(bytes) => {
                print(&String::from_utf8_lossy(&bytes))?;
                Ok(None)
            }
        }
    }
}
