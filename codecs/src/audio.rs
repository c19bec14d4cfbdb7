//! Audio decoders: one shell for all of them (`decoder`), a codec each, and the bit-level headers that the
//! containers of the same formats read too (`bitstream`).

mod aac;
pub(crate) mod bitstream;
mod decoder;
mod flac;
mod mp3;
mod opus;
mod pcm;
mod symphonia;
mod trim;
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
