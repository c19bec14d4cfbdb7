//! What the codecs that Symphonia decodes have in common.

use std::fmt;
use std::ops::Range;

use portcullis_engine::SampleFormat;
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
};
use symphonia::core::codecs::registry::RegisterableAudioDecoder;
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::decoder::Fault;

/// One of Symphonia's decoders.
pub(super) struct SymphoniaDecoder(Box<dyn AudioDecoder>);

impl SymphoniaDecoder {
    /// A decoder of this type; `describe` fills in what it must know.
    pub(super) fn new<D: RegisterableAudioDecoder>(
        codec: AudioCodecId,
        describe: impl FnOnce(&mut AudioCodecParameters),
    ) -> Result<Self, Fault> {
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(codec);
        describe(&mut parameters);
        // Packets carry no trim of Symphonia's own; its gapless mode also drops the undefined output of a first Vorbis
        // block.
        let options = AudioDecoderOptions::default().gapless(true).verify(false);
        D::try_registry_new(&parameters, &options)
            .map(Self)
            .map_err(fault)
    }

    /// Decodes a packet; answers the number of PCM frames.
    pub(super) fn decode(&mut self, packet: &[u8]) -> Result<usize, Fault> {
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::new(0), packet);
        self.0
            .decode_ref(&packet)
            .map(|decoded| decoded.frames())
            .map_err(fault)
    }

    /// Rate and channels of what was decoded last; of what will be decoded, where the decoder knows before.
    pub(super) fn rate_and_channels(&self) -> (u32, u32) {
        let last = self.0.last_decoded();
        (last.spec().rate(), last.spec().channels().count() as u32)
    }

    /// Writes a part of what was decoded last.
    pub(super) fn write(&self, frames: Range<usize>, format: SampleFormat, into: &mut [u8]) {
        let decoded = self.0.last_decoded();
        let part = decoded.slice(frames);
        match format {
            SampleFormat::S16 => part.copy_bytes_interleaved_as::<i16, _>(into),
            SampleFormat::S32 => part.copy_bytes_interleaved_as::<i32, _>(into),
            _ => part.copy_bytes_interleaved_as::<f32, _>(into),
        }
    }

    pub(super) fn reset(&mut self) {
        self.0.reset();
    }
}

impl fmt::Debug for SymphoniaDecoder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SymphoniaDecoder({})", self.0.codec_info().short_name)
    }
}

fn fault(error: Error) -> Fault {
    Fault::Damaged(match error {
        Error::DecodeError(what) | Error::Unsupported(what) | Error::LimitError(what) => {
            what.into()
        }
        Error::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the packet ends early".into()
        }
        other => other.to_string().into(),
    })
}

// The bytes that Symphonia writes are in the machine's order; the subtypes are little endian.
#[cfg(target_endian = "big")]
compile_error!("decoded PCM must be little endian: swap it in SymphoniaDecoder::write");
