//! The network of a container.

use serde::{Deserialize, Serialize};

/// `--network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's: for now the default too.
    #[default]
    Host,
    /// Nothing but loopback.
    None,
}
