//! Attacks with descriptors and shared memory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use portcullis_transport::FrameHeader;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::SealFlags;

use super::unknown;
use crate::objects::{SLOT, sealed, sealed_with, segment_of};
use crate::peer::{Peer, bytes, kind, of, send_bytes};

pub(crate) fn run(name: &str, peer: &mut Peer) -> io::Result<()> {
    if name.starts_with("slot-") || name == "segment-retired-in-use" {
        return slot(name, peer);
    }
    let create = peer.behave()?;
    let size = u64::from(SLOT);
    match name {
        "descriptors-with-a-ping" => with_descriptors(peer, of(kind::PING), 1, 1),
        "descriptors-unannounced" => with_descriptors(peer, of(kind::CALL), 0, 3),
        "descriptors-missing" => with_descriptors(peer, of(kind::CALL), 3, 0),
        "descriptors-thirty" => with_descriptors(peer, of(kind::CALL), 30, 16),
        "descriptors-at-once" => with_descriptors(peer, of(kind::CALL), 16, 200),
        "descriptors-thousand" => {
            for call in 0..63 {
                // To an object that is not there any more: nothing takes them.
                let header = FrameHeader {
                    call,
                    generation: 1,
                    object: 5,
                    ..of(kind::CALL)
                };
                with_descriptors(peer, header, 16, 16)?;
            }
            // They can be closed at once: it goes on.
            peer.answer_honestly(create.call)?;
            return peer.serve();
        }
        "segment-without-seals" => {
            peer.announce(1, size, 2, &sealed_with(2 * size, SealFlags::empty())?)
        }
        "segment-shrinkable" => {
            let seals = SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
            peer.announce(1, size, 2, &sealed_with(2 * size, seals)?)
        }
        "segment-writable" => {
            let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
            peer.announce(1, size, 2, &sealed_with(2 * size, seals)?)
        }
        "segment-socket" => {
            let socket = peer.socket.as_fd().try_clone_to_owned()?;
            peer.announce(1, size, 2, &socket)
        }
        "segment-pipe" => peer.announce(1, size, 2, &io::stderr()),
        "segment-event" => {
            let event: OwnedFd = eventfd(0, EventfdFlags::CLOEXEC)?;
            peer.announce(1, size, 2, &event)
        }
        "segment-short" => peer.announce(1, size, 2, &sealed(size)?),
        "segment-twice" => {
            peer.announce(1, size, 2, &sealed(2 * size)?)?;
            peer.announce(1, size, 2, &sealed(2 * size)?)
        }
        "segment-of-gigabytes" => {
            let (slot_size, slots) = (128 << 20, 1000);
            let file = sealed(slot_size * u64::from(slots))?;
            peer.announce(1, slot_size, slots, &file)
        }
        "segment-wild" => peer.announce(1, u64::MAX, u32::MAX, &sealed(size)?),
        "segment-of-nothing" => peer.announce(1, size, 0, &sealed(size)?),
        "segment-odd" => peer.announce(1, size - 1, 1, &sealed(size - 1)?),
        "segment-without-descriptor" => peer.send(segment_of(1, size, 1), &[]),
        "segment-two-descriptors" => with_descriptors(peer, segment_of(1, size, 1), 2, 2),
        "segment-thousands" => {
            for segment in 0..1100 {
                peer.announce(segment, size, 1, &sealed(size)?)?;
            }
            Ok(())
        }
        "segment-retired-unknown" => peer.send(segment_of(7, 0, 0), &[]),
        "slots-not-lent" => peer.send(of(kind::SLOTS), &[1; 16]),
        "slots-ragged" => peer.send(of(kind::SLOTS), &[1; 15]),
        _ => unknown(name),
    }?;
    peer.listen()
}

/// References to places in a segment of two slots.
fn slot(name: &str, peer: &mut Peer) -> io::Result<()> {
    let call = peer.be_pulled()?;
    if name != "slot-without-segment" {
        let size = u64::from(SLOT);
        peer.announce(1, size, 2, &sealed(2 * size)?)?;
    }
    let at = match name {
        "slot-without-segment" => [1, 0, 1, 0, 16],
        "slot-out-of-range" => [1, 2, 1, 0, 16],
        "slot-too-long" => [1, 1, 1, 1, SLOT],
        "slot-wild" => [1, 1, 1, u32::MAX, u32::MAX],
        "segment-retired-in-use" => [1, 1, 1, 0, SLOT],
        _ => return unknown(name),
    };
    peer.answer_with_slot(call, at)?;
    if name == "segment-retired-in-use" {
        peer.send(segment_of(1, 0, 0), &[])?;
    }
    peer.listen()
}

/// A frame that announces some descriptors and comes with others.
fn with_descriptors(
    peer: &mut Peer,
    header: FrameHeader,
    announced: u16,
    sent: usize,
) -> io::Result<()> {
    let header = FrameHeader {
        flags: announced,
        ..header
    };
    let pipe = io::stderr();
    send_bytes(&peer.socket, &bytes(header, &[]), &vec![pipe.as_fd(); sent])
}
