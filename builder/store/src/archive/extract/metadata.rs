//! Owner, mode, attributes and time of what was made.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;

use super::{failed, refuse};
use crate::Result;
use crate::archive::header::Kind;
use crate::archive::reader::Member;
use crate::archive::writer::timestamps;
use crate::attributes::{Target, belongs_to_layer};
use crate::store::Privilege;

/// Whose files are made when nothing is said.
#[derive(Clone, Copy)]
pub(super) struct Creator {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What a member says about its file.
pub(super) struct Metadata<'a> {
    pub(super) member: &'a Member,
    pub(super) privilege: Privilege,
    /// Owner of what was made new in its directory, when it is sure.
    pub(super) creator: Option<Creator>,
}

impl Metadata<'_> {
    /// Owner, then mode (a change of owner clears setuid), then attributes (it clears capabilities), then time.
    /// `new` when it was not here before.
    pub(super) fn set(&self, made: &OwnedFd, new: bool) -> Result<()> {
        let Member { uid, gid, .. } = *self.member;
        if !(new && self.creator.is_some_and(|creator| (creator.uid, creator.gid) == (uid, gid))) {
            let (uid, gid) = self.owner();
            self.owned(rustix::fs::fchown(made, uid, gid))?;
        }
        rustix::fs::fchmod(made, Mode::from_raw_mode(self.member.mode))
            .map_err(failed(self.member, "set the mode of"))?;
        self.set_attributes(Target::Open(made.as_fd()))?;
        let set = rustix::fs::futimens(made, &timestamps(self.member.mtime));
        set.map_err(failed(self.member, "set the time of"))
    }

    /// The same of what cannot be opened.
    pub(super) fn set_by_name(&self, directory: &OwnedFd, name: &[u8]) -> Result<()> {
        let (uid, gid) = self.owner();
        self.owned(rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))?;
        if self.member.kind != Kind::Symlink {
            let mode = Mode::from_raw_mode(self.member.mode);
            let set = rustix::fs::chmodat(directory, name, mode, AtFlags::empty());
            set.map_err(failed(self.member, "set the mode of"))?;
        }
        self.set_attributes(Target::At(directory.as_fd(), name))?;
        let times = timestamps(self.member.mtime);
        rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(self.member, "set the time of"))
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.member.uid)), Some(Gid::from_raw(self.member.gid)))
    }

    fn owned(&self, result: rustix::io::Result<()>) -> Result<()> {
        match result {
            // With one id everything is that id's.
            Err(Errno::INVAL | Errno::PERM) if self.privilege == Privilege::Single => Ok(()),
            Err(Errno::INVAL) => {
                let Member { uid, gid, .. } = self.member;
                Err(refuse(self.member, &format!("its owner {uid}:{gid} is not among the ids that are mapped here")))
            }
            result => result.map_err(failed(self.member, "set the owner of")),
        }
    }

    fn set_attributes(&self, target: Target<'_>) -> Result<()> {
        for (name, value) in self.member.attributes.iter().filter(|(name, _)| belongs_to_layer(name)) {
            match target.set(name, value) {
                // A file system without attributes, or one that this process may not set.
                Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {
                    tracing::debug!(attribute = %name.escape_ascii(), path = %self.member.path.escape_ascii(), "not set");
                }
                result => result.map_err(failed(self.member, "set an attribute of"))?,
            }
        }
        Ok(())
    }
}
