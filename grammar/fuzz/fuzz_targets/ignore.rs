//! Any pattern or ignore file against any path.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/invariants/mod.rs"]
#[allow(dead_code, reason = "each target checks one thing")]
mod invariants;

fuzz_target!(|input: (&str, &str)| invariants::check_pattern(input.0, input.1));
