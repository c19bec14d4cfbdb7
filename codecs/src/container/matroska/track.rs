//! Tracks: what a `TrackEntry` says of a stream.

use bytes::Bytes;
use portcullis_engine::{
    Error, MajorType, MediaTime, MediaType, Result, StreamDescriptor, StreamId, Subtype, TimeBase,
    Value, keys,
};

use super::codec;
use super::ebml::Child;
use super::frame_length::FrameLength;
use super::ids;
use crate::video::describe;

/// One track.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) number: u64,
    /// What tags name it by.
    pub(crate) uid: u64,
    /// Length by its tags.
    pub(crate) duration: Option<MediaTime>,
    pub(crate) media_type: MediaType,
    /// Length of a frame in nanoseconds, where it is always the same.
    pub(crate) default_duration: Option<u64>,
    /// What the codec says of the length of a frame.
    pub(crate) length: FrameLength,
    /// Encoder delay in nanoseconds.
    pub(crate) codec_delay: u64,
    /// The same in units of timestamps, as FFmpeg rounds it.
    pub(crate) delay_units: i64,
    /// How long before a position decoding must begin.
    seek_preroll: MediaTime,
    /// What every frame begins with but leaves out.
    pub(crate) stripped: Bytes,
    /// Why frames cannot be delivered, if they cannot.
    pub(crate) refused: Option<String>,
    encryption: Option<Encryption>,
    language: String,
    name: Option<String>,
    flag_default: bool,
    flag_forced: bool,
}

#[derive(Debug, Default)]
struct Encryption {
    key_id: Bytes,
    algorithm: u64,
    cipher_mode: u64,
}

/// What a track entry says, as it says it.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) kind: u64,
    pub(crate) codec_id: String,
    pub(crate) private: Bytes,
    /// Byte position of the private data.
    pub(crate) private_at: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) display: (u32, u32),
    pub(crate) display_unit: u64,
    pub(crate) full_range: bool,
    pub(crate) roll: f64,
    pub(crate) rate: f64,
    pub(crate) output_rate: f64,
    pub(crate) channels: u32,
    pub(crate) bits: u32,
}

impl Track {
    /// Parses a track entry.
    pub(crate) fn parse(entry: &Child<'_>) -> Result<Self> {
        let mut raw = Entry {
            rate: 8000.0,
            channels: 1,
            ..Entry::default()
        };
        let mut track = Self {
            number: 0,
            uid: 0,
            duration: None,
            media_type: MediaType::new(MajorType::Data, Subtype::named("")),
            default_duration: None,
            length: FrameLength::Unknown,
            codec_delay: 0,
            delay_units: 0,
            seek_preroll: MediaTime::ZERO,
            stripped: Bytes::new(),
            refused: None,
            encryption: None,
            language: "eng".to_owned(),
            name: None,
            flag_default: true,
            flag_forced: false,
        };
        let mut encodings = None;
        let mut children = entry.children();
        while let Some(child) = children.next()? {
            match child.element.id {
                ids::TRACK_NUMBER => track.number = child.unsigned()?,
                ids::TRACK_UID => track.uid = child.unsigned()?,
                ids::TRACK_TYPE => raw.kind = child.unsigned()?,
                ids::FLAG_DEFAULT => track.flag_default = child.unsigned()? != 0,
                ids::FLAG_FORCED => track.flag_forced = child.unsigned()? != 0,
                ids::DEFAULT_DURATION => {
                    track.default_duration = Some(child.unsigned()?).filter(|&ns| ns != 0);
                }
                ids::NAME => track.name = Some(child.text()),
                ids::LANGUAGE => track.language = child.text(),
                ids::CODEC_ID => raw.codec_id = child.text(),
                ids::CODEC_PRIVATE => {
                    raw.private = Bytes::copy_from_slice(child.bytes);
                    raw.private_at = child.element.data_at;
                }
                ids::CODEC_DELAY => track.codec_delay = child.unsigned()?,
                ids::SEEK_PRE_ROLL => {
                    let ticks = i64::try_from(child.unsigned()? / 100).unwrap_or(i64::MAX);
                    track.seek_preroll = MediaTime::from_ticks(ticks);
                }
                ids::VIDEO => raw.video(&child)?,
                ids::AUDIO => raw.audio(&child)?,
                ids::CONTENT_ENCODINGS => encodings = Some(child),
                _ => {}
            }
        }
        if let Some(encodings) = encodings {
            track.encodings(&encodings, &mut raw)?;
        }
        if track.number == 0 {
            return Err(Error::malformed(entry.element.at, "a track without number"));
        }
        (track.media_type, track.length) = codec::describe(&raw)?;
        track.finish(&raw);
        Ok(track)
    }

    /// Says how long a unit of timestamps is, in nanoseconds.
    pub(crate) fn set_scale(&mut self, scale: u32) {
        let scale = u64::from(scale);
        let units = self.codec_delay.saturating_add(scale / 2) / scale;
        self.delay_units = i64::try_from(units).unwrap_or(i64::MAX);
    }

    /// The stream that this track is.
    pub(crate) fn descriptor(&self, id: StreamId, time_base: TimeBase) -> StreamDescriptor {
        let mut stream = StreamDescriptor::new(id, self.media_type.clone(), time_base);
        describe::describe(&mut stream);
        stream.selected = self.refused.is_none();
        stream.duration = self.duration;
        stream.language = Some(self.language.clone()).filter(|l| !l.is_empty() && l != "und");
        let attributes = &mut stream.attributes;
        attributes.set_named("track_number", Value::Unsigned(self.number));
        attributes.set_named("default", Value::Unsigned(self.flag_default.into()));
        attributes.set_named("forced", Value::Unsigned(self.flag_forced.into()));
        if let Some(name) = &self.name {
            attributes.set_named("title", Value::Text(name.clone().into()));
        }
        if let Some(encryption) = &self.encryption {
            attributes.set_named("protection_scheme", Value::Text("cenc".into()));
            attributes.set_named("default_kid", Value::Blob(encryption.key_id.clone()));
        }
        stream
    }

    /// How long before a position decoding must begin, besides at a key frame.
    pub(crate) fn preroll(&self) -> MediaTime {
        self.seek_preroll.max(self.length.preroll())
    }

    /// Whether this is sound.
    pub(crate) fn is_audio(&self) -> bool {
        self.media_type.major == MajorType::Audio
    }

    /// Whether a decoder can begin at every frame.
    pub(crate) fn all_key(&self) -> bool {
        self.media_type.major != MajorType::Video
    }

    /// PCM frames that `nanoseconds` are at the rate of the decoded stream.
    pub(crate) fn pcm_frames(&self, nanoseconds: u64) -> u64 {
        let rate = u128::from(self.media_type.sample_rate().unwrap_or(0));
        let frames = (u128::from(nanoseconds) * rate + 500_000_000) / 1_000_000_000;
        u64::try_from(frames).unwrap_or(u64::MAX)
    }

    /// PCM frames to drop at the start of the track.
    pub(crate) fn lead(&self) -> u64 {
        match (self.media_type.major, self.codec_delay) {
            (MajorType::Audio, 0) => self.length.pre_skip(),
            (MajorType::Audio, delay) => self.pcm_frames(delay),
            _ => 0,
        }
    }

    /// Length of the next frame, by the track or by the codec.
    pub(crate) fn frame_duration(&mut self, frame: &[u8]) -> MediaTime {
        let coded = self.length.of(frame);
        match self.default_duration {
            Some(ns) => MediaTime::from_ticks(
                i64::try_from(ns.saturating_add(50) / 100).unwrap_or(i64::MAX),
            ),
            None => coded.unwrap_or_default(),
        }
    }

    /// Whether nothing says how long a picture lasts but when the next one is shown.
    pub(crate) fn lasts_until_next(&self) -> bool {
        self.media_type.major == MajorType::Video && self.default_duration.is_none()
    }

    /// Pictures that can precede one in the file and are shown after it, at most.
    pub(crate) fn reorder(&self) -> usize {
        describe::reorder_depth(&self.media_type)
    }

    /// Takes the frame rate from when the first pictures are shown, where the header does not say it. They are in order of time and as
    /// exact as a unit of `scale` nanoseconds.
    pub(crate) fn estimate_frame_rate(&mut self, times: &[MediaTime], scale: u32) {
        let (true, [first, .., last]) = (self.lasts_until_next(), times) else {
            return;
        };
        let count = times.len() as u64 - 1;
        let Ok(span) = u64::try_from((*last - *first).ticks()) else {
            return;
        };
        let span = span.saturating_mul(100);
        if let Some(rate) = near_rate(count, span, scale.into()) {
            self.media_type.attributes.set(&keys::FRAME_RATE, rate);
        }
    }

    /// Puts back what the frames leave out.
    pub(crate) fn restore(&self, frame: Bytes) -> Bytes {
        if self.stripped.is_empty() {
            return frame;
        }
        [&self.stripped[..], &frame[..]].concat().into()
    }

    fn finish(&mut self, raw: &Entry) {
        let attributes = &mut self.media_type.attributes;
        if !raw.codec_id.is_empty() {
            attributes.set(&keys::CODEC_TAG, raw.codec_id.clone());
        }
        if self.media_type.major == MajorType::Video {
            raw.picture(&mut self.media_type);
            if let Some(rate) = self.default_duration.and_then(frame_rate) {
                self.media_type.attributes.set(&keys::FRAME_RATE, rate);
            }
        }
        if let Some(encryption) = &self.encryption {
            self.media_type.attributes.set(&keys::PROTECTED, true);
            // What an encrypted frame begins with says nothing of its length.
            self.length = FrameLength::Unknown;
            if encryption.algorithm != 5 || encryption.cipher_mode > 1 {
                self.refused = Some(format!(
                    "encryption algorithm {} in mode {}, not AES in counter mode",
                    encryption.algorithm, encryption.cipher_mode
                ));
            }
        }
    }

    fn encodings(&mut self, encodings: &Child<'_>, raw: &mut Entry) -> Result<()> {
        // The one with the highest order was applied last and is undone first.
        let mut found: Vec<(u64, Encoding)> = Vec::new();
        let mut children = encodings.children();
        while let Some(child) = children.next()? {
            if child.element.id == ids::CONTENT_ENCODING {
                if found.len() == 8 {
                    return Err(Error::malformed(
                        child.element.at,
                        "a ninth content encoding",
                    ));
                }
                found.push(Encoding::parse(&child)?);
            }
        }
        found.sort_by_key(|(order, _)| *order);
        for (_, encoding) in found {
            match encoding {
                Encoding::Stripped { scope, prefix } => {
                    if scope & 1 != 0 {
                        self.stripped = [&prefix[..], &self.stripped[..]].concat().into();
                    }
                    if scope & 2 != 0 {
                        raw.private = [&prefix[..], &raw.private[..]].concat().into();
                    }
                }
                Encoding::Compressed(algorithm) => {
                    self.refused = Some(format!("content compression {algorithm}"));
                }
                Encoding::Encrypted(encryption) => self.encryption = Some(encryption),
            }
        }
        if self.encryption.is_some() && !self.stripped.is_empty() {
            self.refused = Some("header stripping together with encryption".to_owned());
        }
        Ok(())
    }
}

enum Encoding {
    Stripped { scope: u64, prefix: Bytes },
    Compressed(&'static str),
    Encrypted(Encryption),
}

impl Encoding {
    fn parse(encoding: &Child<'_>) -> Result<(u64, Self)> {
        let (mut order, mut scope, mut kind) = (0, 1, 0);
        let (mut algorithm, mut prefix) = (0, Bytes::new());
        let mut encryption = Encryption::default();
        let mut children = encoding.children();
        while let Some(child) = children.next()? {
            match child.element.id {
                ids::CONTENT_ENCODING_ORDER => order = child.unsigned()?,
                ids::CONTENT_ENCODING_SCOPE => scope = child.unsigned()?,
                ids::CONTENT_ENCODING_TYPE => kind = child.unsigned()?,
                ids::CONTENT_COMPRESSION | ids::CONTENT_ENCRYPTION => {
                    let mut fields = child.children();
                    while let Some(field) = fields.next()? {
                        match field.element.id {
                            ids::CONTENT_COMP_ALGO => algorithm = field.unsigned()?,
                            ids::CONTENT_COMP_SETTINGS => {
                                prefix = Bytes::copy_from_slice(field.bytes);
                            }
                            ids::CONTENT_ENC_ALGO => encryption.algorithm = field.unsigned()?,
                            ids::CONTENT_ENC_KEY_ID => {
                                encryption.key_id = Bytes::copy_from_slice(field.bytes);
                            }
                            ids::CONTENT_ENC_AES_SETTINGS => {
                                let mut settings = field.children();
                                while let Some(setting) = settings.next()? {
                                    if setting.element.id == ids::AES_SETTINGS_CIPHER_MODE {
                                        encryption.cipher_mode = setting.unsigned()?;
                                    }
                                }
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let encoding = match (kind, algorithm) {
            (1, _) => Self::Encrypted(encryption),
            // Every frame grows by this much.
            (0, 3) if prefix.len() <= 4096 => Self::Stripped { scope, prefix },
            (0, 0) => Self::Compressed("zlib"),
            (0, 1) => Self::Compressed("bzlib"),
            (0, 2) => Self::Compressed("lzo1x"),
            _ => Self::Compressed("of an unknown kind"),
        };
        Ok((order, encoding))
    }
}

impl Entry {
    fn video(&mut self, video: &Child<'_>) -> Result<()> {
        let mut children = video.children();
        while let Some(child) = children.next()? {
            match child.element.id {
                ids::PIXEL_WIDTH => self.width = child.small()?,
                ids::PIXEL_HEIGHT => self.height = child.small()?,
                ids::DISPLAY_WIDTH => self.display.0 = child.small()?,
                ids::DISPLAY_HEIGHT => self.display.1 = child.small()?,
                ids::DISPLAY_UNIT => self.display_unit = child.unsigned()?,
                ids::COLOUR | ids::PROJECTION => {
                    let mut fields = child.children();
                    while let Some(field) = fields.next()? {
                        match field.element.id {
                            ids::RANGE => self.full_range = field.unsigned()? == 2,
                            ids::PROJECTION_POSE_ROLL => self.roll = field.real()?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn audio(&mut self, audio: &Child<'_>) -> Result<()> {
        let mut children = audio.children();
        while let Some(child) = children.next()? {
            match child.element.id {
                ids::SAMPLING_FREQUENCY => self.rate = child.real()?,
                ids::OUTPUT_SAMPLING_FREQUENCY => self.output_rate = child.real()?,
                ids::CHANNELS => self.channels = child.small()?,
                ids::BIT_DEPTH => self.bits = child.small()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn picture(&self, media_type: &mut MediaType) {
        let attributes = &mut media_type.attributes;
        attributes.set(&keys::FRAME_SIZE, (self.width, self.height));
        if self.full_range {
            attributes.set(&keys::FULL_RANGE, true);
        }
        // Pixels and ratios alike give a shape; centimetres and inches too, but nothing writes them.
        let or = |display, pixels| if display == 0 { pixels } else { display };
        let wide = u64::from(or(self.display.0, self.width)) * u64::from(self.height);
        let high = u64::from(or(self.display.1, self.height)) * u64::from(self.width);
        if let Some(aspect) = reduced(wide, high).filter(|_| self.display_unit != 4) {
            attributes.set(&keys::PIXEL_ASPECT, aspect);
        }
        // The roll is counter-clockwise.
        let rotation = (-self.roll).rem_euclid(360.0).round() as u32 % 360;
        if rotation != 0 {
            attributes.set(&keys::ROTATION, rotation);
        }
    }
}

fn reduced(a: u64, b: u64) -> Option<(u32, u32)> {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    let a = u32::try_from(a.checked_div(divisor)?).ok()?;
    let b = u32::try_from(b / divisor).ok()?;
    (a != 0 && b != 0).then_some((a, b))
}

/// `count` frames in `span` nanoseconds, which may be `error` more or less: a usual rate that this can be, else what it is.
fn near_rate(count: u64, span: u64, error: u64) -> Option<(u32, u32)> {
    const USUAL: [(u32, u32); 12] = [
        (30, 1),
        (25, 1),
        (24, 1),
        (60, 1),
        (50, 1),
        (15, 1),
        (30_000, 1001),
        (24_000, 1001),
        (60_000, 1001),
        (120, 1),
        (20, 1),
        (10, 1),
    ];
    if count == 0 || span == 0 {
        return None;
    }
    let usual = USUAL.into_iter().find(|(frames, seconds)| {
        let exact = u128::from(count) * u128::from(*seconds) * 1_000_000_000 / u128::from(*frames);
        exact.abs_diff(span.into()) <= error.into()
    });
    usual.or_else(|| frame_rate(span.checked_div(count)?))
}

/// Frames a second as the simplest fraction close to it, as FFmpeg does: 33333333 ns are 30/1.
fn frame_rate(nanoseconds: u64) -> Option<(u32, u32)> {
    const MAX: u64 = 30_000;
    let (mut a, mut b) = (1_000_000_000_u64, nanoseconds);
    let (mut before, mut last) = ((0, 1), (1, 0));
    while b != 0 {
        let whole = a / b;
        let next = (
            whole.checked_mul(last.0)?.checked_add(before.0)?,
            whole.checked_mul(last.1)?.checked_add(before.1)?,
        );
        if next.0 > MAX || next.1 > MAX {
            break;
        }
        (before, last) = (last, next);
        (a, b) = (b, a % b);
    }
    let (frames, seconds) = (u32::try_from(last.0).ok()?, u32::try_from(last.1).ok()?);
    (frames != 0 && seconds != 0).then_some((frames, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_rates_are_simple() {
        assert_eq!(frame_rate(33_333_333), Some((30, 1)));
        assert_eq!(frame_rate(41_708_333), Some((24_000, 1001)));
        assert_eq!(frame_rate(40_000_000), Some((25, 1)));
        assert_eq!(frame_rate(0), None);
        assert_eq!(frame_rate(u64::MAX), None);
    }

    #[test]
    fn frame_rates_are_told_from_times() {
        assert_eq!(near_rate(19, 633_000_000, 1_000_000), Some((30, 1)));
        assert_eq!(near_rate(1, 40_000_000, 1_000_000), Some((25, 1)));
        assert_eq!(near_rate(10, 3_000_000_000, 1_000_000), Some((10, 3)));
        assert_eq!(near_rate(0, 0, 1), None);
        assert_eq!(near_rate(10, 0, 1), None);
    }

    #[test]
    fn pixel_shapes() {
        assert_eq!(reduced(720 * 9, 576 * 16), Some((45, 64)));
        assert_eq!(reduced(0, 0), None);
        assert_eq!(reduced(5, 0), None);
    }
}
