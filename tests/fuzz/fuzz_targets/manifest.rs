//! Any bytes as a manifest that is pushed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| kiln_registry_server::invariants::check_manifest(input.1, input.0));
