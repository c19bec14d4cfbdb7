//! The source role.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::media::{MediaTime, Sample, SampleAllocator};
use crate::presentation::{PresentationDescriptor, StreamId};

/// Produces the samples of a presentation.
///
/// Runs on a worker of its own, where reading may block, unless it is inline: then `read` must not block, and what has to
/// wait for its time says so by `next_in`. Call order: `start`, then `read` until `None`; `start` again at
/// any time seeks.
pub trait MediaSource {
    /// The streams, as far as they are known; does not change after the source was opened.
    fn presentation(&self) -> &PresentationDescriptor;

    /// Gives memory for payloads, which the consumer shares where that saves a copy. Comes once, before the first start, and
    /// only to sources that were created by class id; a source that passes on what it has read has no use for it.
    fn use_memory(&mut self, memory: Arc<dyn SampleAllocator>) {
        drop(memory);
    }

    /// Delivers the `selected` streams from `position` on: from the last key sample at or before it in each stream, with
    /// the samples before `position` marked as preroll. `None` continues, or starts at the beginning.
    ///
    /// # Errors
    /// `NotSeekable`, `InvalidPosition`, or what reading the index finds.
    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()>;

    /// The next sample of the selected streams, in the order in which a player wants them; `None` at the end.
    ///
    /// After an error the source may go on (a damaged packet is skipped) or answer `None` from then on: it must not
    /// return errors for ever.
    fn read(&mut self) -> Result<Option<(StreamId, Sample)>>;

    /// How long it is until there is a next sample; `None` where there is one, or reading tells. It is asked before each read,
    /// and what has been read before is delivered meanwhile.
    fn next_in(&self) -> Option<Duration> {
        None
    }
}
