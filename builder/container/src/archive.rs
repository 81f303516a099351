//! `cp` and `export`: files between a container and the host, as tar archives.
//!
//! What touches the container's files is a program of kiln's that runs in the container, as its root and with no more
//! rights than that: whatever its links and mounts lead to, it is something that the container could have done itself.
//! What comes out of a container is an archive of a stranger, and is unpacked as one.

mod attributes;
mod copy;
mod destination;
mod extract;
mod program;
mod write;

pub use copy::{CopyOptions, Endpoint, copy, export};
pub(crate) use program::PROGRAMS;
