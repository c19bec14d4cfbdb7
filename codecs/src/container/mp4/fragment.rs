//! Movie fragments: `moof` boxes to runs of samples.
//!
//! A run keeps its table as it is in the file; samples are made from it one at a time.

use std::collections::VecDeque;

use portcullis_engine::{ContentLimits, Error, Result};

use super::data::Data;
use super::protection::{IvSizes, KeyGroupRuns, KeyGroups, check_senc, piff_senc};
use super::tables::{Entry, Table};

/// What a fragment leaves unsaid about its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) description: u32,
    pub(super) duration: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// What reading fragments needs to know of a track and remembers of it.
#[derive(Debug)]
pub(super) struct TrackState {
    pub(super) id: u32,
    /// From `trex`; a track without it has no fragments.
    pub(super) defaults: Option<Defaults>,
    /// Whether every sample can be decoded alone whatever its flags say.
    pub(super) all_sync: bool,
    /// IV size of each sample description; `None` for clear ones.
    pub(super) iv_sizes: Vec<Option<u8>>,
    pub(super) key_groups: Option<KeyGroups>,
    /// Decode time behind the last sample, for a fragment that does not say its own.
    pub(super) next_dts: i64,
    /// Runs that were not delivered yet.
    pub(super) runs: VecDeque<Run>,
}

/// What the samples of a fragment must keep to.
#[derive(Debug)]
pub(super) struct Bounds<'a> {
    /// The input's length, where it is known.
    pub(super) len: Option<u64>,
    pub(super) limits: &'a ContentLimits,
}

/// One `trun` box, with how far it was walked.
#[derive(Clone, Debug)]
pub(super) struct Run {
    table: Table,
    flags: u32,
    count: u32,
    defaults: Defaults,
    first_flags: Option<u32>,
    all_sync: bool,
    index: u32,
    offset: u64,
    dts: i64,
}

const HAS_OFFSET: u32 = 0x1;
const HAS_FIRST_FLAGS: u32 = 0x4;
const HAS_DURATION: u32 = 0x100;
const HAS_SIZE: u32 = 0x200;
const HAS_FLAGS: u32 = 0x400;
const HAS_COMPOSITION: u32 = 0x800;
/// Sample flags that say that decoding cannot start here: not a sync sample, or depends on others.
const NOT_KEY: u32 = 0x0101_0000;
/// Samples that a run without a table may have, which nothing in its box bounds,
const MOST_UNIFORM: u32 = 1 << 22;
/// and how many of no bytes: more of them are an attack, not media.
const MOST_EMPTY: u32 = 16;

/// Runs of one track that wait; real fragments have one or two.
const MOST_RUNS: usize = 1 << 14;

impl TrackState {
    /// A sample was lost or passed over: where all that follow in its run are like it, so are they.
    pub(super) fn pass_over(&mut self) {
        if let Some(run) = self.runs.front()
            && run.table.len() == 0
            && run.index > 1
        {
            self.runs.pop_front();
        }
    }
}

impl Run {
    /// Frames a second over the whole run.
    pub(super) fn frame_rate(&self, timescale: u32) -> Option<(u32, u32)> {
        let (_, end) = end_of(self);
        frame_rate(self.count - self.index, timescale, end - self.dts)
    }

    /// Bytes and units of what follows.
    pub(super) fn totals(&self) -> (u64, i64) {
        let (offset, end) = end_of(self);
        (
            offset.saturating_sub(self.offset),
            end.saturating_sub(self.dts),
        )
    }

    /// The next sample.
    pub(super) fn next(&mut self) -> Option<Entry> {
        if self.index >= self.count {
            return None;
        }
        let index = self.index;
        let mut offset = 0;
        let mut field = |flag: u32| {
            if self.flags & flag == 0 {
                return None;
            }
            let word = self.table.word(index, offset);
            offset += 4;
            word
        };
        let duration = field(HAS_DURATION).unwrap_or(self.defaults.duration);
        let size = field(HAS_SIZE).unwrap_or(self.defaults.size);
        let mut flags = field(HAS_FLAGS).unwrap_or(self.defaults.flags);
        let shift = field(HAS_COMPOSITION).unwrap_or(0) as i32;
        if let (0, Some(first)) = (index, self.first_flags) {
            flags = first;
        }
        let entry = Entry {
            index,
            offset: self.offset,
            size: size.into(),
            dts: self.dts,
            cts: self.dts.saturating_add(shift.into()),
            duration: duration.into(),
            key: self.all_sync || flags & NOT_KEY == 0,
            description: self.defaults.description,
        };
        self.index += 1;
        self.offset = self.offset.saturating_add(entry.size);
        self.dts = self.dts.saturating_add(entry.duration);
        Some(entry)
    }
}

/// Reads the content of a `moof` box that begins at byte `moof`, and appends its runs to the tracks.
///
/// `bounds` are those that the samples must keep.
pub(super) fn parse(
    mut content: Data,
    moof: u64,
    tracks: &mut [TrackState],
    bounds: &Bounds<'_>,
) -> Result<()> {
    // Where the data of a track fragment begins that does not say so itself: behind that of the one before.
    let mut implicit = moof;
    while let Some((kind, data)) = content.child()? {
        if kind == *b"traf" {
            track_fragment(data, moof, &mut implicit, tracks, bounds)?;
        }
    }
    Ok(())
}

fn track_fragment(
    traf: Data,
    moof: u64,
    implicit: &mut u64,
    tracks: &mut [TrackState],
    bounds: &Bounds<'_>,
) -> Result<()> {
    let mut header = None;
    let mut start = None;
    let mut boxes = traf.clone();
    while let Some((kind, mut data)) = boxes.child()? {
        match &kind {
            b"tfhd" => header = Some(Header::parse(data)?),
            b"tfdt" => {
                let (version, _) = data.version_and_flags()?;
                let time = data.unsigned(version == 1)?;
                start = Some(i64::try_from(time).map_err(|_| {
                    data.malformed(format!("a fragment that begins at time {time}"))
                })?);
            }
            _ => {}
        }
    }
    let Some(header) = header else {
        return Err(traf.malformed("a track fragment without a header"));
    };
    let Some(track) = tracks.iter_mut().find(|track| track.id == header.track) else {
        // Its data still lies before that of the next track fragment, but nobody can say how long it is.
        return Ok(());
    };
    let Some(mut defaults) = track.defaults else {
        return Err(traf.malformed(format!("track {} has no fragment defaults", track.id)));
    };
    defaults.description = header.description.unwrap_or(defaults.description);
    defaults.duration = header.duration.unwrap_or(defaults.duration);
    defaults.size = header.size.unwrap_or(defaults.size);
    defaults.flags = header.flags.unwrap_or(defaults.flags);
    let base = match header.base {
        Some(base) => base,
        None if header.from_moof => moof,
        None => *implicit,
    };

    let first_run = track.runs.len();
    let mut dts = start.unwrap_or(track.next_dts);
    let mut offset = base;
    let mut boxes = traf.clone();
    while let Some((kind, data)) = boxes.child()? {
        if kind == *b"trun" {
            if track.runs.len() >= MOST_RUNS {
                return Err(Error::limit("runs", MOST_RUNS as u64, MOST_RUNS as u64 + 1)
                    .because(format!("a run at byte {}", data.position())));
            }
            let all_sync = track.all_sync;
            let run = parse_run(data, base, offset, dts, defaults, all_sync, bounds)?;
            (offset, dts) = (run.end_offset, run.end_dts);
            track.runs.push_back(run.run);
        }
    }
    *implicit = offset;
    track.next_dts = dts;
    check_protection(traf, track, first_run, defaults.description)
}

/// Checks what the fragment says of its samples' encryption.
fn check_protection(
    mut traf: Data,
    track: &TrackState,
    first_run: usize,
    description: u32,
) -> Result<()> {
    let default = (description as usize)
        .checked_sub(1)
        .and_then(|entry| track.iv_sizes.get(entry).copied())
        .flatten();
    let mut ivs = IvSizes {
        default,
        track: track.key_groups.as_ref(),
        ..IvSizes::default()
    };
    let mut encryption = None;
    while let Some((kind, data)) = traf.child()? {
        match &kind {
            b"senc" => encryption = Some(data),
            b"uuid" => {
                if let Some(data) = piff_senc(data)? {
                    encryption.get_or_insert(data);
                }
            }
            b"sgpd" => ivs.local = KeyGroups::parse(data)?.or(ivs.local),
            b"sbgp" => ivs.runs = KeyGroupRuns::parse(data)?.or(ivs.runs),
            _ => {}
        }
    }
    let Some(encryption) = encryption.filter(|_| default.is_some()) else {
        return Ok(());
    };
    let runs = track.runs.range(first_run..);
    let samples = runs.clone().map(|run| u64::from(run.count)).sum();
    let sizes = runs.flat_map(|run| {
        let mut run = run.clone();
        std::iter::from_fn(move || run.next().map(|entry| entry.size))
    });
    check_senc(encryption, &ivs, samples, sizes)
}

struct Header {
    track: u32,
    base: Option<u64>,
    from_moof: bool,
    description: Option<u32>,
    duration: Option<u32>,
    size: Option<u32>,
    flags: Option<u32>,
}

impl Header {
    fn parse(mut data: Data) -> Result<Self> {
        let (_, flags) = data.version_and_flags()?;
        let track = data.u32()?;
        let base = if flags & 1 != 0 {
            Some(data.u64()?)
        } else {
            None
        };
        let mut field = |flag: u32| -> Result<Option<u32>> {
            if flags & flag == 0 {
                return Ok(None);
            }
            data.u32().map(Some)
        };
        Ok(Self {
            track,
            base,
            from_moof: flags & 0x2_0000 != 0,
            description: field(2)?,
            duration: field(8)?,
            size: field(0x10)?,
            flags: field(0x20)?,
        })
    }
}

struct ParsedRun {
    run: Run,
    end_offset: u64,
    end_dts: i64,
}

fn parse_run(
    mut data: Data,
    base: u64,
    follows: u64,
    dts: i64,
    defaults: Defaults,
    all_sync: bool,
    bounds: &Bounds<'_>,
) -> Result<ParsedRun> {
    let (_, flags) = data.version_and_flags()?;
    let at = data.position();
    let mut count = data.u32()?;
    let offset = if flags & HAS_OFFSET != 0 {
        let here = data.position();
        let offset = data.i32()?;
        base.checked_add_signed(offset.into()).ok_or_else(|| {
            Error::malformed(here, format!("a run at {offset} bytes from byte {base}"))
        })?
    } else {
        follows
    };
    let first_flags = if flags & HAS_FIRST_FLAGS != 0 {
        Some(data.u32()?)
    } else {
        None
    };
    let fields = [HAS_DURATION, HAS_SIZE, HAS_FLAGS, HAS_COMPOSITION];
    let entry = fields.iter().filter(|field| flags & **field != 0).count() * 4;
    let table = if entry == 0 {
        Table::default()
    } else {
        Table::counted(&mut data, count, entry)?
    };
    if flags & HAS_SIZE == 0 && entry == 0 {
        // Nothing in the box bounds the count: the input does.
        if count > MOST_UNIFORM || (defaults.size == 0 && count > MOST_EMPTY) {
            return Err(Error::malformed(
                at,
                format!("{count} samples of {} bytes without a table", defaults.size),
            ));
        }
        bounds
            .limits
            .check_sample(defaults.size.into())
            .map_err(|error| error.because(format!("a run at byte {at}")))?;
        if let (Some(len), 1..) = (bounds.len, defaults.size) {
            let most = len.saturating_sub(offset) / u64::from(defaults.size) + 1;
            count = count.min(u32::try_from(most).unwrap_or(u32::MAX));
        }
    }
    let run = Run {
        table,
        flags,
        count,
        defaults,
        first_flags,
        all_sync,
        index: 0,
        offset,
        dts,
    };
    let (end_offset, end_dts) = end_of(&run);
    if i64::try_from(end_offset).is_err() {
        return Err(Error::malformed(
            at,
            format!("a run that ends at byte {end_offset}"),
        ));
    }
    Ok(ParsedRun {
        run,
        end_offset,
        end_dts,
    })
}

/// Where the data and the time of a run end.
fn end_of(run: &Run) -> (u64, i64) {
    if run.flags & (HAS_SIZE | HAS_DURATION) == 0 {
        let count = u64::from(run.count);
        let bytes = count * u64::from(run.defaults.size);
        let time = count.saturating_mul(run.defaults.duration.into());
        return (
            run.offset.saturating_add(bytes),
            run.dts
                .saturating_add(i64::try_from(time).unwrap_or(i64::MAX)),
        );
    }
    let mut walk = run.clone();
    while walk.next().is_some() {}
    (walk.offset, walk.dts)
}

/// `count` frames in `total` units of `timescale` a second, as a ratio.
pub(super) fn frame_rate(count: u32, timescale: u32, total: i64) -> Option<(u32, u32)> {
    let total = u64::try_from(total).ok().filter(|total| *total > 0)?;
    let frames = u64::from(count) * u64::from(timescale);
    let divisor = gcd(frames, total);
    let (numerator, denominator) = (frames.checked_div(divisor)?, total.checked_div(divisor)?);
    let rate = (
        u32::try_from(numerator).ok()?,
        u32::try_from(denominator).ok()?,
    );
    (rate.0 > 0).then_some(rate)
}

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
