//! Hands samples to the application: the sink of readers, in the application's process wherever the session runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use portcullis_engine::{Error, MediaType, Result, Sample};
use tokio::sync::mpsc;

use super::{ReadAhead, Renderer, SinkActor, SinkObject};
use crate::pipeline::port::Epoch;
use crate::system_time;

/// Things that wait for the application at most; the pipeline waits beyond that.
const WAITING: usize = 16;

/// What a grabber takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Everything.
    Any,
    /// Uncompressed samples.
    Raw,
}

/// One thing for the application.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grabbed {
    /// What follows in this stream is of this type.
    Format(MediaType),
    /// A sample.
    Sample(Sample),
    /// Something could not be delivered; what follows is intact.
    Fault(Error),
    /// The stream has ended.
    End,
}

/// A grabbed thing with the stream that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct GrabbedItem {
    /// Which stream of the grabber.
    pub stream: u32,
    /// The position change that it belongs to; what is older than the newest one is to be discarded.
    pub epoch: Epoch,
    /// What it is.
    pub what: Grabbed,
}

/// Hands samples over to the application.
pub(crate) struct SampleGrabber {
    items: mpsc::Sender<GrabbedItem>,
    epoch: Epoch,
    /// The same, for whoever takes the items: what is older than it is stale.
    current: Arc<AtomicU64>,
    accept: Accept,
}

/// A grabber, as the application holds it.
#[derive(Debug)]
pub(crate) struct Grabber {
    /// The sink.
    pub(crate) sink: SinkObject,
    /// What it grabs.
    pub(crate) items: mpsc::Receiver<GrabbedItem>,
    /// The flow that it is in.
    pub(crate) epoch: Arc<AtomicU64>,
}

impl SampleGrabber {
    /// Starts a grabber on this arbiter.
    pub(crate) fn start(ahead: ReadAhead, accept: Accept) -> Grabber {
        let (sender, items) = mpsc::channel(WAITING);
        let epoch = Arc::new(AtomicU64::new(0));
        let grabber = Self {
            items: sender,
            epoch: Epoch::default(),
            current: Arc::clone(&epoch),
            accept,
        };
        Grabber {
            sink: SinkActor::create(grabber, ahead, system_time::now),
            items,
            epoch,
        }
    }

    fn hand_over(&self, stream: u32, what: Vec<Grabbed>) -> LocalBoxFuture<'static, Result<()>> {
        let (items, epoch) = (self.items.clone(), self.epoch);
        async move {
            for what in what {
                let item = GrabbedItem {
                    stream,
                    epoch,
                    what,
                };
                if items.send(item).await.is_err() {
                    return Err(Error::cancelled());
                }
            }
            Ok(())
        }
        .boxed_local()
    }
}

impl Renderer for SampleGrabber {
    fn set_type(
        &mut self,
        stream: u32,
        media_type: MediaType,
    ) -> LocalBoxFuture<'static, Result<()>> {
        let refused = match &self.accept {
            Accept::Any => false,
            Accept::Raw => !media_type.subtype.is_raw(),
        };
        if refused {
            let error = Error::invalid_type(&media_type, "decoded samples are wanted");
            return std::future::ready(Err(error)).boxed_local();
        }
        if self.epoch == Epoch::default() {
            // Still being negotiated: the application learns the outcome from the topology.
            return std::future::ready(Ok(())).boxed_local();
        }
        self.hand_over(stream, vec![Grabbed::Format(media_type)])
    }

    fn render(&mut self, stream: u32, samples: Vec<Sample>) -> LocalBoxFuture<'static, Result<()>> {
        self.hand_over(stream, samples.into_iter().map(Grabbed::Sample).collect())
    }

    fn fault(&mut self, stream: u32, error: Error) -> LocalBoxFuture<'static, Result<()>> {
        self.hand_over(stream, vec![Grabbed::Fault(error)])
    }

    fn end_of_stream(&mut self, stream: u32) -> LocalBoxFuture<'static, Result<()>> {
        self.hand_over(stream, vec![Grabbed::End])
    }

    fn fail(&mut self, stream: u32, error: Error) -> LocalBoxFuture<'static, Result<()>> {
        self.hand_over(stream, vec![Grabbed::Fault(error), Grabbed::End])
    }

    fn finalize(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        std::future::ready(Ok(())).boxed_local()
    }

    fn flush(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.current.store(epoch.0, Ordering::Release);
    }

    fn is_rateless(&self) -> bool {
        true
    }
}
