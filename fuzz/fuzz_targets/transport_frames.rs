#![no_main]
//! See `bodies/transport_frames.rs`.

#[path = "../bodies/transport_frames.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
