//! The receiving half of a link.

use std::fmt;
use std::ops::ControlFlow;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::sender::LinkSender;
use crate::error::TransportError;
use crate::frame::{Frame, FrameDecoder, FrameRef};
use crate::wire::WireReader;

/// Most frames that one receive gives, so that a flooding peer cannot keep its reader's thread.
pub const MAX_FRAMES_PER_RECEIVE: usize = 64;

/// Gives the frames of the peer, in the order in which they were pushed.
pub struct LinkReceiver {
    wire: Box<dyn WireReader>,
    decoder: FrameDecoder,
    sender: LinkSender,
    /// The last receive was cut off by the budget: the next one yields first.
    cut_off: bool,
    failed: Option<TransportError>,
}

impl LinkReceiver {
    pub(super) fn new(
        wire: Box<dyn WireReader>,
        decoder: FrameDecoder,
        sender: LinkSender,
    ) -> Self {
        Self {
            wire,
            decoder,
            sender,
            cut_off: false,
            failed: None,
        }
    }

    /// Appends at least one frame: every whole frame of one read, at most [`MAX_FRAMES_PER_RECEIVE`]. May be dropped and
    /// called again without losing any.
    ///
    /// # Errors
    /// [`TransportError::Closed`] when the peer ended between two frames, else what broke the link. Frames that came
    /// before the error are given first. Errors are final.
    pub async fn receive(&mut self, into: &mut Vec<Frame>) -> Result<(), TransportError> {
        std::future::poll_fn(|cx| self.poll_receive(cx, into)).await
    }

    /// [`receive`](Self::receive) for those who poll.
    ///
    /// # Errors
    /// As there.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<Frame>,
    ) -> Poll<Result<(), TransportError>> {
        if std::mem::take(&mut self.cut_off) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.len();
        let received = ready!(self.poll_receive_each(cx, |frame| {
            into.push(Frame {
                header: frame.header,
                body: Bytes::copy_from_slice(frame.body),
                descriptors: frame.descriptors,
            });
            ControlFlow::Continue(())
        }));
        self.cut_off = into.len() - before == MAX_FRAMES_PER_RECEIVE;
        Poll::Ready(received)
    }

    /// Hands at least one frame to `each`, where it lies: every whole frame of one read, at most [`MAX_FRAMES_PER_RECEIVE`],
    /// and none after `each` has broken off. A caller that comes again at once gives others their turn before.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn poll_receive_each(
        &mut self,
        cx: &mut Context<'_>,
        each: impl FnMut(FrameRef<'_>) -> ControlFlow<()>,
    ) -> Poll<Result<(), TransportError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let result = ready!(self.poll_frames(cx, each));
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        Poll::Ready(result)
    }

    fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        mut each: impl FnMut(FrameRef<'_>) -> ControlFlow<()>,
    ) -> Poll<Result<(), TransportError>> {
        loop {
            self.sender.check_receiving(cx.waker())?;
            let mut count = 0;
            while count < MAX_FRAMES_PER_RECEIVE {
                match self.decoder.next_frame_ref() {
                    Ok(Some(frame)) => {
                        if each(frame).is_break() {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Ok(None) => break,
                    // The decoder keeps the error: the next call gives it.
                    Err(_) if count > 0 => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error)),
                }
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.wire.poll_read(cx, &mut self.decoder))? == 0 {
                return Poll::Ready(Err(self.end_of_stream()));
            }
        }
    }

    fn end_of_stream(&self) -> TransportError {
        match self.decoder.buffered() {
            0 => TransportError::Closed,
            partial => {
                TransportError::protocol(format!("the link ended {partial} bytes into a frame"))
            }
        }
    }
}

impl fmt::Debug for LinkReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkReceiver")
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}
