//! Descriptors of the peer that no message took: they are closed, and those are counted whose closing lasts.
//!
//! An honest peer sends some, with a call to an object that is just gone. Closing them may last as long as the peer likes, so
//! it is done aside, and there is an end to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_transport::ReceivedFd;

/// Of one link.
#[derive(Default)]
pub(super) struct Untaken(Arc<AtomicUsize>);

/// So many are being closed.
struct Closing {
    descriptors: Vec<ReceivedFd>,
    all: Arc<AtomicUsize>,
}

impl Untaken {
    /// Closes what is left of a message's descriptors; says how many are being closed just now.
    pub(super) fn close(&self, descriptors: Vec<Option<ReceivedFd>>) -> usize {
        let descriptors: Vec<_> = descriptors.into_iter().flatten().collect();
        if !descriptors.is_empty() {
            self.0.fetch_add(descriptors.len(), Ordering::Relaxed);
            let closing = Closing {
                descriptors,
                all: Arc::clone(&self.0),
            };
            // No more threads than may be being closed. Where there is none to be had, they are closed with others' descriptors
            // when this is dropped.
            let thread = std::thread::Builder::new().name("untaken".into());
            let started = thread
                .stack_size(64 << 10)
                .spawn(move || closing.wait_for());
            if let Err(error) = started {
                tracing::warn!(%error, "no thread to close a peer's descriptors");
            }
        }
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Untaken {
    /// How many are being closed just now.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Closing {
    fn wait_for(mut self) {
        while let Some(descriptor) = self.descriptors.pop() {
            drop(descriptor.into_owned());
            self.all.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.all
            .fetch_sub(self.descriptors.len(), Ordering::Relaxed);
    }
}
