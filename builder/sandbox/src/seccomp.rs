//! Docker's default seccomp profile as a BPF program.

mod filter;
mod profile;
mod table;

use std::io;

use rustix::thread::CapabilitySet;

/// Restricts this thread, and all it will execute, to what the profile lets a process with these capabilities do.
pub(crate) fn restrict(capabilities: CapabilitySet) -> io::Result<()> {
    crate::system_call::load_filter(&filter::program(capabilities))
}
