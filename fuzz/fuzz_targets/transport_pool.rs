#![no_main]
//! See `bodies/transport_pool.rs`.

#[path = "../bodies/transport_pool.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
