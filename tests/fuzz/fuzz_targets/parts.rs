//! Any bytes as the list of a layer's parts.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kiln_store::invariants::check_parts(bytes));
