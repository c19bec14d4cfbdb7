//! The seam between a link and what carries its bytes: a Unix socket, any duplex stream,
//! two rings in shared memory.
//!
//! A wire moves a stream of bytes, and perhaps descriptors with positions in that stream. All that is said about frames,
//! queues and batches is said once, in [`crate::link`].

pub(crate) mod rings;
pub(crate) mod stream;
pub(crate) mod unix;

use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use crate::error::TransportError;
use crate::frame::FrameDecoder;
use crate::handshake::Features;

/// Most bytes given to a wire at once.
pub(crate) const MAX_WRITE: usize = 64 << 10;

/// The writing half.
pub(crate) trait WireWriter {
    /// Writes some bytes; `descriptors` belong to the first of them and are never split from it. Whoever gets `Pending`
    /// comes back with the same bytes and descriptors.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        descriptors: &[OwnedFd],
    ) -> Poll<Result<usize, TransportError>>;

    /// Says that no more bytes will come.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Ends both directions at once.
    fn abort(&mut self);
}

/// The reading half.
pub(crate) trait WireReader {
    /// Feeds what has arrived to the decoder and says how many bytes that was; 0 is the end of the stream.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut FrameDecoder,
    ) -> Poll<Result<usize, TransportError>>;
}

/// Both halves, and what they can do.
pub(crate) struct Wire {
    pub(crate) writer: Box<dyn WireWriter>,
    pub(crate) reader: Box<dyn WireReader>,
    pub(crate) features: Features,
    /// What takes the place of this wire if the peer can do so too ([`Features::RINGS`]).
    pub(crate) rings: Option<rings::Offer>,
}
