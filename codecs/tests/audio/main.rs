//! Sound of the test media, demultiplexed and decoded, beside what other programs made of it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod clip;
mod damage;
mod manifest;
mod seek;
