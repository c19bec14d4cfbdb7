//! Audio decoders.

mod aac;
mod flac;
mod mp3;
mod opus;
mod pcm;
mod vorbis;

use portcullis_engine::Registry;

pub(crate) fn register(registry: &mut Registry) {
    aac::register(registry);
    mp3::register(registry);
    flac::register(registry);
    vorbis::register(registry);
    opus::register(registry);
    pcm::register(registry);
}
