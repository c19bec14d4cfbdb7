//! MPEG audio layer III.

use std::ops::Range;

use portcullis_engine::{ComponentInfo, MediaType, Registry, Result, SampleFormat, Subtype};
use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::default::codecs::MpaDecoder;

use super::bitstream::mpeg::MpegHeader;
use super::decoder::{Codec, Decoded, Decoder, Fault, Sound};
use super::symphonia::SymphoniaDecoder;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Decoder<Mp3>>();
}

#[derive(Debug, Default)]
pub(super) struct Mp3 {
    decoder: Option<SymphoniaDecoder>,
    rate: u32,
    channels: u32,
}

impl Codec for Mp3 {
    const INFO: ComponentInfo = ComponentInfo::decoder("audio.mp3", "Decodes MPEG audio layer III")
        .accepts(&[Subtype::MP3])
        .produces(&[Subtype::PCM_F32]);
    const NAME: &'static str = "mp3";

    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        *self = Self::default();
        Ok(Sound::of(input, SampleFormat::F32))
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        let header = MpegHeader::parse(packet)
            .ok_or_else(|| Fault::damaged("the packet does not start with a frame header"))?;
        if header.layer != 3 {
            return Err(Fault::Unsupported(
                format!("MPEG audio layer {}", header.layer).into(),
            ));
        }
        if header.frame_len == 0 {
            return Err(Fault::Unsupported("the free format".into()));
        }
        // Some containers pad their packets. Of a frame that is cut, the sound may lie wholly in what came before.
        let padded;
        let frame = match packet.get(..header.frame_len) {
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
        // A decoder is for one rate and channel count; the bit reservoir does not outlive a change of them.
        if self.decoder.is_none()
            || (self.rate, self.channels) != (header.sample_rate, header.channels)
        {
            self.decoder = Some(SymphoniaDecoder::new::<MpaDecoder>(CODEC_ID_MP3, |_| {})?);
            (self.rate, self.channels) = (header.sample_rate, header.channels);
        }
        let Some(decoder) = &mut self.decoder else {
            return Ok(Decoded {
                sound: Sound::float(self.rate, self.channels),
                frames: 0,
            });
        };
        Ok(Decoded {
            frames: decoder.decode(frame)?,
            sound: Sound::float(self.rate, self.channels),
        })
    }

    fn write(&self, frames: Range<usize>, into: &mut [u8]) {
        if let Some(decoder) = &self.decoder {
            decoder.write(frames, SampleFormat::F32, into);
        }
    }

    fn reset(&mut self) {
        if let Some(decoder) = &mut self.decoder {
            decoder.reset();
        }
    }
}
