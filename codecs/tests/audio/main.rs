//! Sound of the test media, demultiplexed and decoded, beside what other programs made of it.
//!
//! `ONLY=text` takes the clips whose names contain it; `MUTANTS=n` makes that many mutants of each clip.
#![allow(clippy::unwrap_used, reason = "tests")]

mod clip;
mod damage;
mod manifest;
mod seek;
