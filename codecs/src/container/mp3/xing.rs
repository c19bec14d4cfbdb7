//! The header frame of an MP3 file: Xing or Info with LAME's extension, or VBRI.

use super::super::frames::Frame;
use crate::audio::bitstream::mpeg::MpegHeader;

/// What a decoder adds in front of everything.
const DECODER_DELAY: u64 = 529;

/// What the header frame says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Xing {
    /// Frames in the stream, without this one.
    pub(super) frames: Option<u64>,
    /// Bytes of the stream.
    pub(super) bytes: Option<u64>,
    /// All frames have one bit rate.
    pub(super) constant: bool,
    /// PCM frames that the encoder put before and behind.
    delay: Option<(u64, u64)>,
}

impl Xing {
    /// Reads the header frame; `None` where `frame` is an ordinary one.
    pub(super) fn parse(frame: &[u8], header: &MpegHeader) -> Option<Self> {
        let at = MpegHeader::LEN + header.side_info_len();
        match frame.get(at..at + 4) {
            Some(b"Xing") => Self::xing_or_info(&frame[at + 4..]),
            Some(b"Info") => Some(Self {
                constant: true,
                ..Self::xing_or_info(&frame[at + 4..])?
            }),
            _ => Self::vbri(frame.get(36..)?),
        }
    }

    /// Whether the stream, which has `bytes` from the header frame on, is much longer than this header knows: files were
    /// put behind each other, or the header is stale. Its counts say nothing then.
    pub(super) fn is_outgrown(&self, bytes: u64) -> bool {
        self.bytes
            .is_some_and(|known| bytes > known.saturating_add(known / 16))
    }

    /// PCM frames to drop at the start.
    pub(super) fn skip(&self) -> u64 {
        self.delay.map_or(0, |(start, _)| start + DECODER_DELAY)
    }

    /// PCM frames, counted from the first one decoded, behind which everything is padding.
    pub(super) fn keep_to(&self, per_frame: u64) -> Option<u64> {
        let (_, end) = self.delay?;
        let total = self.frames?.checked_mul(per_frame)?;
        // The padding counts from the sound's own end, which the decoder delays.
        Some(total.saturating_sub(end.saturating_sub(DECODER_DELAY)))
    }

    /// Mean bits per second.
    pub(super) fn bit_rate(&self, frame: &Frame) -> Option<u64> {
        let samples = self.frames?.checked_mul(frame.samples)?;
        let bits = self.bytes?.checked_mul(8)?;
        bits.checked_mul(u64::from(frame.rate))?
            .checked_div(samples)
    }

    fn xing_or_info(mut rest: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        let flags = take_u32(&mut rest)?;
        if flags & 1 != 0 {
            found.frames = Some(u64::from(take_u32(&mut rest)?)).filter(|frames| *frames != 0);
        }
        if flags & 2 != 0 {
            found.bytes = Some(u64::from(take_u32(&mut rest)?)).filter(|bytes| *bytes != 0);
        }
        if flags & 4 != 0 {
            rest = rest.get(100..)?;
        }
        if flags & 8 != 0 {
            take_u32(&mut rest)?;
        }
        // Other encoders leave these fields undefined.
        let known = [&b"LAME"[..], b"Lavf", b"Lavc"]
            .iter()
            .any(|name| rest.starts_with(name));
        if known && let Some([a, b, c]) = rest.get(21..24) {
            let packed = u64::from(*a) << 16 | u64::from(*b) << 8 | u64::from(*c);
            found.delay = Some((packed >> 12, packed & 0xfff));
        }
        Some(found)
    }

    fn vbri(rest: &[u8]) -> Option<Self> {
        let mut rest = rest.strip_prefix(b"VBRI")?.get(6..)?;
        let bytes = u64::from(take_u32(&mut rest)?);
        let frames = u64::from(take_u32(&mut rest)?);
        Some(Self {
            frames: Some(frames).filter(|frames| *frames != 0),
            bytes: Some(bytes).filter(|bytes| *bytes != 0),
            ..Self::default()
        })
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u32::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> (Vec<u8>, MpegHeader) {
        let mut frame = vec![0; 288];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x54, 0x00]);
        let header = MpegHeader::parse(&frame).expect("valid");
        (frame, header)
    }

    #[test]
    fn lame_delays_with_the_decoders_own() {
        let (mut bytes, header) = frame();
        bytes[36..40].copy_from_slice(b"Info");
        bytes[43] = 0x0f;
        bytes[44..48].copy_from_slice(&85_u32.to_be_bytes());
        bytes[48..52].copy_from_slice(&24_000_u32.to_be_bytes());
        bytes[156..160].copy_from_slice(b"Lavf");
        let packed = 576_u32 << 12 | 1344;
        bytes[177..180].copy_from_slice(&packed.to_be_bytes()[1..]);
        let xing = Xing::parse(&bytes, &header).expect("a header frame");
        assert_eq!(xing.skip(), 1105);
        assert_eq!(xing.keep_to(1152), Some(85 * 1152 - 815));
    }

    #[test]
    fn ordinary_and_cut_frames_are_none() {
        let (mut bytes, header) = frame();
        assert_eq!(Xing::parse(&bytes, &header), None);
        bytes[36..40].copy_from_slice(b"Xing");
        bytes[43] = 0x0f;
        bytes.truncate(60);
        assert_eq!(Xing::parse(&bytes, &header), None);
    }
}
