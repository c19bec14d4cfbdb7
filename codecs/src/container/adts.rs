//! ADTS: AAC frames with a header each.

use portcullis_engine::component::{Confidence, Hints, OpenContext};
use portcullis_engine::{
    ByteSource, ByteStreamHandler, Component, ComponentInfo, MediaSource, MediaType, Registry,
    Result, Subtype, keys,
};
use serde::{Deserialize, Serialize};

use super::frames::{Frame, FrameSource, Opened, Syntax};
use super::id3;
use super::pictures;
use super::reader::Reader;
use super::signature::is_container;
use crate::audio::bitstream::adts::AdtsHeader;

pub(crate) fn register(registry: &mut Registry) {
    registry.byte_stream_handler::<Adts>();
}

/// The handler for ADTS.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adts {}

impl Component for Adts {
    type Settings = Self;
    const INFO: ComponentInfo =
        ComponentInfo::byte_stream_handler("container.adts", "Reads AAC in ADTS frames")
            .extensions(&["aac", "adts"])
            .mime_types(&["audio/aac", "audio/aacp", "audio/x-aac"]);
    fn new(settings: Self) -> Result<Self> {
        Ok(settings)
    }
}

impl ByteStreamHandler for Adts {
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
        if is_container(head) {
            return Confidence::No;
        }
        let (frames, ends) = frames_in_a_row(head);
        let named = hints
            .extension
            .as_deref()
            .is_some_and(|e| Self::INFO.extensions.contains(&e))
            || hints
                .mime_type
                .as_deref()
                .is_some_and(|m| Self::INFO.mime_types.contains(&m));
        match frames {
            3.. => Confidence::Sure,
            1.. if named || ends => Confidence::Maybe,
            _ if named => Confidence::Hint,
            _ => Confidence::No,
        }
    }

    fn open(
        &self,
        input: Box<dyn ByteSource>,
        context: &OpenContext,
    ) -> Result<Box<dyn MediaSource>> {
        let mut reader = Reader::new(input);
        let id3 = id3::skip_tags(&mut reader, context)?;
        let source = FrameSource::open(reader, AdtsFrames, "ADTS", |reader, first| {
            let head = reader.peek(first.len)?;
            let mut media_type = MediaType::audio(Subtype::AAC, first.rate, 0);
            media_type.attributes.remove(&keys::CHANNELS);
            if let Some(header) = AdtsHeader::parse(head) {
                let config = header.config();
                if let Some(channels) = config.channels() {
                    media_type.attributes.set(&keys::CHANNELS, channels);
                }
                let profile = ["Main", "LC", "SSR", "LTP"][header.profile as usize & 3];
                media_type.attributes.set(&keys::PROFILE, profile.into());
            }
            let skip = if names_faac(head) { FAAC_DELAY } else { 0 };
            if skip > 0 {
                media_type.attributes.set(&keys::LEADING_FRAMES, skip);
            }
            Ok(Opened {
                format: "aac",
                media_type,
                tags: id3.tags,
                skip,
                keep_to: None,
                total: None,
                others: pictures::streams(&id3.pictures),
            })
        })?;
        Ok(Box::new(source))
    }
}

/// The frames of ADTS.
#[derive(Debug)]
struct AdtsFrames;

impl Syntax for AdtsFrames {
    const HEADER: usize = AdtsHeader::LEN;
    const UNITS: u32 = 28_224_000;
    // The transform overlaps two frames.
    const PREROLL: u64 = 2;

    fn parse(&self, head: &[u8]) -> Option<Frame> {
        let header = AdtsHeader::parse(head)?;
        Some(Frame {
            len: header.frame_len,
            samples: header.samples(),
            rate: header.sample_rate,
            bit_rate: 0,
            kind: header.profile << 3 | header.channel_config,
        })
    }
}

/// The delay of FAAC, which ADTS has no field for; FFmpeg drops it on the same sign.
const FAAC_DELAY: u64 = 1024;

/// Whether the first frame carries FAAC's name, at whatever bit it begins.
fn names_faac(frame: &[u8]) -> bool {
    const NAME: &[u8] = b"libfaac ";
    frame.windows(NAME.len() + 1).any(|bytes| {
        (0..8).any(|shift| {
            bytes.windows(2).zip(NAME).all(|(pair, letter)| {
                let bits = u16::from_be_bytes([pair[0], pair[1]]);
                (bits >> (8 - shift)) as u8 == *letter
            })
        })
    })
}

/// Frames that follow each other from the start, and whether the last of them ends where `head` does.
fn frames_in_a_row(head: &[u8]) -> (u32, bool) {
    let mut at = match id3::tag_len(head) {
        Some(len) => usize::try_from(len).unwrap_or(usize::MAX),
        None => 0,
    };
    let mut frames = 0;
    while let Some(header) = head.get(at..).and_then(AdtsHeader::parse) {
        at += header.frame_len;
        frames += 1;
    }
    (frames, frames > 0 && at >= head.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_encoder_name_at_any_bit() {
        for shift in 0..8 {
            let bits = b"xxlibfaac 1.28"
                .iter()
                .fold(String::new(), |bits, letter| {
                    bits + &format!("{letter:08b}")
                });
            let bits = format!("{}{bits}", &"10101010"[..shift]);
            let packed: Vec<u8> = bits
                .as_bytes()
                .chunks(8)
                .map(|byte| byte.iter().fold(0, |value, bit| value << 1 | (bit & 1)))
                .collect();
            assert!(names_faac(&packed), "shift {shift}");
        }
        assert!(!names_faac(b"\xff\xf1libfaad 1.28"));
    }

    #[test]
    fn length_and_bit_rate_are_measured() {
        // 48 kHz, stereo: 40 frames of 100 bytes, then 40 of 300.
        let frame = |len: usize| {
            let mut frame = vec![0xff, 0xf1, 0x4c, 0x80, (len >> 3) as u8, 0x1f, 0xfc];
            frame[5] |= ((len & 7) as u8) << 5;
            frame.resize(len, 0);
            frame
        };
        let bytes = [frame(100).repeat(40), frame(300).repeat(40)].concat();
        let input = portcullis_engine::component::MemorySource::new(bytes);
        let context = OpenContext::default();
        let source = Adts {}.open(Box::new(input), &context).expect("whole");
        let stream = &source.presentation().streams[0];
        let units = 80 * 1024 * i64::from(AdtsFrames::UNITS / 48_000);
        assert_eq!(stream.duration, Some(stream.time_base.to_time(units)));
        let rate = stream.media_type.attributes.get(&keys::BIT_RATE);
        assert_eq!(rate, Some(200 * 8 * 48_000 / 1024));
    }
}
