//! Network namespaces as descriptors: made, looked into, and handed to a sandbox.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::system_call::{raise_loopback, unshare};

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct NetworkNamespace(OwnedFd);

impl NetworkNamespace {
    /// A new one, owned by this process's user namespace, with nothing but a loopback interface that is up.
    ///
    /// # Errors
    /// This process may not make namespaces.
    pub fn create() -> io::Result<Self> {
        in_thread(|| {
            unshare(UnshareFlags::NEWNET)?;
            raise_loopback()?;
            Self::at(Path::new("/proc/thread-self/ns/net"))
        })
    }

    /// The calling thread's.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn current() -> io::Result<Self> {
        Self::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// A process's.
    ///
    /// # Errors
    /// There is no such process, or it is somebody else's.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The one that a file of /proc stands for.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// Runs something in a thread that is inside; sockets that it opens belong to the namespace for good.
    ///
    /// # Errors
    /// The namespace belongs to another user namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        in_thread(|| {
            self.enter_thread()?;
            Ok(work())
        })
    }

    /// Moves the calling thread (and no other) inside. An ordinary user's process has no way back to the host's.
    ///
    /// # Errors
    /// As [`Self::within`].
    pub fn enter_thread(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// Too many open files.
    pub fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// What a [`crate::spec::Network::Joined`] takes, as long as this is open.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Namespaces are a thread's: one that ends takes its choice with it.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the network namespace panicked")))
    })
}
