//! Any bytes on stdin, in pieces. See `src/targets/frame.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::run("frame", input));
