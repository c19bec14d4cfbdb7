//! Converters between raw formats; the loader inserts them.

mod picture;
mod sound;

use portcullis_engine::Registry;

pub use picture::{Filter, Matrix, PictureConverter, PictureSettings};
pub use sound::{SoundConverter, SoundSettings};

pub(crate) fn register(registry: &mut Registry) {
    picture::register(registry);
    sound::register(registry);
}
