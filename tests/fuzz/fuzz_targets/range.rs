//! Any text as a range of a blob, or a chunk's.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, u64)| kiln_registry_server::invariants::check_range(input.0, input.1));
