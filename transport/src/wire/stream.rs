//! Any duplex stream as a wire: an in-memory pair in tests, a network stream later. No descriptors, no shared memory.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};

use super::{Wire, WireReader, WireWriter};
use crate::error::TransportError;
use crate::frame::FrameDecoder;
use crate::handshake::Features;

const READ_BUFFER: usize = 64 << 10;

pub(crate) fn open<S>(stream: S) -> Wire
where
    S: AsyncRead + AsyncWrite + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    Wire {
        writer: Box::new(StreamWriter { stream: writer }),
        reader: Box::new(StreamReader {
            stream: reader,
            scratch: vec![0; READ_BUFFER].into_boxed_slice(),
        }),
        features: Features::NONE,
        rings: None,
    }
}

struct StreamWriter<S> {
    stream: WriteHalf<S>,
}

impl<S: AsyncWrite> WireWriter for StreamWriter<S> {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        descriptors: &[OwnedFd],
    ) -> Poll<Result<usize, TransportError>> {
        debug_assert!(
            descriptors.is_empty(),
            "the sender refuses descriptors on such a link"
        );
        Pin::new(&mut self.stream)
            .poll_write(cx, bytes)
            .map_err(broken)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(broken)
    }

    fn abort(&mut self) {
        // The stream is gone when both halves are dropped; until then the peer is at least told that no more comes.
        let ended =
            Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        tracing::debug!(?ended, "gave up a stream link");
    }
}

struct StreamReader<S> {
    stream: ReadHalf<S>,
    scratch: Box<[u8]>,
}

impl<S: AsyncRead> WireReader for StreamReader<S> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut FrameDecoder,
    ) -> Poll<Result<usize, TransportError>> {
        let mut buffer = ReadBuf::new(&mut self.scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).map_err(broken)?;
        into.feed(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

fn broken(error: std::io::Error) -> TransportError {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::UnexpectedEof
        | std::io::ErrorKind::NotConnected => TransportError::Closed,
        _ => TransportError::io("use the link's stream", error),
    }
}
