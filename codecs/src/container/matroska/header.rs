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
            tracks_at: None,
        };
        header.read_elements(reader, limits)?;
        header.clusters_at = reader.position();
        header.read_late_tracks(reader, limits)?;
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
                ids::SEEK_HEAD | ids::INFO | ids::TRACKS => {
                    let content = element.read(reader, limits.max_header_bytes)?;
                    held += content.len() as u64;
                    limits.check_header(held)?;
                    let children = Children::new(&content, element.data_at);
                    match element.id {
                        ids::SEEK_HEAD => self.seek_head(children)?,
                        ids::INFO => self.info(children)?,
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
