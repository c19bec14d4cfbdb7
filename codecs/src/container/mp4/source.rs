//! The source: samples of sample tables and of fragments, merged over the selected streams.

use std::collections::VecDeque;

use portcullis_engine::{
    ContentLimits, Error, ErrorKind, MajorType, MediaSource, MediaTime, MediaType,
    PresentationDescriptor, Result, Sample, SampleFlags, StreamDescriptor, StreamId, TimeBase,
    Value, sample_keys,
};

use super::edits::{Segment, Timeline, last_key_before};
use super::fragment::{self, TrackState};
use super::metadata::Cover;
use super::tables::{Cursor, Entry, Tables, Unit};
use super::top_level::{TopLevel, is_fragment};
use crate::container::reader::Reader;

/// The key of a sample attribute: number of the sample description, from 1, where it is not the one that the stream's type was
/// made from.
pub(super) const SAMPLE_DESCRIPTION: portcullis_engine::Key<u32> =
    portcullis_engine::Key::new("sample_description");

/// What the source knows of one track.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) major: MajorType,
    pub(super) time_base: TimeBase,
    pub(super) timescale: u32,
    pub(super) sample_rate: u32,
    pub(super) tables: Tables,
    pub(super) timeline: Timeline,
    pub(super) decode_shift: i64,
    /// Shift and beginning of the media of what is in fragments.
    pub(super) fragment_shift: (i64, i64),
    /// Set for PCM, which is trimmed by cutting.
    pub(super) pcm: Option<Unit>,
    /// Length that all compressed sound samples share: a last one that is shorter has padding behind it.
    pub(super) packet_duration: Option<u32>,
    pub(super) place: Place,
}

/// How far a track was delivered.
#[derive(Debug, Default)]
pub(super) struct Place {
    segment: usize,
    cursor: Option<Cursor>,
    pending: Option<Pending>,
    /// Samples before this time, in units of the track, are preroll.
    preroll_before: Option<i64>,
    /// A sample was lost: nothing is delivered until the next one at which decoding can start.
    damaged: bool,
    discontinuity: bool,
    /// Samples of fragments that are decoded before this media time are passed over: they lie before the key sample.
    fragments_from: Option<i64>,
}

/// A sample that comes next, in units of its track.
#[derive(Clone, Copy, Debug)]
struct Pending {
    offset: u64,
    size: u64,
    dts: i64,
    pts: i64,
    duration: i64,
    key: bool,
    preroll: bool,
    trim_start: i64,
    trim_end: i64,
    description: u32,
}

/// Where samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Tables,
    Fragments,
    Ended,
}

/// The source of one MP4 or QuickTime file.
#[derive(Debug)]
pub(super) struct Mp4Source {
    pub(super) reader: Reader,
    pub(super) limits: ContentLimits,
    pub(super) presentation: PresentationDescriptor,
    pub(super) streams: Vec<Stream>,
    pub(super) fragments: Vec<TrackState>,
    pub(super) is_fragmented: bool,
    pub(super) top_level: TopLevel,
    selected: Vec<bool>,
    phase: Phase,
    started: bool,
    /// Decode time of the sample that was delivered last.
    last_time: MediaTime,
    /// The walk and the tracks' decode times right behind `moov`, where the fragments begin.
    after_movie: (TopLevel, Vec<i64>),
    /// The first damage; it is reported when everything that is intact was delivered.
    damage: Option<Error>,
    /// Samples that lie in no fragment: pictures of the file as a whole.
    pub(super) attached: VecDeque<(StreamId, Sample)>,
}

impl Stream {
    /// Presentation time, in units of the track, at which the tables begin.
    fn first_of_tables(&self) -> Option<i64> {
        if self.timeline.duration.is_some() {
            return Some(self.timeline.start);
        }
        let first = Cursor::default().next(&self.tables)?;
        Some(first.cts)
    }

    /// Presentation time of a media position in units of the track.
    fn time(&self, units: i64) -> MediaTime {
        self.time_base.to_time(units)
    }

    /// Takes the next sample of the tables.
    fn next_of_tables(&mut self) -> Option<Pending> {
        loop {
            let segment = *self.timeline.segments.get(self.place.segment)?;
            let cursor = self.place.cursor.get_or_insert(segment.first);
            if cursor.index() >= segment.last {
                self.place.segment += 1;
                self.place.cursor = None;
                continue;
            }
            let Some(entry) = cursor.next(&self.tables) else {
                self.place.segment += 1;
                self.place.cursor = None;
                continue;
            };
            let is_last = cursor.index() >= self.tables.count();
            if let Some(pending) = self.edited(&entry, &segment, is_last) {
                return Some(pending);
            }
        }
    }

    /// Puts a sample of the tables on the presentation's timeline; `None` where nothing of it is shown or needed.
    fn edited(&self, entry: &Entry, segment: &Segment, is_last: bool) -> Option<Pending> {
        let mut pending = Pending {
            offset: entry.offset,
            size: entry.size,
            dts: entry
                .dts
                .saturating_add(segment.shift)
                .saturating_sub(self.decode_shift),
            pts: entry.cts.saturating_add(segment.shift),
            duration: entry.duration,
            key: entry.key,
            preroll: false,
            trim_start: 0,
            trim_end: 0,
            description: entry.description,
        };
        let end = entry.cts.saturating_add(entry.duration);
        if self.major != MajorType::Audio {
            pending.preroll = !(segment.media_start..segment.media_end).contains(&entry.cts);
            return Some(pending);
        }
        pending.trim_start = segment
            .media_start
            .saturating_sub(entry.cts)
            .clamp(0, entry.duration);
        pending.trim_end = end
            .saturating_sub(segment.media_end)
            .clamp(0, entry.duration - pending.trim_start);
        if let Some(unit) = self.pcm {
            let kept = entry.duration - pending.trim_start - pending.trim_end;
            let bytes = i64::from(unit.bytes);
            if kept == 0 || self.tables.unit.is_none() {
                return (kept > 0).then_some(pending);
            }
            pending.offset += (pending.trim_start * bytes) as u64;
            pending.size = (kept * bytes) as u64;
            pending.pts = pending.pts.saturating_add(pending.trim_start);
            pending.dts = pending.dts.saturating_add(pending.trim_start);
            pending.duration = kept;
            (pending.trim_start, pending.trim_end) = (0, 0);
        } else if let Some(whole) = self.packet_duration.filter(|_| is_last) {
            // A decoder makes as much of the last packet as of any; the tables say how much of it counts.
            pending.trim_end += (i64::from(whole) - entry.duration).max(0);
        }
        Some(pending)
    }

    /// Takes the next sample of the fragments that were read.
    fn next_of_runs(&mut self, track: &mut TrackState) -> Option<Pending> {
        let (shift, media_start) = self.fragment_shift;
        loop {
            let run = track.runs.front_mut()?;
            let Some(entry) = run.next() else {
                track.runs.pop_front();
                continue;
            };
            if self
                .place
                .fragments_from
                .is_some_and(|from| entry.dts < from)
            {
                continue;
            }
            let mut pending = Pending {
                offset: entry.offset,
                size: entry.size,
                dts: entry.dts.saturating_add(shift),
                pts: entry.cts.saturating_add(shift),
                duration: entry.duration,
                key: entry.key,
                preroll: false,
                trim_start: 0,
                trim_end: 0,
                description: entry.description,
            };
            let before = media_start.saturating_sub(entry.cts);
            if before > 0 {
                if self.major == MajorType::Audio {
                    pending.trim_start = before.min(entry.duration);
                } else {
                    pending.preroll = true;
                }
            }
            return Some(pending);
        }
    }

    /// Track units of sound as PCM frames.
    fn frames(&self, units: i64) -> u64 {
        let frames = i128::from(units) * i128::from(self.sample_rate);
        let scale = i128::from(self.timescale.max(1));
        u64::try_from((frames + scale / 2) / scale).unwrap_or(0)
    }

    /// The sample that is delivered for `pending`.
    fn sample(&mut self, pending: &Pending, payload: Vec<u8>) -> Sample {
        let time = self.time(pending.pts);
        let end = self.time(pending.pts.saturating_add(pending.duration));
        let mut sample = Sample::new(time, end - time, payload);
        let decode_time = self.time(pending.dts);
        sample.decode_time = (decode_time != time).then_some(decode_time);
        let before = self.place.preroll_before.is_some_and(|position| {
            pending.pts.saturating_add(pending.duration.max(1)) <= position
        });
        sample.flags = SampleFlags {
            key: pending.key,
            preroll: pending.preroll || before,
            discontinuity: std::mem::take(&mut self.place.discontinuity),
            corrupt: false,
        };
        for (key, units) in [
            (sample_keys::TRIM_START, pending.trim_start),
            (sample_keys::TRIM_END, pending.trim_end),
        ] {
            if units > 0 {
                sample.attributes.set(&key, self.frames(units));
            }
        }
        sample
            .attributes
            .set(&sample_keys::BYTE_POSITION, pending.offset);
        if pending.description > 1 {
            sample
                .attributes
                .set(&SAMPLE_DESCRIPTION, pending.description);
        }
        sample
    }

    /// Goes back to the beginning of the tables.
    fn rewind(&mut self) {
        self.place = Place::default();
    }

    /// Goes to the last sample of the tables at which decoding can start at or before `position` (units of the track).
    fn seek_tables(&mut self, position: i64) {
        self.rewind();
        self.place.preroll_before = Some(position);
        let segments = self.timeline.segments.iter().enumerate();
        let shown = segments
            .take_while(|(index, segment)| *index == 0 || segment.start <= position)
            .last();
        let Some((index, segment)) = shown else {
            return;
        };
        let target = position
            .saturating_sub(segment.shift)
            .saturating_sub(self.run_up());
        let mut steps = u64::MAX;
        let found = last_key_before(&self.tables, target, &mut steps);
        self.place.segment = index;
        self.place.cursor = Some(if found.index() > segment.first.index() {
            found
        } else {
            segment.first
        });
    }

    /// How much a sound decoder needs before a position to put out the right values there: 80 ms for Opus, at most two packets for
    /// the others.
    fn run_up(&self) -> i64 {
        if self.major != MajorType::Audio || self.pcm.is_some() {
            return 0;
        }
        i64::from(self.timescale) * 8 / 100
    }
}

impl Mp4Source {
    pub(super) fn new(
        reader: Reader,
        limits: ContentLimits,
        presentation: PresentationDescriptor,
        streams: Vec<Stream>,
        fragments: Vec<TrackState>,
        is_fragmented: bool,
        top_level: TopLevel,
    ) -> Self {
        Self {
            selected: vec![false; presentation.streams.len()],
            after_movie: (
                top_level,
                fragments.iter().map(|track| track.next_dts).collect(),
            ),
            reader,
            limits,
            presentation,
            streams,
            fragments,
            is_fragmented,
            top_level,
            phase: Phase::Tables,
            started: false,
            last_time: MediaTime::ZERO,
            damage: None,
            attached: VecDeque::new(),
        }
    }

    /// Presentation time, in units of its track, at which each stream begins, where it is known.
    pub(super) fn first_times(&self) -> Vec<Option<i64>> {
        let streams = self.streams.iter().zip(&self.fragments);
        streams
            .map(|(stream, track)| {
                stream.first_of_tables().or_else(|| {
                    let first = track.runs.front()?.clone().next()?;
                    Some(first.cts.saturating_add(stream.fragment_shift.0))
                })
            })
            .collect()
    }

    /// Decode time at which each track begins and ends, found by looking through at most `most` fragments.
    pub(super) fn scan(&mut self, most: usize) -> Result<Vec<Option<(i64, i64)>>> {
        let walk = self.top_level;
        let firsts: Vec<Option<i64>> = self
            .streams
            .iter()
            .zip(&self.fragments)
            .map(|(stream, track)| match stream.tables.count() {
                0 => Some(track.runs.front()?.clone().next()?.dts),
                _ => Some(0),
            })
            .collect();
        let kept: Vec<_> = self
            .fragments
            .iter_mut()
            .map(|track| (std::mem::take(&mut track.runs), track.next_dts))
            .collect();
        let mut whole = false;
        for _ in 0..most {
            match self.next_fragment() {
                Ok(true) => {}
                Ok(false) => {
                    whole = true;
                    break;
                }
                // The damage is reported when delivery comes to it.
                Err(error) if error.is_content() => {
                    whole = true;
                    break;
                }
                Err(error) => return Err(error),
            }
            for track in &mut self.fragments {
                track.runs.clear();
            }
        }
        let ends = self.fragments.iter().zip(firsts);
        let spans = ends
            .map(|(track, first)| Some((first?, track.next_dts)).filter(|_| whole))
            .collect();
        self.top_level = walk;
        for (track, (runs, next_dts)) in self.fragments.iter_mut().zip(kept) {
            track.runs = runs;
            track.next_dts = next_dts;
        }
        Ok(spans)
    }

    /// Adds a picture of the file as a whole as a stream of its own, which is not selected.
    pub(super) fn add_picture(&mut self, id: StreamId, cover: Cover) {
        let media_type = MediaType::new(MajorType::Video, cover.subtype);
        let time_base = TimeBase::per_second(90_000).unwrap_or(TimeBase::TICKS);
        let mut descriptor = StreamDescriptor::new(id, media_type, time_base);
        descriptor.selected = false;
        descriptor.sample_count = Some(1);
        descriptor
            .attributes
            .set_named("attached_pic", Value::Unsigned(1));
        let mut sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, cover.picture);
        sample.flags.key = true;
        sample
            .attributes
            .set(&sample_keys::BYTE_POSITION, cover.position);
        self.presentation.streams.push(descriptor);
        self.selected.push(false);
        self.attached.push_back((id, sample));
    }

    /// Reads boxes up to and with the next fragment; false at the end of the input.
    pub(super) fn next_fragment(&mut self) -> Result<bool> {
        while let Some(header) = self.top_level.next(&mut self.reader)? {
            if is_fragment(&header) {
                let data = header.read(&mut self.reader, &self.limits)?;
                if header.end.is_none() {
                    self.top_level = TopLevel::from(self.reader.position());
                }
                fragment::parse(data, header.at, &mut self.fragments, self.reader.len())?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the next sample of each selected stream known.
    fn fill(&mut self) {
        for index in 0..self.streams.len() {
            if !self.selected[index] {
                if self.phase == Phase::Fragments {
                    self.fragments[index].runs.clear();
                }
                continue;
            }
            while self.streams[index].place.pending.is_none() {
                let stream = &mut self.streams[index];
                let next = match self.phase {
                    Phase::Tables => stream.next_of_tables(),
                    Phase::Fragments => stream.next_of_runs(&mut self.fragments[index]),
                    Phase::Ended => None,
                };
                let Some(pending) = next else {
                    break;
                };
                if let Err(error) = self.check(&pending) {
                    self.lose(index, error);
                    continue;
                }
                let place = &mut self.streams[index].place;
                if place.damaged {
                    if !pending.key {
                        continue;
                    }
                    place.damaged = false;
                    place.discontinuity = true;
                }
                place.pending = Some(pending);
            }
        }
    }

    /// Whether the input has this sample and the limits allow it.
    fn check(&self, pending: &Pending) -> Result<()> {
        self.limits
            .check_sample(pending.size)
            .map_err(|error| error.because(format!("a sample at byte {}", pending.offset)))?;
        let end = pending.offset.saturating_add(pending.size);
        match self.reader.len() {
            Some(len) if end > len => Err(Error::truncated(
                len,
                format!(
                    "a sample of {} bytes at byte {}",
                    pending.size, pending.offset
                ),
            )),
            _ => Ok(()),
        }
    }

    fn lose(&mut self, index: usize, error: Error) {
        self.streams[index].place.damaged = true;
        self.damage.get_or_insert(error);
    }

    /// The selected stream whose sample comes next.
    ///
    /// On a seekable input that is the one with the earliest decode time, except that samples within a second of each other come in the
    /// order of the file: an interleaved file is then read from front to back. On another input it is the order of the file.
    fn choose(&self) -> Option<usize> {
        let mut best: Option<(usize, Pending, MediaTime)> = None;
        for (index, stream) in self.streams.iter().enumerate() {
            let Some(pending) = stream.place.pending else {
                continue;
            };
            let time = stream.time(pending.dts);
            let better = match &best {
                None => true,
                Some((_, best, best_time)) => {
                    let apart = (time - *best_time).ticks().unsigned_abs();
                    if !self.reader.is_seekable()
                        || apart <= MediaTime::TICKS_PER_SECOND.unsigned_abs()
                    {
                        pending.offset < best.offset
                    } else {
                        time < *best_time
                    }
                }
            };
            if better {
                best = Some((index, pending, time));
            }
        }
        best.map(|(index, ..)| index)
    }

    /// On an input that only goes forward, passes the headers of the boxes before `offset`, so that the walk goes on behind the
    /// box that the sample lies in.
    fn enter_box(&mut self, offset: u64) -> Result<()> {
        if self.reader.is_seekable() {
            return Ok(());
        }
        while self.is_fragmented && self.top_level.position() <= offset {
            let Some(header) = self.top_level.next(&mut self.reader)? else {
                break;
            };
            if is_fragment(&header) {
                return Err(Error::malformed(
                    header.at,
                    "a fragment lies between a sample and its index",
                ));
            }
        }
        Ok(())
    }

    /// Reads the payload of the sample that comes next in a stream; `None` where it was lost.
    fn deliver(&mut self, index: usize) -> Result<Option<Sample>> {
        let Some(pending) = self.streams[index].place.pending.take() else {
            return Ok(None);
        };
        let read = self
            .enter_box(pending.offset)
            .and_then(|()| self.reader.seek(pending.offset))
            .and_then(|()| self.reader.read_vec(pending.size));
        match read {
            Ok(payload) => Ok(Some(self.streams[index].sample(&pending, payload))),
            Err(error) => match error.kind() {
                ErrorKind::Truncated { .. } => {
                    self.lose(index, error);
                    Ok(None)
                }
                ErrorKind::NotSeekable { .. } => {
                    let why = "its place in the input has passed";
                    self.lose(index, error.because(why));
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    fn advance(&mut self) -> Result<Option<(StreamId, Sample)>> {
        loop {
            if let Some(attached) = self.attached.pop_front() {
                let (id, _) = &attached;
                if self.selected.get(id.0 as usize).copied().unwrap_or(false) {
                    return Ok(Some(attached));
                }
                continue;
            }
            self.fill();
            if let Some(index) = self.choose() {
                if let Some(sample) = self.deliver(index)? {
                    return Ok(Some((StreamId(index as u32), sample)));
                }
                continue;
            }
            match self.phase {
                Phase::Tables if self.is_fragmented => self.phase = Phase::Fragments,
                Phase::Fragments => {
                    if !self.next_fragment()? {
                        self.phase = Phase::Ended;
                    }
                }
                Phase::Tables => self.phase = Phase::Ended,
                Phase::Ended => return self.damage.take().map_or(Ok(None), Err),
            }
        }
    }
}

impl MediaSource for Mp4Source {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        let mut now_selected = vec![false; self.presentation.streams.len()];
        for id in selected {
            match now_selected.get_mut(id.0 as usize) {
                Some(selected) => *selected = true,
                None => return Err(Error::invalid_argument(format!("there is no stream {id}"))),
            }
        }
        match position {
            Some(position) => {
                if let Some(duration) = self.presentation.duration
                    && position > duration
                {
                    return Err(ErrorKind::InvalidPosition { position, duration }.into());
                }
                if self.started || position > MediaTime::ZERO {
                    self.seek(&now_selected, position)?;
                }
            }
            None if self.started => self.continue_with(&now_selected),
            None => {}
        }
        self.selected = now_selected;
        self.started = true;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        if !self.started {
            return Err(Error::invalid_request("the source was not started"));
        }
        let next = self.advance();
        match &next {
            Ok(Some((_, sample))) => {
                self.last_time = sample.decode_time.unwrap_or(sample.time);
            }
            Ok(None) => {}
            // What follows cannot be found any more.
            Err(_) => {
                self.phase = Phase::Ended;
                for stream in &mut self.streams {
                    stream.place.pending = None;
                }
            }
        }
        next
    }
}

impl Mp4Source {
    fn seek(&mut self, selected: &[bool], position: MediaTime) -> Result<()> {
        if !self.reader.is_seekable() {
            return Err(ErrorKind::NotSeekable {
                what: "starting an mp4 at another position".into(),
            }
            .into());
        }
        self.damage = None;
        self.phase = Phase::Tables;
        for stream in &mut self.streams {
            if position > MediaTime::ZERO {
                stream.seek_tables(stream.time_base.to_units(position));
            } else {
                stream.rewind();
            }
        }
        if self.is_fragmented {
            self.seek_fragments(selected, position)?;
        }
        Ok(())
    }

    /// Goes back to the first fragment, without forgetting where it is.
    fn rewind_fragments(&mut self) {
        let (walk, times) = &self.after_movie;
        self.top_level = *walk;
        for (track, time) in self.fragments.iter_mut().zip(times) {
            track.next_dts = *time;
            track.runs.clear();
        }
    }

    /// Looks for the last sample in fragments at which each selected stream can start, and goes to the earliest of them.
    fn seek_fragments(&mut self, selected: &[bool], position: MediaTime) -> Result<()> {
        self.rewind_fragments();
        if position <= MediaTime::ZERO {
            return Ok(());
        }
        /// A sample at which decoding can start.
        struct Found {
            /// Its fragment, and the tracks' decode times at its beginning.
            fragment: (TopLevel, Vec<i64>),
            dts: i64,
        }
        let streams = self.streams.len();
        let mut found: Vec<Option<Found>> = (0..streams).map(|_| None).collect();
        let mut passed: Vec<bool> = selected.iter().take(streams).map(|s| !s).collect();
        while passed.iter().any(|passed| !passed) {
            let times: Vec<i64> = self.fragments.iter().map(|track| track.next_dts).collect();
            let before = self.top_level;
            match self.next_fragment() {
                Ok(true) => {}
                Ok(false) => break,
                // The damage is reported when delivery comes to it.
                Err(error) if error.is_content() => break,
                Err(error) => return Err(error),
            }
            for index in 0..streams {
                let stream = &self.streams[index];
                let (shift, _) = stream.fragment_shift;
                let target = stream.time_base.to_units(position) - shift;
                for mut run in self.fragments[index].runs.drain(..) {
                    while let Some(entry) = run.next() {
                        passed[index] |= entry.dts > target;
                        if entry.key && entry.cts <= target.saturating_sub(stream.run_up()) {
                            found[index] = Some(Found {
                                fragment: (before, times.clone()),
                                dts: entry.dts,
                            });
                        }
                    }
                }
            }
        }
        self.rewind_fragments();
        let wanted = || (0..streams).filter(|index| selected[*index]);
        for index in wanted() {
            let Some(found) = &found[index] else {
                continue;
            };
            let place = &mut self.streams[index].place;
            place.fragments_from = Some(found.dts);
            // A later sample than the tables have.
            place.segment = usize::MAX;
            place.cursor = None;
        }
        if wanted().all(|index| found[index].is_some()) {
            let earliest = found
                .into_iter()
                .flatten()
                .min_by_key(|found| found.fragment.0.position());
            if let Some(Found {
                fragment: (walk, times),
                ..
            }) = earliest
            {
                self.top_level = walk;
                for (track, time) in self.fragments.iter_mut().zip(times) {
                    track.next_dts = time;
                }
            }
        }
        Ok(())
    }

    /// Goes on with other streams selected: those that are new begin where the others are.
    fn continue_with(&mut self, selected: &[bool]) {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let was_selected = self.selected[index];
            if was_selected && !selected[index] {
                stream.place.pending = None;
            }
            if !was_selected && selected[index] && self.phase == Phase::Tables {
                stream.seek_tables(stream.time_base.to_units(self.last_time));
            }
        }
    }
}
