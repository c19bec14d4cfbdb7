//! Native FLAC.
//!
//! Frames carry no length: a frame ends where the next header begins and its own checksum comes out right. What cannot
//! be divided so is delivered as a damaged sample, so that the decoder says which moment is lost.

mod metadata;
mod split;

use std::collections::VecDeque;

use portcullis_engine::component::{Confidence, Hints, OpenContext};
use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    ByteSource, ByteStreamHandler, Component, ComponentInfo, Error, MediaSource, MediaTime,
    MediaType, PresentationDescriptor, Registry, Result, Sample, StreamDescriptor, StreamId,
    Subtype, TimeBase, keys, sample_keys,
};
use serde::{Deserialize, Serialize};

use self::metadata::Metadata;
use self::split::{Splitter, Unit};
use super::id3;
use super::pictures;
use super::reader::Reader;
use crate::audio::bitstream::flac::StreamInfo;

pub(crate) fn register(registry: &mut Registry) {
    registry.byte_stream_handler::<Flac>();
}

/// The handler for native FLAC.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flac {}

impl Component for Flac {
    type Settings = Self;
    const INFO: ComponentInfo =
        ComponentInfo::byte_stream_handler("container.flac", "Reads native FLAC")
            .extensions(&["flac"])
            .mime_types(&["audio/flac", "audio/x-flac"]);
    fn new(settings: Self) -> Result<Self> {
        Ok(settings)
    }
}

impl ByteStreamHandler for Flac {
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence {
        let start = id3::tag_len(head).map_or(0, |len| usize::try_from(len).unwrap_or(usize::MAX));
        if head
            .get(start..)
            .is_some_and(|rest| rest.starts_with(b"fLaC"))
        {
            return Confidence::Sure;
        }
        let named = hints
            .extension
            .as_deref()
            .is_some_and(|e| Self::INFO.extensions.contains(&e))
            || hints
                .mime_type
                .as_deref()
                .is_some_and(|m| Self::INFO.mime_types.contains(&m));
        match (named, start) {
            // Behind a tag that hides the signature only the name can tell; without one it may be FLAC or MP3.
            (true, 1..) => Confidence::Sure,
            (false, 1..) if start >= head.len() => Confidence::Maybe,
            (true, 0) => Confidence::Hint,
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
        Ok(Box::new(FlacSource::open(reader, context, id3)?))
    }
}

#[derive(Debug)]
struct FlacSource {
    reader: Reader,
    presentation: PresentationDescriptor,
    base: TimeBase,
    metadata: Metadata,
    splitter: Splitter,
    /// Where the first frame lies.
    audio: u64,
    /// Where the frame that comes next should begin, in PCM frames.
    next_pcm: u64,
    discontinuity: bool,
    selected: Vec<StreamId>,
    /// Pictures that are still to be delivered.
    pictures: VecDeque<(StreamId, Sample)>,
    ended: bool,
}

impl FlacSource {
    fn open(mut reader: Reader, context: &OpenContext, id3: id3::Id3) -> Result<Self> {
        let mut metadata = metadata::read(&mut reader, context)?;
        metadata.tags.inherit(&id3.tags);
        metadata.pictures.extend(id3.pictures);
        let pictures = pictures::streams(&std::mem::take(&mut metadata.pictures));
        let first = split::find_first(&mut reader)?;
        let info = match metadata.info {
            Some(info) if info.is_plausible() => info,
            // A STREAMINFO that is damaged or missing: the first frame may say enough.
            _ => first
                .as_ref()
                .and_then(StreamInfo::of_frame)
                .ok_or_else(|| {
                    Error::malformed(
                        reader.position(),
                        "STREAMINFO is damaged, and no first frame makes up for it",
                    )
                })?,
        };
        let base = TimeBase::per_second(info.sample_rate)
            .ok_or_else(|| Error::malformed(reader.position(), "the sample rate is 0"))?;
        let fixed = first.map_or(info.max_block, |first| first.block);
        let media_type = MediaType::audio(Subtype::FLAC, info.sample_rate, info.channels)
            .with(&keys::BITS, info.bits)
            .with(&keys::PRIVATE_DATA, info.to_bytes().to_vec().into());
        let audio = reader.position();
        let duration = (info.total != 0).then(|| base.to_time(to_signed(info.total)));
        let mut stream = StreamDescriptor::new(StreamId(0), media_type, base);
        stream.duration = duration;
        let presentation = PresentationDescriptor {
            format: "flac".into(),
            duration,
            characteristics: Characteristics {
                live: false,
                can_seek: reader.is_seekable(),
                can_pause: true,
            },
            streams: std::iter::once(stream)
                .chain(pictures.iter().map(|(stream, _)| stream.clone()))
                .collect(),
            attributes: metadata.tags.clone(),
        };
        let splitter = Splitter::new(&info, fixed, context.limits.max_sample_bytes);
        Ok(Self {
            reader,
            presentation,
            base,
            metadata,
            splitter,
            audio,
            next_pcm: 0,
            discontinuity: false,
            selected: vec![StreamId(0)],
            pictures: pictures
                .into_iter()
                .map(|(stream, sample)| (stream.id, sample))
                .collect(),
            ended: false,
        })
    }

    fn next_sample(&mut self) -> Result<Option<Sample>> {
        let at = self.reader.position();
        let unit = self.splitter.next(&mut self.reader, self.next_pcm)?;
        let (len, start, pcm, damaged) = match unit {
            Unit::Frame { len, start, pcm } => (len, start, pcm, false),
            Unit::Damaged { len, start, pcm } => (len, start, pcm, true),
            Unit::End => return Ok(None),
            Unit::Cut { len } => {
                return Err(Error::truncated(
                    at + len as u64,
                    format!("the frame that begins at byte {at}"),
                ));
            }
        };
        let payload = self.reader.read_bytes(len as u64)?;
        let time = self.base.to_time(to_signed(start));
        self.discontinuity |= start != self.next_pcm;
        self.next_pcm = start.saturating_add(u64::from(pcm));
        let end = self.base.to_time(to_signed(self.next_pcm));
        let mut sample = Sample::new(time, end - time, payload);
        sample.flags.key = true;
        sample.flags.corrupt = damaged;
        sample.flags.discontinuity = std::mem::take(&mut self.discontinuity);
        sample.attributes.set(&sample_keys::BYTE_POSITION, at);
        Ok(Some(sample))
    }

    /// Goes to the frame that contains a PCM frame.
    fn seek(&mut self, target: u64) -> Result<()> {
        if self.reader.is_seekable() {
            let (mut low, mut low_pcm) = (self.audio, 0);
            if let Some(point) = self.metadata.seek_point(target) {
                let byte = self.audio.saturating_add(point.offset);
                if self.reader.len().is_none_or(|len| byte < len)
                    && self.splitter.stands_at(&mut self.reader, byte, point.pcm)?
                {
                    (low, low_pcm) = (byte, point.pcm);
                }
            }
            (low, low_pcm) = self.bisect(low, low_pcm, target)?;
            self.reader.seek(low)?;
            self.next_pcm = low_pcm;
        } else if target < self.next_pcm {
            // The reader says that it cannot go back.
            self.reader.seek(self.audio)?;
            self.next_pcm = 0;
        }
        // Walk to the frame that has the target.
        loop {
            match self.splitter.next(&mut self.reader, self.next_pcm)? {
                Unit::Frame { len, start, pcm } | Unit::Damaged { len, start, pcm } => {
                    let end = start.saturating_add(u64::from(pcm));
                    if end > target {
                        self.next_pcm = start;
                        return Ok(());
                    }
                    self.reader.skip(len as u64)?;
                    self.next_pcm = end;
                }
                // The next read says what is wrong.
                Unit::Cut { .. } | Unit::End => return Ok(()),
            }
        }
    }

    /// Narrows down where `target` lies, until a walk is cheaper.
    fn bisect(&mut self, mut low: u64, mut low_pcm: u64, target: u64) -> Result<(u64, u64)> {
        const CLOSE: u64 = 256 << 10;
        let Some(mut high) = self.reader.len() else {
            return Ok((low, low_pcm));
        };
        // Each step halves what is left; a byte position has 64 bits.
        for _ in 0..64 {
            if high.saturating_sub(low) <= CLOSE {
                break;
            }
            let middle = low + (high - low) / 2;
            self.reader.seek(middle)?;
            match self.splitter.find_frame(&mut self.reader, high)? {
                Some(pcm) if pcm <= target && self.reader.position() > low => {
                    (low, low_pcm) = (self.reader.position(), pcm);
                }
                _ => high = middle,
            }
        }
        Ok((low, low_pcm))
    }
}

impl MediaSource for FlacSource {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        self.selected = selected.to_vec();
        let Some(position) = position else {
            return Ok(());
        };
        let position = position.max(MediaTime::ZERO);
        let mut target = u64::try_from(self.base.to_units(position)).unwrap_or(0);
        if self.base.to_time(to_signed(target)) > position {
            target = target.saturating_sub(1);
        }
        self.seek(target)?;
        self.discontinuity = false;
        self.ended = false;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        while let Some((id, sample)) = self.pictures.pop_front() {
            if self.selected.contains(&id) {
                return Ok(Some((id, sample)));
            }
        }
        if self.ended || !self.selected.contains(&StreamId(0)) {
            return Ok(None);
        }
        let sample = self.next_sample();
        self.ended = !matches!(sample, Ok(Some(_)));
        Ok(sample?.map(|sample| (StreamId(0), sample)))
    }
}

fn to_signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use portcullis_engine::component::MemorySource;

    use super::*;
    use crate::audio::bitstream::flac::{crc8, crc16};

    const BLOCK: u32 = 192;

    /// A file of frames of silence, `len` bytes each.
    fn file(frames: u8, len: usize, total: u64) -> Vec<u8> {
        let info = StreamInfo {
            min_block: BLOCK,
            max_block: BLOCK,
            max_frame: 0,
            sample_rate: 44_100,
            channels: 1,
            bits: 16,
            total,
            md5: [0; 16],
        };
        let mut bytes = b"fLaC\x80\0\0\x22".to_vec();
        bytes.extend(info.to_bytes());
        for number in 0..frames {
            let mut frame = vec![0xff, 0xf8, 0x19, 0x08, number];
            frame.push(crc8(&frame));
            frame.resize(len - 2, number);
            frame.extend(crc16(0, &frame).to_be_bytes());
            bytes.extend(frame);
        }
        bytes
    }

    fn read(bytes: Vec<u8>) -> (usize, Option<String>) {
        let input = Box::new(MemorySource::new(bytes));
        let context = OpenContext::default();
        let mut source = Flac {}.open(input, &context).expect("FLAC");
        let mut frames = 0;
        loop {
            match source.read() {
                Ok(Some((_, sample))) => {
                    assert!(!sample.flags.corrupt);
                    frames += 1;
                }
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }

    #[test]
    fn the_last_frame_in_front_of_another_file_is_delivered() {
        let tag = [&b"ID3\x04\0\0\0\0\0\x20"[..], &[0; 32]].concat();
        for total in [0, 5 * u64::from(BLOCK)] {
            let first = file(5, 100, total);
            assert_eq!(read(first.clone()), (5, None));
            assert_eq!(read([&first[..], &tag].concat()), (5, None));
            // A second one that is longer, so that its frames seem to continue the first, and long ones.
            for second in [file(9, 100, 0), file(3, 100, 0), file(9, 9_000, 0)] {
                for between in [&[][..], &tag] {
                    let (frames, error) = read([&first[..], between, &second].concat());
                    let error = error.expect("the second file is not read");
                    assert_eq!(frames, 5, "{error}");
                    let at = format!("byte {}", first.len() + between.len());
                    assert!(error.contains(&at), "{error}");
                    assert!(error.contains("another FLAC file"), "{error}");
                }
            }
            // A last frame that is damaged is not taken for a whole one.
            let mut damaged = first.clone();
            damaged[first.len() - 50] ^= 1;
            let (frames, error) = read([&damaged[..], &file(3, 100, 0)].concat());
            assert_eq!(frames, 4);
            assert!(error.is_some());
        }
    }

    #[test]
    fn a_long_tag_may_hide_the_signature() {
        let mut tag = b"ID3\x03\0\0\0\0\x40\0".to_vec();
        tag.resize(10 + 8192, 0);
        let long = [&tag[..], b"fLaC"].concat();
        let probe = |head: &[u8]| Flac {}.probe(head, &Hints::default());
        assert_eq!(probe(&long[..4096]), Confidence::Maybe);
        assert_eq!(probe(&long), Confidence::Sure);
        assert_eq!(probe(&tag[10..4096]), Confidence::No);
        // All of the tag is seen, and what is behind it.
        assert_eq!(probe(&[&tag[..], b"\xff\xfb"].concat()), Confidence::No);
    }
}
