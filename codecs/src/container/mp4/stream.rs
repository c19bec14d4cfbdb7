//! One track: how its samples come onto the presentation's timeline.

use portcullis_engine::{
    Error, Key, MajorType, MediaTime, Sample, SampleFlags, TimeBase, sample_keys,
};

use super::edits::{MOST_STEPS, Segment, Timeline, last_key_before};
use super::fragment::TrackState;
use super::tables::{Cursor, Entry, Tables, Unit};

/// The key of a sample attribute: number of the sample description, from 1, where it is not the one that the stream's type was
/// made from.
pub(super) const SAMPLE_DESCRIPTION: Key<u32> = Key::new("sample_description");

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
    /// How much later pictures of fragments are shown than the file says: as FFmpeg has it, by the most negative composition
    /// offset of the first fragment, so that none is shown before it is decoded.
    pub(super) composition_delay: i64,
    /// Sound before this media time is the encoder's run-up: it is trimmed, but nothing is moved.
    pub(super) delay: i64,
    /// Set for PCM, which is trimmed by cutting.
    pub(super) pcm: Option<Unit>,
    /// Length that all compressed sound samples share: a last one that is shorter has padding behind it.
    pub(super) packet_duration: Option<u32>,
    pub(super) place: Place,
    /// Why the track cannot be read, where it cannot.
    pub(super) damage: Option<Error>,
}

/// How far a track was delivered.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) segment: usize,
    pub(super) cursor: Option<Cursor>,
    pub(super) pending: Option<Pending>,
    /// Samples before this time, in units of the track, are preroll.
    preroll_before: Option<i64>,
    /// A sample was lost: nothing is delivered until the next one at which decoding can start.
    pub(super) damaged: bool,
    pub(super) discontinuity: bool,
    /// Samples of fragments that are decoded before this media time are passed over: they lie before the key sample.
    pub(super) fragments_from: Option<i64>,
}

/// A sample that comes next, in units of its track.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) dts: i64,
    pub(super) pts: i64,
    pub(super) duration: i64,
    pub(super) key: bool,
    pub(super) preroll: bool,
    pub(super) trim_start: i64,
    pub(super) trim_end: i64,
    pub(super) description: u32,
}

impl Stream {
    /// Presentation time, in units of the track, at which the tables begin.
    pub(super) fn first_of_tables(&self) -> Option<i64> {
        if self.timeline.duration.is_some() {
            return Some(self.timeline.start);
        }
        let first = Cursor::default().next(&self.tables)?;
        let segment = self.timeline.segments.first()?;
        Some(first.cts.saturating_add(segment.shift))
    }

    /// Presentation time of a media position in units of the track.
    pub(super) fn time(&self, units: i64) -> MediaTime {
        self.time_base.to_time(units)
    }

    /// Takes the next sample of the tables.
    pub(super) fn next_of_tables(&mut self) -> Option<Pending> {
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
            .max(self.delay)
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
            // A wild offset stays wild: the check against the input's length refuses it with its position.
            let skipped = pending.trim_start.saturating_mul(bytes).unsigned_abs();
            pending.offset = pending.offset.saturating_add(skipped);
            pending.size = kept.saturating_mul(bytes).unsigned_abs();
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
    pub(super) fn next_of_runs(&mut self, track: &mut TrackState) -> Option<Pending> {
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
                pts: entry
                    .cts
                    .saturating_add(shift)
                    .saturating_add(self.composition_delay),
                duration: entry.duration,
                key: entry.key,
                preroll: false,
                trim_start: 0,
                trim_end: 0,
                description: entry.description,
            };
            let before = media_start.max(self.delay).saturating_sub(entry.cts);
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
    pub(super) fn sample(&mut self, pending: &Pending, payload: Vec<u8>) -> Sample {
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
    pub(super) fn rewind(&mut self) {
        self.place = Place::default();
    }

    /// Goes to the last sample of the tables at which decoding can start at or before `position` (units of the track).
    pub(super) fn seek_tables(&mut self, position: i64) {
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
        let mut steps = MOST_STEPS;
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
    pub(super) fn run_up(&self) -> i64 {
        if self.major != MajorType::Audio || self.pcm.is_some() {
            return 0;
        }
        i64::from(self.timescale) * 8 / 100
    }
}
