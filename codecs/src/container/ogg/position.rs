//! Which samples lie before a position that was asked for.

use portcullis_engine::{MediaTime, Sample};

/// Tells samples that are only decoded from those that are rendered too.
pub(crate) trait IsBefore {
    /// Whether the whole sample lies before `position`; one that lasts over it is what is seen or heard there.
    fn is_before(&self, position: MediaTime) -> bool;
}

impl IsBefore for Sample {
    fn is_before(&self, position: MediaTime) -> bool {
        self.time < position && self.end_time() <= position
    }
}
