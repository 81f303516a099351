//! `user[:group]` of USER and `--user`, looked up in the image's `/etc/passwd` and `/etc/group`.

use kiln_store::Snapshot;

use crate::Result;

/// Numeric ids of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups: from `/etc/group`, unless a group was given.
    pub groups: Vec<u32>,
    /// Home directory; `/` when unknown.
    pub home: String,
}

/// Looks a user up; the empty string is root.
///
/// # Errors
/// A name that the image does not have.
pub fn resolve(snapshot: &Snapshot, text: &str) -> Result<User> {
    let _ = (snapshot, text);
    todo!()
}

/// `--chown=user[:group]`: like [`resolve`], but a user without a group gives that user's own id as the group
/// when it is numeric, and the group of `/etc/passwd` when it is a name.
///
/// # Errors
/// A name that the image does not have.
pub fn resolve_owner(snapshot: &Snapshot, text: &str) -> Result<(u32, u32)> {
    let _ = (snapshot, text);
    todo!()
}
