//! Sinks.

mod null;
mod wav;
mod y4m;

use portcullis_engine::Registry;

pub(crate) fn register(registry: &mut Registry) {
    null::register(registry);
    wav::register(registry);
    y4m::register(registry);
}
