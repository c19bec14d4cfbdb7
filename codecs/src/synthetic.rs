//! Sources and effects that need no input, and a sink that knows what they make.

mod check;
mod fault;
mod gain;
mod pattern;

use portcullis_engine::Registry;

pub use check::{PatternCheck, PatternCheckSettings};
pub use fault::{Fault, FaultKind, FaultSettings};
pub use gain::{Gain, GainSettings};
pub use pattern::{Pattern, PatternSettings, Touch};

pub(crate) fn register(registry: &mut Registry) {
    pattern::register(registry);
    gain::register(registry);
    fault::register(registry);
    check::register(registry);
}
