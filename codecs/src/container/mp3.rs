//! MPEG audio elementary streams: MP3, and layers I and II.

mod free;
mod xing;

#[cfg(test)]
mod tests;

use portcullis_engine::component::{Confidence, Hints, OpenContext};
use portcullis_engine::{
    Attributes, ByteSource, ByteStreamHandler, Component, ComponentInfo, Error, MediaSource,
    MediaType, Registry, Result, Subtype, keys,
};
use serde::{Deserialize, Serialize};

use self::xing::Xing;
use super::frames::{Frame, FrameSource, Opened, Syntax};
use super::id3;
use super::pictures;
use super::reader::Reader;
use super::signature::is_container;
use crate::audio::bitstream::mpeg::MpegHeader;

pub(crate) fn register(registry: &mut Registry) {
    registry.byte_stream_handler::<Mp3>();
}

/// The handler for MPEG audio.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mp3 {}

impl Component for Mp3 {
    type Settings = Self;
    const INFO: ComponentInfo =
        ComponentInfo::byte_stream_handler("container.mp3", "Reads MPEG audio, layers I to III")
            .extensions(&["mp3", "mp2", "mp1", "mpa", "m2a"])
            .mime_types(&["audio/mpeg", "audio/mp3", "audio/mpeg3"]);
    fn new(settings: Self) -> Result<Self> {
        Ok(settings)
    }
}

impl ByteStreamHandler for Mp3 {
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
        if is_container(head) {
            return Confidence::No;
        }
        let named = hints
            .extension
            .as_deref()
            .is_some_and(|e| Self::INFO.extensions.contains(&e))
            || hints
                .mime_type
                .as_deref()
                .is_some_and(|m| Self::INFO.mime_types.contains(&m));
        let tagged = id3::tag_len(head);
        let frames = best_row(head, tagged);
        match (frames, tagged.is_some()) {
            (4.., _) | (1.., true) => Confidence::Sure,
            // A tag longer than what is seen: it is mostly in front of MP3, but ADTS and FLAC have it too.
            (_, true) => Confidence::Maybe,
            (2.., _) => Confidence::Maybe,
            (1, _) if named => Confidence::Maybe,
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
        if reader.peek(4)? == b"fLaC" {
            // Behind a long tag the probe cannot tell, and the search for a frame would go on to the end.
            let what = "FLAC behind a tag, no MPEG audio";
            return Err(Error::malformed(reader.position(), what));
        }
        open_frames_with(reader, "mp3", id3)
    }
}

/// A source of the frames that begin at the reader, in a container that adds nothing to them.
pub(super) fn open_frames(
    reader: Reader,
    format: &'static str,
    tags: Attributes,
) -> Result<Box<dyn MediaSource>> {
    let id3 = id3::Id3 {
        tags,
        ..id3::Id3::default()
    };
    open_frames_with(reader, format, id3)
}

fn open_frames_with(
    mut reader: Reader,
    format: &'static str,
    id3: id3::Id3,
) -> Result<Box<dyn MediaSource>> {
    let free = free::base_len(reader.peek(free::WINDOW)?);
    let frames = MpegFrames { free };
    let source = FrameSource::open(reader, frames, "MPEG audio", |reader, first| {
        let opened = describe(reader, first, id3)?;
        Ok(Opened { format, ..opened })
    })?;
    Ok(Box::new(source))
}

/// The frames of MPEG audio.
#[derive(Clone, Copy, Debug, Default)]
struct MpegFrames {
    /// Bytes of a frame of the free format without padding; its headers say no length.
    free: Option<usize>,
}

impl Syntax for MpegFrames {
    const HEADER: usize = MpegHeader::LEN;
    const UNITS: u32 = 14_112_000;
    // The bit reservoir reaches back over 511 bytes: up to nine of the shortest frames, and the transform over one more.
    const PREROLL: u64 = 10;

    fn parse(&self, head: &[u8]) -> Option<Frame> {
        let header = MpegHeader::parse(head)?;
        let len = match (header.bit_rate, self.free) {
            (0, Some(free)) => free + header.padding_len(),
            _ => header.frame_len,
        };
        (len > MpegHeader::LEN).then(|| Frame {
            len,
            samples: header.samples(),
            rate: header.sample_rate,
            bit_rate: header.bit_rate,
            kind: header.layer << 1 | u32::from(header.mpeg1),
        })
    }
}

/// What the first frame says, and the header frame if it is one.
fn describe(reader: &mut Reader, first: &Frame, id3: id3::Id3) -> Result<Opened> {
    let bytes = reader.peek(first.len)?;
    let header = MpegHeader::parse(bytes);
    let layer = header.map_or(3, |header| header.layer);
    let channels = header.map_or(2, |header| header.channels);
    let subtype = match layer {
        1 => Subtype::named("mp1"),
        2 => Subtype::MP2,
        _ => Subtype::MP3,
    };
    let xing = header
        .filter(|header| header.layer == 3)
        .and_then(|header| Xing::parse(bytes, &header));
    let mut media_type = MediaType::audio(subtype, first.rate, channels);
    let mut opened = Opened {
        format: "mp3",
        media_type: media_type.clone(),
        tags: id3.tags,
        skip: 0,
        keep_to: None,
        total: None,
        others: pictures::streams(&id3.pictures),
    };
    if let Some(mut xing) = xing {
        if reader
            .remaining()
            .is_some_and(|left| xing.is_outgrown(left))
        {
            (xing.frames, xing.bytes) = (None, None);
        }
        reader.skip(first.len as u64)?;
        opened.total = xing.frames.map(|frames| frames * first.samples);
        opened.skip = xing.skip();
        opened.keep_to = xing.keep_to(first.samples);
        let next = MpegHeader::parse(reader.peek(MpegHeader::LEN)?);
        let rate = match next {
            Some(next) if xing.constant => Some(u64::from(next.bit_rate)),
            _ => xing.bit_rate(first),
        };
        if let Some(rate) = rate {
            media_type.attributes.set(&keys::BIT_RATE, rate);
        }
        if opened.skip > 0 {
            media_type
                .attributes
                .set(&keys::LEADING_FRAMES, opened.skip);
        }
    }
    opened.media_type = media_type;
    Ok(opened)
}

/// The longest row of frames that follow each other, from a tag's end or within the first bytes.
fn best_row(head: &[u8], tagged: Option<u64>) -> u32 {
    let start = tagged.map_or(0, |len| usize::try_from(len).unwrap_or(usize::MAX));
    let frames_of = MpegFrames::default();
    let mut best = 0;
    // Junk before the first frame is common, long junk is not.
    for from in start..start.saturating_add(2048).min(head.len()) {
        if head[from] != 0xff {
            continue;
        }
        let (mut at, mut frames) = (from, 0);
        let mut first: Option<Frame> = None;
        while let Some(frame) = head.get(at..).and_then(|rest| frames_of.parse(rest)) {
            if !first.get_or_insert(frame).agrees_with(&frame) {
                break;
            }
            at += frame.len;
            frames += 1;
        }
        // A row that something other than the end of what is seen breaks off is chance.
        if at < head.len().saturating_sub(MpegHeader::LEN) && frames < 4 {
            frames = u32::from(from == start && frames > 0);
        }
        best = best.max(frames);
    }
    if best == 0 && is_free_row(head.get(start..).unwrap_or_default()) {
        best = 2;
    }
    best
}

/// Whether all of `head` is frames of the free format: packets of other formats have a period too.
fn is_free_row(head: &[u8]) -> bool {
    let free = free::base_len(head);
    let (mut at, mut frames) = (0, 0);
    while let Some(frame) = head
        .get(at..)
        .and_then(|rest| MpegFrames { free }.parse(rest))
    {
        at += frame.len;
        frames += 1;
    }
    free.is_some() && frames > 2 && at + MpegHeader::LEN > head.len()
}
