//! Any bytes as a manifest, index or config.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kiln_image::invariants::check_document(bytes));
