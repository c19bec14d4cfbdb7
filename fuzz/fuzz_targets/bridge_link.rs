#![no_main]
//! See `bodies/bridge_link.rs`.

#[path = "../bodies/bridge_link.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
