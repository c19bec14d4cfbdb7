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

/// Keeps in mind what is asked for of a property of the output, for the time when the input changes.
///
/// A stream that takes on what was asked for in the middle is no reason to forget it.
fn asked<T: PartialEq + Copy>(asked: &mut Option<T>, input: T, output: T) {
    if input != output {
        *asked = Some(output);
    } else if *asked != Some(output) {
        *asked = None;
    }
}
