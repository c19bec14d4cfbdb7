//! AAC-LC, mono and stereo, with an AudioSpecificConfig or in ADTS frames.

mod sbr;

use std::ops::Range;

use portcullis_engine::{ComponentInfo, Error, MediaType, Registry, Result, SampleFormat, Subtype};
use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::default::codecs::AacDecoder;

use self::sbr::SbrWatch;
use super::bitstream::adts::AdtsHeader;
use super::bitstream::asc::AudioSpecificConfig;
use super::decoder::{Codec, Decoded, Decoder, Fault, Sound};
use super::symphonia::SymphoniaDecoder;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Decoder<Aac>>();
}

#[derive(Debug, Default)]
pub(super) struct Aac {
    decoder: Option<SymphoniaDecoder>,
    rate: u32,
    channels: u32,
    /// The container carries no config: packets may be ADTS frames.
    maybe_adts: bool,
    sbr: SbrWatch,
}

impl Aac {
    fn start(&mut self, rate: u32, channels: u32) -> Result<(), Fault> {
        self.decoder = Some(SymphoniaDecoder::new::<AacDecoder>(
            CODEC_ID_AAC,
            |parameters| {
                let positions = match channels {
                    1 => Position::FRONT_CENTER,
                    _ => Position::FRONT_LEFT | Position::FRONT_RIGHT,
                };
                parameters
                    .with_sample_rate(rate)
                    .with_channels(Channels::Positioned(positions));
            },
        )?);
        (self.rate, self.channels) = (rate, channels);
        Ok(())
    }

    /// The raw data block of an ADTS frame; makes a decoder where the header says something new.
    fn unwrap_adts<'a>(
        &mut self,
        packet: &'a [u8],
        header: &AdtsHeader,
    ) -> Result<&'a [u8], Fault> {
        let config = header.config();
        if let Some(what) = config.unsupported() {
            return Err(Fault::Unsupported(what));
        }
        if header.blocks > 1 {
            return Err(Fault::Unsupported(
                "several raw data blocks in one ADTS frame".into(),
            ));
        }
        let channels = config.channels().unwrap_or(0);
        if self.decoder.is_none() || (self.rate, self.channels) != (config.sample_rate, channels) {
            self.start(config.sample_rate, channels)?;
        }
        packet
            .get(header.header_len..header.frame_len)
            .ok_or_else(|| Fault::damaged("the ADTS frame is longer than its packet"))
    }
}

impl Codec for Aac {
    const INFO: ComponentInfo =
        ComponentInfo::decoder("audio.aac", "Decodes AAC-LC, mono and stereo")
            .accepts(&[Subtype::AAC])
            .produces(&[Subtype::PCM_F32]);
    const NAME: &'static str = "aac";

    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        *self = Self::default();
        let data = input.private_data().unwrap_or_default();
        if data.is_empty() {
            self.maybe_adts = true;
            return Ok(Sound::of(input, SampleFormat::F32));
        }
        let config = AudioSpecificConfig::parse(&data)
            .ok_or_else(|| Error::invalid_type(input, "its AudioSpecificConfig is damaged"))?;
        if let Some(what) = config.unsupported() {
            return Err(Error::unsupported_codec(Self::NAME, what));
        }
        let channels = config.channels().unwrap_or(0);
        self.start(config.sample_rate, channels)
            .map_err(|fault| Error::invalid_type(input, format!("{fault:?}")))?;
        Ok(Sound::float(self.rate, self.channels))
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        let block = match AdtsHeader::parse(packet) {
            Some(header) if self.maybe_adts => self.unwrap_adts(packet, &header)?,
            _ => packet,
        };
        if block.is_empty() {
            return Err(Fault::damaged("the packet is empty"));
        }
        let Some(decoder) = &mut self.decoder else {
            return Err(Fault::damaged(
                "neither an AudioSpecificConfig nor an ADTS header says what this is",
            ));
        };
        if self.sbr.is_found(block, self.rate) {
            return Err(Fault::Unsupported(
                "HE-AAC (spectral band replication, signalled in the packets only)".into(),
            ));
        }
        let frames = decoder.decode(block)?;
        Ok(Decoded {
            sound: Sound::float(self.rate, self.channels),
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
