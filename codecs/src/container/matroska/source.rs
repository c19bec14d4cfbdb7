//! The media source over a demuxer: selection and positions.

use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    Error, ErrorKind, MajorType, MediaSource, MediaTime, PresentationDescriptor, Result, Sample,
    StreamId, Value,
};

use super::demuxer::Demuxer;
use super::header::{Cue, read_cues};
use crate::container::ogg::position::IsBefore;
use crate::video::describe::describe_frame;

/// Samples of a Matroska or WebM file.
#[derive(Debug)]
pub(crate) struct MatroskaSource {
    demuxer: Demuxer,
    presentation: PresentationDescriptor,
    selected: Vec<StreamId>,
    /// Where the present run starts; samples before it are marked as preroll.
    position: MediaTime,
    /// The index, once it was needed.
    cues: Option<Vec<Cue>>,
}

/// Where the tracks begin for a position.
#[derive(Debug)]
struct Begin {
    cluster_at: u64,
    gates: Vec<Option<u64>>,
}

/// How far behind the position a track may be late in the file.
const INTERLEAVE: MediaTime = MediaTime::from_secs(10);

impl MatroskaSource {
    /// A source over a demuxer that stands before the first cluster.
    pub(crate) fn new(mut demuxer: Demuxer) -> Self {
        demuxer.read_ahead();
        let scale = demuxer.header.scale;
        let times: Vec<_> = (0..demuxer.header.tracks.len())
            .map(|track| demuxer.queue.times(track))
            .collect();
        for (track, times) in demuxer.header.tracks.iter_mut().zip(&times) {
            track.estimate_frame_rate(times, scale);
        }
        let mut streams: Vec<_> = demuxer
            .header
            .tracks
            .iter()
            .zip(0..)
            .map(|(track, index)| track.descriptor(StreamId(index), demuxer.time_base))
            .collect();
        for (stream, times) in streams.iter_mut().zip(&times) {
            stream.start_time = times.first().copied();
            if let Some(sample) = demuxer.queue.first(stream.id) {
                describe_frame(stream, &sample.payload.to_bytes());
            }
            // Where a stream does not say its length, it is that of the whole.
            stream.duration = stream.duration.or(demuxer.header.duration);
        }
        let mut presentation = PresentationDescriptor {
            format: "matroska,webm".to_owned(),
            duration: demuxer.header.duration,
            characteristics: Characteristics {
                live: false,
                can_seek: demuxer.reader.is_seekable(),
                can_pause: true,
            },
            streams,
            ..PresentationDescriptor::default()
        };
        if let Some(title) = demuxer.header.title.clone() {
            let title = Value::Text(title.into());
            presentation.attributes.set_named("title", title);
        }
        Self {
            selected: presentation
                .streams
                .iter()
                .filter(|stream| stream.selected)
                .map(|stream| stream.id)
                .collect(),
            demuxer,
            presentation,
            position: MediaTime::ZERO,
            cues: None,
        }
    }

    fn select(&mut self, selected: &[StreamId]) -> Result<()> {
        for id in selected {
            let Some(track) = self.demuxer.header.tracks.get(id.0 as usize) else {
                return Err(Error::invalid_argument(format!("there is no stream {id}")));
            };
            if let Some(why) = &track.refused {
                let codec = track.media_type.subtype.name().to_owned();
                return Err(Error::unsupported_codec(codec, why.clone()));
            }
        }
        self.selected = selected.to_vec();
        Ok(())
    }

    fn gates_from(&self, at: u64) -> Vec<Option<u64>> {
        let tracks = 0..self.presentation.streams.len() as u32;
        tracks
            .map(|index| self.selected.contains(&StreamId(index)).then_some(at))
            .collect()
    }

    fn go_to(&mut self, position: MediaTime) -> Result<()> {
        let seekable = self.demuxer.reader.is_seekable();
        if self.demuxer.is_fresh() && (!seekable || position <= MediaTime::ZERO) {
            // From the beginning to the position everything is preroll.
            self.demuxer.set_gates(self.gates_from(0));
            return Ok(());
        }
        if !seekable {
            return Err(Error::new(ErrorKind::NotSeekable {
                what: format!("Matroska: going to {position}").into(),
            }));
        }
        if let Some(duration) = self.presentation.duration
            && position > duration
        {
            return Err(Error::new(ErrorKind::InvalidPosition {
                position,
                duration,
            }));
        }
        let begin = if position > MediaTime::ZERO {
            self.find(position)?
        } else {
            Begin {
                cluster_at: self.demuxer.header.clusters_at,
                gates: self.gates_from(0),
            }
        };
        self.demuxer.go_to(begin.cluster_at)?;
        self.demuxer.set_gates(begin.gates);
        Ok(())
    }

    /// Finds the last key blocks at or before `position`: near an index entry or a cluster that was passed before, else by
    /// a walk over the heads of all blocks from the first cluster.
    fn find(&mut self, position: MediaTime) -> Result<Begin> {
        let tracks = &self.demuxer.header.tracks;
        let wanted: Vec<MediaTime> = tracks.iter().map(|t| position - t.preroll()).collect();
        let earliest = self.selected.iter().map(|id| wanted[id.0 as usize]).min();
        let mut starts = self.starts(earliest.unwrap_or(position))?;
        let mut back = 1;
        while let Some(start) = starts.pop() {
            if let Some(begin) = self.try_from(start, position, &wanted)? {
                return Ok(begin);
            }
            starts.truncate(starts.len().saturating_sub(back - 1));
            back *= 2;
        }
        let first = self.demuxer.header.clusters_at;
        self.demuxer.go_to(first)?;
        Ok(self
            .walk(position, &wanted)?
            .unwrap_or_else(|partial| partial))
    }

    /// Clusters at or before a time from which to try, in order.
    fn starts(&mut self, before: MediaTime) -> Result<Vec<u64>> {
        if self.cues.is_none() {
            self.cues = Some(self.load_cues()?);
        }
        let cues = self.cues.as_deref().unwrap_or_default();
        let tracks = &self.demuxer.header.tracks;
        let is_video = |id: &&StreamId| tracks[id.0 as usize].media_type.major == MajorType::Video;
        let guide = self
            .selected
            .iter()
            .find(is_video)
            .or(self.selected.first())
            .map(|id| tracks[id.0 as usize].number);
        let of_guide = cues.iter().any(|cue| Some(cue.track) == guide);
        let base = self.demuxer.time_base;
        let time = |units: u64| base.to_time(i64::try_from(units).unwrap_or(i64::MAX));
        let mut starts: Vec<u64> = cues
            .iter()
            .filter(|cue| !of_guide || Some(cue.track) == guide)
            .take_while(|cue| time(cue.time) <= before)
            .map(|cue| cue.cluster_at)
            .collect();
        if starts.is_empty() {
            let seen = self.demuxer.seen.iter();
            starts = seen
                .take_while(|(units, _)| base.to_time(*units) <= before)
                .map(|&(_, at)| at)
                .collect();
        }
        Ok(starts)
    }

    /// The index. A damaged one is none: a walk finds the position too.
    fn load_cues(&mut self) -> Result<Vec<Cue>> {
        let Some(at) = self.demuxer.header.cues_at else {
            return Ok(Vec::new());
        };
        let data_at = self.demuxer.header.data_at;
        match read_cues(&mut self.demuxer.reader, at, data_at, &self.demuxer.limits) {
            Err(error) if error.is_content() => Ok(Vec::new()),
            result => result,
        }
    }

    /// As [`Self::walk`] from a cluster that may not be there, or too late for a track.
    fn try_from(
        &mut self,
        cluster_at: u64,
        position: MediaTime,
        wanted: &[MediaTime],
    ) -> Result<Option<Begin>> {
        match self.demuxer.go_to_cluster(cluster_at) {
            Ok(true) => Ok(self.walk(position, wanted)?.ok()),
            Ok(false) => Ok(None),
            Err(error) if error.is_content() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Walks from where the demuxer stands until all selected tracks are past `position`. `Err` where a track has no key
    /// block at or before its wanted time, with the best that there is.
    fn walk(&mut self, position: MediaTime, wanted: &[MediaTime]) -> Result<Result<Begin, Begin>> {
        let mut found: Vec<Option<(u64, u64)>> = vec![None; wanted.len()];
        let mut waiting = Vec::new();
        for id in &self.selected {
            let major = self.demuxer.header.tracks[id.0 as usize].media_type.major;
            // Other tracks may have no blocks for a long time.
            if matches!(major, MajorType::Video | MajorType::Audio) {
                waiting.push(id.0 as usize);
            }
        }
        let needed = waiting.clone();
        let selected = &self.selected;
        let start = self.demuxer.reader.position();
        self.demuxer.walk(|block| {
            if !selected.contains(&StreamId(block.track as u32)) {
                return true;
            }
            if block.key && block.time <= wanted[block.track] {
                found[block.track] = Some((block.at, block.cluster_at));
            }
            if block.time > position {
                waiting.retain(|&track| track != block.track);
            }
            !waiting.is_empty() && block.time <= position + INTERLEAVE
        })?;
        let cluster_at = found.iter().flatten().map(|&(_, cluster)| cluster).min();
        let gates = (0..wanted.len())
            .map(|track| {
                let from = found[track].map_or(0, |(at, _)| at);
                selected.contains(&StreamId(track as u32)).then_some(from)
            })
            .collect();
        let complete = needed.iter().all(|&track| found[track].is_some());
        let begin = Begin {
            cluster_at: match complete {
                true => cluster_at.unwrap_or(start),
                false => start,
            },
            gates,
        };
        Ok(if complete { Ok(begin) } else { Err(begin) })
    }
}

impl MediaSource for MatroskaSource {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        self.select(selected)?;
        match position {
            Some(position) => {
                self.go_to(position)?;
                self.position = position;
            }
            None => self.demuxer.widen_gates(self.gates_from(0)),
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        let mut next = self.demuxer.next()?;
        if let Some((id, sample)) = &mut next
            && self.position > MediaTime::ZERO
        {
            // What lasts nobody knows how long may be what is seen at the position.
            let track = &self.demuxer.header.tracks[id.0 as usize];
            let known = track.is_audio() || sample.duration > MediaTime::ZERO;
            sample.flags.preroll = known && sample.is_before(self.position);
        }
        Ok(next)
    }
}
