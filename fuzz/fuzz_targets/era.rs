//! Any sequence of what both sides may do. See `src/targets/era.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::run("era", input));
