//! What was found wrong on the way: reading goes on behind it, and it is told once, at the end.

use portcullis_engine::Error;

/// The first fault, and how many there were behind it.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    first: Option<Error>,
    more: u64,
}

impl Faults {
    /// Takes note of a fault.
    pub(crate) fn note(&mut self, error: Error) {
        if self.first.is_none() {
            self.first = Some(error);
        } else {
            self.more += 1;
        }
    }

    /// The first one, which names the number of the others; it is forgotten.
    pub(crate) fn take(&mut self) -> Option<Error> {
        let first = self.first.take()?;
        Some(match std::mem::take(&mut self.more) {
            0 => first,
            more => first.because(format!("{more} more faults behind it")),
        })
    }
}
