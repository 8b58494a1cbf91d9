//! Any bytes, read and edited. See `src/targets/message.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::run("message", input));
