//! Streams of frames that carry their own headers: MP3 and ADTS.
//!
//! Bytes that are no frame are skipped, and the sample after them is marked as a discontinuity. Positions are found by
//! walking over headers; a sparse index of what was seen makes the next walk short.

mod index;
mod measure;
mod sync;
mod tags;

use std::fmt::Debug;

use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    Attributes, Error, MediaSource, MediaTime, MediaType, PresentationDescriptor, Result, Sample,
    StreamDescriptor, StreamId, TimeBase, keys, sample_keys,
};

use self::index::FrameIndex;
use super::reader::Reader;

/// Junk at the end of the input that is not worth an error: padding, tags that are not known here.
const QUIET_JUNK: u64 = 4096;

/// What a format's frames look like.
pub(super) trait Syntax: Debug + 'static {
    /// Bytes that [`Syntax::parse`] needs.
    const HEADER: usize;
    /// Units of a second in which the frames of all its sample rates have whole lengths.
    const UNITS: u32;
    /// Frames before a position that must be decoded for it to sound right.
    const PREROLL: u64;

    /// The frame that `head` begins with.
    fn parse(&self, head: &[u8]) -> Option<Frame>;
}

/// One frame as its header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes with the header.
    pub(super) len: usize,
    /// Frames of PCM.
    pub(super) samples: u64,
    /// Frames of PCM per second.
    pub(super) rate: u32,
    /// Bits per second as the header says; 0 where it does not.
    pub(super) bit_rate: u32,
    /// Whatever else does not change within a stream.
    pub(super) kind: u32,
}

impl Frame {
    /// Whether both can be frames of one stream.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        (self.rate, self.kind) == (other.rate, other.kind)
    }
}

/// What a format found out before the first frame.
#[derive(Debug)]
pub(super) struct Opened {
    /// FFmpeg's name of the container.
    pub(super) format: &'static str,
    pub(super) media_type: MediaType,
    pub(super) tags: Attributes,
    /// PCM frames to drop at the start: encoder and decoder delay.
    pub(super) skip: u64,
    /// PCM frames, counted from the first one decoded, after which everything up to `total` is padding.
    pub(super) keep_to: Option<u64>,
    /// Length in PCM frames from the first one decoded, where a header states it.
    pub(super) total: Option<u64>,
    /// Further streams, after the first.
    pub(super) others: Vec<(StreamDescriptor, Sample)>,
}

/// The source of such a stream. The reader stands at the first frame when it is made.
#[derive(Debug)]
pub(super) struct FrameSource<S> {
    reader: Reader,
    presentation: PresentationDescriptor,
    base: TimeBase,
    opened: Opened,
    /// The kind of frame that is expected next.
    current: Frame,
    /// Of the next frame: its number, its time in units, the PCM frames before it.
    next: Place,
    index: FrameIndex,
    /// Samples that end at it or before are preroll.
    target: Option<MediaTime>,
    discontinuity: bool,
    selected: Vec<StreamId>,
    /// Next of `others` to be delivered.
    other: usize,
    ended: bool,
    /// The input ended inside of the frame before.
    cut: bool,
    syntax: S,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    number: u64,
    byte: u64,
    units: i64,
    pcm: u64,
}

impl<S: Syntax> FrameSource<S> {
    /// Finds the first frame and makes the source.
    ///
    /// `describe` is given the reader at the first frame and that frame's bytes; it may skip a frame that holds no sound.
    pub(super) fn open(
        mut reader: Reader,
        syntax: S,
        what: &'static str,
        describe: impl FnOnce(&mut Reader, &Frame) -> Result<Opened>,
    ) -> Result<Self> {
        let begin = reader.position();
        let starts = syntax.parse(reader.peek(S::HEADER)?).is_some();
        let Some(first) = sync::find(&syntax, &mut reader, None)?.frame else {
            let end = reader.position();
            return Err(if starts || end < begin + S::HEADER as u64 {
                Error::truncated(end, format!("the first {what} frame"))
            } else {
                Error::malformed(
                    begin,
                    format!("no {what} frame in the {} bytes from here", end - begin),
                )
            });
        };
        let opened = describe(&mut reader, &first)?;
        let base = TimeBase::per_second(S::UNITS)
            .ok_or_else(|| Error::invalid_argument("a format without units"))?;
        let rate_units = i64::from(S::UNITS / first.rate.max(1));
        let duration = opened
            .total
            .and_then(|total| i64::try_from(total).ok())
            .map(|total| base.to_time(total.saturating_mul(rate_units)));
        let mut stream = StreamDescriptor::new(StreamId(0), opened.media_type.clone(), base);
        stream.duration = duration;
        let mut streams = vec![stream];
        streams.extend(opened.others.iter().map(|(stream, _)| stream.clone()));
        let selected = streams
            .iter()
            .filter(|stream| stream.selected)
            .map(|stream| stream.id)
            .collect();
        let presentation = PresentationDescriptor {
            format: opened.format.into(),
            duration,
            characteristics: Characteristics {
                live: false,
                can_seek: reader.is_seekable(),
                can_pause: true,
            },
            streams,
            attributes: opened.tags.clone(),
        };
        let next = Place {
            number: 0,
            byte: reader.position(),
            units: -i64::try_from(opened.skip)
                .unwrap_or(0)
                .saturating_mul(rate_units),
            pcm: 0,
        };
        let mut source = Self {
            reader,
            presentation,
            base,
            current: first,
            index: FrameIndex::new(next),
            next,
            opened,
            target: None,
            discontinuity: false,
            selected,
            other: 0,
            ended: false,
            cut: false,
            syntax,
        };
        if source.opened.total.is_none() {
            source.describe_measured(&first)?;
        }
        Ok(source)
    }

    /// Finds out what no header says.
    fn describe_measured(&mut self, first: &Frame) -> Result<()> {
        let measured = self.measure()?;
        let Some(stream) = self.presentation.streams.first_mut() else {
            return Ok(());
        };
        let stated = Some(u64::from(first.bit_rate)).filter(|rate| *rate != 0);
        let attributes = &mut stream.media_type.attributes;
        if attributes.get(&keys::BIT_RATE).is_none()
            && let Some(rate) = measured.map_or(stated, |measured| measured.bit_rate)
        {
            attributes.set(&keys::BIT_RATE, rate);
        }
        stream.duration = measured
            .and_then(|measured| i64::try_from(measured.pcm.saturating_sub(self.opened.skip)).ok())
            .map(|pcm| pcm.saturating_mul(i64::from(S::UNITS / first.rate.max(1))))
            .map(|units| self.base.to_time(units));
        self.presentation.duration = stream.duration;
        Ok(())
    }

    /// The next frame's header, after whatever has to be skipped; `None` at the end.
    fn locate(&mut self) -> Result<Option<Frame>> {
        if let Some(frame) = self.syntax.parse(self.reader.peek(S::HEADER)?)
            && frame.agrees_with(&self.current)
        {
            return Ok(Some(frame));
        }
        let at = self.reader.position();
        let found = sync::find(&self.syntax, &mut self.reader, Some(&self.current))?;
        if let Some(frame) = found.frame {
            self.discontinuity |= found.junk > 0;
            self.current = frame;
        } else if found.junk > QUIET_JUNK {
            let what = format!("no frame in the last {} bytes", found.junk);
            return Err(Error::malformed(at, what));
        }
        Ok(found.frame)
    }

    fn advance(&mut self, frame: &Frame) {
        let units = i64::from(S::UNITS / frame.rate.max(1));
        let samples = i64::try_from(frame.samples).unwrap_or(0);
        self.next = Place {
            number: self.next.number + 1,
            byte: self.reader.position(),
            units: self
                .next
                .units
                .saturating_add(samples.saturating_mul(units)),
            pcm: self.next.pcm.saturating_add(frame.samples),
        };
        self.index.note(self.next);
    }

    fn read_frame(&mut self) -> Result<Option<Sample>> {
        let Some(frame) = self.locate()? else {
            return Ok(None);
        };
        let at = self.reader.position();
        let bytes = self.reader.read_up_to(frame.len as u64)?;
        let cut = bytes.len() < frame.len;
        let place = self.next;
        self.advance(&frame);
        let time = self.base.to_time(place.units);
        let mut sample = Sample::new(time, self.base.to_time(self.next.units) - time, bytes);
        sample.flags.key = true;
        sample.flags.corrupt = cut;
        sample.flags.discontinuity = std::mem::take(&mut self.discontinuity);
        match self.target {
            Some(target) if sample.end_time() <= target => sample.flags.preroll = true,
            _ => self.target = None,
        }
        sample.attributes.set(&sample_keys::BYTE_POSITION, at);
        let trim_start = self
            .opened
            .skip
            .saturating_sub(place.pcm)
            .min(frame.samples);
        if trim_start > 0 {
            sample.attributes.set(&sample_keys::TRIM_START, trim_start);
        }
        // What lies behind the stated length is sound that the header does not know of: the count is stale, or another
        // file was put behind this one.
        let padding = match (self.opened.keep_to, self.opened.total) {
            (Some(keep_to), Some(total)) if place.pcm < total => {
                self.next.pcm.saturating_sub(keep_to)
            }
            _ => 0,
        };
        let trim_end = padding.min(frame.samples);
        if trim_end > 0 {
            sample.attributes.set(&sample_keys::TRIM_END, trim_end);
        }
        Ok(Some(sample))
    }

    /// Goes to the frame that `S::PREROLL` frames before the one that sounds at `position`.
    ///
    /// A forward-only input stays where it is: what lies before the position is read as preroll, as what a frame needs of
    /// those before it cannot be fetched once it was passed.
    fn seek(&mut self, position: MediaTime) -> Result<()> {
        let target = self.base.to_units(position);
        if !self.reader.is_seekable() && self.next.number == 0 && !self.ended {
            return Ok(());
        }
        let backward = self.index.before(target, S::PREROLL);
        if backward.byte > self.next.byte || target < self.next.units || self.ended {
            self.reader.seek(backward.byte)?;
            self.next = backward;
        } else if self.reader.is_seekable() {
            self.reader.seek(self.next.byte)?;
        }
        if !self.reader.is_seekable() {
            return Ok(());
        }
        // Walk over headers to the wanted frame, remembering the last few places for the preroll.
        let mut behind = std::collections::VecDeque::new();
        while let Some(frame) = self.locate()? {
            let here = Place {
                byte: self.reader.position(),
                ..self.next
            };
            let end = here.units.saturating_add(
                i64::try_from(frame.samples)
                    .unwrap_or(0)
                    .saturating_mul(i64::from(S::UNITS / frame.rate.max(1))),
            );
            if end > target {
                break;
            }
            if behind.len() as u64 >= S::PREROLL {
                behind.pop_front();
            }
            behind.push_back(here);
            let left = self.reader.remaining().unwrap_or(u64::MAX);
            self.reader.skip((frame.len as u64).min(left))?;
            self.advance(&frame);
        }
        if let Some(from) = behind.front() {
            self.reader.seek(from.byte)?;
            self.next = *from;
        }
        Ok(())
    }
}

impl<S: Syntax> MediaSource for FrameSource<S> {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        self.selected = selected.to_vec();
        let Some(position) = position else {
            return Ok(());
        };
        let position = position.max(MediaTime::ZERO);
        self.seek(position)?;
        self.target = Some(position);
        self.discontinuity = false;
        (self.ended, self.cut) = (false, false);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        while let Some((stream, sample)) = self.opened.others.get(self.other) {
            self.other += 1;
            if self.selected.contains(&stream.id) {
                return Ok(Some((stream.id, sample.clone())));
            }
        }
        if self.ended || !self.selected.contains(&StreamId(0)) {
            return Ok(None);
        }
        if self.cut {
            self.ended = true;
            return Err(Error::truncated(self.reader.position(), "a frame"));
        }
        match self.read_frame() {
            Ok(Some(sample)) => {
                // What is left of a cut frame may still do, and the error comes behind it.
                self.cut = sample.flags.corrupt;
                Ok(Some((StreamId(0), sample)))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }
}
