//! The media source over a demuxer: selection, positions, search by granule position.

use bytes::Bytes;
use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    Error, ErrorKind, MediaSource, MediaTime, PresentationDescriptor, Result, Sample,
    StreamDescriptor, StreamId, keys,
};

use super::demuxer::Demuxer;
use super::links::{self, Link};
use super::page::{MAX_PAGE, Page, SEARCH_BUDGET};
use super::position::IsBefore;

/// Samples of an Ogg file.
#[derive(Debug)]
pub(crate) struct OggSource {
    demuxer: Demuxer,
    presentation: PresentationDescriptor,
    selected: Vec<StreamId>,
    /// Where the present run starts; what lies before is dropped or marked as preroll.
    position: MediaTime,
    /// The latest time that was reached, for an input that cannot go back.
    reached: MediaTime,
    /// The input holds a chain of links.
    chained: bool,
    /// The links, where they could be told apart; otherwise only reading tells where the later ones are.
    links: Vec<Link>,
    /// Headers on samples that were dropped: for each stream, those that its next sample must carry.
    headers: Vec<(StreamId, Bytes)>,
}

impl OggSource {
    /// A source over a demuxer that stands behind its headers.
    pub(crate) fn new(mut demuxer: Demuxer) -> Result<Self> {
        let can_seek = demuxer.reader.is_seekable();
        let mut streams = Vec::new();
        for (index, media_type) in demuxer.media_types().enumerate() {
            let stream = &demuxer.streams[index];
            let mut descriptor =
                StreamDescriptor::new(stream.id, media_type.clone(), stream.time_base());
            descriptor.selected = stream.mapping.is_known();
            streams.push(descriptor);
        }
        let mut chained = false;
        if can_seek {
            let (last, begins) = last_granules(&mut demuxer)?;
            chained = begins;
            for (serial, granule) in last {
                match demuxer.streams.iter().position(|s| s.serial == serial) {
                    Some(index) if demuxer.streams[index].mapping.is_known() => {
                        let end = demuxer.streams[index].time_of(granule);
                        streams[index].duration = Some(end.max(MediaTime::ZERO));
                    }
                    Some(_) => {}
                    None => chained = true,
                }
            }
        }
        let mut links = Vec::new();
        if chained {
            if let Some(len) = demuxer.reader.len() {
                let max_streams = demuxer.limits.max_tracks as usize;
                links = links::find(&mut demuxer.reader, len, max_streams)?;
            }
            let end = links.last().map(|link| link.end);
            for stream in &mut streams {
                stream.duration = end.filter(|_| stream.selected);
            }
        }
        let presentation = PresentationDescriptor {
            format: "ogg".to_owned(),
            duration: streams.iter().filter_map(|s| s.duration).max(),
            characteristics: Characteristics {
                live: false,
                can_seek,
                can_pause: true,
            },
            streams,
            ..PresentationDescriptor::default()
        };
        Ok(Self {
            selected: presentation
                .streams
                .iter()
                .filter(|s| s.selected)
                .map(|s| s.id)
                .collect(),
            demuxer,
            presentation,
            position: MediaTime::from_ticks(i64::MIN),
            reached: MediaTime::from_ticks(i64::MIN),
            chained,
            links,
            headers: Vec::new(),
        })
    }

    fn go_to(&mut self, position: MediaTime) -> Result<()> {
        if !self.demuxer.reader.is_seekable() {
            // Going forward is reading; only going back is not possible.
            if position < self.reached {
                return Err(Error::new(ErrorKind::NotSeekable {
                    what: format!("Ogg at {}: going back to {position}", self.reached).into(),
                }));
            }
            return Ok(());
        }
        if let Some(duration) = self.presentation.duration
            && position > duration
        {
            return Err(Error::new(ErrorKind::InvalidPosition {
                position,
                duration,
            }));
        }
        // The times of a link begin anew, and its decoder does too: only the link itself is searched.
        let behind = self.links.partition_point(|link| link.start <= position);
        let Some(&link) = self.links.get(behind.saturating_sub(1)) else {
            return match self.search(position)? {
                Some(page) => self.demuxer.jump(page),
                None => self.demuxer.rewind(),
            };
        };
        self.demuxer.enter(link.at, link.start)?;
        let until = self.links.get(behind).map(|link| link.at);
        let until = until.or(self.demuxer.reader.len());
        if let Some(until) = until
            && let Some(page) = self.halve(position, self.demuxer.reader.position(), until)?
        {
            self.demuxer.jump(page)?;
            self.demuxer.announce();
            return Ok(());
        }
        self.demuxer.enter(link.at, link.start)
    }

    /// The last page from which reading finds everything at `position`, or `None` for the beginning.
    ///
    /// Halves the file between a page known to lie before and one known to lie behind.
    fn search(&mut self, position: MediaTime) -> Result<Option<u64>> {
        // The later links of a chain number their streams and times anew.
        if self.chained || !self.demuxer.in_first_link() {
            return Ok(None);
        }
        match self.demuxer.reader.len() {
            Some(len) => self.halve(position, 0, len),
            None => Ok(None),
        }
    }

    /// As [`Self::search`], within the link whose headers were read and which lies in `before..behind`.
    fn halve(
        &mut self,
        position: MediaTime,
        mut before: u64,
        mut behind: u64,
    ) -> Result<Option<u64>> {
        let streams = &self.demuxer.streams;
        let Some(guide) = streams
            .iter()
            .find(|s| s.mapping.is_known() && self.selected.contains(&s.id))
        else {
            return Ok(None);
        };
        let preroll = streams
            .iter()
            .map(|s| s.preroll())
            .max()
            .unwrap_or_default();
        let target = position - preroll;
        let (id, serial) = (guide.id, guide.serial);
        let mut found = None;
        while behind.saturating_sub(before) > MAX_PAGE as u64 {
            let middle = before + (behind - before) / 2;
            match self.page_of(serial, middle, behind)? {
                Some((at, granule)) if self.time_of(id, granule) <= target => {
                    found = Some(at);
                    before = at.max(middle);
                }
                _ => behind = middle,
            }
        }
        // The rest is read page by page.
        while let Some((at, granule)) = self.page_of(serial, before, behind)? {
            if self.time_of(id, granule) > target {
                break;
            }
            found = Some(at);
            before = at + 1;
        }
        Ok(found)
    }

    fn time_of(&self, id: StreamId, granule: u64) -> MediaTime {
        self.demuxer.streams[id.0 as usize].time_of(granule)
    }

    /// The first page of a stream in `from..until` that says where it ends, behind the headers.
    fn page_of(&mut self, serial: u32, from: u64, until: u64) -> Result<Option<(u64, u64)>> {
        let mut from = from;
        let mut budget = SEARCH_BUDGET;
        while let Some(page) = Page::find(&mut self.demuxer.reader, from, until, &mut budget)? {
            match page.granule {
                // Headers have position 0, and nothing ends there.
                Some(granule) if page.serial == serial && granule > 0 => {
                    return Ok(Some((page.at, granule)));
                }
                _ => from = page.end(),
            }
        }
        Ok(None)
    }
}

impl MediaSource for OggSource {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        if let Some(bad) = selected
            .iter()
            .find(|id| self.presentation.stream(**id).is_none())
        {
            return Err(Error::invalid_argument(format!("there is no stream {bad}")));
        }
        self.selected = selected.to_vec();
        if let Some(position) = position {
            self.go_to(position)?;
            self.position = position;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        while let Some((id, mut sample)) = self.demuxer.next()? {
            self.reached = self.reached.max(sample.time);
            self.chained |= !self.demuxer.in_first_link();
            if !self.selected.contains(&id) {
                continue;
            }
            let preroll = self.demuxer.streams[id.0 as usize].preroll();
            if self.position > MediaTime::ZERO {
                if sample.end_time() <= self.position - preroll {
                    if let Some(headers) = sample.attributes.get(&keys::PRIVATE_DATA) {
                        self.headers.retain(|(stream, _)| *stream != id);
                        self.headers.push((id, headers));
                    }
                    continue;
                }
                sample.flags.preroll = sample.is_before(self.position);
            }
            if let Some(at) = self.headers.iter().position(|(stream, _)| *stream == id) {
                let (_, headers) = self.headers.swap_remove(at);
                if sample.attributes.get(&keys::PRIVATE_DATA).is_none() {
                    sample.attributes.set(&keys::PRIVATE_DATA, headers);
                }
            }
            return Ok(Some((id, sample)));
        }
        Ok(None)
    }
}

/// The last granule position of each stream, and whether another link begins there, from the end of the input; the reader
/// is put back.
fn last_granules(demuxer: &mut Demuxer) -> Result<(Vec<(u32, u64)>, bool)> {
    let reader = &mut demuxer.reader;
    let here = reader.position();
    let mut last: Vec<(u32, u64)> = Vec::new();
    let mut begins = false;
    if let Some(len) = reader.len() {
        let mut from = len.saturating_sub(2 * MAX_PAGE as u64);
        let mut budget = SEARCH_BUDGET;
        while let Some(page) = Page::find(reader, from, len, &mut budget)? {
            from = page.end();
            // First pages at the begin of the input are those of the first link.
            begins |= page.begins() && page.at >= here;
            let Some(granule) = page.granule else {
                continue;
            };
            match last.iter().position(|(serial, _)| *serial == page.serial) {
                Some(index) => last[index].1 = granule,
                // A tail of pages of ever new streams would grow without bound.
                None if last.len() < demuxer.limits.max_tracks as usize => {
                    last.push((page.serial, granule));
                }
                None => {}
            }
        }
    }
    reader.seek(here)?;
    Ok((last, begins))
}
