//! Any text as an image's name or a platform.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| kiln_image::invariants::check_reference(text));
