#![no_main]
//! See `bodies/transport_link.rs`.

#[path = "../bodies/transport_link.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
