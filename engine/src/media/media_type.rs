//! What a stream carries: a subtype and the attributes that describe it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::attributes::{AttributeValue, Attributes, Key};

/// The kind of a stream. Displays as ffprobe's `codec_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MajorType {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Text, such as captions.
    Subtitle,
    /// Anything else.
    Data,
}

impl fmt::Display for MajorType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Subtitle => "subtitle",
            Self::Data => "data",
        })
    }
}

/// The format of a stream's payload. Names are FFmpeg's `codec_name`; raw video is `rawvideo` with a [`PixelFormat`].
///
/// A small value that copies: the name lies inside, at most [`Subtype::MAX_NAME`] bytes of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subtype {
    name: [u8; Self::MAX_NAME],
    len: u8,
}

macro_rules! subtypes {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        impl Subtype {
            $(#[doc = $doc] pub const $name: Self = Self::named($text);)*
        }
    };
}

subtypes! {
    H264 = "h264", "H.264 / AVC. Payload: length-prefixed NAL units with `avcC` private data, or Annex B without.";
    HEVC = "hevc", "H.265 / HEVC.";
    VP8 = "vp8", "VP8.";
    VP9 = "vp9", "VP9; a payload is one (super)frame.";
    AV1 = "av1", "AV1; a payload is one temporal unit of low-overhead OBUs.";
    MPEG2_VIDEO = "mpeg2video", "MPEG-2 video.";
    MPEG4_VIDEO = "mpeg4", "MPEG-4 part 2 video.";
    MJPEG = "mjpeg", "Motion JPEG.";
    PNG = "png", "PNG pictures.";
    RAW_VIDEO = "rawvideo", "Uncompressed pictures; the `pixel_format` attribute names the layout, planes follow each other without padding.";
    AAC = "aac", "AAC; private data is the AudioSpecificConfig.";
    MP3 = "mp3", "MPEG audio layer III; a payload is one frame with its header.";
    MP2 = "mp2", "MPEG audio layer II.";
    FLAC = "flac", "FLAC; private data is STREAMINFO (34 bytes), a payload is one frame.";
    ALAC = "alac", "Apple Lossless.";
    VORBIS = "vorbis", "Vorbis; private data is the three headers, Xiph-laced as in Matroska.";
    OPUS = "opus", "Opus; private data is the OpusHead packet.";
    AC3 = "ac3", "AC-3.";
    EAC3 = "eac3", "Enhanced AC-3.";
    PCM_U8 = "pcm_u8", "PCM, unsigned 8 bit.";
    PCM_S16 = "pcm_s16le", "PCM, signed 16 bit little endian, interleaved.";
    PCM_S24 = "pcm_s24le", "PCM, signed 24 bit little endian, packed in 3 bytes, interleaved.";
    PCM_S32 = "pcm_s32le", "PCM, signed 32 bit little endian, interleaved.";
    PCM_F32 = "pcm_f32le", "PCM, 32 bit float little endian, full scale is 1.0, interleaved.";
    PCM_F64 = "pcm_f64le", "PCM, 64 bit float little endian, interleaved.";
    PCM_S8 = "pcm_s8", "PCM, signed 8 bit.";
    PCM_S16BE = "pcm_s16be", "PCM, signed 16 bit big endian.";
    PCM_S24BE = "pcm_s24be", "PCM, signed 24 bit big endian, packed.";
    PCM_S32BE = "pcm_s32be", "PCM, signed 32 bit big endian.";
    PCM_F32BE = "pcm_f32be", "PCM, 32 bit float big endian.";
    PCM_ALAW = "pcm_alaw", "G.711 A-law.";
    PCM_MULAW = "pcm_mulaw", "G.711 mu-law.";
    SUBRIP = "subrip", "SubRip captions.";
    MOV_TEXT = "mov_text", "MP4 timed text.";
    PATTERN = "pattern", "Counting test bytes of the pattern source.";
}

impl Subtype {
    /// Longest name in bytes.
    pub const MAX_NAME: usize = 23;

    /// A subtype by name, for formats that have no constant here. A longer name is cut at [`Self::MAX_NAME`] bytes, at a
    /// character's end.
    pub const fn named(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut len = if bytes.len() > Self::MAX_NAME {
            Self::MAX_NAME
        } else {
            bytes.len()
        };
        while !name.is_char_boundary(len) {
            len -= 1;
        }
        let mut inside = [0; Self::MAX_NAME];
        let mut at = 0;
        while at < len {
            inside[at] = bytes[at];
            at += 1;
        }
        Self {
            name: inside,
            len: len as u8,
        }
    }

    /// The name, as in FFmpeg's `codec_name`.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Whether payloads are uncompressed samples as sinks take them: raw video, or PCM of a [`SampleFormat`].
    ///
    /// PCM as some containers store it (big endian, G.711, double) has a decoder.
    pub fn is_raw(&self) -> bool {
        *self == Self::RAW_VIDEO || SampleFormat::of(*self).is_some()
    }
}

impl fmt::Display for Subtype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl fmt::Debug for Subtype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Subtype({})", self.name())
    }
}

impl Serialize for Subtype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Subtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::named(&Cow::<'_, str>::deserialize(deserializer)?))
    }
}

macro_rules! text_enum {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $type { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }

        impl $type {
            /// FFmpeg's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result { out.write_str(self.name()) }
        }

        impl std::str::FromStr for $type {
            type Err = crate::Error;
            fn from_str(text: &str) -> Result<Self, crate::Error> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(crate::Error::invalid_argument(format!(
                        "{} is not one of {}", text, [$($text),*].join(", ")
                    ))),
                }
            }
        }

        impl AttributeValue for $type {
            fn into_value(self) -> super::Value { super::Value::Text(Cow::Borrowed(self.name())) }
            fn from_value(value: &super::Value) -> Option<Self> {
                match value { super::Value::Text(text) => text.parse().ok(), _ => None }
            }
        }
    };
}

text_enum! {
    /// The layout of a raw picture: planes in order, rows without padding, 16-bit words little endian.
    PixelFormat {
        /// Planar 4:2:0, 8 bit: Y, then U and V of half size (rounded up).
        I420 = "yuv420p",
        /// Planar 4:2:0, 10 bit in 16-bit words.
        I420P10 = "yuv420p10le",
        /// Planar 4:2:0, 12 bit in 16-bit words.
        I420P12 = "yuv420p12le",
        /// Planar 4:2:2, 8 bit.
        I422 = "yuv422p",
        /// Planar 4:2:2, 10 bit in 16-bit words.
        I422P10 = "yuv422p10le",
        /// Planar 4:2:2, 12 bit in 16-bit words.
        I422P12 = "yuv422p12le",
        /// Planar 4:4:4, 8 bit.
        I444 = "yuv444p",
        /// Planar 4:4:4, 10 bit in 16-bit words.
        I444P10 = "yuv444p10le",
        /// Planar 4:4:4, 12 bit in 16-bit words.
        I444P12 = "yuv444p12le",
        /// Luma only, 8 bit.
        Gray8 = "gray",
        /// Luma only, 10 bit in 16-bit words.
        Gray10 = "gray10le",
        /// Y plane, then interleaved UV of half size.
        Nv12 = "nv12",
        /// Packed 8-bit R, G, B.
        Rgb8 = "rgb24",
        /// Packed 8-bit R, G, B, A.
        Rgba8 = "rgba",
    }
}

impl PixelFormat {
    /// Bytes of one picture of this size, or `None` where that does not fit a `usize`.
    pub fn picture_bytes(self, width: u32, height: u32) -> Option<usize> {
        let (w, h) = (u64::from(width), u64::from(height));
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        let luma = w.checked_mul(h)?;
        let half = cw.checked_mul(ch)?.checked_mul(2)?;
        let wide = cw.checked_mul(h)?.checked_mul(2)?;
        let total = match self {
            Self::I420 | Self::Nv12 => luma.checked_add(half)?,
            Self::I420P10 | Self::I420P12 => luma.checked_add(half)?.checked_mul(2)?,
            Self::I422 => luma.checked_add(wide)?,
            Self::I422P10 | Self::I422P12 => luma.checked_add(wide)?.checked_mul(2)?,
            Self::I444 | Self::Rgb8 => luma.checked_mul(3)?,
            Self::I444P10 | Self::I444P12 => luma.checked_mul(6)?,
            Self::Gray8 => luma,
            Self::Gray10 => luma.checked_mul(2)?,
            Self::Rgba8 => luma.checked_mul(4)?,
        };
        usize::try_from(total).ok()
    }
}

text_enum! {
    /// The layout of one PCM value, interleaved.
    SampleFormat {
        /// Signed 16 bit little endian.
        S16 = "s16",
        /// Signed 32 bit little endian.
        S32 = "s32",
        /// 32-bit float little endian.
        F32 = "f32",
        /// Unsigned 8 bit.
        U8 = "u8",
        /// Signed 24 bit little endian in 3 bytes.
        S24 = "s24",
    }
}

impl SampleFormat {
    /// The PCM subtype with this layout.
    pub const fn subtype(self) -> Subtype {
        match self {
            Self::S16 => Subtype::PCM_S16,
            Self::S32 => Subtype::PCM_S32,
            Self::F32 => Subtype::PCM_F32,
            Self::U8 => Subtype::PCM_U8,
            Self::S24 => Subtype::PCM_S24,
        }
    }

    /// The layout of a PCM subtype, if it is linear and little endian.
    pub fn of(subtype: Subtype) -> Option<Self> {
        [Self::S16, Self::F32, Self::S32, Self::U8, Self::S24]
            .into_iter()
            .find(|format| format.subtype() == subtype)
    }

    /// Bytes of one value of one channel.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
        }
    }
}

/// The attribute keys of media types.
pub mod keys {
    use bytes::Bytes;

    use super::{Key, PixelFormat};

    /// Coded picture size in pixels: (width, height).
    pub const FRAME_SIZE: Key<(u32, u32)> = Key::new("frame_size");
    /// Frames per second as a ratio.
    pub const FRAME_RATE: Key<(u32, u32)> = Key::new("frame_rate");
    /// Shape of a pixel as a ratio.
    pub const PIXEL_ASPECT: Key<(u32, u32)> = Key::new("pixel_aspect");
    /// Clockwise rotation for display, in degrees.
    pub const ROTATION: Key<u32> = Key::new("rotation");
    /// Layout of a raw picture.
    pub const PIXEL_FORMAT: Key<PixelFormat> = Key::new("pixel_format");
    /// Whether luma spans 0-255 instead of 16-235.
    pub const FULL_RANGE: Key<bool> = Key::new("full_range");
    /// Audio frames per second.
    pub const SAMPLE_RATE: Key<u32> = Key::new("sample_rate");
    /// Interleaved channels.
    pub const CHANNELS: Key<u32> = Key::new("channels");
    /// Significant bits of a value, where fewer than the format holds.
    pub const BITS: Key<u32> = Key::new("bits_per_sample");
    /// Bits per second as the container or codec states it.
    pub const BIT_RATE: Key<u64> = Key::new("bit_rate");
    /// Codec initialisation data; its layout is the subtype's.
    pub const PRIVATE_DATA: Key<Bytes> = Key::new("private_data");
    /// The codec's profile, as ffprobe names it.
    pub const PROFILE: Key<String> = Key::new("profile");
    /// Audio frames to drop at the start of the stream (encoder delay).
    pub const LEADING_FRAMES: Key<u64> = Key::new("leading_frames");
    /// The four-character code or codec id that the container uses.
    pub const CODEC_TAG: Key<String> = Key::new("codec_tag");
    /// Whether payloads are encrypted; such a stream plays only in a protected host.
    pub const PROTECTED: Key<bool> = Key::new("protected");
}

/// A stream's format: major type, subtype and attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MediaType {
    /// The kind of stream.
    pub major: MajorType,
    /// The payload's format.
    pub subtype: Subtype,
    /// Everything else that is known; [`keys`] names what the project's own components use.
    pub attributes: Attributes,
}

impl MediaType {
    /// A type without attributes.
    pub const fn new(major: MajorType, subtype: Subtype) -> Self {
        Self {
            major,
            subtype,
            attributes: Attributes::new(),
        }
    }

    /// A compressed or raw video type.
    pub fn video(subtype: Subtype, width: u32, height: u32) -> Self {
        Self::new(MajorType::Video, subtype).with(&keys::FRAME_SIZE, (width, height))
    }

    /// A raw picture type.
    pub fn raw_video(format: PixelFormat, width: u32, height: u32) -> Self {
        Self::video(Subtype::RAW_VIDEO, width, height).with(&keys::PIXEL_FORMAT, format)
    }

    /// A compressed or PCM audio type.
    pub fn audio(subtype: Subtype, sample_rate: u32, channels: u32) -> Self {
        Self::new(MajorType::Audio, subtype)
            .with(&keys::SAMPLE_RATE, sample_rate)
            .with(&keys::CHANNELS, channels)
    }

    /// The same with one more attribute.
    #[must_use]
    pub fn with<T: AttributeValue>(mut self, key: &Key<T>, value: T) -> Self {
        self.attributes.set(key, value);
        self
    }

    /// The attribute under `key`.
    pub fn get<T: AttributeValue>(&self, key: &Key<T>) -> Option<T> {
        self.attributes.get(key)
    }

    /// (width, height) of a picture.
    pub fn frame_size(&self) -> Option<(u32, u32)> {
        self.get(&keys::FRAME_SIZE)
    }

    /// Layout of a raw picture.
    pub fn pixel_format(&self) -> Option<PixelFormat> {
        self.get(&keys::PIXEL_FORMAT)
    }

    /// Audio frames per second.
    pub fn sample_rate(&self) -> Option<u32> {
        self.get(&keys::SAMPLE_RATE)
    }

    /// Interleaved channels.
    pub fn channels(&self) -> Option<u32> {
        self.get(&keys::CHANNELS)
    }

    /// Codec initialisation data.
    pub fn private_data(&self) -> Option<Bytes> {
        self.get(&keys::PRIVATE_DATA)
    }

    /// Layout of a PCM value, if this is PCM of a layout that the converters handle.
    pub fn sample_format(&self) -> Option<SampleFormat> {
        SampleFormat::of(self.subtype)
    }

    /// Whether payloads are encrypted.
    pub fn is_protected(&self) -> bool {
        self.get(&keys::PROTECTED).unwrap_or(false)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.major, self.subtype)?;
        if let Some(format) = self.pixel_format() {
            write!(out, " {format}")?;
        }
        if let Some((width, height)) = self.frame_size() {
            write!(out, " {width}x{height}")?;
        }
        if let Some(rate) = self.sample_rate() {
            write!(out, " {rate} Hz")?;
        }
        if let Some(channels) = self.channels() {
            write!(out, " {channels} ch")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_bytes_round_chroma_up_and_never_overflow() {
        assert_eq!(PixelFormat::I420.picture_bytes(3, 3), Some(9 + 8));
        assert_eq!(PixelFormat::I420P10.picture_bytes(4, 2), Some(24));
        assert_eq!(PixelFormat::I444P12.picture_bytes(u32::MAX, u32::MAX), None);
    }

    #[test]
    fn displays_what_matters() {
        let picture = MediaType::raw_video(PixelFormat::I420, 320, 180);
        assert_eq!(picture.to_string(), "video/rawvideo yuv420p 320x180");
        let sound = MediaType::audio(Subtype::AAC, 48_000, 2);
        assert_eq!(sound.to_string(), "audio/aac 48000 Hz 2 ch");
    }
}
