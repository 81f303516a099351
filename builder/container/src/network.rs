//! Networks: bridges, addresses, names and published ports, without a daemon and without other programs.
//!
//! ```text
//! networks/<id>/config.json            a network (see [`Network`])
//! networks/<id>/endpoints/<container>  a container's place on it, while it runs
//! containers/<id>/network.json         its ports and names, while it runs
//! ```
//!
//! A bridge and its packet filter rules are there as long as a container is on it, and a moment longer. Whoever runs a container gives its
//! places back; places of one that was killed are found by its free lock. Published ports and names are served by a
//! process beside it, where there are any.

mod attachment;
mod dns;
mod etc;
mod filter;
mod helper;
mod idle;
mod interface;
mod listener;
mod manage;
mod netlink;
mod options;
mod plane;
mod proxy;
mod publish;
mod record;
mod service;
mod six;
mod subnet;

pub use attachment::{Attachment, Connected, Who, connect, connected, disconnect, endpoints, rename};
pub use etc::{ExtraHost, Naming};
pub(crate) use helper::{NAME as HELPER, main as help};
pub(crate) use idle::Idle;
pub use manage::{NetworkRequest, create, find, list, prune, remove, users};
pub use options::{Connection, Link, Mode, NetworkOptions};
pub use publish::{Binding, Port, Protocol, Publish};
pub use record::{Addresses, DEFAULT, Endpoint, Network, PREDEFINED};
pub use six::{Addresses6, Place6, Subnet6};
pub use subnet::Subnet;
