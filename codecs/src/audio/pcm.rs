//! PCM as containers store it, turned into what the converters and sinks handle: little endian, linear.

use std::ops::Range;

use portcullis_engine::{ComponentInfo, Error, MediaType, Registry, Result, SampleFormat, Subtype};

use super::decoder::{Codec, Decoded, Decoder, Fault, Sound};

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Decoder<Pcm>>();
}

/// Big-endian double precision, which has no constant.
const PCM_F64BE: Subtype = Subtype::named("pcm_f64be");

#[derive(Debug, Default)]
pub(super) struct Pcm {
    stored: Option<(Stored, Sound)>,
    packet: Vec<u8>,
}

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    S8,
    S16Be,
    S24Be,
    S32Be,
    F32Be,
    F64,
    F64Be,
    ALaw,
    MuLaw,
}

impl Stored {
    fn of(subtype: Subtype) -> Option<Self> {
        Some(match subtype {
            Subtype::PCM_S8 => Self::S8,
            Subtype::PCM_S16BE => Self::S16Be,
            Subtype::PCM_S24BE => Self::S24Be,
            Subtype::PCM_S32BE => Self::S32Be,
            Subtype::PCM_F32BE => Self::F32Be,
            Subtype::PCM_F64 => Self::F64,
            PCM_F64BE => Self::F64Be,
            Subtype::PCM_ALAW => Self::ALaw,
            Subtype::PCM_MULAW => Self::MuLaw,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::S8 | Self::ALaw | Self::MuLaw => 1,
            Self::S16Be => 2,
            Self::S24Be => 3,
            Self::S32Be | Self::F32Be => 4,
            Self::F64 | Self::F64Be => 8,
        }
    }

    fn decoded(self) -> (SampleFormat, Option<u32>) {
        match self {
            Self::S8 => (SampleFormat::U8, None),
            Self::S16Be | Self::ALaw | Self::MuLaw => (SampleFormat::S16, None),
            // As FFmpeg: the converters know 24 bits on top of 32 best.
            Self::S24Be => (SampleFormat::S32, Some(24)),
            Self::S32Be => (SampleFormat::S32, None),
            Self::F32Be | Self::F64 | Self::F64Be => (SampleFormat::F32, None),
        }
    }
}

impl Codec for Pcm {
    const INFO: ComponentInfo = ComponentInfo::decoder(
        "audio.pcm",
        "Turns stored PCM (big endian, 8 bit signed, A-law, mu-law, double) into linear little-endian PCM",
    )
    .accepts(&[
        Subtype::PCM_S8,
        Subtype::PCM_S16BE,
        Subtype::PCM_S24BE,
        Subtype::PCM_S32BE,
        Subtype::PCM_F32BE,
        Subtype::PCM_F64,
        PCM_F64BE,
        Subtype::PCM_ALAW,
        Subtype::PCM_MULAW,
    ])
    .produces(&[
        Subtype::PCM_U8,
        Subtype::PCM_S16,
        Subtype::PCM_S32,
        Subtype::PCM_F32,
    ]);
    const NAME: &'static str = "pcm";

    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        self.stored = None;
        let stored = Stored::of(input.subtype)
            .ok_or_else(|| Error::invalid_type(input, "it is not stored PCM"))?;
        if input.sample_rate().unwrap_or(0) == 0 || input.channels().unwrap_or(0) == 0 {
            return Err(Error::invalid_type(
                input,
                "PCM needs a sample rate and channels",
            ));
        }
        let (format, bits) = stored.decoded();
        let sound = Sound {
            bits,
            ..Sound::of(input, format)
        };
        self.stored = Some((stored, sound));
        Ok(sound)
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        let Some((stored, sound)) = self.stored else {
            return Err(Fault::damaged("the decoder is not open"));
        };
        let frame = (stored.bytes() as u64).saturating_mul(u64::from(sound.channels));
        let frames = packet.len() as u64 / frame;
        if frames == 0 {
            return Err(Fault::damaged("the packet holds no whole frame"));
        }
        self.packet.clear();
        self.packet.extend_from_slice(packet);
        Ok(Decoded {
            sound,
            frames: frames as usize,
        })
    }

    fn write(&self, frames: Range<usize>, into: &mut [u8]) {
        let Some((stored, sound)) = self.stored else {
            return;
        };
        let frame = stored.bytes() * sound.channels as usize;
        let source = &self.packet[frames.start * frame..frames.end * frame];
        match stored {
            Stored::S8 => each::<1, 1>(source, into, |[v]| [v ^ 0x80]),
            Stored::S16Be => each::<2, 2>(source, into, |[a, b]| [b, a]),
            Stored::S24Be => each::<3, 4>(source, into, |[a, b, c]| [0, c, b, a]),
            Stored::S32Be | Stored::F32Be => {
                each::<4, 4>(source, into, |[a, b, c, d]| [d, c, b, a]);
            }
            Stored::F64 => each::<8, 4>(source, into, |v| {
                (f64::from_le_bytes(v) as f32).to_le_bytes()
            }),
            Stored::F64Be => {
                each::<8, 4>(source, into, |v| {
                    (f64::from_be_bytes(v) as f32).to_le_bytes()
                });
            }
            Stored::ALaw => each::<1, 2>(source, into, |[v]| a_law(v).to_le_bytes()),
            Stored::MuLaw => each::<1, 2>(source, into, |[v]| mu_law(v).to_le_bytes()),
        }
    }

    fn reset(&mut self) {}
}

fn each<const FROM: usize, const TO: usize>(
    from: &[u8],
    to: &mut [u8],
    map: impl Fn([u8; FROM]) -> [u8; TO],
) {
    let (from, _) = from.as_chunks::<FROM>();
    let (to, _) = to.as_chunks_mut::<TO>();
    for (from, to) in from.iter().zip(to) {
        *to = map(*from);
    }
}

/// G.711 A-law to linear.
fn a_law(code: u8) -> i16 {
    let code = code ^ 0x55;
    let exponent = code >> 4 & 7;
    let mantissa = i16::from(code & 0xf) << 4 | 8;
    let magnitude = match exponent {
        0 => mantissa,
        _ => (mantissa | 0x100) << (exponent - 1),
    };
    if code & 0x80 != 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// G.711 mu-law to linear.
fn mu_law(code: u8) -> i16 {
    let code = !code;
    let magnitude = ((i16::from(code & 0xf) << 3 | 0x84) << (code >> 4 & 7)) - 0x84;
    if code & 0x80 != 0 {
        -magnitude
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_engine::component::Component;
    use portcullis_engine::{MediaTime, Output, Sample, Transform};

    fn decoded(subtype: Subtype, channels: u32, packet: &[u8]) -> (MediaType, Vec<u8>) {
        let mut decoder = Decoder::<Pcm>::new(Default::default()).expect("plain");
        let types = decoder
            .set_input(&MediaType::audio(subtype, 8000, channels))
            .expect("accepted");
        decoder.set_output(&types[0]).expect("accepted");
        let mut output = Output::default();
        let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, packet.to_vec());
        decoder.process(sample, &mut output).expect("decodes");
        let samples = output.take_samples();
        (types[0].clone(), samples[0].payload.to_bytes().to_vec())
    }

    #[test]
    fn values_keep_their_meaning() {
        let (sound, bytes) = decoded(Subtype::PCM_S24BE, 1, &[0x12, 0x34, 0x56, 0xff, 0xff, 0xfe]);
        assert_eq!(sound.to_string(), "audio/pcm_s32le 8000 Hz 1 ch");
        assert_eq!(bytes, [0, 0x56, 0x34, 0x12, 0, 0xfe, 0xff, 0xff]);
        let (_, bytes) = decoded(Subtype::PCM_S8, 2, &[0x80, 0x00, 0x7f]);
        assert_eq!(bytes, [0x00, 0x80], "an incomplete frame is dropped");
        let (_, bytes) = decoded(Subtype::PCM_F64, 1, &0.5_f64.to_le_bytes());
        assert_eq!(bytes, 0.5_f32.to_le_bytes());
    }

    #[test]
    fn companding_has_the_reference_values() {
        // G.711's decoder outputs at the ends and around zero.
        assert_eq!((a_law(0x2a), a_law(0xaa)), (-32256, 32256));
        assert_eq!((a_law(0xd5), a_law(0x55)), (8, -8));
        assert_eq!((mu_law(0x00), mu_law(0x80)), (-32124, 32124));
        assert_eq!((mu_law(0xff), mu_law(0x7f)), (0, 0));
    }
}
