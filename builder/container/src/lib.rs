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

mod archive;
mod attach;
mod command;
mod create;
mod diff;
mod directory;
mod error;
mod exec;
mod inspect;
mod log;
mod membership;
mod names;
mod namespaces;
pub mod network;
mod options;
mod protocol;
mod record;
mod runtime;
mod settings;
mod start;
mod state;
mod stats;
mod stop;
mod supervisor;
mod top;
mod update;
mod volume;
mod volumes;

pub use archive::{CopyOptions, Endpoint, copy, export};
pub use attach::console::follow as follow_sandbox;
pub use attach::{DetachKeys, Ended, Terminal, attach};
pub use create::create;
pub use diff::{Change, ChangeKind, CommitOptions, commit, committed_config, diff};
pub use error::Error;
pub use exec::{ExecOptions, exec};
pub use inspect::inspect;
pub use log::{LogLimits, LogOptions, follow as follow_log};
pub use membership::{connect, disconnect, networks_in_use};
pub use namespaces::{Namespace, Namespaces};
pub use options::Options;
pub use record::{Container, Record, find, layers_in_use, list, users_of_image};
pub use settings::{MountPoint, MountSource, RestartPolicy, Settings};
pub use start::{run, start, start_what_should_run};
pub use state::{Check, Health, Phase, State};
pub use stats::Sample;
pub use stop::{kill, parse_signal, pause, processes, remove, rename, stop, wait};
pub use top::Process;
pub use update::update;
pub use volume::{NewVolume, Volume};
pub use volumes::{StoredVolume, create_volume, disk_usage, find_volume, list_volumes, remove_volume};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Must be the first thing in `main`, with [`kiln_sandbox::init`] after it: when this process was started as a supervisor
/// it never returns.
pub fn init() {
    kiln_sandbox::program::register(archive::PROGRAMS);
    let name = std::env::args_os().next().unwrap_or_default();
    if name == supervisor::NAME {
        supervisor::main();
    }
    if name == network::HELPER {
        network::help();
    }
}
