//! One process in one root file system. All `unsafe` of the project is here. Knows no image and no store.
//!
//! [`Sandbox::spawn`] re-executes this very binary ([`init`] catches it), which makes a single-threaded *supervisor*.
//! The supervisor forks the *first process* of a new pid namespace; that one builds the root file system, gives up its
//! privileges and executes the command. The supervisor waits for it, for the end of its caller (its socket closes,
//! however the caller ends), and takes away what the set-up left in the upper directory.

pub mod bundle;
mod capabilities;
pub mod cgroup;
pub mod channel;
mod child;
pub mod emulation;
mod execute;
pub mod first;
pub mod host;
pub mod init;
pub mod join;
pub mod kernel;
mod mount;
pub mod network_namespace;
pub mod process;
pub mod program;
mod root;
mod seccomp;
pub mod spec;
pub mod supervisor;
mod system_call;
mod terminal;
pub mod user_namespace;

pub use channel::Channel;
pub use first::First;
pub use process::{Exit, Sandbox};
pub use spec::{Entry, Spec};

/// Must be the first thing in `main`: when this process was started as a sandbox's child it never returns.
pub fn init() {
    let name = std::env::args_os().next().unwrap_or_default();
    if name == process::SUPERVISOR {
        supervisor::main();
    }
    if name == init::PLACE {
        let arguments = std::env::args_os().skip(1).filter_map(|argument| argument.into_string().ok());
        init::main(&arguments.collect::<Vec<_>>());
    }
    if name == user_namespace::shared::KEEPER {
        user_namespace::shared::main();
    }
}
