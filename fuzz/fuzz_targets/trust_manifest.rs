#![no_main]
//! See `bodies/trust_manifest.rs`.

#[path = "../bodies/trust_manifest.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
