//! The source: samples of sample tables and of fragments, merged over the selected streams.

use portcullis_engine::{
    ContentLimits, Error, ErrorKind, MediaSource, MediaTime, PresentationDescriptor, Result,
    Sample, StreamDescriptor, StreamId,
};

use super::fragment::{self, Bounds, TrackState};
use super::seek::FragmentIndex;
use super::stream::{Pending, Stream};
use super::top_level::{TopLevel, is_fragment};
use crate::container::reader::Reader;

/// Where samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
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
    pub(super) selected: Vec<bool>,
    pub(super) phase: Phase,
    pub(super) started: bool,
    /// Decode time of the sample that was delivered last.
    pub(super) last_time: MediaTime,
    pub(super) index: FragmentIndex,
    /// The first damage; it is reported when everything that is intact was delivered.
    pub(super) damage: Option<Error>,
    /// Pictures of the file as a whole,
    pictures: Vec<(StreamId, Sample)>,
    /// and how many of them were delivered.
    pub(super) pictures_delivered: usize,
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
            index: FragmentIndex::new(
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
            pictures: Vec::new(),
            pictures_delivered: 0,
        }
    }

    /// Presentation time, in units of its track, at which each stream begins, where it is known.
    pub(super) fn first_times(&self) -> Vec<Option<i64>> {
        let streams = self.streams.iter().zip(&self.fragments).enumerate();
        streams
            .map(|(index, (stream, track))| {
                stream.first_of_tables().or_else(|| {
                    let first = || track.runs.front()?.clone().next().map(|first| first.cts);
                    let first = self.index.first(index).or_else(first)?;
                    let shift = stream
                        .fragment_shift
                        .0
                        .saturating_add(stream.composition_delay);
                    Some(first.saturating_add(shift))
                })
            })
            .collect()
    }

    /// Media time at which each stream begins to be decoded, where it is known.
    pub(super) fn first_decode_times(&self) -> Vec<Option<i64>> {
        let streams = self.streams.iter().zip(&self.fragments);
        streams
            .map(|(stream, track)| match stream.tables.count() {
                0 => Some(track.runs.front()?.clone().next()?.dts),
                _ => Some(0),
            })
            .collect()
    }

    /// Adds a picture of the file as a whole as a stream of its own.
    pub(super) fn add_picture(&mut self, mut descriptor: StreamDescriptor, sample: Sample) {
        descriptor.id = StreamId(self.presentation.streams.len() as u32);
        self.pictures.push((descriptor.id, sample));
        self.presentation.streams.push(descriptor);
        self.selected.push(false);
    }

    /// Reads boxes up to and with the next fragment; false at the end of the input.
    pub(super) fn next_fragment(&mut self) -> Result<bool> {
        while let Some(header) = self.top_level.next(&mut self.reader)? {
            if is_fragment(&header) {
                let data = header.read(&mut self.reader, &self.limits)?;
                if header.end.is_none() {
                    self.top_level = TopLevel::from(self.reader.position());
                }
                let bounds = Bounds {
                    len: self.reader.len(),
                    limits: &self.limits,
                };
                fragment::parse(data, header.at, &mut self.fragments, &bounds)?;
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
                if !self.fits(&pending) {
                    // Only the first loss is told: a table may have millions of them.
                    if self.damage.is_none() {
                        self.damage = self.check(&pending).err();
                    }
                    self.streams[index].place.damaged = true;
                    self.pass_over(index);
                    continue;
                }
                let place = &mut self.streams[index].place;
                if place.damaged {
                    if !pending.key {
                        self.pass_over(index);
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
    fn fits(&self, pending: &Pending) -> bool {
        let end = pending.offset.saturating_add(pending.size);
        pending.size <= self.limits.max_sample_bytes
            && self.reader.len().is_none_or(|len| end <= len)
    }

    /// Why a sample does not fit.
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
        self.pass_over(index);
    }

    /// After a sample that was lost or passed over: does not walk the rest one by one where nothing bounds their number.
    fn pass_over(&mut self, index: usize) {
        match self.phase {
            Phase::Fragments => self.fragments[index].pass_over(),
            Phase::Tables if self.reader.len().is_none() => {
                let stream = &mut self.streams[index];
                if stream.tables.is_uniform() {
                    stream.place.segment = usize::MAX;
                    stream.place.cursor = None;
                }
            }
            Phase::Tables | Phase::Ended => {}
        }
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
                    if !self.reader.is_seekable() {
                        // Samples come in the order of the input: nothing of any stream follows.
                        self.end();
                    } else if self.reader.len().is_none() {
                        // What the tables say cannot be held against a length.
                        self.streams[index].place.segment = usize::MAX;
                        self.fragments[index].runs.clear();
                    }
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

    fn end(&mut self) {
        self.phase = Phase::Ended;
        for stream in &mut self.streams {
            stream.place.pending = None;
        }
    }

    fn advance(&mut self) -> Result<Option<(StreamId, Sample)>> {
        loop {
            if let Some(picture) = self.pictures.get(self.pictures_delivered) {
                self.pictures_delivered += 1;
                if self.selected[picture.0.0 as usize] {
                    return Ok(Some(picture.clone()));
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
                        // Fragments that should follow are lost with the rest of the media data.
                        if self.damage.is_none() {
                            self.damage = self.top_level.cut_off();
                        }
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
            let stream = self.streams.get(id.0 as usize);
            if let Some(damage) = stream.and_then(|stream| stream.damage.clone()) {
                return Err(damage.because(format!("stream {id} cannot be read")));
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
            Err(_) => self.end(),
        }
        next
    }
}
