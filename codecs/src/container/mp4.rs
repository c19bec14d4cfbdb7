//! MP4, M4A, MOV.

use portcullis_engine::Registry;

pub(crate) fn register(_registry: &mut Registry) {}
