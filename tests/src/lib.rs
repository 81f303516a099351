//! What every end-to-end test needs: an isolated home, store and binary, private peers (docker, podman, registries),
//! and images read back as plain data to compare.

mod account;
mod binary;
mod command;
mod comparison;
mod docker;
mod fixtures;
mod gate;
mod http_server;
mod image_archive;
mod interposer;
mod kiln;
mod layer;
mod podman;
mod registry;
mod secure_registry;
mod service;
mod terminal;

pub use account::Account;
pub use binary::kiln_binary;
pub use command::{Outcome, command, killed_at, run, run_with_input};
pub use comparison::{Difference, compare};
pub use docker::Docker;
pub use fixtures::{busybox_tar, debian_tar, fixture, project, proxies};
pub use gate::Gate;
pub use http_server::{HttpServer, LAST_MODIFIED};
pub use image_archive::{ArchivedImage, read_archive};
pub use interposer::{Answer, Interposer};
pub use kiln::{Context, Kiln, Run};
pub use layer::{Filesystem, Kind, Node, sha256};
pub use podman::Podman;
pub use registry::Registry;
pub use secure_registry::{SecureRegistry, Shown};
pub use service::{eventually, free_port, signal, wait_for_port};
pub use terminal::OnTerminal;
