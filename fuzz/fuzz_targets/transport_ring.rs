#![no_main]
//! See `bodies/transport_ring.rs`.

#[path = "../bodies/transport_ring.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
