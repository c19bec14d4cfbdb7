//! Descriptors of the peer that no message took: they are closed, and nothing more is read where too many are still open.
//!
//! An honest peer sends some, with a call to an object that is just gone. Closing them may last as long as the peer likes, so
//! it is done aside, and there is an end to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_engine::Result;
use portcullis_transport::{LinkLimits, ReceivedFd};
use tokio::sync::Notify;

use super::core::protocol;

/// Messages with all descriptors that they may have that may be being closed at a time.
const MESSAGES: usize = 4;

/// How long the peer is not read until there are no more. Closing what is honest takes no time.
const DEADLINE: Duration = Duration::from_secs(1);

/// Of one link.
#[derive(Default)]
pub(super) struct Untaken(Arc<Open>);

/// Those that are not closed yet.
#[derive(Default)]
struct Open {
    count: AtomicUsize,
    fewer: Notify,
}

/// Some that are being closed.
struct Closing {
    descriptors: Vec<ReceivedFd>,
    open: Arc<Open>,
}

impl Untaken {
    /// Closes what is left of a message's descriptors.
    pub(super) fn close(&self, descriptors: Vec<Option<ReceivedFd>>) {
        let descriptors: Vec<_> = descriptors.into_iter().flatten().collect();
        if descriptors.is_empty() {
            return;
        }
        self.0.count.fetch_add(descriptors.len(), Ordering::Relaxed);
        let closing = Closing {
            descriptors,
            open: Arc::clone(&self.0),
        };
        // Not many: what is read at once brings a few of them. Where there is no thread to be had, they are closed with others'
        // descriptors when this is dropped.
        let thread = std::thread::Builder::new().name("untaken".into());
        let started = thread
            .stack_size(64 << 10)
            .spawn(move || closing.wait_for());
        if let Err(error) = started {
            tracing::warn!(%error, "no thread to close a peer's descriptors");
        }
    }

    /// How many are not closed yet.
    pub(super) fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Waits until more may come.
    ///
    /// # Errors
    /// `Protocol` for a peer of whose descriptors so many do not close.
    pub(super) async fn room(&self, limits: &LinkLimits) -> Result<()> {
        let most = MESSAGES * limits.max_descriptors as usize;
        if self.count() <= most {
            return Ok(());
        }
        let fewer = async {
            while self.count() > most {
                self.0.fewer.notified().await;
            }
        };
        tokio::time::timeout(DEADLINE, fewer).await.map_err(|_| {
            let count = self.count();
            protocol(format!(
                "{count} descriptors that no message took and that do not close"
            ))
        })
    }
}

impl Open {
    fn closed(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::Relaxed);
        self.fewer.notify_one();
    }
}

impl Closing {
    fn wait_for(mut self) {
        while let Some(descriptor) = self.descriptors.pop() {
            drop(descriptor.into_owned());
            self.open.closed(1);
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.open.closed(self.descriptors.len());
    }
}
