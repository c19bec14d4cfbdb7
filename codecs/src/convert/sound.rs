//! Sample format, rate and channels.

use portcullis_engine::Registry;

pub(crate) fn register(_registry: &mut Registry) {}
