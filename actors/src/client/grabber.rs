//! A sink whose samples the application takes, for topologies of its own.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures::Stream;
use portcullis_engine::Result;
use tokio::sync::mpsc;

use super::session::MediaSession;
use crate::pipeline::session::NodeObject;
use crate::pipeline::sink::{Accept, Grabbed, GrabbedItem, Grabber, ReadAhead, SampleGrabber};
use crate::runtime;

/// What a sample grabber takes: formats, samples, faults and ends, in order. What a change of position made stale is
/// left out.
///
/// The pipeline waits while 16 items do. Payloads are copied out of the host's memory.
pub struct GrabbedSamples {
    items: mpsc::Receiver<GrabbedItem>,
    epoch: Arc<AtomicU64>,
}

impl MediaSession {
    /// A sink in the application's process, wherever the session runs, and what it takes. It has one stream and takes
    /// every type; with presentation pacing samples come at their time.
    ///
    /// # Errors
    /// `Cancelled` if the process is ending.
    pub async fn sample_grabber(&self) -> Result<(NodeObject, GrabbedSamples)> {
        let start = || async { Ok(SampleGrabber::start(ReadAhead::default(), Accept::Any)) };
        let Grabber { sink, items, epoch } = runtime::run(start).await?;
        Ok((NodeObject::Sink(sink), GrabbedSamples { items, epoch }))
    }
}

impl Stream for GrabbedSamples {
    type Item = GrabbedItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<GrabbedItem>> {
        loop {
            let Some(mut item) = ready!(self.items.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            if item.epoch.0 < self.epoch.load(Ordering::Acquire) {
                continue;
            }
            if let Grabbed::Sample(sample) = &mut item.what {
                // The host can still write what it sent: the application gets a copy that it cannot.
                let payload = std::mem::take(&mut sample.payload);
                sample.payload = payload.into_private();
            }
            return Poll::Ready(Some(item));
        }
    }
}

impl fmt::Debug for GrabbedSamples {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("GrabbedSamples")
    }
}
