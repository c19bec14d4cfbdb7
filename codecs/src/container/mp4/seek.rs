//! Finding places in a seekable file: positions, and the ends of fragmented streams.

use std::collections::VecDeque;

use portcullis_engine::{ErrorKind, MediaTime, Result};

use super::fragment::{Run, TrackState};
use super::source::{Mp4Source, Phase};
use super::top_level::TopLevel;

/// Where fragments are and what they begin with, as far as the file was looked through.
#[derive(Debug)]
pub(super) struct FragmentIndex {
    marks: Vec<Mark>,
    /// Where the next fragment is looked for.
    next: TopLevel,
    /// Decode time behind the last sample of each track up to there.
    times: Vec<i64>,
    /// The most negative composition offset of each track up to there, as a positive number.
    delays: Vec<i64>,
    /// Bytes and units of the samples of each track up to there.
    totals: Vec<(u64, i64)>,
    /// Presentation time, before any edit list, of the first sample of each track in fragments.
    firsts: Vec<Option<i64>>,
    /// There is no further one, or none that can be read.
    complete: bool,
}

/// One fragment.
#[derive(Debug)]
struct Mark {
    walk: TopLevel,
    tracks: Box<[TrackMark]>,
}

/// What a fragment begins with in one track.
#[derive(Clone, Copy, Debug)]
struct TrackMark {
    /// Decode time before it.
    before: i64,
    /// Presentation time, before any edit list, of the first sample at which decoding can start.
    first_key: Option<i64>,
}

/// Fragments, times tracks, that are kept in mind; what lies behind the last of them is found by walking.
const MOST_MARKS: usize = 1 << 17;

impl FragmentIndex {
    /// An empty index of a file whose fragments begin at `next`, where the tracks' samples so far end at `times`.
    pub(super) fn new(next: TopLevel, times: Vec<i64>) -> Self {
        Self {
            marks: Vec::new(),
            delays: vec![0; times.len()],
            totals: vec![(0, 0); times.len()],
            firsts: vec![None; times.len()],
            next,
            times,
            complete: false,
        }
    }

    /// Decode time behind the last sample of each track.
    pub(super) fn ends(&self) -> Option<&[i64]> {
        self.complete.then_some(&self.times)
    }

    /// Takes the decode times behind the last samples from what looked for them in another way, where the walk did not come to
    /// the end: false where they cannot be those.
    fn ends_at(&self, ends: &[i64]) -> bool {
        let mut both = ends.iter().zip(&self.times);
        both.all(|(end, seen)| end >= seen) && ends != self.times
    }

    /// Bytes and units of the samples of a track as far as the file was looked through.
    pub(super) fn totals(&self, track: usize) -> (u64, i64) {
        self.totals.get(track).copied().unwrap_or_default()
    }

    /// Presentation time, before any edit list, of the first sample of a track in the fragments that were looked through.
    pub(super) fn first(&self, track: usize) -> Option<i64> {
        self.firsts.get(track).copied().flatten()
    }

    /// The most negative composition offset of a track as far as the file was looked through, as a positive number.
    pub(super) fn composition_delay(&self, track: usize) -> i64 {
        self.delays.get(track).copied().unwrap_or(0)
    }
}

impl Mp4Source {
    /// Looks through at most `most` fragments and leaves the source as it was.
    pub(super) fn look_through(&mut self, most: usize) -> Result<()> {
        let walk = self.top_level;
        let kept: Vec<_> = self
            .fragments
            .iter_mut()
            .map(|track| (std::mem::take(&mut track.runs), track.next_dts))
            .collect();
        for _ in 0..most {
            if self.index.complete {
                break;
            }
            self.extend_index()?;
        }
        self.top_level = walk;
        for (track, (runs, next_dts)) in self.fragments.iter_mut().zip(kept) {
            track.runs = runs;
            track.next_dts = next_dts;
        }
        Ok(())
    }

    /// Decode times behind the last samples of a file of too many fragments to look through: by the last of them, which are found
    /// from the end. `None` where the end has none that say their time.
    pub(super) fn ends_from_behind(&mut self) -> Result<Option<Vec<i64>>> {
        let Some(len) = self.reader.len().filter(|_| self.reader.is_seekable()) else {
            return Ok(None);
        };
        let here = (self.top_level, self.index.times.clone());
        let kept: Vec<_> = self
            .fragments
            .iter_mut()
            .map(|track| (std::mem::take(&mut track.runs), track.next_dts))
            .collect();
        let mut found = None;
        let mut window = FIRST_WINDOW;
        while found.is_none() && window <= LAST_WINDOW {
            let from = len.saturating_sub(window).max(here.0.position());
            self.reader.seek(from)?;
            let bytes = self.reader.read_up_to(window)?;
            for at in moofs(&bytes).take(MOST_TRIES) {
                let walk = TopLevel::from(from + at as u64);
                if let Some(ends) = self.walk_to_end(walk)? {
                    found = Some(ends);
                    break;
                }
            }
            if from <= here.0.position() {
                break;
            }
            window *= 4;
        }
        self.top_level = here.0;
        for (track, (runs, next_dts)) in self.fragments.iter_mut().zip(kept) {
            track.runs = runs;
            track.next_dts = next_dts;
        }
        Ok(found.filter(|ends| self.index.ends_at(ends)))
    }

    /// Decode times at the end of a walk over the last fragments; `None` where what stands there are none.
    fn walk_to_end(&mut self, walk: TopLevel) -> Result<Option<Vec<i64>>> {
        let times = self.index.times.clone();
        self.go_to_fragment(walk, &times);
        for _ in 0..MOST_LAST {
            match self.next_fragment() {
                Ok(true) => {
                    for track in &mut self.fragments {
                        track.runs.clear();
                    }
                }
                Ok(false) => {
                    let ends = self.fragments.iter().map(|track| track.next_dts);
                    return Ok(Some(ends.collect()));
                }
                Err(error) if error.is_content() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes one more fragment into the index. The source's own place is lost.
    fn extend_index(&mut self) -> Result<()> {
        let walk = self.index.next;
        let before = std::mem::take(&mut self.index.times);
        self.go_to_fragment(walk, &before);
        match self.next_fragment() {
            Ok(true) => {
                for (delay, track) in self.index.delays.iter_mut().zip(&self.fragments) {
                    *delay = composition_delay(&track.runs).max(*delay);
                }
                for (first, track) in self.index.firsts.iter_mut().zip(&self.fragments) {
                    let run = track.runs.front().filter(|_| first.is_none());
                    *first = first.or_else(|| run?.clone().next().map(|entry| entry.cts));
                }
                for (total, track) in self.index.totals.iter_mut().zip(&self.fragments) {
                    for (bytes, units) in track.runs.iter().map(Run::totals) {
                        *total = (total.0.saturating_add(bytes), total.1.saturating_add(units));
                    }
                }
                let tracks = self.fragments.iter_mut().zip(&before);
                let tracks = tracks.map(|(track, before)| TrackMark {
                    before: *before,
                    first_key: first_key(track),
                });
                let mark = Mark {
                    walk,
                    tracks: tracks.collect(),
                };
                if self.index.marks.len() * before.len() < MOST_MARKS {
                    self.index.marks.push(mark);
                }
                self.index.next = self.top_level;
                self.index.times = self.fragments.iter().map(|track| track.next_dts).collect();
                Ok(())
            }
            other => {
                self.index.times = before;
                match other {
                    // The damage is reported when delivery comes to it.
                    Err(error) if !error.is_content() => Err(error),
                    _ => {
                        self.index.complete = true;
                        Ok(())
                    }
                }
            }
        }
    }

    fn go_to_fragment(&mut self, walk: TopLevel, times: &[i64]) {
        self.top_level = walk;
        for (track, time) in self.fragments.iter_mut().zip(times) {
            track.next_dts = *time;
            track.runs.clear();
        }
    }

    /// Goes to a fragment in the index, or behind the movie box where there is none.
    fn go_to_mark(&mut self, mark: Option<usize>) {
        match mark.and_then(|mark| self.index.marks.get(mark)) {
            Some(mark) => {
                let times: Vec<i64> = mark.tracks.iter().map(|track| track.before).collect();
                self.go_to_fragment(mark.walk, &times);
            }
            None => {
                let walk = self.index.next;
                let times = self.index.times.clone();
                self.go_to_fragment(walk, &times);
            }
        }
    }

    pub(super) fn seek(&mut self, selected: &[bool], position: MediaTime) -> Result<()> {
        if !self.reader.is_seekable() {
            return Err(ErrorKind::NotSeekable {
                what: "starting an mp4 at another position".into(),
            }
            .into());
        }
        self.damage = None;
        self.pictures_delivered = 0;
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

    /// Looks for the last sample in fragments at which each selected stream can start, and goes to the earliest of them.
    fn seek_fragments(&mut self, selected: &[bool], position: MediaTime) -> Result<()> {
        // Media time of the position in each stream.
        let targets: Vec<i64> = self
            .streams
            .iter()
            .map(|stream| {
                let shift = stream
                    .fragment_shift
                    .0
                    .saturating_add(stream.composition_delay);
                stream.time_base.to_units(position).saturating_sub(shift)
            })
            .collect();
        let wanted: Vec<usize> = (0..self.streams.len()).filter(|i| selected[*i]).collect();
        while !self.index.complete
            && (self.index.marks.is_empty()
                || wanted.iter().any(|i| self.index.times[*i] <= targets[*i]))
        {
            self.extend_index()?;
        }
        if position <= MediaTime::ZERO {
            self.go_to_mark(Some(0));
            return Ok(());
        }
        let mut earliest: Option<usize> = None;
        for index in wanted {
            let target = targets[index].saturating_sub(self.streams[index].run_up());
            let starts = |mark: &Mark| {
                let key = mark.tracks[index].first_key;
                key.is_some_and(|key| key <= target)
            };
            let has_tables = self.streams[index].tables.count() > 0;
            let marks = &self.index.marks;
            let Some(mark) = marks.iter().rposition(starts).or_else(|| {
                let any = || {
                    marks
                        .iter()
                        .position(|m| m.tracks[index].first_key.is_some())
                };
                if has_tables { None } else { any() }
            }) else {
                continue;
            };
            self.go_to_mark(Some(mark));
            self.next_fragment()?;
            let mut found = None;
            for mut run in self.fragments[index].runs.drain(..) {
                while let Some(entry) = run.next() {
                    if entry.key && (entry.cts <= target || found.is_none()) {
                        found = Some(entry.dts);
                    }
                }
            }
            let place = &mut self.streams[index].place;
            place.fragments_from = found;
            // All samples of the tables lie before it.
            place.segment = usize::MAX;
            place.cursor = None;
            earliest = Some(earliest.map_or(mark, |before| before.min(mark)));
        }
        let in_tables = self.streams.iter().zip(selected).any(|(stream, selected)| {
            *selected && stream.tables.count() > 0 && stream.place.segment != usize::MAX
        });
        self.go_to_mark(earliest.filter(|_| !in_tables).or(Some(0)));
        Ok(())
    }

    /// Goes on with other streams selected: those that are new begin where the others are.
    pub(super) fn continue_with(&mut self, selected: &[bool]) {
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

/// Bytes at the end of the input in which the last fragments are looked for, at first,
const FIRST_WINDOW: u64 = 1 << 20;
/// and at last.
const LAST_WINDOW: u64 = 1 << 24;
/// What looks like a fragment and is tried.
const MOST_TRIES: usize = 64;
/// Fragments from the first one that was found there to the end.
const MOST_LAST: usize = 1 << 14;

/// Where boxes that may be fragments begin, in order.
fn moofs(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.windows(8).enumerate().filter_map(|(at, window)| {
        let size = u32::from_be_bytes([window[0], window[1], window[2], window[3]]);
        (window[4..] == *b"moof" && size >= 16 && at + size as usize <= bytes.len()).then_some(at)
    })
}

/// The most negative composition offset of the runs that were read, as a positive number.
pub(super) fn composition_delay(runs: &VecDeque<Run>) -> i64 {
    runs.iter()
        .flat_map(|run| {
            let mut run = run.clone();
            std::iter::from_fn(move || run.next())
        })
        .map(|entry| entry.dts.saturating_sub(entry.cts))
        // An offset of more than 2^28 units is a damaged entry, not reordering.
        .filter(|delay| *delay < 1 << 28)
        .max()
        .unwrap_or(0)
        .max(0)
}

/// Presentation time of the first sample of a fragment at which decoding can start; takes the fragment's runs.
fn first_key(track: &mut TrackState) -> Option<i64> {
    let mut first = None;
    for mut run in track.runs.drain(..) {
        while first.is_none()
            && let Some(entry) = run.next()
        {
            first = entry.key.then_some(entry.cts);
        }
    }
    first
}
