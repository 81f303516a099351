//! The root directory: `blobs/ layers/ containers/ cache/ volumes/ tmp/ metadata.db lock`.

use std::path::{Path, PathBuf};

use crate::{Blobs, Result};

/// An open store. Holds the shared lock for as long as it lives; `Sync`, so threads share one.
pub struct Store {}

/// Which namespace overlay reads its attributes from, and whether ids can be given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Real root: `trusted.overlay.*`.
    Root,
    /// Root of a user namespace with a range of ids: `user.overlay.*`.
    Mapped,
    /// Root of a user namespace with one id: `user.overlay.*`, ownership is not kept.
    Single,
}

impl Store {
    /// Opens the store, creating it when it is not there, and clears what dead processes left in `tmp/`.
    pub fn open(root: &Path, privilege: Privilege) -> Result<Self> {
        let _ = (root, privilege);
        todo!()
    }
    /// The root directory.
    pub fn root(&self) -> &Path {
        todo!()
    }
    /// What this process may do.
    pub fn privilege(&self) -> Privilege {
        todo!()
    }
    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        todo!()
    }
    /// A directory of the store that others own: `containers`, `cache`, `volumes`; created when missing.
    pub fn directory(&self, name: &'static str) -> Result<PathBuf> {
        let _ = name;
        todo!()
    }
    /// Makes everything that was written so far survive a power loss.
    pub fn settle(&self) -> Result<()> {
        todo!()
    }
}
