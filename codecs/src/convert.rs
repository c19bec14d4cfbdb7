//! Converters between raw formats; the loader inserts them.

mod picture;
mod sound;

use portcullis_engine::Registry;

pub(crate) fn register(registry: &mut Registry) {
    picture::register(registry);
    sound::register(registry);
}
