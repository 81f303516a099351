//! The distribution API over a socket: every endpoint's success and failure, concurrency, restarts and kills.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

mod access;
mod blobs;
mod client;
mod collection;
mod conformance;
mod damage;
mod durability;
mod hostile;
mod import;
mod listing;
mod manifests;
mod operations;
mod page;
mod prefix;
mod steps;
mod torture;
mod uploads;
mod upstream;
mod webhooks;
