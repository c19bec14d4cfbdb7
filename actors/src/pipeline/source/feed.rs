//! Reads a source ahead of its actor.
//!
//! The worker goes on reading while its actor hands over what was read before: between two large samples neither waits for
//! the other to wake. It stops by itself as soon as it has read what was asked for, holds as much as it may, or there is no
//! memory for the next sample; and at the latest one sample after it was told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_engine::MediaSource as SourceComponent;
use portcullis_engine::source::Reading;
use tokio::sync::Notify;

use crate::pipeline::memory::NodeMemory;

/// Samples that are handed over together at most.
const BATCH: usize = 512;
/// Payload bytes after which they are handed over: several pictures, as handing over wakes another thread.
const BATCH_BYTES: u64 = 4 << 20;
/// Time after which they are: what is slow to read is handed over as it comes.
const BATCH_TIME: Duration = Duration::from_millis(1);
/// Samples between two looks at the time where reading never waits: a look costs as much as reading a small sample.
const LOOK: usize = 16;
/// Payload bytes that wait for the actor at most, beyond one batch.
const AHEAD_BYTES: u64 = 2 << 20;

/// What a worker reads and its actor takes, of one flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Feed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to take, or the feed has ended.
    made: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What the actor has not taken yet.
    readings: Vec<Reading>,
    /// Samples and errors in them: an error is delivered in the place of a sample, and counts as one.
    made: usize,
    bytes: u64,
    /// Samples that may still be read.
    wanted: usize,
    /// A job of the worker reads, or is about to.
    is_reading: bool,
    /// Nothing more is to be read.
    is_over: bool,
    /// Nothing more is to be taken either.
    is_ended: bool,
    /// The last sample found no memory where it should have: the next one is to wait for it.
    lacks_memory: bool,
}

impl State {
    fn may_read(&self) -> bool {
        !self.is_over && self.wanted > 0 && self.bytes < AHEAD_BYTES
    }
}

impl Feed {
    /// Asks for so many samples beyond those that were taken; says whether a job must be started to read them.
    pub(super) fn ask(&self, wanted: usize) -> bool {
        let mut state = self.state();
        state.wanted = wanted.saturating_sub(state.made);
        let starts = !state.is_reading && state.may_read();
        state.is_reading |= starts;
        starts
    }

    /// Whether the worker stopped because there is no memory for the next sample.
    pub(super) fn lacks_memory(&self) -> bool {
        self.state().lacks_memory
    }

    /// The worker may try again.
    pub(super) fn has_memory(&self) {
        self.state().lacks_memory = false;
    }

    /// What was read since the last time, in order.
    pub(super) fn take(&self) -> Vec<Reading> {
        let mut state = self.state();
        (state.made, state.bytes) = (0, 0);
        std::mem::take(&mut state.readings)
    }

    /// Resolves when there is something to take, or the feed has ended. For one task.
    pub(super) async fn made(self) {
        self.0.made.notified().await;
    }

    /// Ends reading: another flow begins, or none.
    pub(super) fn end(&self) {
        let mut state = self.state();
        (state.is_over, state.is_ended) = (true, true);
        state.readings.clear();
        drop(state);
        self.0.made.notify_one();
    }

    /// Whether it was ended.
    pub(super) fn is_ended(&self) -> bool {
        self.state().is_ended
    }

    /// Whether both are the same feed.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Reads on the worker until there is a reason to stop.
    pub(super) fn read(
        &self,
        source: &mut dyn SourceComponent,
        memory: &NodeMemory,
        is_live: bool,
    ) {
        let mut is_first = true;
        loop {
            let most = {
                let mut state = self.state();
                // The first one was waited for.
                let lacks_memory = !is_first && !memory.has_room();
                if lacks_memory || !state.may_read() {
                    state.is_reading = false;
                    state.lacks_memory |= lacks_memory;
                    if lacks_memory {
                        self.0.made.notify_one();
                    }
                    return;
                }
                state.wanted
            };
            is_first = false;
            // Of a live source the next sample may be long in coming.
            let most = if is_live { 1 } else { most.min(BATCH) };
            let reading = match read_batch(source, memory, most, true) {
                Read::Some(reading) => reading,
                // Only of those that must not block.
                Read::Later(_) => Reading::default(),
            };
            let samples = reading.samples.iter();
            let bytes = samples.map(|(_, sample)| sample.len() as u64).sum::<u64>();
            let made = reading.samples.len() + usize::from(reading.error.is_some());
            let mut state = self.state();
            if state.is_ended {
                state.is_reading = false;
                return;
            }
            let was_empty = state.readings.is_empty();
            state.made += made;
            state.bytes = state.bytes.saturating_add(bytes);
            state.wanted = state.wanted.saturating_sub(made);
            state.is_over = reading.is_last;
            state.readings.push(reading);
            drop(state);
            if was_empty {
                self.0.made.notify_one();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole whatever happened to another holder.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one turn of reading brought.
pub(super) enum Read {
    /// Perhaps nothing.
    Some(Reading),
    /// There is nothing to read before this time has passed.
    Later(Duration),
}

pub(super) fn read_batch(
    source: &mut dyn SourceComponent,
    memory: &NodeMemory,
    most: usize,
    may_block: bool,
) -> Read {
    let mut reading = Reading::default();
    reading.samples.reserve(most.min(BATCH));
    let mut bytes = 0;
    let start = Instant::now();
    while reading.samples.len() < most && bytes < BATCH_BYTES {
        let count = reading.samples.len();
        let looks = count > 0 && (may_block || count.is_multiple_of(LOOK));
        if looks && start.elapsed() >= BATCH_TIME {
            break;
        }
        if count > 0 && !memory.has_room() {
            break;
        }
        match source.next_in() {
            Some(_) if count > 0 => break,
            Some(wait) if !may_block => return Read::Later(wait),
            _ => {}
        }
        match source.read() {
            Ok(Some((stream, sample))) => {
                bytes += sample.len() as u64;
                reading.samples.push((stream, sample));
            }
            Ok(None) => {
                reading.is_last = true;
                break;
            }
            Err(error) => {
                reading.error = Some(error);
                break;
            }
        }
    }
    Read::Some(reading)
}

#[cfg(test)]
mod tests {
    use portcullis_engine::{Error, MediaTime, PresentationDescriptor, Result, Sample, StreamId};

    use super::*;

    /// Fails at every second sample, or at each, until its end.
    struct Failing {
        presentation: PresentationDescriptor,
        only_errors: bool,
        reads: u64,
    }

    impl Failing {
        fn new(only_errors: bool) -> Self {
            let presentation = PresentationDescriptor::default();
            Self {
                presentation,
                only_errors,
                reads: 0,
            }
        }
    }

    impl SourceComponent for Failing {
        fn presentation(&self) -> &PresentationDescriptor {
            &self.presentation
        }
        fn start(&mut self, _: &[StreamId], _: Option<MediaTime>) -> Result<()> {
            Ok(())
        }
        fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
            self.reads += 1;
            match self.reads {
                100_000.. => Ok(None),
                number if self.only_errors || number.is_multiple_of(2) => {
                    Err(Error::malformed(number, "a fault"))
                }
                _ => {
                    let time = MediaTime::ZERO;
                    Ok(Some((StreamId(0), Sample::new(time, time, vec![0; 8]))))
                }
            }
        }
    }

    #[test]
    fn a_source_that_fails_is_read_no_further_than_was_asked() {
        for only_errors in [true, false] {
            let mut source = Failing::new(only_errors);
            let memory = NodeMemory::default();
            let feed = Feed::default();
            assert!(feed.ask(512));
            feed.read(&mut source, &memory, false);
            assert_eq!(source.reads, 512, "nobody has taken anything");
            assert!(!feed.ask(512), "all of it waits already");
            let held = |readings: &[Reading]| -> usize {
                let of_one = |reading: &Reading| {
                    reading.samples.len() + usize::from(reading.error.is_some())
                };
                readings.iter().map(of_one).sum()
            };
            assert_eq!(held(&feed.take()), 512);
            assert!(feed.ask(10));
            feed.read(&mut source, &memory, false);
            assert_eq!(held(&feed.take()), 10);
        }
    }
}
