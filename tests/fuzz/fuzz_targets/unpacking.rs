//! Any bytes as a layer that is unpacked.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kiln_store::invariants::check_unpacking(bytes));
