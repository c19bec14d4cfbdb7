//! What each side gives the other after the hello when both want rings: one message over the socket, with two descriptors.
//!
//! Both sides speak first, as in the handshake. Nothing of the peer's is used before it was checked: the file must be
//! ordinary anonymous memory of exactly the announced size, which can neither shrink nor be written by anybody but its
//! creator; the alarm must be an event counter.

use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::UnixStream;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Rings, spin};
use crate::descriptor::ReceivedFd;
use crate::error::TransportError;
use crate::frame::FrameDecoder;
use crate::link::config::{LinkConfig, MAX_RING, MIN_RING, Spin};
use crate::sys::alarm::{self, Alarm, Bell};
use crate::sys::ring::{HEADER, OwnRing, PeerRing};
use crate::sys::segment::check_sealed;
use crate::wire::Wire;

/// The version of the memory's layout and of what goes over the socket beside it.
pub(super) const FORMAT: u16 = 1;
/// Bytes of the message.
pub(super) const OFFER_LEN: usize = 32;
/// Descriptors that come with it.
const GIVEN: usize = 2;

const MAGIC: [u8; 8] = *b"PCRINGS\n";

/// This side's ring and alarm, made before the peer is told that there is one.
pub(crate) struct Offer {
    own: OwnRing,
    alarm: OwnedFd,
    /// The ring's memory and the alarm, for the peer.
    given: [OwnedFd; GIVEN],
    may_spin: bool,
    socket: Arc<UnixStream>,
}

impl Offer {
    /// Makes them.
    pub(crate) fn make(
        config: LinkConfig,
        socket: Arc<UnixStream>,
    ) -> Result<Self, TransportError> {
        let refused = |error| TransportError::io("make a ring", error);
        let (own, file) = OwnRing::create(config.capacity()).map_err(refused)?;
        let alarm = alarm::create().map_err(refused)?;
        let twin = rustix::io::fcntl_dupfd_cloexec(&alarm, 0).map_err(refused)?;
        Ok(Self {
            own,
            alarm,
            given: [file, twin],
            may_spin: config.spin == Spin::Adaptive,
            socket,
        })
    }

    pub(super) fn to_bytes(&self) -> [u8; OFFER_LEN] {
        let wire = WireOffer {
            magic: MAGIC,
            format: FORMAT.into(),
            length: (OFFER_LEN as u16).into(),
            capacity: (self.own.capacity() as u32).into(),
            may_spin: self.may_spin.into(),
            reserved: [0; 15],
        };
        zerocopy::transmute!(wire)
    }

    /// Gives the peer what is here and takes what it has, over the socket that the hello went over; then the rings carry
    /// everything.
    pub(crate) async fn exchange(
        self,
        mut wire: Wire,
        decoder: &mut FrameDecoder,
    ) -> Result<Wire, TransportError> {
        let ours = self.to_bytes();
        let mut is_sent = false;
        let mut theirs = None;
        let theirs = poll_fn(|cx| {
            if !is_sent {
                match wire.writer.poll_write(cx, &ours, &self.given) {
                    Poll::Ready(Ok(OFFER_LEN)) => is_sent = true,
                    // The kernel takes so few bytes whole or not at all.
                    Poll::Ready(Ok(_)) => return Poll::Ready(Err(TransportError::Closed)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            while theirs.is_none() {
                // With each of its bytes a peer could send as many as one message has.
                let count = decoder.descriptors_held();
                if count > GIVEN {
                    return Poll::Ready(Err(not_announced(count)));
                }
                theirs = decoder.take_prefix_with_descriptors(OFFER_LEN);
                if theirs.is_some() {
                    break;
                }
                match wire.reader.poll_read(cx, decoder) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(match decoder.is_mid_frame() {
                            true => broken("the link ended inside of the offer"),
                            false => TransportError::Closed,
                        }));
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match theirs.take_if(|_| is_sent) {
                Some(theirs) => Poll::Ready(Ok(theirs)),
                None => Poll::Pending,
            }
        })
        .await?;
        let (bytes, descriptors) = theirs;
        if decoder.is_mid_frame() {
            return Err(broken("bytes follow the offer on the socket"));
        }
        let theirs = *bytes
            .first_chunk::<OFFER_LEN>()
            .expect("take_prefix_with_descriptors gave OFFER_LEN bytes");
        let accepted = accept(theirs, descriptors, self.alarm.as_fd())?;
        let may_spin = self.may_spin && accepted.may_spin && spin::has_second_processor();
        let alarm = Alarm::new(self.alarm)?;
        let rings = Rings::new(self.own, accepted.peer, alarm, accepted.bell, self.socket);
        Ok(rings.into_wire(may_spin, wire.features))
    }
}

struct Accepted {
    peer: PeerRing,
    bell: Bell,
    may_spin: bool,
}

/// Checks what the peer gave. `own` is the alarm of this side.
fn accept(
    bytes: [u8; OFFER_LEN],
    descriptors: Vec<ReceivedFd>,
    own: BorrowedFd<'_>,
) -> Result<Accepted, TransportError> {
    let wire: WireOffer = zerocopy::transmute!(bytes);
    if wire.magic != MAGIC {
        return Err(broken("what came after the hello is no offer"));
    }
    if (wire.format.get(), wire.length.get()) != (FORMAT, OFFER_LEN as u16) {
        return Err(TransportError::HandshakeMismatch {
            field: "ring format",
            ours: format!("{FORMAT} in {OFFER_LEN} bytes"),
            theirs: format!("{} in {} bytes", wire.format, wire.length),
        });
    }
    let capacity = wire.capacity.get();
    if !capacity.is_power_of_two() || !(MIN_RING..=MAX_RING).contains(&capacity) {
        return Err(broken(format!("a ring of {capacity} bytes")));
    }
    let count = descriptors.len();
    let Ok([memory, alarm]) = <[ReceivedFd; GIVEN]>::try_from(descriptors) else {
        return Err(not_announced(count));
    };
    let capacity = capacity as usize;
    check_sealed(memory.as_fd(), (HEADER + capacity) as u64)
        .map_err(|why| broken(format!("the ring's memory: {why}")))?;
    let peer = PeerRing::map(&memory, capacity)
        .map_err(|error| TransportError::io("map the peer's ring", error))?;
    // Anonymous memory, as was checked: its close waits for nothing. So is an event counter's.
    drop(memory.into_owned());
    Bell::check(alarm.as_fd(), own).map_err(|why| broken(format!("the alarm: {why}")))?;
    Ok(Accepted {
        peer,
        bell: Bell::new(alarm.into_owned()),
        may_spin: wire.may_spin != 0,
    })
}

fn not_announced(count: usize) -> TransportError {
    broken(format!("{count} descriptors came, announced are {GIVEN}"))
}

fn broken(what: impl std::fmt::Display) -> TransportError {
    TransportError::protocol(format!("rings: {what}"))
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireOffer {
    magic: [u8; 8],
    format: U16,
    length: U16,
    capacity: U32,
    may_spin: u8,
    reserved: [u8; 15],
}

const _: () = assert!(size_of::<WireOffer>() == OFFER_LEN);
