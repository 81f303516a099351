//! The build cache: what was made before is found by the content of what it was made from.
//!
//! ```text
//! lookup ─ a step's keys ─▶ record ─▶ layer        record: what a record says
//! content: the files of a mount, for its key       step_lock: two builds never run one step twice
//! exchange: the caches of other machines         usage, prune, limit: what it takes, and giving it back
//! ```

pub(crate) mod content;
pub mod exchange;
pub mod limit;
pub(crate) mod lock_file;
pub(crate) mod lookup;
pub mod prune;
pub(crate) mod record;
pub mod usage;
