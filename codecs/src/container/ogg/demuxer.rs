//! Pages to samples: which streams there are, and how one link of a chain follows another.

use std::collections::VecDeque;

use portcullis_engine::{
    ContentLimits, Error, MediaTime, MediaType, Result, Sample, StreamId, Subtype,
};

use super::logical::Logical;
use super::page::Page;
use crate::container::reader::Reader;

/// Reads pages and hands out samples.
#[derive(Debug)]
pub(crate) struct Demuxer {
    pub(crate) reader: Reader,
    pub(crate) limits: ContentLimits,
    /// The logical streams of the present link, in the order of the presentation's streams.
    pub(crate) streams: Vec<Logical>,
    /// What each stream of the presentation is, from the first link.
    accepted: Vec<Accepted>,
    queue: VecDeque<(StreamId, Sample)>,
    phase: Phase,
    /// Links that were begun.
    links: u64,
    /// The end, or what ends it: told after the queue is empty.
    end: Option<Result<()>>,
}

/// What a later link must be like.
#[derive(Debug)]
struct Accepted {
    subtype: Subtype,
    identity: bytes::Bytes,
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
            accepted: Vec::new(),
            queue: VecDeque::new(),
            phase: Phase::Beginning,
            links: 0,
            end: None,
        };
        demuxer.read_headers()?;
        demuxer.accepted = demuxer
            .streams
            .iter()
            .map(|stream| Accepted {
                subtype: stream.mapping.media_type.subtype,
                identity: stream.mapping.identity.clone(),
            })
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
            if let Some(next) = self.queue.pop_front() {
                return Ok(Some(next));
            }
            match &mut self.end {
                Some(end) => return std::mem::replace(end, Ok(())).map(|()| None),
                None => match self.step() {
                    Ok(true) => {}
                    Ok(false) => self.end = Some(self.check_end()),
                    Err(error) => self.end = Some(Err(error)),
                },
            }
        }
    }

    /// Goes back to the first byte and reads the first link again.
    pub(crate) fn rewind(&mut self) -> Result<()> {
        self.reader.seek(0)?;
        self.queue.clear();
        self.end = None;
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
        self.phase = Phase::Going;
        self.streams.iter_mut().for_each(Logical::jump);
        Ok(())
    }

    /// Whether this is still the first link, whose granule positions a search may use.
    pub(crate) fn in_first_link(&self) -> bool {
        self.links == 1
    }

    fn is_ready(&self) -> bool {
        self.phase == Phase::Going && self.streams.iter().all(|s| s.mapping.is_ready())
    }

    /// Reads until all streams of the first link have their headers. Sound of one that comes before another's headers is kept.
    fn read_headers(&mut self) -> Result<()> {
        let mut kept = 0;
        while !self.is_ready() {
            let before = self.queue.len();
            if !self.step()? {
                let at = self.reader.position();
                return Err(Error::truncated(at, "the headers of an Ogg stream"));
            }
            let new = self.queue.range(before..);
            kept += new.map(|(_, sample)| sample.len() as u64).sum::<u64>();
            self.limits.check_header(kept)?;
        }
        Ok(())
    }

    /// Takes one page; `false` at the end of the input.
    fn step(&mut self) -> Result<bool> {
        let Some(page) = Page::read(&mut self.reader)? else {
            return Ok(false);
        };
        if page.begins() {
            self.begin(&page)?;
            return Ok(true);
        }
        self.phase = Phase::Going;
        let Some(index) = self.streams.iter().position(|s| s.serial == page.serial) else {
            return Err(Error::malformed(
                page.at,
                format!("a page of Ogg stream {:#x}, which never began", page.serial),
            ));
        };
        let stream = &mut self.streams[index];
        if stream.ended {
            return Err(Error::malformed(
                page.at,
                format!("a page of Ogg stream {:#x} after its last", page.serial),
            ));
        }
        let was_ready = stream.mapping.is_ready();
        stream.page(&page, &self.limits, &mut self.queue)?;
        if !was_ready && stream.mapping.is_ready() && self.links > 1 {
            self.check_follows(index, page.at)?;
        }
        Ok(true)
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
            let id = StreamId(self.streams.len() as u32);
            self.streams.push(Logical::begin(page, id, 0)?);
            return Ok(());
        }
        let mut next = Logical::begin(page, StreamId(0), 0)?;
        let subtype = next.mapping.media_type.subtype;
        // The stream that the new one goes on is the first of its codec that was not yet gone on.
        let Some(old) = self
            .streams
            .iter_mut()
            .find(|old| old.ended && old.mapping.media_type.subtype == subtype)
        else {
            return Err(changed(page.at, subtype));
        };
        let start = old.end;
        next = Logical::begin(page, old.id, start)?;
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
            return Err(Error::malformed(
                open,
                "the next link begins inside of a packet",
            ));
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

    /// The headers of the next link are whole: a decoder must be able to go on.
    fn check_follows(&self, index: usize, at: u64) -> Result<()> {
        let mapping = &self.streams[index].mapping;
        match self.accepted.get(index) {
            Some(accepted)
                if accepted.subtype == mapping.media_type.subtype
                    && accepted.identity == mapping.identity =>
            {
                Ok(())
            }
            _ => Err(changed(at, mapping.media_type.subtype)),
        }
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
        format!("the Ogg link at byte {at} changes the stream's parameters"),
    )
}
