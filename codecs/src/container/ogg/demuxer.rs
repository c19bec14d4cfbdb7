//! Pages to samples: which streams there are, and how one link of a chain follows another.

use std::collections::VecDeque;

use bytes::Bytes;
use portcullis_engine::{
    ContentLimits, Error, MediaTime, MediaType, Result, Sample, StreamId, Subtype, keys,
};

use super::faults::Faults;
use super::logical::Logical;
use super::page::{Page, SEARCH_BUDGET};
use crate::container::reader::Reader;

/// Bytes behind the last page of all streams that are not worth an error.
const QUIET_TAIL: u64 = 4096;

/// Reads pages and hands out samples.
#[derive(Debug)]
pub(crate) struct Demuxer {
    pub(crate) reader: Reader,
    pub(crate) limits: ContentLimits,
    /// The logical streams of the present link, in the order of the presentation's streams.
    pub(crate) streams: Vec<Logical>,
    /// The headers that each stream's decoder has; at first those of the presentation.
    sent: Vec<Bytes>,
    queue: VecDeque<(StreamId, Sample)>,
    phase: Phase,
    /// Links that were begun.
    links: u64,
    /// What was passed over, to be told at the end.
    faults: Faults,
    /// Bytes of false pages that were looked at.
    searched: u64,
    /// The end, or what ends it: told after the queue is empty.
    end: Option<Result<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first pages of all streams of a link come together.
    Beginning,
    /// Headers and sound.
    Going,
}

impl Demuxer {
    /// Reads the headers of the first link.
    pub(crate) fn open(reader: Reader, limits: ContentLimits) -> Result<Self> {
        let mut demuxer = Self {
            reader,
            limits,
            streams: Vec::new(),
            sent: Vec::new(),
            queue: VecDeque::new(),
            phase: Phase::Beginning,
            links: 0,
            faults: Faults::default(),
            searched: 0,
            end: None,
        };
        demuxer.read_headers()?;
        demuxer.sent = demuxer
            .streams
            .iter()
            .map(|stream| stream.mapping.media_type.private_data().unwrap_or_default())
            .collect();
        Ok(demuxer)
    }

    /// The types of the streams.
    pub(crate) fn media_types(&self) -> impl Iterator<Item = &MediaType> {
        self.streams.iter().map(|s| &s.mapping.media_type)
    }

    /// The next sample of any stream; `None` at the end and after an error.
    pub(crate) fn next(&mut self) -> Result<Option<(StreamId, Sample)>> {
        loop {
            if let Some((id, sample)) = self.queue.pop_front() {
                if let Some(headers) = sample.attributes.get(&keys::PRIVATE_DATA)
                    && let Some(sent) = self.sent.get_mut(id.0 as usize)
                {
                    *sent = headers;
                }
                return Ok(Some((id, sample)));
            }
            match &mut self.end {
                Some(end) => return std::mem::replace(end, Ok(())).map(|()| None),
                None => match self.step() {
                    Ok(true) => {}
                    Ok(false) => {
                        let end = self.check_end();
                        self.end = Some(self.faults.take().map_or(end, Err));
                    }
                    Err(error) => self.end = Some(Err(self.faults.take().unwrap_or(error))),
                },
            }
        }
    }

    /// Goes back to the first byte and reads the first link again.
    pub(crate) fn rewind(&mut self) -> Result<()> {
        self.reader.seek(0)?;
        self.queue.clear();
        self.end = None;
        self.faults = Faults::default();
        self.streams.clear();
        self.links = 0;
        self.phase = Phase::Beginning;
        self.read_headers()
    }

    /// Goes on at a page within the first link.
    pub(crate) fn jump(&mut self, at: u64) -> Result<()> {
        self.reader.seek(at)?;
        self.queue.clear();
        self.end = None;
        self.faults = Faults::default();
        self.phase = Phase::Going;
        self.streams.iter_mut().for_each(Logical::jump);
        Ok(())
    }

    /// Goes to a link of the chain that begins at byte `at` and at `start`, and reads its headers.
    pub(crate) fn enter(&mut self, at: u64, start: MediaTime) -> Result<()> {
        if at == 0 || !self.is_ready() {
            self.rewind()?;
        }
        if at != 0 {
            self.reader.seek(at)?;
            self.queue.clear();
            self.end = None;
            self.faults = Faults::default();
            self.streams.iter_mut().for_each(|s| s.end_link(start));
            self.phase = Phase::Going;
            self.step()?;
            self.read_headers()?;
        }
        self.announce();
        Ok(())
    }

    /// Puts the headers of all streams on their next samples: what the decoders have is not known.
    pub(crate) fn announce(&mut self) {
        for stream in &mut self.streams {
            stream.decoder_has(Bytes::new());
        }
    }

    /// Whether this is still the first link, whose granule positions a search may use.
    pub(crate) fn in_first_link(&self) -> bool {
        self.links == 1
    }

    fn is_ready(&self) -> bool {
        let begun = self.phase == Phase::Going && !self.streams.is_empty();
        begun && self.streams.iter().all(|s| s.mapping.is_ready())
    }

    /// Reads until all streams of the first link have their headers. Sound of one that comes before another's headers is kept.
    fn read_headers(&mut self) -> Result<()> {
        let mut kept = 0;
        while !self.is_ready() {
            if self.streams.is_empty() {
                // Where the first pages are damaged a later link may do, but not anywhere.
                self.limits.check_header(self.reader.position())?;
            }
            let before = self.queue.len();
            match self.step() {
                Ok(true) => {}
                Ok(false) => {
                    let at = self.reader.position();
                    let missing = Error::truncated(at, "the headers of an Ogg stream");
                    return Err(self.faults.take().unwrap_or(missing));
                }
                // What was passed over may be why the header is not right.
                Err(error) => return Err(self.faults.take().unwrap_or(error)),
            }
            let new = self.queue.range(before..);
            kept += new.map(|(_, sample)| sample.len() as u64).sum::<u64>();
            self.limits.check_header(kept)?;
        }
        Ok(())
    }

    /// Takes one page; `false` at the end of the input.
    fn step(&mut self) -> Result<bool> {
        let page = match Page::read(&mut self.reader) {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(false),
            Err(error) if error.is_content() => return self.pass_over(error),
            Err(error) => return Err(error),
        };
        if page.begins() {
            self.begin(&page)?;
            return Ok(true);
        }
        self.phase = Phase::Going;
        let Some(index) = self.streams.iter().position(|s| s.serial == page.serial) else {
            let what = format!("a page of Ogg stream {:#x}, which never began", page.serial);
            self.faults.note(Error::malformed(page.at, what));
            return Ok(true);
        };
        let stream = &mut self.streams[index];
        if stream.ended {
            let what = format!("a page of Ogg stream {:#x} after its last", page.serial);
            self.faults.note(Error::malformed(page.at, what));
            return Ok(true);
        }
        stream.page(&page, &self.limits, &mut self.queue, &mut self.faults)?;
        Ok(true)
    }

    /// Goes on at the next whole page behind a damaged one; `false` where there is none.
    fn pass_over(&mut self, error: Error) -> Result<bool> {
        let at = self.reader.position();
        let is_page = self.reader.peek(4)? == b"OggS";
        // The work grows with what was read, not with what is claimed.
        let allowed = SEARCH_BUDGET.saturating_add(at.saturating_mul(4));
        let budget = allowed.saturating_sub(self.searched);
        let mut left = budget;
        let found = Page::find(&mut self.reader, at + 1, u64::MAX, &mut left)?;
        self.searched = self.searched.saturating_add(budget - left);
        let tail = self.reader.position() - at;
        let ended = self.is_ready() && self.streams.iter().all(|stream| stream.ended);
        // Padding, or a tag of another format, behind the last page of all streams.
        let no_page = found.is_none() && !is_page && left == budget;
        if !(no_page && ended && tail <= QUIET_TAIL) {
            self.faults.note(error);
        }
        Ok(found.is_some())
    }

    /// A first page: another stream of this link, or the next link of the chain.
    fn begin(&mut self, page: &Page) -> Result<()> {
        if self.phase == Phase::Going || self.links == 0 {
            if self.phase == Phase::Going {
                self.check_headers(page.at)?;
            }
            self.links += 1;
            self.phase = Phase::Beginning;
        }
        if self.streams.iter().any(|s| s.serial == page.serial) && self.links == 1 {
            return Err(Error::malformed(
                page.at,
                format!("Ogg stream {:#x} begins twice", page.serial),
            ));
        }
        if self.links == 1 {
            self.limits.check_tracks(self.streams.len() as u64 + 1)?;
            let index = self.streams.len();
            let mut first = Logical::begin(page, StreamId(index as u32), MediaTime::ZERO)?;
            if let Some(sent) = self.sent.get(index) {
                first.decoder_has(sent.clone());
            }
            self.streams.push(first);
            return Ok(());
        }
        let mut next = Logical::begin(page, StreamId(0), MediaTime::ZERO)?;
        let subtype = next.mapping.media_type.subtype;
        // The stream that the new one goes on is the first of its codec that was not yet gone on. Its decoder is told the
        // new headers; what they change of the sound the decoder says.
        let Some(old) = self
            .streams
            .iter_mut()
            .find(|old| old.ended && old.mapping.media_type.subtype == subtype)
        else {
            return Err(changed(page.at, subtype));
        };
        next = Logical::begin(page, old.id, old.time_base().to_time(old.end))?;
        if let Some(sent) = self.sent.get(old.id.0 as usize) {
            next.decoder_has(sent.clone());
        }
        *old = next;
        Ok(())
    }

    /// All streams of the link before must have had their headers.
    fn check_headers(&mut self, at: u64) -> Result<()> {
        if self.streams.iter().any(|s| !s.mapping.is_ready()) {
            return Err(Error::malformed(
                at,
                "the next link begins inside of an Ogg stream's headers",
            ));
        }
        if let Some(open) = self.streams.iter().find_map(Logical::open_at) {
            let what = "the next link begins inside of a packet";
            self.faults.note(Error::malformed(open, what));
        }
        // Times go on for all streams from where the longest one ends.
        let end = self
            .streams
            .iter()
            .map(|s| s.time_base().to_time(s.end))
            .max()
            .unwrap_or(MediaTime::ZERO);
        for stream in &mut self.streams {
            stream.ended = true;
            stream.end = stream.time_base().to_units(end);
        }
        Ok(())
    }

    fn check_end(&self) -> Result<()> {
        let at = self.reader.position();
        match self.streams.iter().find_map(Logical::open_at) {
            Some(open) => Err(Error::truncated(
                at,
                format!("the packet that begins at byte {open}"),
            )),
            None if self.is_ready() => Ok(()),
            None => Err(Error::truncated(at, "the headers of an Ogg stream")),
        }
    }
}

fn changed(at: u64, subtype: Subtype) -> Error {
    Error::unsupported_codec(
        subtype.name().to_owned(),
        format!("the Ogg link at byte {at} has another codec than those before"),
    )
}
