//! Containers: their records, what they are doing, and the supervisors that hold them. Builds nothing.
//!
//! ```text
//! containers/<id>/config.json    what it is (see [`Record`])
//! containers/<id>/state.json     what it is doing (see [`State`]), as far as `lock` confirms it
//! containers/<id>/lock           held by the supervisor of a container that runs, or by whoever changes one
//! containers/<id>/{upper,work,stubs}
//! containers/<id>/hostname       mounted over /etc/hostname
//! containers/<id>/log            what it wrote
//! containers/<id>/socket         where its supervisor listens
//! containers/.names/<name>       a symlink to the id
//! containers/.aside/<id>         a container that is being made or removed
//! volumes/<name>/_data           a volume
//! ```
//!
//! There is no daemon. [`run`] and [`start`] start a *supervisor*, this very binary again, which holds the container
//! for as long as it runs; everything else reads the directory, or asks the supervisor over its socket.

mod attach;
mod command;
mod create;
mod directory;
mod error;
mod exec;
mod log;
mod names;
mod network;
mod options;
mod protocol;
mod record;
mod settings;
mod start;
mod state;
mod stop;
mod supervisor;
mod top;
mod volume;

pub use attach::{DetachKeys, Ended, Terminal, attach};
pub use create::create;
pub use error::Error;
pub use exec::{ExecOptions, exec};
pub use log::{LogOptions, follow as follow_log};
pub use network::Network;
pub use options::Options;
pub use record::{Container, Record, find, layers_in_use, list, users_of_image};
pub use settings::{MountPoint, MountSource, RestartPolicy, Settings};
pub use start::{run, start};
pub use state::{Check, Health, Phase, State};
pub use stop::{kill, parse_signal, remove, rename, stop, wait};
pub use top::Process;
pub use volume::Volume;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Must be among the first things in `main`: when this process was started as a supervisor it never returns.
pub fn init() {
    if std::env::args_os().next().is_some_and(|name| name == supervisor::NAME) {
        supervisor::main();
    }
}
