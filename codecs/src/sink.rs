//! Sinks.

mod file;
mod null;
mod wav;
mod y4m;

use portcullis_engine::Registry;

pub use null::{NullSettings, NullSink, StreamCount};
pub use wav::{WavSettings, WavSink};
pub use y4m::{Y4mSettings, Y4mSink};

pub(crate) fn register(registry: &mut Registry) {
    null::register(registry);
    wav::register(registry);
    y4m::register(registry);
}
