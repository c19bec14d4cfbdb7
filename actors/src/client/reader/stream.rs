//! The samples of one stream, as a `Stream`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures::Stream;
use portcullis_engine::{Error, ErrorKind, MediaTime, MediaType, Result, Sample, StreamDescriptor};
use tokio::sync::mpsc;

use super::super::session::MediaSession;
use crate::pipeline::sink::{Grabbed, GrabbedItem};

/// The samples of one stream. Ends after the last one.
///
/// An error stands in place of what could not be delivered; after it the stream goes on with what is intact, or ends.
/// Dropping the stream stops its part of the session; with the reader dropped too, everything.
pub struct SampleStream {
    session: MediaSession,
    descriptor: StreamDescriptor,
    media_type: MediaType,
    items: mpsc::Receiver<GrabbedItem>,
    /// The flow that the grabber is in: items of an earlier one are stale.
    epoch: Arc<AtomicU64>,
    name: String,
    shared_views: bool,
    /// The flow that has ended: a seek, through whichever stream, begins another.
    ended: Option<u64>,
    /// Nothing can come any more.
    is_lost: bool,
}

impl SampleStream {
    pub(super) fn new(
        session: MediaSession,
        descriptor: StreamDescriptor,
        media_type: MediaType,
        items: mpsc::Receiver<GrabbedItem>,
        epoch: Arc<AtomicU64>,
        name: String,
        shared_views: bool,
    ) -> Self {
        Self {
            session,
            descriptor,
            media_type,
            items,
            epoch,
            name,
            shared_views,
            ended: None,
            is_lost: false,
        }
    }

    /// The stream in its container.
    pub fn descriptor(&self) -> &StreamDescriptor {
        &self.descriptor
    }

    /// The type of the sample that was given last; before the first one, what was negotiated.
    pub fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// Goes on at another position, in all streams that were opened together with this one.
    ///
    /// # Errors
    /// `InvalidPosition`, `NotSeekable`.
    pub async fn seek(&mut self, position: MediaTime) -> Result<()> {
        self.session.start(Some(position)).await
    }
}

impl Stream for SampleStream {
    type Item = Result<Sample>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.is_lost && this.ended != Some(this.epoch.load(Ordering::Acquire)) {
            let Some(item) = ready!(this.items.poll_recv(cx)) else {
                // Without an end: the host is gone, or the session, or another topology has taken this one's place.
                let lost = this.session.host().lost().and_then(|lost| lost.now());
                let error = lost.unwrap_or_else(Error::cancelled);
                this.is_lost = true;
                return Poll::Ready(Some(Err(error.of_input(this.name.clone()))));
            };
            if item.epoch.0 < this.epoch.load(Ordering::Acquire) {
                continue;
            }
            match item.what {
                Grabbed::Format(media_type) => this.media_type = media_type,
                Grabbed::Sample(mut sample) => {
                    if let Err(error) = check_size(&this.media_type, &sample) {
                        return Poll::Ready(Some(Err(error.of_input(this.name.clone()))));
                    }
                    if !this.shared_views {
                        // The host can still write what it sent: the application gets a copy that it cannot.
                        sample.payload = sample.payload.into_private();
                    }
                    return Poll::Ready(Some(Ok(sample)));
                }
                Grabbed::Fault(error) => {
                    return Poll::Ready(Some(Err(error.of_input(this.name.clone()))));
                }
                Grabbed::End => this.ended = Some(item.epoch.0),
            }
        }
        Poll::Ready(None)
    }
}

/// Whoever takes pictures apart goes by their type: a payload of another size than that says, as a hostile host may send it,
/// is refused.
fn check_size(media_type: &MediaType, sample: &Sample) -> Result<()> {
    if !media_type.subtype.is_raw() {
        return Ok(());
    }
    let (format, size) = (media_type.pixel_format(), media_type.frame_size());
    let due = format
        .zip(size)
        .and_then(|(format, (width, height))| format.picture_bytes(width, height));
    match due {
        Some(due) if due != sample.len() => {
            let what = format!(
                "a picture of {} bytes in a stream of {media_type}",
                sample.len()
            );
            Err(Error::new(ErrorKind::Protocol(what.into())))
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for SampleStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SampleStream({} of {})", self.media_type, self.name)
    }
}
