//! What the application asked for, made of whatever the attack needs: replies with handles, payloads and memory that an
//! honest host could not write.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use portcullis::engine::credit::FlowItem;
use portcullis::engine::media::{PayloadPort, PayloadRef, with_payload_port};
use portcullis::pipeline::port::{Epoch, Port, Pulled};
use portcullis::pipeline::source::SourceControl;
use portcullis::{
    Interface, MediaTime, MediaType, Payload, PresentationDescriptor, Sample, StreamDescriptor,
    StreamId, Subtype, TimeBase,
};
use portcullis_transport::FrameHeader;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use serde::Serialize;

use crate::peer::{Peer, WireHandle, encode, kind, of, reply_to};

/// Bytes of a slot of this host's segments.
pub(crate) const SLOT: u32 = 4096;

/// The reply to a request for an object, with handles as numbers.
#[derive(Serialize)]
pub(crate) enum Created {
    #[expect(dead_code, reason = "its place counts")]
    Resolver(WireHandle),
    Source(WireHandle, WireHandle, PresentationDescriptor),
}

impl Created {
    /// A source with this host's objects `at` and `at + 1`.
    pub(crate) fn source(peer: &Peer, at: u32) -> Self {
        let control = (peer.name, at, 1, SourceControl::ID);
        let port = (peer.name, at + 1, 1, Port::ID);
        Self::Source(control, port, presentation("hostile"))
    }
}

pub(crate) fn presentation(format: &str) -> PresentationDescriptor {
    let sound = MediaType::audio(Subtype::PCM_S16, 8000, 1);
    PresentationDescriptor {
        format: format.to_owned(),
        streams: vec![StreamDescriptor::new(StreamId(0), sound, TimeBase::TICKS)],
        ..PresentationDescriptor::default()
    }
}

impl Peer {
    /// Behaves until the application has a source and pulls from it; the call of the pull.
    pub(crate) fn be_pulled(&mut self) -> io::Result<u64> {
        let create = self.behave()?;
        let source = Created::source(self, 1);
        self.answer(create.call, &source)?;
        Ok(self.next_call()?.header.call)
    }

    /// Answers a pull with a sample that lies there: segment, slot, generation, offset, length.
    pub(crate) fn answer_with_slot(&mut self, call: u64, slot: [u32; 5]) -> io::Result<()> {
        struct Lies([u32; 5]);
        impl PayloadPort for Lies {
            fn export(&mut self, _: &Payload) -> Result<PayloadRef, String> {
                Ok(PayloadRef::Slot(self.0))
            }
            fn import(&mut self, _: PayloadRef) -> Result<Payload, String> {
                Err("nothing is read here".to_owned())
            }
        }
        // So large that it is not one of a run, whose bytes are inside of the message.
        let payload = vec![0; 100_000];
        let sample = Sample::new(MediaTime::ZERO, MediaTime::from_millis(1), payload);
        let pulled = Pulled {
            items: vec![FlowItem::Sample(sample)],
            epoch: Epoch::default(),
        };
        let port: Rc<RefCell<dyn PayloadPort>> = Rc::new(RefCell::new(Lies(slot)));
        let body = with_payload_port(&port, || encode(&pulled))?;
        self.send(reply_to(call), &body)
    }

    /// Announces a segment with this descriptor.
    pub(crate) fn announce(
        &mut self,
        segment: u32,
        slot_size: u64,
        slots: u32,
        file: &impl AsFd,
    ) -> io::Result<()> {
        let header = FrameHeader {
            flags: 1,
            ..segment_of(segment, slot_size, slots)
        };
        self.send_with(header, &[], &[file.as_fd()])
    }
}

pub(crate) fn segment_of(segment: u32, slot_size: u64, slots: u32) -> FrameHeader {
    FrameHeader {
        object: segment,
        call: slot_size,
        method: slots,
        ..of(kind::SEGMENT)
    }
}

/// Anonymous memory of so many bytes, sealed as it must be.
pub(crate) fn sealed(bytes: u64) -> io::Result<OwnedFd> {
    let needed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    sealed_with(bytes, needed)
}

/// The same with these seals.
pub(crate) fn sealed_with(bytes: u64, seals: SealFlags) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(c"hostile", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(c"hostile", flags))?;
    ftruncate(&file, bytes)?;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}
