//! Frames: a fixed header of 32 bytes, a body, and up to 16 descriptors beside it.
//!
//! The decoder is fed whatever bytes a transport delivered, in whatever pieces, and gives whole frames. It never
//! allocates for what a header merely claims: its buffer holds bytes that really arrived and grows as they do.

use std::collections::VecDeque;

use bytes::Bytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::descriptor::ReceivedFd;
use crate::error::TransportError;

/// Bytes of an encoded [`FrameHeader`].
pub const HEADER_LEN: usize = 32;

/// Most descriptors that one frame carries.
pub const MAX_DESCRIPTORS: usize = 16;

/// The bits of [`FrameHeader::flags`] that belong to the layer above. The others count descriptors.
pub const USER_FLAGS: u16 = !DESCRIPTOR_COUNT;

const DESCRIPTOR_COUNT: u16 = 0x1f;

/// The header of a frame. All but the descriptor count is opaque to this crate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the body. Set by the sender from the body itself.
    pub len: u32,
    /// What the frame is.
    pub kind: u16,
    /// The low five bits count descriptors and are set by the sender; [`USER_FLAGS`] are free.
    pub flags: u16,
    /// The object spoken to.
    pub object: u32,
    /// The generation of that object's id.
    pub generation: u32,
    /// The call that the frame belongs to.
    pub call: u64,
    /// The method called.
    pub method: u32,
    /// Zero: kept free, and ignored when read.
    pub reserved: u32,
}

impl FrameHeader {
    /// How many descriptors came with the frame.
    pub fn descriptor_count(&self) -> usize {
        usize::from(self.flags & DESCRIPTOR_COUNT)
    }

    /// The header as it goes over the link.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let wire = WireHeader {
            len: self.len.into(),
            kind: self.kind.into(),
            flags: self.flags.into(),
            object: self.object.into(),
            generation: self.generation.into(),
            call: self.call.into(),
            method: self.method.into(),
            reserved: self.reserved.into(),
        };
        zerocopy::transmute!(wire)
    }

    /// Reads a header; any 32 bytes are one, the limits are checked by the decoder.
    pub fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        let wire: WireHeader = zerocopy::transmute!(bytes);
        Self {
            len: wire.len.get(),
            kind: wire.kind.get(),
            flags: wire.flags.get(),
            object: wire.object.get(),
            generation: wire.generation.get(),
            call: wire.call.get(),
            method: wire.method.get(),
            reserved: wire.reserved.get(),
        }
    }

    pub(crate) fn set_descriptor_count(&mut self, count: usize) {
        debug_assert!(count <= MAX_DESCRIPTORS);
        self.flags = (self.flags & USER_FLAGS) | (count as u16 & DESCRIPTOR_COUNT);
    }
}

/// A buffer that grew beyond this for one large frame is given back.
const KEPT_CAPACITY: usize = 256 << 10;

/// A whole frame as received, in the receive buffer: what reads it at once costs no memory of its own.
#[derive(Debug)]
pub struct FrameRef<'a> {
    /// The header.
    pub header: FrameHeader,
    /// The body.
    pub body: &'a [u8],
    /// The descriptors that came with it, close-on-exec.
    pub descriptors: Vec<ReceivedFd>,
}

/// A whole frame as received, for whoever keeps it.
#[derive(Debug)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// The body.
    pub body: Bytes,
    /// The descriptors that came with it, close-on-exec.
    pub descriptors: Vec<ReceivedFd>,
}

/// Makes frames of a stream of bytes.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that were given out.
    taken: usize,
    descriptors: VecDeque<ReceivedFd>,
    max_frame: u32,
    max_descriptors: usize,
    /// A frame's descriptors may come after its bytes.
    is_patient: bool,
    failed: Option<TransportError>,
}

impl FrameDecoder {
    /// A decoder that refuses bodies of more than `max_frame` bytes.
    pub fn new(max_frame: u32) -> Self {
        Self {
            buffer: Vec::new(),
            taken: 0,
            descriptors: VecDeque::new(),
            max_frame,
            max_descriptors: MAX_DESCRIPTORS,
            is_patient: false,
            failed: None,
        }
    }

    /// Appends bytes as they arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.make_room();
        self.buffer.extend_from_slice(bytes);
    }

    /// Appends bytes as `append` does.
    pub(crate) fn feed_with(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        self.make_room();
        append(&mut self.buffer);
    }

    /// Appends descriptors that arrived with the bytes fed next or last.
    pub fn feed_descriptors(
        &mut self,
        descriptors: impl IntoIterator<Item = impl Into<ReceivedFd>>,
    ) {
        self.descriptors
            .extend(descriptors.into_iter().map(Into::into));
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// A header beyond the limits, or descriptors that no frame announced. Errors are final.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TransportError> {
        let frame = self.next_frame_ref()?;
        Ok(frame.map(|frame| Frame {
            header: frame.header,
            body: Bytes::copy_from_slice(frame.body),
            descriptors: frame.descriptors,
        }))
    }

    /// [`next_frame`](Self::next_frame) where it lies.
    ///
    /// # Errors
    /// As there.
    pub fn next_frame_ref(&mut self) -> Result<Option<FrameRef<'_>>, TransportError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let header = match self.whole_header() {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.fail(error.clone());
                return Err(error);
            }
        };
        let descriptors = match header.descriptor_count() {
            0 => Vec::new(),
            announced => self.descriptors.drain(..announced).collect(),
        };
        let from = self.taken + HEADER_LEN;
        self.taken = from + header.len as usize;
        Ok(Some(FrameRef {
            header,
            body: self.buffer.get(from..self.taken).unwrap_or_default(),
            descriptors,
        }))
    }

    /// Whether the bytes so far end inside a frame.
    pub fn is_mid_frame(&self) -> bool {
        self.buffered() > 0
    }

    /// Bytes that wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.rest().len()
    }

    /// From now on what was agreed holds.
    pub(crate) fn set_limits(&mut self, max_frame: u32, max_descriptors: usize) {
        self.max_frame = max_frame;
        self.max_descriptors = max_descriptors;
    }

    /// From now on a frame's descriptors may come after its bytes: it waits for them.
    pub(crate) fn wait_for_descriptors(&mut self) {
        self.is_patient = true;
    }

    /// How many descriptors the frame that began, if its header is whole, still waits for.
    pub(crate) fn descriptors_due(&self) -> usize {
        match self.rest().first_chunk::<HEADER_LEN>() {
            Some(head) => {
                let announced = FrameHeader::from_bytes(*head).descriptor_count();
                announced.saturating_sub(self.descriptors.len())
            }
            None => 0,
        }
    }

    /// How many descriptors came that no frame has been given yet.
    pub(crate) fn descriptors_held(&self) -> usize {
        self.descriptors.len()
    }

    /// Takes the first `len` bytes and all descriptors that came with them.
    pub(crate) fn take_prefix_with_descriptors(
        &mut self,
        len: usize,
    ) -> Option<(Bytes, Vec<ReceivedFd>)> {
        let bytes = Bytes::copy_from_slice(self.rest().get(..len)?);
        self.taken += len;
        Some((bytes, self.descriptors.drain(..).collect()))
    }

    /// Takes the first `len` bytes as they are, for what precedes frames (the handshake).
    pub(crate) fn take_prefix(&mut self, len: usize) -> Result<Option<Bytes>, TransportError> {
        if let Some(prefix) = self.rest().get(..len) {
            // Descriptors may be here already: they belong to the frames that follow, or are refused there.
            let prefix = Bytes::copy_from_slice(prefix);
            self.taken += len;
            return Ok(Some(prefix));
        }
        if self.descriptors.is_empty() {
            return Ok(None);
        }
        let error = TransportError::protocol("descriptors came with the handshake");
        self.fail(error.clone());
        Err(error)
    }

    /// Forgets what was given out. What is left, mostly less than a frame, is moved to the front.
    fn make_room(&mut self) {
        if self.taken == 0 {
            return;
        }
        self.buffer.drain(..std::mem::take(&mut self.taken));
        if self.buffer.capacity() > KEPT_CAPACITY && self.buffer.len() <= KEPT_CAPACITY {
            self.buffer.shrink_to(self.buffer.len());
        }
    }

    /// What was not given out yet.
    fn rest(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    /// The next frame's header, if the frame is there as a whole.
    fn whole_header(&self) -> Result<Option<FrameHeader>, TransportError> {
        let rest = self.rest();
        let Some(head) = rest.first_chunk::<HEADER_LEN>() else {
            // A frame's descriptors come with its first byte, so before the header is whole they may be early.
            let allowed = if rest.is_empty() {
                0
            } else {
                self.max_descriptors
            };
            self.check_waiting_descriptors(allowed)?;
            return Ok(None);
        };
        let header = FrameHeader::from_bytes(*head);
        if header.len > self.max_frame {
            return Err(TransportError::FrameTooLarge {
                len: header.len.into(),
                max: self.max_frame.into(),
            });
        }
        let announced = header.descriptor_count();
        if announced > self.max_descriptors {
            return Err(TransportError::protocol(format!(
                "a frame announces {announced} descriptors, the limit is {}",
                self.max_descriptors
            )));
        }
        if rest.len() - HEADER_LEN < header.len as usize {
            self.check_waiting_descriptors(announced)?;
            return Ok(None);
        }
        if self.descriptors.len() < announced {
            if self.is_patient {
                return Ok(None);
            }
            return Err(TransportError::protocol(format!(
                "a frame announces {announced} descriptors, {} came",
                self.descriptors.len()
            )));
        }
        Ok(Some(header))
    }

    fn check_waiting_descriptors(&self, allowed: usize) -> Result<(), TransportError> {
        if self.descriptors.len() <= allowed {
            return Ok(());
        }
        Err(TransportError::protocol(format!(
            "{} descriptors came where the frame announces {allowed}",
            self.descriptors.len()
        )))
    }

    /// Keeps nothing of what a broken peer sent: its descriptors are closed and its bytes freed.
    fn fail(&mut self, error: TransportError) {
        self.descriptors.clear();
        self.buffer = Vec::new();
        self.taken = 0;
        self.failed = Some(error);
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireHeader {
    len: U32,
    kind: U16,
    flags: U16,
    object: U32,
    generation: U32,
    call: U64,
    method: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<WireHeader>() == HEADER_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Prng, pipe_pair, until_closed};

    fn encoded(frames: &[(FrameHeader, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (header, body) in frames {
            let header = FrameHeader {
                len: body.len() as u32,
                ..*header
            };
            bytes.extend_from_slice(&header.to_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    fn sample_frames() -> Vec<(FrameHeader, Vec<u8>)> {
        [0usize, 1, 31, 32, 33, 300]
            .into_iter()
            .enumerate()
            .map(|(index, len)| {
                let header = FrameHeader {
                    kind: index as u16,
                    flags: 0x8000,
                    object: 7,
                    generation: 9,
                    call: u64::MAX - index as u64,
                    method: 0xdead_beef,
                    reserved: 12,
                    ..FrameHeader::default()
                };
                (header, (0..len).map(|byte| byte as u8).collect())
            })
            .collect()
    }

    #[test]
    fn what_one_large_frame_took_is_given_back_while_frames_keep_coming() {
        let small = encoded(&[(FrameHeader::default(), vec![0; 100])]);
        let mut decoder = FrameDecoder::new(1 << 20);
        decoder.feed(&encoded(&[(FrameHeader::default(), vec![0; 1 << 20])]));
        // There is always the beginning of another one.
        decoder.feed(&small[..40]);
        decoder.next_frame().unwrap().unwrap();
        decoder.feed(&small[40..]);
        decoder.feed(&small[..40]);
        assert!(decoder.buffer.capacity() <= KEPT_CAPACITY);
        decoder.next_frame().unwrap().unwrap();
        decoder.feed(&small[40..]);
        decoder.next_frame().unwrap().unwrap();
        assert!(!decoder.is_mid_frame());
    }

    #[test]
    fn header_layout_is_stable() {
        let header = FrameHeader {
            len: 0x0403_0201,
            kind: 0x0605,
            flags: 0x0807,
            object: 0x0c0b_0a09,
            generation: 0x100f_0e0d,
            call: 0x1817_1615_1413_1211,
            method: 0x1c1b_1a19,
            reserved: 0x201f_1e1d,
        };
        let expected: Vec<u8> = (1..=32).collect();
        assert_eq!(header.to_bytes().as_slice(), expected);
        assert_eq!(FrameHeader::from_bytes(header.to_bytes()), header);
    }

    #[test]
    fn frames_survive_a_split_at_every_byte() {
        let frames = sample_frames();
        let bytes = encoded(&frames);
        for split in 0..=bytes.len() {
            let mut decoder = FrameDecoder::new(1024);
            let mut seen = Vec::new();
            for piece in [&bytes[..split], &bytes[split..]] {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert!(!decoder.is_mid_frame());
            assert_eq!(seen.len(), frames.len());
            for (frame, (header, body)) in seen.iter().zip(&frames) {
                assert_eq!(
                    frame.header,
                    FrameHeader {
                        len: body.len() as u32,
                        ..*header
                    }
                );
                assert_eq!(frame.body, body);
            }
        }
    }

    #[test]
    fn frames_survive_one_byte_at_a_time() {
        let frames = sample_frames();
        let mut decoder = FrameDecoder::new(1024);
        let mut seen = 0;
        for byte in encoded(&frames) {
            decoder.feed(&[byte]);
            while let Some(frame) = decoder.next_frame().unwrap() {
                assert_eq!(frame.body, frames[seen].1);
                seen += 1;
            }
        }
        assert_eq!(seen, frames.len());
    }

    #[test]
    fn random_bytes_never_panic_and_never_hold_more_than_was_fed() {
        let mut random = Prng::new(1);
        for _ in 0..2_000 {
            let mut decoder = FrameDecoder::new(4096);
            let mut fed = 0;
            for _ in 0..random.below(20) {
                let mut piece: Vec<u8> = (0..random.below(200))
                    .map(|_| random.next() as u8)
                    .collect();
                if random.below(2) == 0 {
                    // A small length, so that some frames come through.
                    piece.iter_mut().take(4).skip(1).for_each(|byte| *byte = 0);
                }
                fed += piece.len();
                decoder.feed(&piece);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    assert!(frame.body.len() <= 4096);
                }
                assert!(decoder.buffered() <= fed);
            }
        }
    }

    #[test]
    fn an_oversized_length_is_refused_from_the_header_alone() {
        let mut decoder = FrameDecoder::new(1000);
        decoder.feed(
            &FrameHeader {
                len: 1001,
                ..FrameHeader::default()
            }
            .to_bytes(),
        );
        let error = decoder.next_frame().unwrap_err();
        assert_eq!(
            error,
            TransportError::FrameTooLarge {
                len: 1001,
                max: 1000
            }
        );
        decoder.feed(&[0; 64]);
        assert_eq!(decoder.next_frame().unwrap_err(), error, "errors are final");
    }

    #[test]
    fn descriptors_that_were_not_agreed_are_refused() {
        let (kept, given) = pipe_pair();
        let mut header = FrameHeader::default();
        header.set_descriptor_count(1);
        let mut decoder = FrameDecoder::new(1000);
        decoder.set_limits(1000, 0);
        decoder.feed_descriptors([given]);
        decoder.feed(&header.to_bytes());
        assert!(matches!(
            decoder.next_frame(),
            Err(TransportError::Protocol { .. })
        ));
        until_closed(&kept);
    }

    #[test]
    fn unannounced_descriptors_are_closed_and_refused() {
        let (kept, given) = pipe_pair();
        let mut decoder = FrameDecoder::new(1000);
        decoder.feed_descriptors([given]);
        decoder.feed(&FrameHeader::default().to_bytes());
        let first = decoder.next_frame().unwrap().unwrap();
        assert!(first.descriptors.is_empty());
        assert!(matches!(
            decoder.next_frame(),
            Err(TransportError::Protocol { .. })
        ));
        until_closed(&kept);
    }

    #[test]
    fn a_missing_descriptor_is_refused() {
        let mut header = FrameHeader::default();
        header.set_descriptor_count(1);
        let mut decoder = FrameDecoder::new(1000);
        decoder.feed(&header.to_bytes());
        assert!(matches!(
            decoder.next_frame(),
            Err(TransportError::Protocol { .. })
        ));
    }
}
