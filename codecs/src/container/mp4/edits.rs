//! Edit lists: which samples a presentation shows, and when.
//!
//! The result is a list of segments, each a run of samples with one shift from media time to presentation time. The rules are
//! those of FFmpeg, so that the same samples come out: video begins at the key sample before the edit, sound one second before
//! it (a decoder needs a run-up), and samples outside of the edit are delivered but marked or trimmed.

use portcullis_engine::MajorType;

use super::tables::{Cursor, Tables};

/// One entry of an `elst` box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// In units of the movie; 0 for the rest of the media.
    pub(super) duration: u64,
    /// In units of the track; -1 for an empty edit.
    pub(super) media_time: i64,
}

/// A run of samples that is presented with one shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Presentation time at which it begins.
    pub(super) start: i64,
    /// Samples are shown from this media time on,
    pub(super) media_start: i64,
    /// and up to this one.
    pub(super) media_end: i64,
    /// What is added to media time to give presentation time.
    pub(super) shift: i64,
    /// Where delivery begins.
    pub(super) first: Cursor,
    /// Number of the sample behind the last one.
    pub(super) last: u32,
}

/// The presentation of one track.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    pub(super) segments: Vec<Segment>,
    /// Presentation time of the first segment, in units of the track.
    pub(super) start: i64,
    /// Length by the edit list without a leading empty edit, in units of the track; `None` where there is no edit list.
    pub(super) duration: Option<i64>,
}

/// Steps through sample tables that all edits of a track, or a search, may take: enough for any real file, and the end of one that
/// was made to be walked for ever.
pub(super) const MOST_STEPS: u64 = 1 << 26;

impl Timeline {
    /// All samples at their media time.
    pub(super) fn whole(tables: &Tables) -> Self {
        Self {
            segments: vec![Segment {
                start: i64::MIN,
                media_start: i64::MIN,
                media_end: i64::MAX,
                shift: 0,
                first: Cursor::default(),
                last: tables.count(),
            }],
            start: 0,
            duration: None,
        }
    }

    /// All samples moved by `shift`, for a file that fragments follow; those before `media_start` are not shown.
    pub(super) fn shifted(tables: &Tables, (shift, media_start): (i64, i64)) -> Self {
        let mut timeline = Self::whole(tables);
        for segment in &mut timeline.segments {
            segment.shift = shift;
            if media_start > 0 {
                segment.media_start = media_start;
            }
        }
        timeline
    }

    /// Applies an edit list to sample tables.
    pub(super) fn resolve(
        edits: &[Edit],
        tables: &Tables,
        major: MajorType,
        timescale: u32,
        movie_timescale: u32,
    ) -> Self {
        if edits.is_empty() || movie_timescale == 0 {
            return Self::whole(tables);
        }
        let mut timeline = Self {
            segments: Vec::new(),
            start: 0,
            duration: None,
        };
        let mut at = 0_i64;
        let mut steps = MOST_STEPS;
        for edit in edits {
            let duration = rescale(edit.duration, timescale, movie_timescale);
            if edit.media_time >= 0 {
                let found = segment(edit, duration, at, tables, major, timescale, &mut steps);
                timeline.segments.extend(found);
            }
            at = at.saturating_add(duration);
            if timeline.segments.is_empty() && edit.media_time < 0 {
                timeline.start = at;
            }
            if steps == 0 {
                break;
            }
        }
        if timeline.segments.is_empty() {
            // An edit list that shows nothing is damaged.
            return Self::whole(tables);
        }
        timeline.duration = Some(at.saturating_sub(timeline.start)).filter(|length| *length > 0);
        timeline
    }
}

/// The shift of a fragmented track, whose edit list can only say where its media begins: presentation = media + shift.
pub(super) fn fragment_shift(edits: &[Edit], timescale: u32, movie_timescale: u32) -> (i64, i64) {
    let mut start = 0;
    for edit in edits {
        if edit.media_time >= 0 {
            return (start - edit.media_time, edit.media_time);
        }
        if movie_timescale > 0 {
            start = rescale(edit.duration, timescale, movie_timescale);
        }
    }
    (start, 0)
}

fn segment(
    edit: &Edit,
    duration: i64,
    at: i64,
    tables: &Tables,
    major: MajorType,
    timescale: u32,
    steps: &mut u64,
) -> Option<Segment> {
    let media_start = edit.media_time;
    let media_end = match duration {
        0 => i64::MAX,
        duration => media_start.saturating_add(duration),
    };
    let is_audio = major == MajorType::Audio;
    let search = if is_audio {
        media_start.saturating_sub(i64::from(timescale))
    } else {
        media_start
    };
    let mut segment = Segment {
        start: at,
        media_start,
        media_end,
        shift: at.saturating_sub(media_start),
        first: last_key_before(tables, search, steps),
        last: tables.count(),
    };
    let mut earliest: Option<i64> = None;
    let mut key_after_end = false;
    let mut cursor = segment.first;
    while let Some(entry) = cursor.next(tables) {
        *steps = steps.saturating_sub(1);
        let end = entry.cts.saturating_add(entry.duration);
        let partial = is_audio && end > media_start && entry.cts < media_start;
        if partial || (media_start..media_end).contains(&entry.cts) {
            earliest = Some(earliest.map_or(entry.cts, |time| time.min(entry.cts)));
        }
        if end >= media_end && (entry.key || is_audio) {
            // Pictures that are shown before this key sample may follow it.
            if !is_audio && tables.has_composition() && !key_after_end {
                key_after_end = true;
                continue;
            }
            segment.last = cursor.index();
            break;
        }
    }
    let earliest = earliest?;
    if major == MajorType::Video {
        segment.shift = at.saturating_sub(earliest);
    }
    Some(segment)
}

/// The last sample at which decoding can start and that is presented at or before `time`; the first one where there is none.
pub(super) fn last_key_before(tables: &Tables, time: i64, steps: &mut u64) -> Cursor {
    let mut found = Cursor::default();
    let mut cursor = found;
    loop {
        let here = cursor;
        match cursor.next(tables) {
            Some(entry) if entry.dts <= time && *steps > 0 => {
                *steps -= 1;
                if entry.key && entry.cts <= time {
                    found = here;
                }
            }
            _ => return found,
        }
    }
}

/// `value` of `from` units a second in units of `to` a second, rounded to the nearest, saturating.
pub(super) fn rescale(value: u64, to: u32, from: u32) -> i64 {
    let from = u128::from(from.max(1));
    let scaled = (u128::from(value) * u128::from(to) + from / 2) / from;
    i64::try_from(scaled).unwrap_or(i64::MAX)
}
