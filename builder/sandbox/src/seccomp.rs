//! Docker's default seccomp profile as a BPF program.

mod document;
mod filter;
mod profile;
mod table;

use std::io;

pub(crate) use document::document;
pub(crate) use profile::Subject;

/// Restricts this thread, and all it will execute, to what the profile lets such a process do.
pub(crate) fn restrict(subject: Subject) -> io::Result<()> {
    crate::system_call::load_filter(&filter::program(subject))
}
