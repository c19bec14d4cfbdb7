#![no_main]
//! See `bodies/transport_handshake.rs`.

#[path = "../bodies/transport_handshake.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
