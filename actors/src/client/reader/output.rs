//! Which stream is read, and in which form.

use std::fmt;
use std::str::FromStr;

use portcullis_engine::{
    Error, MajorType, MediaType, PixelFormat, PresentationDescriptor, SampleFormat,
    StreamDescriptor, StreamId, Subtype, keys,
};

use crate::pipeline::sink::Accept;

/// Chooses a stream. Written `v:0` (first video stream), `a:1` (second audio stream) or `3` (stream 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamSelector {
    /// The nth video stream, from 0.
    Video(usize),
    /// The nth audio stream, from 0.
    Audio(usize),
    /// By id.
    Id(StreamId),
}

impl StreamSelector {
    /// The first video stream.
    pub const FIRST_VIDEO: Self = Self::Video(0);
    /// The first audio stream.
    pub const FIRST_AUDIO: Self = Self::Audio(0);

    /// The chosen stream, if it is there.
    pub fn find(self, presentation: &PresentationDescriptor) -> Option<&StreamDescriptor> {
        match self {
            Self::Video(nth) => presentation.nth_of(MajorType::Video, nth),
            Self::Audio(nth) => presentation.nth_of(MajorType::Audio, nth),
            Self::Id(id) => presentation.stream(id),
        }
    }
}

impl fmt::Display for StreamSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Video(nth) => write!(out, "v:{nth}"),
            Self::Audio(nth) => write!(out, "a:{nth}"),
            Self::Id(id) => write!(out, "{id}"),
        }
    }
}

impl FromStr for StreamSelector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid_argument(format!("{text}: expected v:N, a:N or N"));
        let (kind, number) = text.split_once(':').unwrap_or(("", text));
        let nth = number.parse::<u32>().map_err(|_| bad())?;
        match kind {
            "v" => Ok(Self::Video(nth as usize)),
            "a" => Ok(Self::Audio(nth as usize)),
            "" => Ok(Self::Id(StreamId(nth))),
            _ => Err(bad()),
        }
    }
}

/// A stream and the form in which it is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Which stream.
    pub selector: StreamSelector,
    /// In which form.
    pub format: OutputFormat,
}

/// The form of what is read.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum OutputFormat {
    /// As the decoder gives it.
    #[default]
    Decoded,
    /// As the container has it.
    Compressed,
    /// Decoded pictures of this form.
    Picture(PictureFormat),
    /// Decoded sound of this form.
    Sound(SoundFormat),
}

/// The form of pictures; what is `None` stays as the decoder gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureFormat {
    /// Layout.
    pub pixel_format: Option<PixelFormat>,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
}

/// The form of sound; what is `None` stays as the decoder gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoundFormat {
    /// Layout of a value.
    pub sample_format: Option<SampleFormat>,
    /// Frames per second.
    pub sample_rate: Option<u32>,
    /// Interleaved channels.
    pub channels: Option<u32>,
}

impl Output {
    /// The stream as its decoder gives it.
    pub fn decoded(selector: StreamSelector) -> Self {
        Self {
            selector,
            format: OutputFormat::Decoded,
        }
    }

    /// The stream as its container has it.
    pub fn compressed(selector: StreamSelector) -> Self {
        Self {
            selector,
            format: OutputFormat::Compressed,
        }
    }

    /// Pictures of a form.
    pub fn picture(selector: StreamSelector, format: PictureFormat) -> Self {
        Self {
            selector,
            format: OutputFormat::Picture(format),
        }
    }

    /// Sound of a form.
    pub fn sound(selector: StreamSelector, format: SoundFormat) -> Self {
        Self {
            selector,
            format: OutputFormat::Sound(format),
        }
    }
}

impl From<StreamSelector> for Output {
    fn from(selector: StreamSelector) -> Self {
        Self::decoded(selector)
    }
}

impl OutputFormat {
    pub(super) fn accept(&self, major: MajorType) -> Accept {
        match self {
            Self::Compressed => Accept::Any,
            // What is neither picture nor sound has no decoded form.
            _ if !matches!(major, MajorType::Video | MajorType::Audio) => Accept::Any,
            _ => Accept::Raw,
        }
    }

    /// The partial type that the stream must be brought to; nothing if the decoder's own is wanted.
    pub fn wanted(&self, stream: &MediaType) -> Option<MediaType> {
        match self {
            Self::Decoded | Self::Compressed => None,
            Self::Picture(format) => {
                let mut wanted = MediaType::new(MajorType::Video, Subtype::RAW_VIDEO);
                if let Some(pixel_format) = format.pixel_format {
                    wanted = wanted.with(&keys::PIXEL_FORMAT, pixel_format);
                }
                if let Some(size) = format.size {
                    wanted = wanted.with(&keys::FRAME_SIZE, size);
                }
                Some(wanted)
            }
            Self::Sound(format) => {
                let own = stream.sample_format().unwrap_or(SampleFormat::F32);
                let subtype = format.sample_format.unwrap_or(own).subtype();
                let mut wanted = MediaType::new(MajorType::Audio, subtype);
                if let Some(rate) = format.sample_rate {
                    wanted = wanted.with(&keys::SAMPLE_RATE, rate);
                }
                if let Some(channels) = format.channels {
                    wanted = wanted.with(&keys::CHANNELS, channels);
                }
                Some(wanted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_written_as_in_ffmpeg() {
        for text in ["v:0", "a:3", "2"] {
            assert_eq!(
                text.parse::<StreamSelector>().map(|s| s.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["", "v", "v:", "x:1", "-1", "a:-1"] {
            assert!(text.parse::<StreamSelector>().is_err(), "{text}");
        }
    }
}
