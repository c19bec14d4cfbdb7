//! FLAC: 16-bit values for up to 16 bits, 32-bit values for more, both with the significant bits on top.

use std::ops::Range;

use portcullis_engine::{ComponentInfo, Error, MediaType, Registry, Result, SampleFormat, Subtype};
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;
use symphonia::default::codecs::FlacDecoder;

use super::bitstream::flac::{FrameHeader, StreamInfo, crc16};
use super::decoder::{Codec, Decoded, Decoder, Fault, Sound};
use super::symphonia::SymphoniaDecoder;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Decoder<Flac>>();
}

#[derive(Debug, Default)]
pub(super) struct Flac {
    stream: Option<(SymphoniaDecoder, StreamInfo)>,
}

impl Flac {
    fn start(info: StreamInfo) -> Result<(SymphoniaDecoder, StreamInfo), Fault> {
        // Symphonia checks fields that do not matter here, such as a frame size of zero: it is given a block without them.
        let plain = StreamInfo {
            min_block: 16,
            max_frame: 0,
            total: 0,
            md5: [0; 16],
            ..info
        };
        let decoder = SymphoniaDecoder::new::<FlacDecoder>(CODEC_ID_FLAC, |parameters| {
            parameters.with_extra_data(Box::new(plain.to_bytes()));
        })?;
        Ok((decoder, info))
    }
}

impl Codec for Flac {
    const INFO: ComponentInfo = ComponentInfo::decoder("audio.flac", "Decodes FLAC")
        .accepts(&[Subtype::FLAC])
        .produces(&[Subtype::PCM_S16, Subtype::PCM_S32]);
    const NAME: &'static str = "flac";

    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        self.stream = None;
        let data = input.private_data().unwrap_or_default();
        // Some containers keep the signature and the block header.
        let block = match data.strip_prefix(b"fLaC") {
            Some(rest) => rest.get(4..).unwrap_or_default(),
            None => &data,
        };
        let info = StreamInfo::parse(block)
            .filter(StreamInfo::is_plausible)
            .ok_or_else(|| {
                Error::invalid_type(input, "its STREAMINFO is damaged or is not there")
            })?;
        let stream =
            Self::start(info).map_err(|fault| Error::invalid_type(input, format!("{fault:?}")))?;
        self.stream = Some(stream);
        Ok(sound(&info))
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        let Some((_, info)) = self.stream else {
            return Err(Fault::damaged("the decoder is not open"));
        };
        let header = FrameHeader::parse(packet)
            .ok_or_else(|| Fault::damaged("the packet does not start with a frame header"))?;
        if let Some(bits) = header.bits.filter(|bits| *bits != info.bits) {
            return Err(Fault::Damaged(
                format!("a frame of {bits} bits in a stream of {}", info.bits).into(),
            ));
        }
        if header.block > info.max_block {
            return Err(Fault::Damaged(
                format!(
                    "a block of {} in a stream of at most {}",
                    header.block, info.max_block
                )
                .into(),
            ));
        }
        if crc16(0, packet) != 0 {
            return Err(Fault::damaged("the frame's checksum is wrong"));
        }
        let rate = header.sample_rate.unwrap_or(info.sample_rate);
        if (rate, header.channels) != (info.sample_rate, info.channels) {
            self.stream = Some(Self::start(StreamInfo {
                sample_rate: rate,
                channels: header.channels,
                ..info
            })?);
        }
        let Some((decoder, info)) = &mut self.stream else {
            return Err(Fault::damaged("the decoder is not open"));
        };
        Ok(Decoded {
            frames: decoder.decode(packet)?,
            sound: sound(info),
        })
    }

    fn write(&self, frames: Range<usize>, into: &mut [u8]) {
        if let Some((decoder, info)) = &self.stream {
            decoder.write(frames, sound(info).format, into);
        }
    }

    fn reset(&mut self) {
        // Frames do not depend on each other.
    }
}

fn sound(info: &StreamInfo) -> Sound {
    let format = if info.bits <= 16 {
        SampleFormat::S16
    } else {
        SampleFormat::S32
    };
    Sound {
        rate: info.sample_rate,
        channels: info.channels,
        format,
        bits: Some(info.bits).filter(|bits| *bits as usize != format.bytes() * 8),
    }
}
