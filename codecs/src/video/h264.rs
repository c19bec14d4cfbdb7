//! H.264.

use portcullis_engine::Registry;

pub(crate) fn register(_registry: &mut Registry) {}
