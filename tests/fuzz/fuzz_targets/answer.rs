//! Any bytes as a registry's challenge, link or error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kiln_image::invariants::check_answer(bytes));
