//! Any bytes as an image archive.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kiln_image::invariants::check_archive(bytes));
