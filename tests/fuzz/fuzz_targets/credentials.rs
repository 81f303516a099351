//! Any bytes as what a client says of itself.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kiln_registry_server::invariants::check_credentials(bytes));
