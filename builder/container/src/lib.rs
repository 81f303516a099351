//! Containers: their records, their command lines, and running one in the foreground. Builds nothing.
//!
//! ```text
//! containers/<id>/config.json    what it is (see [`Record`])
//! containers/<id>/{upper,work,stubs}
//! containers/<id>/hostname       mounted over /etc/hostname
//! containers/<id>/status         how it ended; absent while it runs
//! containers/<id>/lock           held by whoever runs it: a free lock and no status mean that kiln was killed
//! volumes/<name>/_data           a named volume
//! ```

mod command;
mod error;
mod names;
mod record;
mod relay;
mod run;
mod volume;

pub use error::Error;
pub use record::{Record, State, find, layers_in_use, list, remove, uses_image};
pub use run::{Network, RunOptions, run};
pub use volume::Volume;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
