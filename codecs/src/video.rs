//! Video decoders.

mod av1;
mod h264;
mod vp9;

use portcullis_engine::Registry;

pub(crate) fn register(registry: &mut Registry) {
    h264::register(registry);
    vp9::register(registry);
    av1::register(registry);
}
