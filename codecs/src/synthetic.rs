//! Sources and effects that need no input.

mod gain;
mod pattern;

use portcullis_engine::Registry;

pub(crate) fn register(registry: &mut Registry) {
    pattern::register(registry);
    gain::register(registry);
}
