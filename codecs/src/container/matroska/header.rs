//! What stands before the first cluster: the document's type, the segment's information, its tracks, where its index is.

use portcullis_engine::{ContentLimits, Error, MediaTime, Result, TimeBase};

use super::ebml::{Children, Element};
use super::ids;
use super::track::Track;
use crate::container::reader::Reader;

/// A segment up to its first cluster.
#[derive(Debug)]
pub(crate) struct Header {
    /// Byte position that positions in the segment count from.
    pub(crate) data_at: u64,
    /// Where the segment ends, where it says.
    pub(crate) end: Option<u64>,
    /// Length of a unit of timestamps in nanoseconds.
    pub(crate) scale: u32,
    /// Length of the presentation.
    pub(crate) duration: Option<MediaTime>,
    pub(crate) title: Option<String>,
    pub(crate) tracks: Vec<Track>,
    /// Byte position of the index, where something says it.
    pub(crate) cues_at: Option<u64>,
    /// Byte position of the first cluster, or of the end of what there is.
    pub(crate) clusters_at: u64,
    duration_units: Option<f64>,
    tags_at: Option<u64>,
    /// Lengths of tracks by their tags, by the track's unique number.
    track_durations: Vec<(u64, MediaTime)>,
    tracks_at: Option<u64>,
}

impl Header {
    /// Reads up to the first cluster, before which the reader is left.
    pub(crate) fn read(reader: &mut Reader, limits: &ContentLimits) -> Result<Self> {
        check_document(reader, limits)?;
        let segment = loop {
            match Element::peek(reader)? {
                Some(element) if element.id == ids::SEGMENT => break element,
                // Padding and checksums may stand anywhere.
                Some(element) if element.id == 0xEC || element.id == 0xBF => {
                    element.skip(reader)?
                }
                Some(element) => {
                    return Err(Error::malformed(
                        element.at,
                        format!("element {:#X} where the segment should begin", element.id),
                    ));
                }
                None => return Err(Error::truncated(reader.position(), "the document's header")),
            }
        };
        segment.enter(reader)?;
        let mut header = Self {
            data_at: segment.data_at,
            end: segment.known_end(),
            scale: 1_000_000,
            duration: None,
            title: None,
            tracks: Vec::new(),
            cues_at: None,
            clusters_at: 0,
            duration_units: None,
            tags_at: None,
            track_durations: Vec::new(),
            tracks_at: None,
        };
        header.read_elements(reader, limits)?;
        header.clusters_at = reader.position();
        header.read_late_tracks(reader, limits)?;
        header.read_late_tags(reader, limits)?;
        if header.tracks.is_empty() {
            return Err(match reader.at_end()? {
                true => Error::truncated(reader.position(), "the segment's header"),
                false => Error::malformed(reader.position(), "a cluster before any track"),
            });
        }
        let ticks = |units: f64| (units * f64::from(header.scale) / 100.0).round();
        header.duration = header
            .duration_units
            .map(|units| MediaTime::from_ticks(ticks(units) as i64))
            .filter(|&duration| duration > MediaTime::ZERO);
        for (uid, duration) in std::mem::take(&mut header.track_durations) {
            let mut tracks = header.tracks.iter_mut();
            if let Some(track) = tracks.find(|track| track.uid == uid) {
                track.duration = Some(duration);
            }
        }
        let scale = header.scale;
        header
            .tracks
            .iter_mut()
            .for_each(|track| track.set_scale(scale));
        Ok(header)
    }

    /// The unit of timestamps, as a fraction in lowest terms.
    pub(crate) fn time_base(&self) -> TimeBase {
        let (mut a, mut b) = (self.scale, 1_000_000_000);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        // The scale is not zero, so neither is the divisor.
        TimeBase::new(self.scale / a, 1_000_000_000 / a).unwrap_or(TimeBase::TICKS)
    }

    fn read_elements(&mut self, reader: &mut Reader, limits: &ContentLimits) -> Result<()> {
        let mut held = 0;
        while self.end.is_none_or(|end| reader.position() < end) {
            let Some(element) = Element::peek(reader)? else {
                break;
            };
            match element.id {
                ids::CLUSTER => break,
                ids::SEEK_HEAD | ids::INFO | ids::TRACKS | ids::TAGS => {
                    let content = element.read(reader, limits.max_header_bytes)?;
                    held += content.len() as u64;
                    limits.check_header(held)?;
                    let children = Children::new(&content, element.data_at);
                    match element.id {
                        ids::SEEK_HEAD => self.seek_head(children)?,
                        ids::INFO => self.info(children)?,
                        // What is wrong in tags keeps nobody from playing.
                        ids::TAGS => self.tags(children).unwrap_or_default(),
                        _ => self.track_entries(children, limits)?,
                    }
                }
                _ => {
                    if element.id == ids::CUES {
                        self.cues_at = Some(element.at);
                    }
                    element.skip(reader)?;
                }
            }
        }
        Ok(())
    }

    /// Tracks that stand behind the clusters, which only a seek head tells.
    fn read_late_tracks(&mut self, reader: &mut Reader, limits: &ContentLimits) -> Result<()> {
        let (true, Some(at), true) = (self.tracks.is_empty(), self.tracks_at, reader.is_seekable())
        else {
            return Ok(());
        };
        reader.seek(at)?;
        if let Some(element) = Element::peek(reader)?.filter(|e| e.id == ids::TRACKS) {
            let content = element.read(reader, limits.max_header_bytes)?;
            self.track_entries(Children::new(&content, element.data_at), limits)?;
        }
        reader.seek(self.clusters_at)
    }

    /// Tags that stand behind the clusters. What is wrong there is no matter: they only say how long each track is.
    fn read_late_tags(&mut self, reader: &mut Reader, limits: &ContentLimits) -> Result<()> {
        let late = self.tags_at.filter(|at| *at > self.clusters_at);
        let (Some(at), true) = (late, reader.is_seekable()) else {
            return Ok(());
        };
        let mut read = || -> Result<()> {
            reader.seek(at)?;
            if let Some(element) = Element::peek(reader)?.filter(|e| e.id == ids::TAGS) {
                let content = element.read(reader, limits.max_header_bytes)?;
                self.tags(Children::new(&content, element.data_at))?;
            }
            Ok(())
        };
        match read() {
            Err(error) if !error.is_content() => return Err(error),
            _ => {}
        }
        reader.seek(self.clusters_at)
    }

    fn tags(&mut self, mut children: Children<'_>) -> Result<()> {
        while let Some(tag) = children.next()? {
            if tag.element.id != ids::TAG {
                continue;
            }
            let (mut uid, mut duration) = (0, None);
            let mut fields = tag.children();
            while let Some(field) = fields.next()? {
                let mut parts = field.children();
                match field.element.id {
                    ids::TARGETS => {
                        while let Some(part) = parts.next()? {
                            if part.element.id == ids::TAG_TRACK_UID {
                                uid = part.unsigned()?;
                            }
                        }
                    }
                    ids::SIMPLE_TAG => {
                        let (mut name, mut text) = (String::new(), String::new());
                        while let Some(part) = parts.next()? {
                            match part.element.id {
                                ids::TAG_NAME => name = part.text(),
                                ids::TAG_STRING => text = part.text(),
                                _ => {}
                            }
                        }
                        if name == "DURATION" {
                            duration = clock_time(&text).or(duration);
                        }
                    }
                    _ => {}
                }
            }
            if let (Some(duration), 1..) = (duration, uid)
                && self.track_durations.len() < MOST_TAGS
            {
                self.track_durations.push((uid, duration));
            }
        }
        Ok(())
    }

    fn seek_head(&mut self, mut children: Children<'_>) -> Result<()> {
        while let Some(seek) = children.next()? {
            if seek.element.id != ids::SEEK {
                continue;
            }
            let (mut id, mut position) = (0, None);
            let mut fields = seek.children();
            while let Some(field) = fields.next()? {
                match field.element.id {
                    ids::SEEK_ID => id = field.unsigned()?,
                    ids::SEEK_POSITION => position = Some(field.unsigned()?),
                    _ => {}
                }
            }
            let at = position.and_then(|position| self.data_at.checked_add(position));
            match u32::try_from(id) {
                Ok(ids::CUES) => self.cues_at = self.cues_at.or(at),
                Ok(ids::TRACKS) => self.tracks_at = at,
                Ok(ids::TAGS) => self.tags_at = at,
                _ => {}
            }
        }
        Ok(())
    }

    fn info(&mut self, mut children: Children<'_>) -> Result<()> {
        while let Some(child) = children.next()? {
            match child.element.id {
                ids::TIMESTAMP_SCALE => match child.small()? {
                    0 => {
                        return Err(Error::malformed(
                            child.element.at,
                            "timestamps in units of no time",
                        ));
                    }
                    scale => self.scale = scale,
                },
                ids::DURATION => self.duration_units = Some(child.real()?),
                ids::TITLE => self.title = Some(child.text()),
                _ => {}
            }
        }
        Ok(())
    }

    fn track_entries(&mut self, mut children: Children<'_>, limits: &ContentLimits) -> Result<()> {
        if !self.tracks.is_empty() {
            // Tracks may be repeated, for receivers that come later.
            return Ok(());
        }
        while let Some(entry) = children.next()? {
            if entry.element.id == ids::TRACK_ENTRY {
                limits.check_tracks(self.tracks.len() as u64 + 1)?;
                let track = Track::parse(&entry)?;
                if self.tracks.iter().any(|other| other.number == track.number) {
                    return Err(Error::malformed(
                        entry.element.at,
                        format!("track number {} is there twice", track.number),
                    ));
                }
                self.tracks.push(track);
            }
        }
        Ok(())
    }
}

/// Tags that are kept: as many as there may be tracks.
const MOST_TAGS: usize = 1 << 10;

/// A length such as `00:00:03.033000000`, as FFmpeg and mkvmerge write it; zero is none.
fn clock_time(text: &str) -> Option<MediaTime> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let mut parts = whole.split(':').map(|part| part.parse::<u32>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let digits: String = fraction.chars().chain("0000000".chars()).take(7).collect();
    let ticks: i64 = digits.parse().ok().filter(|ticks| *ticks >= 0)?;
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
    let time = MediaTime::from_ticks(seconds * MediaTime::TICKS_PER_SECOND + ticks);
    (parts.next().is_none() && time > MediaTime::ZERO).then_some(time)
}

/// The EBML header: this must be Matroska or WebM, of a version that can be read.
fn check_document(reader: &mut Reader, limits: &ContentLimits) -> Result<()> {
    let element = Element::peek(reader)?
        .ok_or_else(|| Error::truncated(reader.position(), "the EBML header"))?;
    let refuse = |what: String| Err(Error::malformed(element.at, what));
    if element.id != ids::EBML {
        return refuse("no EBML header".to_owned());
    }
    let content = element.read(reader, limits.max_header_bytes.min(1 << 16))?;
    let mut children = Children::new(&content, element.data_at);
    let mut document = "matroska".to_owned();
    while let Some(child) = children.next()? {
        match child.element.id {
            ids::DOC_TYPE => document = child.text(),
            ids::DOC_TYPE_READ_VERSION if child.unsigned()? > 4 => {
                return refuse(format!(
                    "Matroska that only readers of version {} can read",
                    child.unsigned()?
                ));
            }
            ids::EBML_MAX_ID_LENGTH if child.unsigned()? > 4 => {
                return refuse("EBML with ids of more than 4 bytes".to_owned());
            }
            ids::EBML_MAX_SIZE_LENGTH if child.unsigned()? > 8 => {
                return refuse("EBML with sizes of more than 8 bytes".to_owned());
            }
            _ => {}
        }
    }
    match document.as_str() {
        "matroska" | "webm" => Ok(()),
        other => refuse(format!("EBML document of type {other:?}, not Matroska")),
    }
}

/// A place in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cue {
    /// In units of timestamps.
    pub(crate) time: u64,
    /// The track's number.
    pub(crate) track: u64,
    /// Byte position of the cluster.
    pub(crate) cluster_at: u64,
}

/// Reads the index at `at`; positions count from `data_at`. What is no index is an empty one.
pub(crate) fn read_cues(
    reader: &mut Reader,
    at: u64,
    data_at: u64,
    limits: &ContentLimits,
) -> Result<Vec<Cue>> {
    reader.seek(at)?;
    let Some(element) = Element::peek(reader)?.filter(|e| e.id == ids::CUES) else {
        return Ok(Vec::new());
    };
    let content = element.read(reader, limits.max_header_bytes)?;
    let mut cues = Vec::new();
    let mut points = Children::new(&content, element.data_at);
    while let Some(point) = points.next()? {
        if point.element.id != ids::CUE_POINT {
            continue;
        }
        let mut time = 0;
        let mut fields = point.children();
        while let Some(field) = fields.next()? {
            match field.element.id {
                ids::CUE_TIME => time = field.unsigned()?,
                ids::CUE_TRACK_POSITIONS => {
                    let (mut track, mut cluster) = (0, None);
                    let mut positions = field.children();
                    while let Some(position) = positions.next()? {
                        match position.element.id {
                            ids::CUE_TRACK => track = position.unsigned()?,
                            ids::CUE_CLUSTER_POSITION => cluster = Some(position.unsigned()?),
                            _ => {}
                        }
                    }
                    if let Some(at) = cluster.and_then(|at| data_at.checked_add(at)) {
                        let cluster_at = at;
                        cues.push(Cue {
                            time,
                            track,
                            cluster_at,
                        });
                    }
                }
                _ => {}
            }
        }
    }
    cues.sort_unstable();
    Ok(cues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_tags() {
        let ticks = |text| clock_time(text).map(MediaTime::ticks);
        assert_eq!(ticks("00:00:03.033000000"), Some(30_330_000));
        assert_eq!(ticks("01:00:01"), Some(36_010_000_000));
        for text in [
            "",
            "3",
            "0:0",
            "00:00:00.000000000",
            "a:b:c",
            "0:0:1.-5",
            "1:2:3:4",
        ] {
            assert_eq!(ticks(text), None, "{text}");
        }
    }
}
