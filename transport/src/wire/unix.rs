//! A Unix stream socket as a wire: bytes by `sendmsg`, descriptors by `SCM_RIGHTS`.
//!
//! The kernel copies, so a peer cannot change a frame after it was checked. A descriptor travels with the first byte of
//! its frame: the kernel ends a read at bytes that carry descriptors, so they are never early or late by a frame.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketType, recvmsg, sendmsg,
    sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::rings::Offer;
use super::{Wire, WireReader, WireWriter};
use crate::descriptor::ReceivedFd;
use crate::error::TransportError;
use crate::frame::{FrameDecoder, MAX_DESCRIPTORS};
use crate::handshake::Features;
use crate::link::config::{Carrier, LinkConfig};

const READ_BUFFER: usize = 64 << 10;
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Registers the socket with the runtime of this thread. With rings, if they are wanted and can be had, for both sides to
/// go on with after the hello.
pub(crate) fn open(socket: OwnedFd, config: LinkConfig) -> Result<Wire, TransportError> {
    check_socket(socket.as_fd())?;
    rustix::io::ioctl_fionbio(&socket, true)
        .map_err(|error| TransportError::io("make the link non-blocking", error))?;
    let socket = UnixStream::from_std(socket.into())
        .map_err(|error| TransportError::io("register the link", error))?;
    let socket = Arc::new(socket);
    let rings = match config.carrier {
        Carrier::Rings => Offer::make(config, Arc::clone(&socket))
            .inspect_err(|error| tracing::warn!(%error, "the link stays on its socket"))
            .ok(),
        Carrier::Socket => None,
    };
    let without = match rings {
        Some(_) => Features::NONE,
        None => Features::RINGS,
    };
    Ok(Wire {
        writer: Box::new(UnixWriter {
            socket: socket.clone(),
        }),
        reader: Box::new(UnixReader {
            socket,
            scratch: vec![0; READ_BUFFER].into_boxed_slice(),
        }),
        features: Features::ALL.without(without),
        rings,
    })
}

/// Refuses what is not a connected Unix stream socket, for it was inherited or handed in.
pub(crate) fn check_socket(socket: BorrowedFd<'_>) -> Result<(), TransportError> {
    let named =
        |error: Errno| TransportError::io("the link's descriptor is not a usable socket", error);
    let family = sockopt::socket_domain(socket).map_err(named)?;
    let kind = sockopt::socket_type(socket).map_err(named)?;
    if family == AddressFamily::UNIX && kind == SocketType::STREAM {
        return Ok(());
    }
    Err(TransportError::io(
        "the link's descriptor is not a usable socket",
        format!(
            "expected a Unix stream socket, found family {} type {}",
            family.as_raw(),
            kind.as_raw()
        ),
    ))
}

struct UnixWriter {
    socket: Arc<UnixStream>,
}

impl WireWriter for UnixWriter {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        descriptors: &[OwnedFd],
    ) -> Poll<Result<usize, TransportError>> {
        poll_send(&self.socket, cx, bytes, descriptors)
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(shut(&self.socket, Shutdown::Write))
    }

    fn abort(&mut self) {
        abort(&self.socket);
    }
}

struct UnixReader {
    socket: Arc<UnixStream>,
    /// Reads go here first, so that frames keep alive only bytes that really came.
    scratch: Box<[u8]>,
}

impl WireReader for UnixReader {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut FrameDecoder,
    ) -> Poll<Result<usize, TransportError>> {
        let (len, descriptors) = ready!(poll_receive(&self.socket, cx, &mut self.scratch))?;
        into.feed_descriptors(descriptors);
        into.feed(self.scratch.get(..len).unwrap_or_default());
        Poll::Ready(Ok(len))
    }
}

/// Sends some bytes, and the descriptors with the first of them.
pub(super) fn poll_send(
    socket: &UnixStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> Poll<Result<usize, TransportError>> {
    loop {
        ready!(socket.poll_write_ready(cx)).map_err(|error| broken("write to", error))?;
        match socket.try_io(Interest::WRITABLE, || Ok(send(socket, bytes, descriptors)?)) {
            Ok(written) => return Poll::Ready(Ok(written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(broken("write to", error))),
        }
    }
}

/// Receives some bytes, how many it says, and the descriptors that came with them. No bytes are the end of the stream.
pub(super) fn poll_receive(
    socket: &UnixStream,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
) -> Poll<Result<(usize, Vec<ReceivedFd>), TransportError>> {
    loop {
        ready!(socket.poll_read_ready(cx)).map_err(|error| broken("read from", error))?;
        match socket.try_io(Interest::READABLE, || Ok(receive(socket, scratch)?)) {
            Ok(received) if received.truncated => {
                return Poll::Ready(Err(truncated(received.descriptors.len())));
            }
            Ok(received) => return Poll::Ready(Ok((received.bytes, received.descriptors))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(broken("read from", error))),
        }
    }
}

/// Ends both directions.
pub(super) fn abort(socket: &UnixStream) {
    if let Err(error) = shut(socket, Shutdown::Both) {
        tracing::debug!(%error, "the link was already broken when it was given up");
    }
}

struct Received {
    bytes: usize,
    descriptors: Vec<ReceivedFd>,
    truncated: bool,
}

fn receive(socket: &UnixStream, scratch: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(scratch)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptors = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received.map(ReceivedFd::from));
        }
    }
    Ok(Received {
        bytes: message.bytes,
        descriptors,
        truncated: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<usize, Errno> {
    if descriptors.is_empty() {
        return rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL));
    }
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })
}

fn shut(socket: &UnixStream, how: Shutdown) -> Result<(), TransportError> {
    match rustix::net::shutdown(socket, how) {
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(error) => Err(TransportError::io("shut the link down", error)),
    }
}

/// The kernel closed the descriptors that did not fit: the peer sent too many, or this process can have no more.
fn truncated(received: usize) -> TransportError {
    if received < MAX_DESCRIPTORS {
        return TransportError::io(
            "receive descriptors",
            "this process has too many open; raise its limit (ulimit -n)",
        );
    }
    TransportError::protocol(format!(
        "more than {MAX_DESCRIPTORS} descriptors in one message"
    ))
}

/// A peer that is gone is `Closed`, however the kernel words it.
fn broken(what: &'static str, error: std::io::Error) -> TransportError {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => TransportError::Closed,
        _ => TransportError::io(format!("{what} the link"), error),
    }
}
