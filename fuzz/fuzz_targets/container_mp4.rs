#![no_main]
//! See `bodies/container_mp4.rs`.

#[path = "../bodies/container_mp4.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
