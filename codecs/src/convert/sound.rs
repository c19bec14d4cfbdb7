//! PCM into another sample format, rate or number of channels.
//!
//! Integers that keep rate and channels are converted as integers and lose nothing that the target can hold. Everything
//! else goes through 32-bit float: mix, then resample, then the target's format.

mod format;
mod mix;
mod resample;

use portcullis_engine::{
    Component, ComponentInfo, Error, MediaTime, MediaType, Output, Registry, Result, Sample,
    SampleFormat, Subtype, Transform, keys,
};
use serde::{Deserialize, Serialize};

use self::format::{convert_integers, from_float, to_float};
use self::mix::Mix;
use self::resample::Resampling;
use super::asked;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<SoundConverter>();
}

/// What the converter makes; each is the input's by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoundSettings {
    /// The sample format that is offered first.
    pub format: Option<SampleFormat>,
    /// Frames per second that are offered first.
    pub rate: Option<u32>,
    /// Channels that are offered first.
    pub channels: Option<u32>,
}

/// Rates that are resampled. The filter's memory grows with the rates.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// Most channels.
const MAX_CHANNELS: u32 = 64;

/// How far a sample's time may lie from where the one before it ended: container times are rounded.
const TOLERANCE: MediaTime = MediaTime::from_millis(100);

const FORMATS: [SampleFormat; 5] = [
    SampleFormat::S16,
    SampleFormat::F32,
    SampleFormat::S32,
    SampleFormat::S24,
    SampleFormat::U8,
];

/// Converts PCM; see [`SoundSettings`].
///
/// Channels are in WAVE order. Five and seven channels with an effects channel become stereo by ITU-R BS.775 (centre and
/// surround at -3 dB, the effects channel left out), scaled so that nothing clips.
///
/// Resampled sound is aligned: its first frame stands for the input's first, and `n` frames become `ceil(n * to / from)`.
/// A jump in time, a discontinuity or a change of the preroll mark ends a run and starts another.
///
/// The stream may change in the middle. What the output differed in from the input was asked for, and stays; the rest
/// follows the input.
#[derive(Debug)]
pub struct SoundConverter {
    settings: SoundSettings,
    input: Option<Sound>,
    output: Option<Sound>,
    /// What was asked for, unlike the input's.
    asked: SoundSettings,
    path: Option<Path>,
    /// The run that is being resampled.
    run: Option<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sound {
    format: SampleFormat,
    rate: u32,
    channels: u32,
}

/// What has to be done.
#[derive(Debug)]
enum Path {
    Nothing,
    Integers,
    Float {
        mix: Option<Mix>,
        resampling: Option<Box<Resampling>>,
    },
}

/// A stretch of sound without a gap.
#[derive(Debug)]
struct Run {
    /// The first sample, without its payload: marks and attributes of what is put out.
    head: Sample,
    frames_in: u64,
    frames_out: u64,
}

impl Sound {
    fn of(media_type: &MediaType) -> Option<Self> {
        let sound = Self {
            format: media_type.sample_format()?,
            rate: media_type.sample_rate()?,
            channels: media_type.channels()?,
        };
        let possible = sound.rate > 0 && (1..=MAX_CHANNELS).contains(&sound.channels);
        possible.then_some(sound)
    }

    fn frame_bytes(&self) -> usize {
        self.format.bytes() * self.channels as usize
    }

    fn time_of(&self, frames: u64) -> MediaTime {
        let ticks = u128::from(frames) * 10_000_000 / u128::from(self.rate.max(1));
        MediaTime::from_ticks(i64::try_from(ticks).unwrap_or(i64::MAX))
    }
}

impl Component for SoundConverter {
    type Settings = SoundSettings;
    const INFO: ComponentInfo = ComponentInfo::converter(
        "convert.sound",
        "Converts PCM to another sample format, rate or number of channels",
    )
    .accepts(&PCM)
    .produces(&PCM);

    fn new(settings: SoundSettings) -> Result<Self> {
        if settings.rate.is_some_and(|rate| !RATES.contains(&rate)) {
            return Err(Error::invalid_argument(
                "convert.sound: rate is 1000 to 768000",
            ));
        }
        if settings
            .channels
            .is_some_and(|channels| !(1..=MAX_CHANNELS).contains(&channels))
        {
            return Err(Error::invalid_argument(
                "convert.sound: channels is 1 to 64",
            ));
        }
        Ok(Self {
            settings,
            input: None,
            output: None,
            asked: SoundSettings::default(),
            path: None,
            run: None,
        })
    }
}

const PCM: [Subtype; 5] = [
    Subtype::PCM_S16,
    Subtype::PCM_F32,
    Subtype::PCM_S32,
    Subtype::PCM_S24,
    Subtype::PCM_U8,
];

impl Transform for SoundConverter {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        let sound = Sound::of(input).ok_or_else(|| {
            Error::invalid_type(
                input,
                "PCM of u8, s16, s24, s32 or f32 with a rate and 1 to 64 channels is needed",
            )
        })?;
        self.run = None;
        self.input = Some(sound);
        let (asked, settings) = (self.asked, self.settings);
        let first = asked.format.or(settings.format).unwrap_or(sound.format);
        let rate = asked.rate.or(settings.rate).unwrap_or(sound.rate);
        let channels = asked.channels.or(settings.channels);
        let channels = channels.unwrap_or(sound.channels);
        let rest = FORMATS.into_iter().filter(|format| *format != first);
        let types: Vec<_> = std::iter::once(first)
            .chain(rest)
            .map(|format| {
                let mut output = MediaType::audio(format.subtype(), rate, channels);
                let mut others = input.attributes.clone();
                others.remove(&keys::BITS);
                others.remove(&keys::BIT_RATE);
                output.attributes.inherit(&others);
                output
            })
            .collect();
        self.set_output(&types[0])?;
        Ok(types)
    }

    fn set_output(&mut self, output: &MediaType) -> Result<()> {
        let Some(from) = self.input else {
            return Err(Error::invalid_request("set_output before set_input"));
        };
        let mut wanted = output.clone();
        if wanted.sample_rate().is_none() {
            wanted = wanted.with(&keys::SAMPLE_RATE, from.rate);
        }
        if wanted.channels().is_none() {
            wanted = wanted.with(&keys::CHANNELS, from.channels);
        }
        let to = Sound::of(&wanted).ok_or_else(|| {
            Error::invalid_type(output, "convert.sound makes u8, s16, s24, s32 and f32")
        })?;
        let resampled = from.rate != to.rate;
        if resampled && !(RATES.contains(&from.rate) && RATES.contains(&to.rate)) {
            return Err(Error::invalid_type(
                output,
                "rates of 1000 to 768000 are resampled",
            ));
        }
        self.path = Some(if from == to {
            Path::Nothing
        } else if from.rate == to.rate
            && from.channels == to.channels
            && from.format != SampleFormat::F32
            && to.format != SampleFormat::F32
        {
            Path::Integers
        } else {
            let resampling = resampled
                .then(|| Resampling::new(from.rate, to.rate, to.channels as usize))
                .transpose()
                .map_err(|why| Error::invalid_type(output, why))?;
            Path::Float {
                mix: (from.channels != to.channels)
                    .then(|| Mix::new(from.channels as usize, to.channels as usize)),
                resampling: resampling.map(Box::new),
            }
        });
        asked(&mut self.asked.format, from.format, to.format);
        asked(&mut self.asked.rate, from.rate, to.rate);
        asked(&mut self.asked.channels, from.channels, to.channels);
        self.output = Some(to);
        self.run = None;
        Ok(())
    }

    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let (Some(from), Some(to)) = (self.input, self.output) else {
            return Err(Error::invalid_request("samples before the types are set"));
        };
        match &self.path {
            None => return Err(Error::invalid_request("samples before the types are set")),
            Some(Path::Nothing) => {
                output.push(input);
                return Ok(());
            }
            Some(Path::Integers) => {
                let bytes = input.payload.to_bytes();
                let frames = bytes.len() / from.frame_bytes();
                let mut buffer = output.allocate(frames * to.frame_bytes());
                let whole = &bytes[..frames * from.frame_bytes()];
                convert_integers(whole, from.format, &mut buffer, to.format);
                output.push(input.with_payload(buffer));
                return Ok(());
            }
            Some(Path::Float {
                resampling: Some(_),
                ..
            }) if self.breaks(&input, from) => self.end_run(output),
            Some(Path::Float { .. }) => {}
        }
        let Some(Path::Float { mix, resampling }) = &mut self.path else {
            return Err(Error::invalid_request("samples before the types are set"));
        };
        let bytes = input.payload.to_bytes();
        let frames = bytes.len() / from.frame_bytes();
        let mut values = to_float(&bytes[..frames * from.frame_bytes()], from.format);
        if let Some(mix) = mix {
            values = mix.apply(&values);
        }
        let Some(resampling) = resampling else {
            let mut buffer = output.allocate(frames * to.frame_bytes());
            from_float(&values, &mut buffer, to.format);
            output.push(input.with_payload(buffer));
            return Ok(());
        };
        let head = Sample {
            payload: portcullis_engine::Payload::default(),
            ..input
        };
        let run = self.run.get_or_insert_with(|| Run {
            head: head.clone(),
            frames_in: 0,
            frames_out: 0,
        });
        run.frames_in += frames as u64;
        let made = resampling.push(&values);
        put_out(run, &head, to, &made, output);
        Ok(())
    }

    fn drain(&mut self, output: &mut Output) -> Result<()> {
        self.end_run(output);
        Ok(())
    }

    fn flush(&mut self) {
        self.run = None;
        if let Some(Path::Float {
            resampling: Some(resampling),
            ..
        }) = &mut self.path
        {
            resampling.reset();
        }
    }
}

impl SoundConverter {
    /// Whether a sample does not continue the run.
    fn breaks(&self, input: &Sample, from: Sound) -> bool {
        self.run.as_ref().is_some_and(|run| {
            let expected = run.head.time + from.time_of(run.frames_in);
            let gap = input.time - expected;
            input.flags.discontinuity
                || input.flags.preroll != run.head.flags.preroll
                || gap > TOLERANCE
                || -gap > TOLERANCE
        })
    }

    fn end_run(&mut self, output: &mut Output) {
        let Some(mut run) = self.run.take() else {
            return;
        };
        let (
            Some(from),
            Some(to),
            Some(Path::Float {
                resampling: Some(resampling),
                ..
            }),
        ) = (self.input, self.output, &mut self.path)
        else {
            return;
        };
        let frames = (u128::from(run.frames_in) * u128::from(to.rate))
            .div_ceil(u128::from(from.rate.max(1)));
        let left = u64::try_from(frames)
            .unwrap_or(u64::MAX)
            .saturating_sub(run.frames_out);
        let made = resampling.finish(usize::try_from(left).unwrap_or(0));
        let head = run.head.clone();
        put_out(&mut run, &head, to, &made, output);
    }
}

/// Puts out the next frames of a run. Its first sample's marks count but for the discontinuity, which is said once.
fn put_out(run: &mut Run, source: &Sample, to: Sound, values: &[f32], output: &mut Output) {
    let channels = to.channels as usize;
    let frames = (values.len() / channels) as u64;
    if frames == 0 {
        return;
    }
    let mut buffer = output.allocate(values.len() * to.format.bytes());
    from_float(values, &mut buffer, to.format);
    let start = to.time_of(run.frames_out);
    let end = to.time_of(run.frames_out + frames);
    let mut sample = source.with_payload(buffer);
    sample.time = run.head.time + start;
    sample.decode_time = None;
    sample.duration = end - start;
    sample.flags = run.head.flags;
    sample.flags.discontinuity &= run.frames_out == 0;
    run.frames_out += frames;
    output.push(sample);
}

#[cfg(test)]
mod tests;
