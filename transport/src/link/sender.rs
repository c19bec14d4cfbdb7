//! The sending half of a link: an out-buffer that anyone on the link's thread appends to, and the one future that writes it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::Notify;

use crate::error::TransportError;
use crate::frame::{FrameHeader, HEADER_LEN};
use crate::handshake::LinkLimits;
use crate::wire::{MAX_WRITE, WireWriter};

/// Bytes that may wait on top of the credited ones: control frames, which need no credit.
const CONTROL_RESERVE: usize = 8 << 20;

/// A buffer that grew beyond this for one burst is given back.
const KEPT_CAPACITY: usize = 256 << 10;

/// Pushes frames onto a link. Clones push onto the same link, in one order.
#[derive(Clone)]
pub struct LinkSender {
    outgoing: Rc<RefCell<Outgoing>>,
    /// Something was written, or the link has ended.
    written: Rc<Notify>,
}

/// Writes what was pushed onto a link. Resolves when the link was closed and all is written, or with what broke it.
///
/// Dropping it ends the link.
#[must_use = "nothing is written unless this future runs"]
pub struct LinkWriter {
    outgoing: Rc<RefCell<Outgoing>>,
    progress: Rc<Notify>,
    wire: Box<dyn WireWriter>,
    batch: Batch,
    written: usize,
    finished: bool,
}

struct Outgoing {
    filling: Batch,
    /// Bytes taken by the writer and not yet written.
    in_writer: usize,
    /// Bytes pushed since the link began; with those waiting it says whether a flush is done.
    pushed_total: u64,
    state: State,
    /// Whether the receiver must stop too. After a mere write error it goes on: what the peer said before it went is
    /// still to be read, and the end of the stream follows.
    aborted: bool,
    max_frame: usize,
    max_queued: usize,
    max_descriptors: usize,
    writer: Option<Waker>,
    receiver: Option<Waker>,
}

enum State {
    Open,
    /// No more pushes; what is queued is still written.
    Closing,
    Ended(TransportError),
}

/// Encoded frames, and which descriptors belong to the frame that begins at which byte.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    descriptors: VecDeque<(usize, Vec<OwnedFd>)>,
}

pub(super) fn pair(
    wire: Box<dyn WireWriter>,
    limits: LinkLimits,
    max_descriptors: usize,
) -> (LinkSender, LinkWriter) {
    let outgoing = Rc::new(RefCell::new(Outgoing {
        filling: Batch::default(),
        in_writer: 0,
        pushed_total: 0,
        state: State::Open,
        aborted: false,
        max_frame: limits.max_frame as usize,
        max_queued: (limits.byte_window as usize)
            .saturating_add(limits.max_frame as usize)
            .saturating_add(CONTROL_RESERVE),
        max_descriptors,
        writer: None,
        receiver: None,
    }));
    let progress = Rc::new(Notify::new());
    let sender = LinkSender {
        outgoing: outgoing.clone(),
        written: progress.clone(),
    };
    let writer = LinkWriter {
        outgoing,
        progress,
        wire,
        batch: Batch::default(),
        written: 0,
        finished: false,
    };
    (sender, writer)
}

impl LinkSender {
    /// Appends a frame whose body is `body`'s parts one after another. The header's length and descriptor count are set
    /// from what is given. Nothing waits: the frame is written by the [`LinkWriter`].
    ///
    /// # Errors
    /// When the frame exceeds the agreed limits, when the peer does not read (`QueueFull`), or with what ended the link.
    /// The descriptors are closed then.
    pub fn push(
        &self,
        mut header: FrameHeader,
        body: &[&[u8]],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), TransportError> {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.check_open()?;
        let len = body
            .iter()
            .map(|part| part.len())
            .fold(0, usize::saturating_add);
        if len > outgoing.max_frame {
            return Err(TransportError::FrameTooLarge {
                len: len as u64,
                max: outgoing.max_frame as u64,
            });
        }
        if descriptors.len() > outgoing.max_descriptors {
            return Err(TransportError::TooManyDescriptors {
                count: descriptors.len(),
                max: outgoing.max_descriptors,
            });
        }
        let queued = outgoing.queued() + HEADER_LEN + len;
        if queued > outgoing.max_queued {
            return Err(TransportError::QueueFull {
                queued,
                max: outgoing.max_queued,
            });
        }
        header.len = u32::try_from(len).expect("max_frame is a u32");
        header.set_descriptor_count(descriptors.len());
        let batch = &mut outgoing.filling;
        if !descriptors.is_empty() {
            batch
                .descriptors
                .push_back((batch.bytes.len(), descriptors));
        }
        batch.bytes.reserve(HEADER_LEN + len);
        batch.bytes.extend_from_slice(&header.to_bytes());
        for part in body {
            batch.bytes.extend_from_slice(part);
        }
        outgoing.pushed_total += (HEADER_LEN + len) as u64;
        let writer = outgoing.writer.take();
        drop(outgoing);
        wake_all(writer);
        Ok(())
    }

    /// Bytes pushed and not yet taken by the wire.
    pub fn queued_bytes(&self) -> usize {
        self.outgoing.borrow().queued()
    }

    /// Largest body that [`push`](Self::push) takes.
    pub fn max_frame(&self) -> usize {
        self.outgoing.borrow().max_frame
    }

    /// Waits until all that was pushed before is written to the wire.
    ///
    /// # Errors
    /// With what ended the link first.
    pub async fn flush(&self) -> Result<(), TransportError> {
        let target = self.outgoing.borrow().pushed_total;
        self.wait_until(|outgoing| outgoing.pushed_total - outgoing.queued() as u64 >= target)
            .await
    }

    /// Waits until no more than `bytes` wait to be written: back-pressure for whoever can wait.
    ///
    /// # Errors
    /// With what ended the link first.
    pub async fn queued_at_most(&self, bytes: usize) -> Result<(), TransportError> {
        self.wait_until(|outgoing| outgoing.queued() <= bytes).await
    }

    /// Takes no more frames; those already pushed are written, then the peer sees the end of the stream.
    pub fn close(&self) {
        let mut outgoing = self.outgoing.borrow_mut();
        if matches!(outgoing.state, State::Open) {
            outgoing.state = State::Closing;
            let writer = outgoing.writer.take();
            drop(outgoing);
            wake_all(writer);
        }
    }

    /// Ends the link in both directions at once; what was not written is dropped. `error` is what later pushes, flushes
    /// and receives on this side get.
    pub fn abort(&self, error: TransportError) {
        let wakers = self.outgoing.borrow_mut().abort(error);
        wake_all(wakers);
        self.written.notify_waiters();
    }

    /// What ended the link, if it has ended.
    pub fn ended(&self) -> Option<TransportError> {
        self.outgoing.borrow().state.ended()
    }

    /// The receiver's check before each read: an abort on this side ends it too.
    pub(super) fn check_receiving(&self, waker: &Waker) -> Result<(), TransportError> {
        let mut outgoing = self.outgoing.borrow_mut();
        if let (true, State::Ended(error)) = (outgoing.aborted, &outgoing.state) {
            return Err(error.clone());
        }
        match &mut outgoing.receiver {
            Some(known) => known.clone_from(waker),
            unknown => *unknown = Some(waker.clone()),
        }
        Ok(())
    }

    async fn wait_until(&self, done: impl Fn(&Outgoing) -> bool) -> Result<(), TransportError> {
        loop {
            // Made before looking, so that nothing written in between is missed; forgotten when this future is dropped.
            let written = self.written.notified();
            {
                let outgoing = self.outgoing.borrow();
                if let State::Ended(error) = &outgoing.state {
                    return Err(error.clone());
                }
                if done(&outgoing) {
                    return Ok(());
                }
            }
            written.await;
        }
    }
}

impl fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSender")
            .field("queued_bytes", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    fn queued(&self) -> usize {
        self.filling.bytes.len() + self.in_writer
    }

    fn check_open(&self) -> Result<(), TransportError> {
        match &self.state {
            State::Open => Ok(()),
            State::Closing => Err(TransportError::Closed),
            State::Ended(error) => Err(error.clone()),
        }
    }

    /// Ends sending; the first cause stays. Returns whom to wake once the borrow is over.
    #[must_use]
    fn end(&mut self, error: TransportError) -> Option<Waker> {
        if matches!(self.state, State::Ended(_)) {
            return None;
        }
        self.state = State::Ended(error);
        self.filling = Batch::default();
        self.in_writer = 0;
        self.writer.take()
    }

    /// Ends sending and receiving. Returns whom to wake once the borrow is over.
    fn abort(&mut self, error: TransportError) -> impl Iterator<Item = Waker> + use<> {
        let writer = self.end(error);
        self.aborted = true;
        writer.into_iter().chain(self.receiver.take())
    }
}

/// Never under a borrow: what a waker runs, or drops, may use the link.
fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl LinkWriter {
    /// Takes what was pushed since; `false` when there is nothing.
    fn refill(&mut self) -> bool {
        let mut outgoing = self.outgoing.borrow_mut();
        if self.written < self.batch.bytes.len() {
            return true;
        }
        self.batch.bytes.clear();
        if self.batch.bytes.capacity() > KEPT_CAPACITY {
            self.batch.bytes = Vec::new();
        }
        self.written = 0;
        std::mem::swap(&mut self.batch, &mut outgoing.filling);
        outgoing.in_writer = self.batch.bytes.len();
        !self.batch.bytes.is_empty()
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let next_with_descriptors =
            |batch: &Batch, index: usize| batch.descriptors.get(index).map(|(at, _)| *at);
        let here = next_with_descriptors(&self.batch, 0) == Some(self.written);
        let end = next_with_descriptors(&self.batch, usize::from(here))
            .unwrap_or(usize::MAX)
            .min(self.batch.bytes.len())
            .min(self.written.saturating_add(MAX_WRITE));
        let bytes = self.batch.bytes.get(self.written..end).unwrap_or_default();
        let descriptors = match self.batch.descriptors.front() {
            Some((_, descriptors)) if here => descriptors.as_slice(),
            _ => &[],
        };
        let written = ready!(self.wire.poll_write(cx, bytes, descriptors))?;
        if here {
            self.batch.descriptors.pop_front();
        }
        self.written += written;
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.in_writer = outgoing.in_writer.saturating_sub(written);
        drop(outgoing);
        self.progress.notify_waiters();
        Poll::Ready(Ok(()))
    }
}

impl Future for LinkWriter {
    type Output = Result<(), TransportError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let (ended, aborted) = {
                let outgoing = this.outgoing.borrow();
                (outgoing.state.ended(), outgoing.aborted)
            };
            if let Some(error) = ended {
                if aborted || error != TransportError::Closed {
                    this.wire.abort();
                }
                this.finished = true;
                return Poll::Ready(Err(error));
            }
            let step = if this.refill() {
                this.poll_batch(cx)
            } else if matches!(this.outgoing.borrow().state, State::Closing) {
                let step = this.wire.poll_shutdown(cx);
                if let Poll::Ready(Ok(())) = step {
                    this.finished = true;
                    return Poll::Ready(Ok(()));
                }
                step
            } else {
                Poll::Pending
            };
            match step {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    let waker = this.outgoing.borrow_mut().end(error);
                    wake_all(waker);
                    this.progress.notify_waiters();
                }
                Poll::Pending => {
                    this.outgoing.borrow_mut().writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

impl State {
    fn ended(&self) -> Option<TransportError> {
        match self {
            Self::Ended(error) => Some(error.clone()),
            Self::Open | Self::Closing => None,
        }
    }
}

impl Drop for LinkWriter {
    fn drop(&mut self) {
        // After an orderly close the receiver goes on until the peer closes too.
        if !self.finished {
            let wakers = self.outgoing.borrow_mut().abort(TransportError::Closed);
            self.wire.abort();
            wake_all(wakers);
            self.progress.notify_waiters();
        }
    }
}

impl fmt::Debug for LinkWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkWriter").finish_non_exhaustive()
    }
}
