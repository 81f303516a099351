//! Rootless: this very process becomes root of a user namespace.

/// What the process has after [`enter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It was root already.
    Root,
    /// Root of a user namespace with the user's subordinate ids.
    Mapped,
    /// Root of a user namespace with one id: the caller's.
    Single,
}

/// Moves this process into a user namespace (and a mount namespace) where it is root, with the caller's subuids and
/// subgids by `newuidmap` and `newgidmap` where there are any. Does nothing as root. Call it single-threaded, early
/// in `main`; the process keeps its pid, terminal and descriptors.
///
/// # Errors
/// User namespaces are off, or the mapping programs fail; the message says what to do.
pub fn enter() -> Result<Identity, crate::process::Error> {
    todo!()
}
