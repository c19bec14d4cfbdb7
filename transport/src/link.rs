//! A link: frames to and from one peer, over whatever wire carries them.
//!
//! A link belongs to one thread. Pushing a frame is synchronous and costs no task and no wake-up of its own: it appends to
//! a buffer, and the link's one writer future, woken when the buffer becomes non-empty, writes what all tasks of that turn
//! have pushed. Reading gives every whole frame of one read. Neither side ever waits for the other half.

pub(crate) mod config;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

pub use config::{Carrier, LinkConfig, MAX_RING, MIN_RING, Spin};
pub use receiver::{LinkReceiver, MAX_FRAMES_PER_RECEIVE};
pub use sender::{LinkSender, LinkWriter};

use crate::error::TransportError;
use crate::frame::FrameDecoder;
use crate::handshake::{Agreed, Features, HANDSHAKE_DEADLINE, HELLO_LEN, Hello};
use crate::wire::{self, Wire};

/// One end of a link that is not yet connected. It may move between threads; a [`Link`] may not.
pub struct Endpoint {
    kind: EndpointKind,
    config: LinkConfig,
}

enum EndpointKind {
    Unix(OwnedFd),
    Stream(Box<dyn FnOnce() -> Wire + Send>),
}

impl Endpoint {
    /// A connected Unix stream socket, as a host inherits it.
    pub fn unix(socket: OwnedFd) -> Self {
        Self {
            kind: EndpointKind::Unix(socket),
            config: LinkConfig::default(),
        }
    }

    /// Any duplex stream. Such a link carries neither descriptors nor shared memory.
    pub fn stream<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self {
            kind: EndpointKind::Stream(Box::new(move || wire::stream::open(stream))),
            config: LinkConfig::default(),
        }
    }

    /// How the link carries its bytes, if it is one over a Unix socket.
    #[must_use]
    pub fn config(self, config: LinkConfig) -> Self {
        Self { config, ..self }
    }

    /// Both ends of a new Unix socket pair, close-on-exec.
    ///
    /// # Errors
    /// When the system refuses, as it does without a free descriptor.
    pub fn unix_pair() -> Result<(Self, Self), TransportError> {
        let (one, two) = socket_pair()?;
        Ok((Self::unix(one), Self::unix(two)))
    }

    /// Both ends of a link within this process that holds up to `capacity` bytes each way: for tests, and for what must
    /// work without descriptors and shared memory.
    pub fn memory_pair(capacity: usize) -> (Self, Self) {
        let (one, two) = tokio::io::duplex(capacity);
        (Self::stream(one), Self::stream(two))
    }

    /// Shakes hands and makes the link, on a thread that runs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`TransportError::HandshakeMismatch`] when the sides do not fit, [`TransportError::Timeout`] when the peer stays
    /// silent for [`HANDSHAKE_DEADLINE`], [`TransportError::Closed`] when it goes away.
    pub async fn connect(self, hello: Hello) -> Result<Link, TransportError> {
        let wire = match self.kind {
            EndpointKind::Unix(socket) => wire::unix::open(socket, self.config)?,
            EndpointKind::Stream(open) => open(),
        };
        tokio::time::timeout(HANDSHAKE_DEADLINE, Link::establish(wire, hello))
            .await
            .unwrap_or_else(|_| {
                Err(TransportError::Timeout {
                    what: "the peer's hello".into(),
                    after: HANDSHAKE_DEADLINE,
                })
            })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EndpointKind::Unix(socket) => f.debug_tuple("Endpoint").field(socket).finish(),
            EndpointKind::Stream(_) => f.debug_tuple("Endpoint").field(&"stream").finish(),
        }
    }
}

/// A connected link. Its parts go to different owners: the sender is cloned to whoever speaks, the writer is spawned, the
/// receiver is read in a loop.
#[derive(Debug)]
#[non_exhaustive]
pub struct Link {
    /// Pushes frames.
    pub sender: LinkSender,
    /// Writes what was pushed: spawn it on the link's thread.
    pub writer: LinkWriter,
    /// Gives the peer's frames.
    pub receiver: LinkReceiver,
    /// What both sides came to.
    pub agreed: Agreed,
}

impl Link {
    async fn establish(mut wire: Wire, hello: Hello) -> Result<Self, TransportError> {
        let hello = Hello {
            features: hello.features.intersection(wire.features),
            ..hello
        };
        let ours = hello.to_bytes();
        let mut sent = 0;
        let mut theirs = None;
        let mut decoder = FrameDecoder::new(0);
        // Say ours while reading theirs, so that two peers with full buffers cannot wait for each other.
        let theirs = poll_fn(|cx| {
            while let Some(rest) = ours.get(sent..).filter(|rest| !rest.is_empty()) {
                match wire.writer.poll_write(cx, rest, &[]) {
                    Poll::Ready(Ok(written)) => sent += written,
                    // The peer may have said hello before it left, and that says more: read on.
                    Poll::Ready(Err(_)) => sent = ours.len(),
                    Poll::Pending => break,
                }
            }
            while theirs.is_none() {
                theirs = decoder.take_prefix(HELLO_LEN)?;
                if theirs.is_some() {
                    break;
                }
                if ready!(wire.reader.poll_read(cx, &mut decoder))? == 0 {
                    return Poll::Ready(Err(if decoder.is_mid_frame() {
                        TransportError::protocol("the link ended inside the hello")
                    } else {
                        TransportError::Closed
                    }));
                }
            }
            match theirs.take_if(|_| sent == ours.len()) {
                Some(theirs) => Poll::Ready(Ok(theirs)),
                None => Poll::Pending,
            }
        })
        .await?;
        let theirs = *theirs
            .first_chunk::<HELLO_LEN>()
            .expect("take_prefix gave HELLO_LEN bytes");
        let agreed = hello.agree(theirs)?;
        let descriptors = agreed.features.contains(Features::DESCRIPTORS);
        let max_descriptors = match descriptors {
            true => agreed.limits.max_descriptors as usize,
            false => 0,
        };
        if let Some(rings) = wire.rings.take()
            && agreed.features.contains(Features::RINGS)
        {
            wire = rings.exchange(wire, &mut decoder).await?;
            decoder.wait_for_descriptors();
        }
        decoder.set_limits(agreed.limits.max_frame, max_descriptors);
        let (sender, writer) = sender::pair(wire.writer, agreed.limits, max_descriptors);
        let receiver = LinkReceiver::new(wire.reader, decoder, sender.clone());
        Ok(Self {
            sender,
            writer,
            receiver,
            agreed,
        })
    }
}

/// A new connected Unix stream socket pair, close-on-exec.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd), TransportError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| TransportError::io("make a socket pair", error))
}
