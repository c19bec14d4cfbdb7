//! Sources and effects that need no input.

mod fault;
mod gain;
mod pattern;

use portcullis_engine::Registry;

pub use fault::{Fault, FaultKind, FaultSettings};
pub use gain::{Gain, GainSettings};
pub use pattern::{Pattern, PatternSettings, Touch};

pub(crate) fn register(registry: &mut Registry) {
    pattern::register(registry);
    gain::register(registry);
    fault::register(registry);
}
