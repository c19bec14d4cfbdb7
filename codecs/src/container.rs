//! Container formats: handlers that make a source from a byte stream.

mod adts;
mod flac;
mod frames;
mod id3;
mod matroska;
mod mp3;
mod mp4;
mod ogg;
mod pictures;
mod reader;
mod signature;
mod wav;

use portcullis_engine::Registry;

pub(crate) fn register(registry: &mut Registry) {
    mp4::register(registry);
    matroska::register(registry);
    ogg::register(registry);
    wav::register(registry);
    flac::register(registry);
    mp3::register(registry);
    adts::register(registry);
}
