//! Vorbis; the private data is the three headers, Xiph-laced.

mod setup;

use std::ops::Range;

use portcullis_engine::{ComponentInfo, Error, MediaType, Registry, Result, SampleFormat, Subtype};
use symphonia::core::codecs::audio::well_known::CODEC_ID_VORBIS;
use symphonia::default::codecs::VorbisDecoder;

use super::decoder::{Codec, Decoded, Decoder, Fault, Sound};
use super::symphonia::SymphoniaDecoder;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Decoder<Vorbis>>();
}

#[derive(Debug, Default)]
pub(super) struct Vorbis {
    decoder: Option<SymphoniaDecoder>,
}

impl Codec for Vorbis {
    const INFO: ComponentInfo = ComponentInfo::decoder("audio.vorbis", "Decodes Vorbis")
        .accepts(&[Subtype::VORBIS])
        .produces(&[Subtype::PCM_F32]);
    const NAME: &'static str = "vorbis";

    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        self.decoder = None;
        let data = input
            .private_data()
            .ok_or_else(|| Error::invalid_type(input, "its headers are not there"))?;
        if let Some(why) = setup::refuse(&data) {
            return Err(Error::invalid_type(input, why));
        }
        let decoder = SymphoniaDecoder::new::<VorbisDecoder>(CODEC_ID_VORBIS, |parameters| {
            parameters.with_extra_data(Box::from(&*data));
        })
        .map_err(|fault| match fault {
            Fault::Damaged(what) => Error::invalid_type(input, what),
            Fault::Unsupported(what) => Error::unsupported_codec(Self::NAME, what),
        })?;
        let (rate, channels) = decoder.rate_and_channels();
        self.decoder = Some(decoder);
        Ok(Sound::float(rate, channels))
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        let Some(decoder) = &mut self.decoder else {
            return Err(Fault::damaged("the decoder is not open"));
        };
        let frames = decoder.decode(packet)?;
        let (rate, channels) = decoder.rate_and_channels();
        Ok(Decoded {
            sound: Sound::float(rate, channels),
            frames,
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
