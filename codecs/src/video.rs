//! Video decoders.

mod av1;
mod bits;
pub(crate) mod describe;
mod guard;
mod h264;
#[cfg(test)]
mod oracle;
mod picture;
mod vp9;

use portcullis_engine::Registry;

pub use av1::{Av1, Av1Settings};
pub use h264::{H264, H264Settings};
pub use vp9::{Vp9, Vp9Settings};

pub(crate) fn register(registry: &mut Registry) {
    h264::register(registry);
    vp9::register(registry);
    av1::register(registry);
}
