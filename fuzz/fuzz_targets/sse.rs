//! Any stream of events, in pieces. See `src/targets/sse.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pilotlight_fuzz::run("sse", input));
