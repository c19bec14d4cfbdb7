//! The links of a chain: where each begins, and when. Found by halving, as its pages carry serial numbers of its own.

use portcullis_engine::{MediaTime, Result, StreamId};

use super::logical::Logical;
use super::page::{MAX_PAGE, Page, SEARCH_BUDGET};
use crate::container::reader::Reader;

/// Each link costs some twenty reads: longer chains are only read from the beginning.
const MAX_LINKS: usize = 256;

/// One link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Byte position of its first page.
    pub(crate) at: u64,
    /// When it begins and ends, counted over the whole chain.
    pub(crate) start: MediaTime,
    pub(crate) end: MediaTime,
}

/// All links of the input, which is `len` bytes long; none where they cannot be told apart. The reader is put back.
pub(crate) fn find(reader: &mut Reader, len: u64, max_streams: usize) -> Result<Vec<Link>> {
    let here = reader.position();
    let mut links = Vec::new();
    let mut next = Some((0, MediaTime::ZERO));
    while let Some((at, start)) = next {
        let link = match Head::read(reader, at, max_streams)? {
            Some(head) => head.end(reader, len)?,
            None => None,
        };
        let Some((lasts, behind)) = link.filter(|_| links.len() < MAX_LINKS) else {
            links.clear();
            break;
        };
        let end = start + lasts.max(MediaTime::ZERO);
        links.push(Link { at, start, end });
        next = behind.map(|at| (at, end));
    }
    reader.seek(here)?;
    Ok(links)
}

/// The first pages of a link.
struct Head {
    streams: Vec<Logical>,
    /// Byte position behind them.
    end: u64,
}

impl Head {
    fn read(reader: &mut Reader, at: u64, max_streams: usize) -> Result<Option<Self>> {
        let mut head = Self {
            streams: Vec::new(),
            end: at,
        };
        reader.seek(at)?;
        while let Ok(Some(page)) = Page::read(reader) {
            if !page.begins() {
                break;
            }
            let known = head.has(page.serial) || head.streams.len() >= max_streams;
            match Logical::begin(&page, StreamId(0), MediaTime::ZERO) {
                Ok(stream) if !known => head.streams.push(stream),
                _ => return Ok(None),
            }
            head.end = page.end();
        }
        Ok(Some(head).filter(|head| !head.streams.is_empty()))
    }

    fn has(&self, serial: u32) -> bool {
        self.streams.iter().any(|s| s.serial == serial)
    }

    /// How long the link lasts and where the next one begins; the outer `None` where that cannot be told.
    fn end(&self, reader: &mut Reader, len: u64) -> Result<Option<(MediaTime, Option<u64>)>> {
        let mut budget = SEARCH_BUDGET;
        let (mut low, mut high) = (self.end, len);
        while high.saturating_sub(low) > MAX_PAGE as u64 {
            let middle = low + (high - low) / 2;
            match Page::find(reader, middle, high, &mut budget)? {
                Some(page) if self.has(page.serial) && !page.begins() => low = page.end(),
                _ => high = middle,
            }
        }
        // The last pages are read one by one, from some way before: each stream says on its last one how long it is.
        let mut from = low.saturating_sub(4 * MAX_PAGE as u64).max(self.end);
        let mut ends = vec![None; self.streams.len()];
        let mut next = None;
        while let Some(page) = Page::find(reader, from, len, &mut budget)? {
            from = page.end();
            let index = self.streams.iter().position(|s| s.serial == page.serial);
            match index {
                // The same number again: halving may have missed it elsewhere.
                Some(_) if page.begins() => return Ok(None),
                Some(index) => ends[index] = page.granule.or(ends[index]),
                None if page.begins() => {
                    next = Some(page.at);
                    break;
                }
                None => return Ok(None),
            }
        }
        let known = self.streams.iter().zip(ends).filter_map(|(stream, end)| {
            let end = end.filter(|_| stream.mapping.is_known())?;
            Some(stream.time_of(end))
        });
        Ok(known.max().map(|lasts| (lasts, next)))
    }
}
