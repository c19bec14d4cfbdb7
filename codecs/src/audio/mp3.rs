//! MPEG audio, layers I to III.

use std::fmt;
use std::ops::Range;

use nanomp3_core::{DecodeError, Decoder as MpegDecoder, MAX_SAMPLES_PER_FRAME};
use portcullis_engine::{ComponentInfo, MediaType, Registry, Result, SampleFormat, Subtype};

use super::bitstream::mpeg::MpegHeader;
use super::decoder::{Codec, Decoded, Decoder, Fault, Sound};

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Decoder<Mp3>>();
}

/// Layer I, which has no constant.
const MP1: Subtype = Subtype::named("mp1");

pub(super) struct Mp3 {
    decoder: Box<MpegDecoder>,
    /// What the last packet decoded to, interleaved.
    pcm: Box<[f32; MAX_SAMPLES_PER_FRAME]>,
    channels: usize,
    /// Bytes of a frame of the free format without padding, as the library knows it.
    free: usize,
}

impl Default for Mp3 {
    fn default() -> Self {
        Self {
            decoder: Box::default(),
            pcm: Box::new([0.0; MAX_SAMPLES_PER_FRAME]),
            channels: 0,
            free: 0,
        }
    }
}

impl fmt::Debug for Mp3 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Mp3({} ch)", self.channels)
    }
}

impl Codec for Mp3 {
    const INFO: ComponentInfo =
        ComponentInfo::decoder("audio.mpeg", "Decodes MPEG audio, layers I to III (MP3)")
            .accepts(&[Subtype::MP3, Subtype::MP2, MP1])
            .produces(&[Subtype::PCM_F32]);
    const NAME: &'static str = "mp3";

    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        *self = Self::default();
        Ok(Sound::of(input, SampleFormat::F32))
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        let header = MpegHeader::parse(packet)
            .ok_or_else(|| Fault::damaged("the packet does not start with a frame header"))?;
        // Some containers pad their packets. Of a frame that is cut, the sound may lie wholly in what came before.
        let padded;
        let frame = match packet.get(..header.frame_len) {
            Some([]) => {
                // The free format: the packet is the frame. The library learns the length from the frames that follow.
                let base = packet.len().saturating_sub(header.padding_len());
                if self.free == base {
                    packet
                } else {
                    self.free = base;
                    padded = packet.repeat(3);
                    &padded
                }
            }
            Some(frame) => frame,
            None if packet.len() < header.sound_at() => {
                return Err(Fault::damaged("the packet ends inside of its headers"));
            }
            None => {
                let mut bytes = packet.to_vec();
                bytes.resize(header.frame_len, 0);
                padded = bytes;
                &padded
            }
        };
        let (_, decoded) = self.decoder.decode(frame, &mut self.pcm[..]);
        if decoded.is_err() {
            self.free = 0;
        }
        self.channels = header.channels as usize;
        let sound = Sound::float(header.sample_rate, header.channels);
        let frames = match decoded {
            Ok(frame) if usize::from(frame.channels.num()) == self.channels => {
                frame.samples_produced
            }
            // Its sound began in frames that are not here: silence keeps the time.
            Err(DecodeError::ReservoirUnavailable(_)) => {
                self.pcm.fill(0.0);
                header.samples() as usize
            }
            Ok(_) | Err(DecodeError::NoFrame) => return Err(Fault::damaged("not one whole frame")),
            Err(other) => return Err(Fault::Damaged(other.to_string().into())),
        };
        Ok(Decoded { sound, frames })
    }

    fn write(&self, frames: Range<usize>, into: &mut [u8]) {
        let source = &self.pcm[frames.start * self.channels..frames.end * self.channels];
        for (value, bytes) in source.iter().zip(into.as_chunks_mut::<4>().0) {
            *bytes = value.to_le_bytes();
        }
    }

    fn reset(&mut self) {
        *self.decoder = MpegDecoder::new();
        self.free = 0;
    }
}
