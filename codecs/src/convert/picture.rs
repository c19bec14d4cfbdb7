//! Pixel format and size.

use portcullis_engine::Registry;

pub(crate) fn register(_registry: &mut Registry) {}
