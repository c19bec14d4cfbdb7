//! Opus, mono to 7.1; the private data is the OpusHead packet (RFC 7845).

use std::ops::Range;

use opus_pure::{OpusDecoder, OpusMSDecoder, packet};
use portcullis_engine::{ComponentInfo, Error, MediaType, Registry, Result, Subtype};

use super::decoder::{Codec, Decoded, Decoder, Fault, Sound};

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Decoder<Opus>>();
}

/// Opus always decodes to this rate.
const RATE: u32 = 48_000;

/// For each number of channels: where in Vorbis order the channel lies that comes next in WAVE order.
const WAVE_FROM_VORBIS: [&[u8]; 8] = [
    &[0],
    &[0, 1],
    &[0, 2, 1],
    &[0, 1, 2, 3],
    &[0, 2, 1, 3, 4],
    &[0, 2, 1, 5, 3, 4],
    &[0, 2, 1, 6, 5, 3, 4],
    &[0, 2, 1, 7, 5, 6, 3, 4],
];

#[derive(Debug, Default)]
pub(super) struct Opus {
    decoder: Option<Streams>,
    /// What the last packet decoded to, interleaved in the decoder's order.
    pcm: Vec<f32>,
    /// For each channel that goes out: the decoder's channel, or none for silence.
    order: Vec<Option<usize>>,
    /// Channels that the decoder interleaves.
    decoded_channels: usize,
}

#[derive(Debug)]
enum Streams {
    One(Box<OpusDecoder>),
    Several(OpusMSDecoder),
}

/// The fields of OpusHead that matter for decoding.
#[derive(Debug)]
struct Head<'a> {
    channels: usize,
    gain_q8: i16,
    family: u8,
    streams: usize,
    coupled: usize,
    mapping: &'a [u8],
}

impl<'a> Head<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, &'static str> {
        let fixed: &[u8; 19] = data.first_chunk().ok_or("OpusHead is short")?;
        if &fixed[..8] != b"OpusHead" {
            return Err("private data is not an OpusHead");
        }
        if fixed[8] >> 4 != 0 {
            return Err("OpusHead has a version of the future");
        }
        let channels = usize::from(fixed[9]);
        let family = fixed[18];
        if channels == 0 {
            return Err("OpusHead has no channels");
        }
        let (streams, coupled, mapping) = if family == 0 {
            if channels > 2 {
                return Err("mapping family 0 has at most two channels");
            }
            (1, channels - 1, [&[0_u8][..], &[0, 1]][channels - 1])
        } else {
            let table = data
                .get(19..21 + channels)
                .ok_or("OpusHead ends inside of its channel mapping")?;
            (usize::from(table[0]), usize::from(table[1]), &table[2..])
        };
        if streams == 0 || coupled > streams {
            return Err("OpusHead has an impossible number of streams");
        }
        if mapping
            .iter()
            .any(|source| *source != 255 && usize::from(*source) >= streams + coupled)
        {
            return Err("OpusHead maps a channel that no stream has");
        }
        Ok(Self {
            channels,
            gain_q8: i16::from_le_bytes([fixed[16], fixed[17]]),
            family,
            streams,
            coupled,
            mapping,
        })
    }
}

impl Codec for Opus {
    const INFO: ComponentInfo = ComponentInfo::decoder("audio.opus", "Decodes Opus, mono to 7.1")
        .accepts(&[Subtype::OPUS])
        .produces(&[Subtype::PCM_F32]);
    const NAME: &'static str = "opus";

    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        *self = Self::default();
        let data = input.private_data().unwrap_or_default();
        let assumed = [&[0_u8][..], &[0, 1]];
        let head = if data.is_empty() {
            // Without a head the container's word stands, as far as no mapping is needed.
            let channels = input.channels().unwrap_or(2) as usize;
            let mapping = assumed.get(channels.wrapping_sub(1)).ok_or_else(|| {
                Error::invalid_type(input, "more than two channels need an OpusHead")
            })?;
            Head {
                channels,
                gain_q8: 0,
                family: 0,
                streams: 1,
                coupled: channels - 1,
                mapping,
            }
        } else {
            Head::parse(&data).map_err(|why| Error::invalid_type(input, why))?
        };
        let wave = match head.family {
            0 | 1 => WAVE_FROM_VORBIS.get(head.channels - 1).ok_or_else(|| {
                Error::invalid_type(input, "mapping family 1 has at most eight channels")
            })?,
            family => {
                return Err(Error::unsupported_codec(
                    Self::NAME,
                    format!("channel mapping family {family}"),
                ));
            }
        };
        // For each coded channel: where the decoder puts it.
        let mut position = vec![None; head.streams + head.coupled];
        if head.streams == 1 {
            let coded = 1 + head.coupled;
            let mut decoder = OpusDecoder::new(RATE as i32, coded)
                .map_err(|error| Error::invalid_type(input, error.to_string()))?;
            decoder.gain_q8 = i32::from(head.gain_q8);
            for (coded, place) in position.iter_mut().enumerate() {
                *place = Some(coded);
            }
            self.decoder = Some(Streams::One(Box::new(decoder)));
            self.decoded_channels = coded;
        } else {
            let mut decoder = OpusMSDecoder::new(RATE as i32, head.channels, 1)
                .map_err(|error| Error::invalid_type(input, error.to_string()))?;
            // The library decodes the standard layouts only; a channel order of one's own is made up for below.
            let layout = decoder.layout();
            if (layout.nb_streams, layout.nb_coupled_streams) != (head.streams, head.coupled) {
                return Err(Error::unsupported_codec(
                    Self::NAME,
                    format!(
                        "{} channels in {} streams, {} of them coupled",
                        head.channels, head.streams, head.coupled
                    ),
                ));
            }
            for (place, coded) in layout.mapping.iter().enumerate() {
                if let Some(slot) = position.get_mut(usize::from(*coded)) {
                    *slot = Some(place);
                }
            }
            for stream in decoder.streams_mut() {
                stream.gain_q8 = i32::from(head.gain_q8);
            }
            self.decoder = Some(Streams::Several(decoder));
            self.decoded_channels = head.channels;
        }
        self.order = wave
            .iter()
            .map(|vorbis| {
                let coded = usize::from(*head.mapping.get(usize::from(*vorbis))?);
                position.get(coded).copied().flatten()
            })
            .collect();
        Ok(Sound::float(RATE, head.channels as u32))
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        // The first stream's table of contents says the duration of all.
        let frames = packet::samples_48k(packet).map_err(damaged)?;
        self.pcm.clear();
        self.pcm.resize(frames * self.decoded_channels, 0.0);
        let frames = match &mut self.decoder {
            Some(Streams::One(decoder)) => decoder.decode(packet, frames, &mut self.pcm),
            Some(Streams::Several(decoder)) => decoder.decode(packet, frames, &mut self.pcm),
            None => return Err(Fault::damaged("the decoder is not open")),
        }
        .map_err(damaged)?;
        Ok(Decoded {
            sound: Sound::float(RATE, self.order.len() as u32),
            frames: frames.min(self.pcm.len() / self.decoded_channels),
        })
    }

    fn write(&self, frames: Range<usize>, into: &mut [u8]) {
        let decoded = self.decoded_channels;
        let source = &self.pcm[frames.start * decoded..frames.end * decoded];
        let (into, _) = into.as_chunks_mut::<4>();
        let straight = decoded == self.order.len()
            && self
                .order
                .iter()
                .enumerate()
                .all(|(at, from)| *from == Some(at));
        if straight {
            for (value, bytes) in source.iter().zip(into) {
                *bytes = value.to_le_bytes();
            }
            return;
        }
        for (frame, out) in source
            .chunks_exact(decoded)
            .zip(into.chunks_exact_mut(self.order.len()))
        {
            for (from, bytes) in self.order.iter().zip(out) {
                *bytes = from.map_or(0.0, |at| frame[at]).to_le_bytes();
            }
        }
    }

    fn reset(&mut self) {
        let reset = match &mut self.decoder {
            Some(Streams::One(decoder)) => decoder.reset_state(),
            Some(Streams::Several(decoder)) => decoder.reset_state(),
            None => Ok(()),
        };
        if reset.is_err() {
            // The next packet says that there is no decoder.
            self.decoder = None;
        }
    }
}

fn damaged(error: opus_pure::Error) -> Fault {
    Fault::Damaged(error.to_string().into())
}
