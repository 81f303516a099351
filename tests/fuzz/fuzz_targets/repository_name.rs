//! Any text as a repository, tag, digest or upload.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| kiln_registry_server::invariants::check_name(text));
