//! The shell that makes a decoder component of a [`Codec`]: types, times, trimming, output memory, and what follows from
//! a damaged packet are the same for all of them.

use std::borrow::Cow;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use portcullis_engine::{
    Attributes, Component, ComponentInfo, Error, MediaTime, MediaType, Output, Result, Sample,
    SampleFormat, TimeBase, Transform, keys, sample_keys,
};
use serde::{Deserialize, Serialize};

use super::trim::Trimmer;

/// Decodes one format, packet by packet, and knows nothing of times.
pub(super) trait Codec: Default + 'static {
    /// Class, accepted and produced subtypes.
    const INFO: ComponentInfo;
    /// FFmpeg's name of the codec, for messages.
    const NAME: &'static str;

    /// Takes the input's type and answers what will come out, as far as the type says it. May be called again.
    fn open(&mut self, input: &MediaType) -> Result<Sound>;

    /// Decodes one packet and keeps the result for [`Codec::write`].
    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault>;

    /// Writes a part of what the last packet decoded to, interleaved, in the format that [`Codec::decode`] answered.
    /// `into` has exactly the bytes of these frames.
    fn write(&self, frames: Range<usize>, into: &mut [u8]);

    /// Forgets the packets before: the position changes.
    fn reset(&mut self);
}

/// A format of PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sound {
    /// Audio frames per second; 0 while unknown.
    pub(super) rate: u32,
    /// Interleaved channels; 0 while unknown.
    pub(super) channels: u32,
    /// Layout of a value.
    pub(super) format: SampleFormat,
    /// Significant bits of a value, where fewer than the format holds.
    pub(super) bits: Option<u32>,
}

impl Sound {
    /// 32-bit float: what lossy codecs put out.
    pub(super) fn float(rate: u32, channels: u32) -> Self {
        Self {
            rate,
            channels,
            format: SampleFormat::F32,
            bits: None,
        }
    }

    /// What the container says, in a format of the codec's choice.
    pub(super) fn of(input: &MediaType, format: SampleFormat) -> Self {
        Self {
            rate: input.sample_rate().unwrap_or(0),
            channels: input.channels().unwrap_or(0),
            format,
            bits: None,
        }
    }

    fn bytes_per_frame(&self) -> usize {
        self.channels as usize * self.format.bytes()
    }

    fn media_type(&self) -> MediaType {
        let mut media_type = MediaType::audio(self.format.subtype(), self.rate, self.channels);
        if self.rate == 0 {
            media_type.attributes.remove(&keys::SAMPLE_RATE);
        }
        if self.channels == 0 {
            media_type.attributes.remove(&keys::CHANNELS);
        }
        if let Some(bits) = self.bits {
            media_type.attributes.set(&keys::BITS, bits);
        }
        media_type
    }
}

/// What a packet decoded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The format, rate and channels known.
    pub(super) sound: Sound,
    /// PCM frames.
    pub(super) frames: usize,
}

/// Why a packet was not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The packet makes no sense.
    Damaged(Cow<'static, str>),
    /// The stream uses what this decoder lacks.
    Unsupported(Cow<'static, str>),
}

impl Fault {
    pub(super) fn damaged(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Damaged(what.into())
    }

    fn into_error(self, codec: &'static str, time: MediaTime) -> Error {
        match self {
            Self::Damaged(what) => Error::undecodable(codec, time, what),
            Self::Unsupported(what) => Error::unsupported_codec(codec, what),
        }
    }
}

/// No settings.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoSettings {}

/// A decoder component over a codec.
#[derive(Debug)]
pub(super) struct Decoder<C> {
    codec: C,
    input: Option<MediaType>,
    announced: Option<Sound>,
    trim: Trimmer,
}

impl<C: Codec> Decoder<C> {
    fn open(&mut self, input: &MediaType) -> Result<Sound> {
        // A library that panics on a header must not take the session with it.
        let codec = &mut self.codec;
        match catch_unwind(AssertUnwindSafe(|| codec.open(input))) {
            Ok(opened) => opened,
            Err(panic) => {
                self.codec = C::default();
                Err(Error::invalid_type(input, panic_text(panic.as_ref())))
            }
        }
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Decoded, Fault> {
        let codec = &mut self.codec;
        match catch_unwind(AssertUnwindSafe(|| codec.decode(packet))) {
            Ok(decoded) => decoded,
            Err(panic) => {
                // Whatever state the panic left behind is thrown away.
                self.codec = C::default();
                if let Some(input) = self.input.clone() {
                    let _opened_before = self.open(&input);
                }
                Err(Fault::Damaged(panic_text(panic.as_ref())))
            }
        }
    }

    /// New private data in band: a chained stream goes on with other headers.
    fn reopen(&mut self, sample: &Sample) -> Result<()> {
        let (Some(data), Some(input)) = (
            sample.attributes.get(&keys::PRIVATE_DATA),
            self.input.as_ref(),
        ) else {
            return Ok(());
        };
        if input.private_data().as_ref() == Some(&data) {
            self.codec.reset();
            return Ok(());
        }
        let input = input.clone().with(&keys::PRIVATE_DATA, data);
        self.open(&input)?;
        self.input = Some(input);
        Ok(())
    }
}

impl<C: Codec> Component for Decoder<C> {
    type Settings = NoSettings;
    const INFO: ComponentInfo = C::INFO;

    fn new(_settings: NoSettings) -> Result<Self> {
        Ok(Self {
            codec: C::default(),
            input: None,
            announced: None,
            trim: Trimmer::default(),
        })
    }
}

impl<C: Codec> Transform for Decoder<C> {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        if !C::INFO.takes(input.subtype) {
            return Err(Error::invalid_type(
                input,
                format!("this is a decoder for {}", C::NAME),
            ));
        }
        if input.is_protected() {
            return Err(Error::invalid_type(input, "it is still encrypted"));
        }
        self.trim.clear();
        let sound = self.open(input)?;
        self.input = Some(input.clone());
        self.announced = Some(sound);
        Ok(vec![sound.media_type()])
    }

    fn set_output(&mut self, output: &MediaType) -> Result<()> {
        match self.announced {
            Some(sound) if sound.format.subtype() == output.subtype => Ok(()),
            Some(sound) => Err(Error::invalid_type(
                output,
                format!("the decoder puts out {}", sound.media_type()),
            )),
            None => Err(Error::invalid_request("no input type is set")),
        }
    }

    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let Some(announced) = self.announced else {
            return Err(Error::invalid_request("no input type is set"));
        };
        self.reopen(&input)?;
        let decoded = match self.decode(&input.payload.to_bytes()) {
            Ok(decoded) => decoded,
            Err(fault) => {
                let lost = TimeBase::per_second(announced.rate)
                    .map_or(0, |base| base.to_units(input.duration));
                self.trim.lose(&input, u64::try_from(lost).unwrap_or(0));
                return Err(fault.into_error(C::NAME, input.time));
            }
        };
        let kept = self.trim.keep(&input, decoded.frames);
        if kept.is_empty() {
            return Ok(());
        }
        if decoded.sound != announced {
            output.push_format(decoded.sound.media_type());
            self.announced = Some(decoded.sound);
        }
        let mut buffer = output.allocate(kept.len() * decoded.sound.bytes_per_frame());
        self.codec.write(kept.clone(), &mut buffer);
        let (time, end) = times(input.time, decoded.sound.rate, &kept);
        let mut sample = Sample::new(time, end - time, buffer.freeze());
        sample.flags = input.flags;
        sample.flags.key = true;
        sample.attributes = passed_on(input.attributes);
        output.push(sample);
        Ok(())
    }

    fn flush(&mut self) {
        self.codec.reset();
        self.trim.clear();
    }
}

/// When the kept frames of a packet that stands at `start` begin and end.
///
/// Computed in the stream's own frames wherever the start lies on one, so that one sample ends where the next begins.
fn times(start: MediaTime, rate: u32, kept: &Range<usize>) -> (MediaTime, MediaTime) {
    let Some(base) = TimeBase::per_second(rate) else {
        return (start, start);
    };
    let (from, to) = (kept.start as i64, kept.end as i64);
    let first = base.to_units(start);
    if base.to_time(first) == start {
        return (
            base.to_time(first.saturating_add(from)),
            base.to_time(first.saturating_add(to)),
        );
    }
    (start + base.to_time(from), start + base.to_time(to))
}

fn passed_on(mut attributes: Attributes) -> Attributes {
    attributes.remove(&sample_keys::TRIM_START);
    attributes.remove(&sample_keys::TRIM_END);
    attributes.remove(&keys::PRIVATE_DATA);
    attributes
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> Cow<'static, str> {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("the decoder library gave up: {message}").into()
}
