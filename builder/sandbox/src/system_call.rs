//! The system calls that rustix does not wrap, or only as `unsafe`.
#![allow(unsafe_code, reason = "this is where it is")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks. Call it only while the process has one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the callers (supervisor, probe, `user_namespace::enter`) run single-threaded, so the child may go on
    // using the allocator and every lock is free.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .filter(|pid| pid.as_raw_nonzero().get() > 0)
            .map(Fork::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Forks a child of this process's parent. Call it only while the process has one thread.
pub(crate) fn fork_sibling() -> io::Result<Fork> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM and with no stack of its own this is a fork, under `fork`'s conditions.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, nothing, 0, 0) } {
        0 => Ok(Fork::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.filter(|pid| pid.as_raw_nonzero().get() > 0);
            pid.map(Fork::Parent).ok_or_else(io::Error::last_os_error)
        }
    }
}

/// Forks into a new pid namespace, whose first process the child is, or as a `guest` into that which is there; the parent
/// gets a pidfd. Other than after `unshare`, the parent can do so again. Call it only while the process has one thread.
pub(crate) fn fork_first(guest: bool) -> io::Result<(Fork, Option<OwnedFd>)> {
    let mut pidfd: libc::c_int = -1;
    let namespace = if guest { 0 } else { libc::CLONE_NEWPID };
    let flags = namespace | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack of its own this is a fork, under `fork`'s conditions; the kernel writes
    // the descriptor's number to `pidfd`, in the parent only.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) } {
        0 => Ok((Fork::Child, None)),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.filter(|pid| pid.as_raw_nonzero().get() > 0).ok_or_else(io::Error::last_os_error)?;
            // SAFETY: the kernel has just made it, and nobody else knows its number.
            Ok((Fork::Parent(pid), Some(unsafe { OwnedFd::from_raw_fd(pidfd) })))
        }
    }
}

/// New namespaces for this process.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the caller is single-threaded, and none of the flags is CLONE_FILES, which is what makes it unsafe.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// `MOUNT_ATTR_RDONLY`
pub(crate) const MOUNT_READONLY: u64 = 0x1;
/// `MOUNT_ATTR_NODEV`
pub(crate) const MOUNT_NODEV: u64 = 0x4;

/// Adds attributes to a mount, and to those below it when `recursive`; what is set stays set (locked flags need no care).
pub(crate) fn add_mount_attributes(mount: impl AsFd, attributes: u64, recursive: bool) -> io::Result<()> {
    set_mount_attributes(mount, attributes, 0, recursive)
}

/// Nothing that is mounted elsewhere shows in a mount or in those below it any more.
pub(crate) fn make_private(mount: impl AsFd) -> io::Result<()> {
    set_mount_attributes(mount, 0, libc::MS_PRIVATE, true)
}

fn set_mount_attributes(mount: impl AsFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let value = Attributes { set, clear: 0, propagation, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `value` is a `struct mount_attr` of the given size that outlives the call; the path is empty and
    // terminated.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const value,
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from `first` on. Nothing may own one of them.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

/// Lets no descriptor from `first` on survive an exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, flags: u32) -> io::Result<()> {
    // SAFETY: takes numbers only. `close_from` is called before this process owns any of the descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// All signals to their default action, none blocked: an ignored one (SIGPIPE) would stay ignored after an exec.
pub(crate) fn reset_signals() {
    // The kernel's own structure: libc hides two signals from its callers.
    let default = [0_u64; 4];
    // SAFETY: an all-zero sigaction is SIG_DFL without flags, and the buffer is as long as the kernel's longest one; the
    // set is initialised by sigemptyset; errors (of signals that cannot be changed) do not matter.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            let nowhere = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nowhere, size_of::<u64>());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Loads a seccomp filter into this thread.
pub(crate) fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which it does not write to.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes another program; returns only when that fails.
pub(crate) fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer, and they and the strings live until the call returns.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Sends a signal, real-time ones included, to the process behind a pidfd.
pub(crate) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_information = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed; the rest are numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_information, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid; the kernel reads it and writes nothing beyond it.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks every signal of this thread.
pub(crate) fn block_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigfillset before it is used.
    let result = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The next signal; all must be blocked.
pub(crate) fn wait_for_signal() -> io::Result<i32> {
    // SAFETY: the set is initialised by sigfillset before it is used; the number is written by the call.
    let (result, signal) = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        let mut signal = 0;
        (libc::sigwait(&raw const all, &raw mut signal), signal)
    };
    if result == 0 { Ok(signal) } else { Err(io::Error::from_raw_os_error(result)) }
}
