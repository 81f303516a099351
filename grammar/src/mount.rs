//! `RUN --mount=…`: the comma list to a typed mount.

mod fields;
mod options;

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::expand::Variables;
use options::Options;

/// One mount of a RUN, expanded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// `type=bind`.
    Bind {
        /// A stage, image or named context; `None` is the build context.
        from: Option<String>,
        /// Path in the source; `/` when not given.
        source: String,
        /// Path in the step; relative ones are below the working directory.
        target: String,
        /// Writes are allowed, and thrown away.
        writable: bool,
    },
    /// `type=cache`.
    Cache {
        /// The cache's name; the target when not given.
        id: String,
        /// Path in the step.
        target: String,
        /// No writes.
        readonly: bool,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// What the cache starts with.
        from: Option<String>,
        /// Path in `from`.
        source: String,
        /// Mode of a new cache; 0755 when not given.
        mode: u32,
        /// Owner of a new cache.
        uid: u32,
        /// Group of a new cache.
        gid: u32,
    },
    /// `type=tmpfs`.
    Tmpfs {
        /// Path in the step.
        target: String,
        /// Bytes; unlimited when not given.
        size: Option<u64>,
        /// It starts with what the image has there (podman's and buildah's `tmpcopyup`).
        copy_up: bool,
    },
    /// `type=secret`.
    Secret {
        /// The secret's name.
        id: String,
        /// Path in the step: `/run/secrets/<id>` unless given, or none when only `env` is.
        target: Option<String>,
        /// The variable that carries it.
        env: Option<String>,
        /// Fail when it was not given to the build.
        required: bool,
        /// Mode; 0400 when not given.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// `type=ssh`.
    Ssh {
        /// The agent's name.
        id: String,
        /// The socket's path in the step.
        target: Option<String>,
        /// Fail when it was not given to the build.
        required: bool,
        /// Mode; 0600 when not given.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Any number of steps.
    Shared,
    /// A second step gets a new one.
    Private,
    /// A second step waits.
    Locked,
}

/// Expands and checks one `--mount` value.
///
/// A bind, cache or tmpfs without a target is mounted over the working directory, as `target=.`.
///
/// # Errors
/// An unknown type or option (with the nearest valid one), an option of another type, a bad number.
pub fn parse(value: &Word, escape: char, variables: &dyn Variables) -> Result<Mount, Box<Diagnostic>> {
    let options = Options::read(value, escape, variables)?;
    match options.kind {
        Kind::Bind => options.bind(),
        Kind::Cache => options.cache(),
        Kind::Tmpfs => options.tmpfs(),
        Kind::Secret => options.secret(),
        Kind::Ssh => options.ssh(),
    }
}

/// What `type=` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

#[cfg(test)]
mod tests;
