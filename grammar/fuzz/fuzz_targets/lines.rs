//! Any bytes as a Dockerfile: byte order marks, line ends, directives, comments, continuations, heredocs.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/invariants/mod.rs"]
#[allow(dead_code, reason = "each target checks one thing")]
mod invariants;

fuzz_target!(|bytes: &[u8]| invariants::check_dockerfile(bytes));
