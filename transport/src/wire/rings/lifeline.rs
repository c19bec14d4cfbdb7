//! The socket beside two rings: it ends with the peer, and it carries descriptors.
//!
//! Both halves of a link may wait for the socket and for the alarm, but the runtime wakes one task for each: so what is
//! registered there wakes both.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::net::UnixStream;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::descriptor::ReceivedFd;
use crate::error::TransportError;
use crate::wire::unix;

/// Bytes of a message.
pub(super) const MESSAGE_LEN: usize = 16;

const MAGIC: [u8; 4] = *b"PCFD";

/// Half of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Reader,
    Writer,
}

pub(super) struct Lifeline {
    socket: Arc<UnixStream>,
    /// The descriptors that came and are not taken.
    held: RefCell<Option<Vec<ReceivedFd>>>,
    /// Messages that came.
    received: Cell<u64>,
    /// Messages that went.
    sent: Cell<u64>,
    ended: Cell<bool>,
    failed: RefCell<Option<TransportError>>,
    waiters: Arc<Waiters>,
    /// Wakes all of `waiters`.
    waker: Waker,
}

impl Lifeline {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        let waiters = Arc::new(Waiters::default());
        Self {
            socket,
            held: RefCell::new(None),
            received: Cell::new(0),
            sent: Cell::new(0),
            ended: Cell::new(false),
            failed: RefCell::new(None),
            waker: Waker::from(Arc::clone(&waiters)),
            waiters,
        }
    }

    /// Polls on behalf of a half: when it is ready later, both halves are woken.
    pub(super) fn as_half<T>(
        &self,
        half: Half,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> T {
        self.waiters.register(half, cx.waker());
        poll(&mut Context::from_waker(&self.waker))
    }

    /// What is ready for one half was taken by it; the other must look too.
    pub(super) fn wake_other(&self, half: Half) {
        self.waiters.wake_half(match half {
            Half::Reader => Half::Writer,
            Half::Writer => Half::Reader,
        });
    }

    /// Takes what came over the socket; whether there is something new: descriptors or the end.
    pub(super) fn poll(&self, half: Half, cx: &mut Context<'_>) -> Result<bool, TransportError> {
        if let Some(error) = &*self.failed.borrow() {
            return Err(error.clone());
        }
        if self.is_holding() || self.has_ended() {
            return Ok(false);
        }
        let received = match self.as_half(half, cx, |cx| self.poll_receive(cx)) {
            Poll::Ready(received) => received,
            Poll::Pending => return Ok(false),
        };
        let outcome = received.and_then(|received| match received {
            Some((bytes, descriptors)) => self.accept(&bytes, descriptors),
            None => {
                self.ended.set(true);
                Ok(())
            }
        });
        if let Err(error) = &outcome {
            self.failed.replace(Some(error.clone()));
        }
        self.wake_other(half);
        outcome.map(|()| true)
    }

    /// Whether the peer has gone.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether descriptors wait for their frame.
    pub(super) fn is_holding(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// The descriptors of the frame that announces `count` of them.
    pub(super) fn take(&self, count: usize) -> Result<Option<Vec<ReceivedFd>>, TransportError> {
        match self.held.take() {
            Some(held) if held.len() != count => Err(TransportError::protocol(format!(
                "rings: {} descriptors came where the frame announces {count}",
                held.len()
            ))),
            held => Ok(held),
        }
    }

    /// Sends descriptors of the frame whose first bytes are in the ring.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        descriptors: &[OwnedFd],
    ) -> Poll<Result<(), TransportError>> {
        let message = message(self.sent.get(), descriptors.len());
        let sent = ready!(unix::poll_send(&self.socket, cx, &message, descriptors))?;
        self.sent.set(self.sent.get() + 1);
        // The kernel takes so few bytes whole or not at all.
        Poll::Ready(match sent {
            MESSAGE_LEN => Ok(()),
            _ => Err(TransportError::Closed),
        })
    }

    /// Ends the link for both sides.
    pub(super) fn shut(&self) {
        unix::abort(&self.socket);
    }

    /// A message, or `None` at the end.
    #[allow(clippy::type_complexity)]
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Vec<u8>, Vec<ReceivedFd>)>, TransportError>> {
        // One more than there may be, so that a longer one is seen.
        let mut scratch = [0; MESSAGE_LEN + 1];
        let received = ready!(unix::poll_receive(&self.socket, cx, &mut scratch));
        Poll::Ready(match received {
            Ok((0, _)) => Ok(None),
            Ok((len, descriptors)) => Ok(Some((scratch[..len].to_vec(), descriptors))),
            Err(TransportError::Closed) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn accept(&self, bytes: &[u8], descriptors: Vec<ReceivedFd>) -> Result<(), TransportError> {
        let number = self.received.get();
        if bytes != message(number, descriptors.len()) {
            return Err(TransportError::protocol(format!(
                "rings: {} bytes with {} descriptors are not message {number} of such",
                bytes.len(),
                descriptors.len()
            )));
        }
        if descriptors.is_empty() {
            return Err(TransportError::protocol(
                "rings: a message about descriptors has none",
            ));
        }
        self.received.set(number + 1);
        self.held.replace(Some(descriptors));
        Ok(())
    }
}

/// The message that so many descriptors come with.
pub(super) fn message(number: u64, count: usize) -> [u8; MESSAGE_LEN] {
    let wire = WireMessage {
        magic: MAGIC,
        count: (count as u32).into(),
        number: number.into(),
    };
    zerocopy::transmute!(wire)
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireMessage {
    magic: [u8; 4],
    count: U32,
    number: U64,
}

const _: () = assert!(size_of::<WireMessage>() == MESSAGE_LEN);

/// The tasks of both halves.
#[derive(Default)]
struct Waiters {
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Waiters {
    fn of(&self, half: Half) -> MutexGuard<'_, Option<Waker>> {
        let waiter = match half {
            Half::Reader => &self.reader,
            Half::Writer => &self.writer,
        };
        waiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, half: Half, waker: &Waker) {
        match &mut *self.of(half) {
            Some(known) => known.clone_from(waker),
            unknown => *unknown = Some(waker.clone()),
        }
    }

    fn wake_half(&self, half: Half) {
        // Never under the lock: what a waker runs may come back here.
        let waker = self.of(half).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_half(Half::Reader);
        self.wake_half(Half::Writer);
    }
}
