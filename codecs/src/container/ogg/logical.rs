//! One logical stream: packets out of pages, and their times out of granule positions.

use std::collections::VecDeque;

use bytes::Bytes;
use portcullis_engine::{
    ContentLimits, Error, MediaTime, Result, Sample, StreamId, TimeBase, keys, sample_keys,
};

use super::faults::Faults;
use super::mapping::Mapping;
use super::page::Page;

/// Pages that are not there between headers and sound: fewer are taken for a loss.
const JOINED_LATER: u32 = 32;

/// A logical stream of the present link.
#[derive(Debug)]
pub(crate) struct Logical {
    pub(crate) id: StreamId,
    pub(crate) serial: u32,
    pub(crate) mapping: Mapping,
    /// Its last page was seen.
    pub(crate) ended: bool,
    /// Where it stands in its own time base, over all links.
    pub(crate) end: i64,
    place: Place,
    /// What is there of the packet that the last page left open, and where it began.
    open: Option<(Vec<u8>, u64)>,
    sequence: Option<u32>,
    /// Added to a granule position to make a time in the stream's time base.
    offset: i64,
    discontinuity: bool,
    /// Headers that the decoder has, to be compared: the next sample carries those of this link where they are others.
    decoder_has: Option<Bytes>,
    /// Something was lost since the last sound: the next page tells how much.
    gap: bool,
    /// The page before ended within a packet whose beginning was not seen.
    skipping: bool,
    /// Bytes of headers so far.
    header_bytes: u64,
}

/// What is known of the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No sound yet: the first page tells where it starts.
    Fresh,
    /// Somewhere inside: the next page with a granule position tells where it ends.
    Lost,
    /// The granule position of the next frame.
    At(i64),
}

/// A packet that ended on the page: the bytes, where they begin, and the frames it stands for.
type Packet = (Bytes, u64, Option<u32>);

impl Logical {
    /// A stream that begins with `page`, whose times go on from `start`.
    pub(crate) fn begin(page: &Page, id: StreamId, start: MediaTime) -> Result<Self> {
        let &[(len, true)] = &page.pieces[..] else {
            return Err(Error::malformed(
                page.at,
                "the first page of an Ogg stream holds other than one packet",
            ));
        };
        let mapping = Mapping::begin(&page.body.slice(..len), page.body_at)?;
        let start = base_of(&mapping).to_units(start);
        Ok(Self {
            id,
            serial: page.serial,
            offset: start - i64::from(mapping.pre_skip),
            end: start,
            mapping,
            ended: page.ends(),
            place: Place::Fresh,
            open: None,
            sequence: Some(page.sequence),
            discontinuity: start != 0,
            decoder_has: None,
            gap: false,
            skipping: false,
            header_bytes: len as u64,
        })
    }

    /// The unit of the stream's times.
    pub(crate) fn time_base(&self) -> TimeBase {
        base_of(&self.mapping)
    }

    /// The time of a granule position.
    pub(crate) fn time_of(&self, granule: u64) -> MediaTime {
        let granule = i64::try_from(granule).unwrap_or(i64::MAX);
        self.time_base()
            .to_time(granule.saturating_add(self.offset))
    }

    /// How long before a position a decoder must begin.
    pub(crate) fn preroll(&self) -> MediaTime {
        self.time_base().to_time(i64::from(self.mapping.preroll))
    }

    /// Pages do not follow on those before: the position is to be found again.
    pub(crate) fn jump(&mut self) {
        self.place = Place::Lost;
        self.open = None;
        self.sequence = None;
        self.ended = false;
        self.gap = false;
        self.skipping = false;
        self.mapping.reset();
    }

    /// Another link of the chain was read before: its end is here, and the next one begins at `start`.
    pub(crate) fn end_link(&mut self, start: MediaTime) {
        self.jump();
        self.ended = true;
        self.end = self.time_base().to_units(start);
    }

    /// Says what headers the decoder has, so that the next sample carries these where they are others.
    pub(crate) fn decoder_has(&mut self, headers: Bytes) {
        self.decoder_has = Some(headers);
    }

    /// Byte position of a packet that is not complete.
    pub(crate) fn open_at(&self) -> Option<u64> {
        self.open.as_ref().map(|(_, at)| *at)
    }

    /// Takes the next page; samples go to `into`, those before a fault too. What is wrong with it and can be passed over
    /// is noted.
    pub(crate) fn page(
        &mut self,
        page: &Page,
        limits: &ContentLimits,
        into: &mut VecDeque<(StreamId, Sample)>,
        faults: &mut Faults,
    ) -> Result<()> {
        let expected = self.sequence.map(|last| last.wrapping_add(1));
        self.sequence = Some(page.sequence);
        self.ended = page.ends();
        if let Some(expected) = expected {
            self.check_follows(page, expected, faults);
        }
        if !page.continued() {
            self.open = None;
        }
        let packets = self.packets(page, limits)?;
        if self.mapping.is_known() {
            self.deliver(page, packets, into, faults);
        }
        Ok(())
    }

    /// Finds out whether pages are missing before this one, or a packet's beginning or end.
    fn check_follows(&mut self, page: &Page, expected: u32, faults: &mut Faults) {
        let fault = if page.sequence != expected {
            self.open = None;
            if self.joins_later(page, expected) {
                return;
            }
            let last = page.sequence.wrapping_sub(1);
            if page.sequence < expected {
                format!(
                    "Ogg page {} follows page {}",
                    page.sequence,
                    expected.wrapping_sub(1)
                )
            } else if expected == last {
                format!("Ogg page {last} before this one is missing")
            } else {
                format!("Ogg pages {expected} to {last} before this one are missing")
            }
        } else if self.open.is_some() && !page.continued() {
            "the packet of the page before does not go on".to_owned()
        } else if self.open.is_none() && page.continued() && !self.skipping {
            "a packet goes on that did not begin".to_owned()
        } else {
            return;
        };
        faults.note(Error::malformed(page.at, fault));
        self.discontinuity = true;
        self.gap = true;
        self.mapping.reset();
    }

    /// Whether this is the first page of sound in the record of a live stream, which was joined far from its begin: what
    /// comes before was never meant to be here.
    fn joins_later(&self, page: &Page, expected: u32) -> bool {
        let sound = self.place == Place::Fresh && self.mapping.is_ready();
        sound && page.sequence.wrapping_sub(expected) >= JOINED_LATER
    }

    /// Takes the packets that end on this page, headers apart.
    fn packets(&mut self, page: &Page, limits: &ContentLimits) -> Result<Vec<Packet>> {
        let mut packets = Vec::new();
        let mut from = 0;
        // The rest of a packet whose beginning was not seen is of no use.
        let mut skip = page.continued() && self.open.is_none();
        for &(len, complete) in &page.pieces {
            let piece = page.body.slice(from..from + len);
            let piece_at = page.body_at + from as u64;
            from += len;
            if skip {
                skip = !complete;
                continue;
            }
            if !complete || self.open.is_some() {
                let (open, _) = self.open.get_or_insert((Vec::new(), piece_at));
                limits.check_sample(open.len() as u64 + len as u64)?;
                open.extend_from_slice(&piece);
                if !complete {
                    continue;
                }
            }
            let (packet, at) = match self.open.take() {
                Some((open, at)) => (Bytes::from(open), at),
                None => (piece, piece_at),
            };
            if !self.mapping.is_ready() {
                self.header_bytes += packet.len() as u64;
                limits.check_header(self.header_bytes)?;
                if self.mapping.header(&packet, at, self.gap)? {
                    continue;
                }
            }
            // An empty packet stands for nothing; FLAC streams end with one.
            if !packet.is_empty() {
                let frames = self.mapping.frames(&packet);
                packets.push((packet, at, frames));
            }
        }
        self.skipping = skip;
        Ok(packets)
    }

    /// Gives the packets their times.
    fn deliver(
        &mut self,
        page: &Page,
        packets: Vec<Packet>,
        into: &mut VecDeque<(StreamId, Sample)>,
        faults: &mut Faults,
    ) {
        let total = packets
            .iter()
            .map(|(_, _, frames)| i64::from(frames.unwrap_or(0)))
            .sum::<i64>();
        let granule = page.granule.and_then(|granule| i64::try_from(granule).ok());
        let (start, trim) = match (self.place, granule) {
            (Place::Lost, granule) => {
                if let Some(granule) = granule {
                    self.place = Place::At(granule);
                    self.discontinuity = true;
                }
                return;
            }
            _ if packets.is_empty() => return,
            (Place::Fresh, Some(granule)) if page.ends() && granule < total => (0, total - granule),
            (Place::Fresh, Some(granule)) => (granule - total, 0),
            (Place::Fresh, None) => (0, 0),
            (Place::At(at), Some(granule)) if self.gap && granule > at.saturating_add(total) => {
                (granule - total, 0)
            }
            (Place::At(at), Some(granule)) if page.ends() => {
                // Further back than the page's own begin is not the end of anything.
                let beyond = at.saturating_add(total).saturating_sub(granule);
                (at, if beyond <= total { beyond.max(0) } else { 0 })
            }
            (Place::At(at), Some(granule)) if granule > at.saturating_add(total) => {
                self.discontinuity = true;
                (granule - total, 0)
            }
            (Place::At(at), _) => (at, 0),
        };
        let mut lead = 0;
        if self.place == Place::Fresh {
            lead = u64::from(self.mapping.pre_skip) + start.min(0).unsigned_abs();
        }
        let base = self.time_base();
        let last = start.saturating_add(total) - trim;
        let mut at = start;
        for (packet, packet_at, frames) in packets {
            let Some(frames) = frames else {
                let what = format!("no {} packet", self.mapping.media_type.subtype);
                faults.note(Error::malformed(packet_at, what));
                self.discontinuity = true;
                continue;
            };
            let end = at.saturating_add(i64::from(frames));
            let kept = end.min(last).max(at);
            let time = |granule: i64| base.to_time(granule.saturating_add(self.offset));
            let mut sample = Sample::new(time(at), time(kept) - time(at), packet);
            sample.flags.key = true;
            sample.flags.discontinuity = std::mem::take(&mut self.discontinuity);
            sample
                .attributes
                .set(&sample_keys::BYTE_POSITION, packet_at);
            if let Some(has) = self.decoder_has.take()
                && let Some(headers) = self.mapping.media_type.private_data()
                && has != headers
            {
                sample.attributes.set(&keys::PRIVATE_DATA, headers);
            }
            // The first Vorbis packet gives no frames, so there is nothing to trim.
            if frames > 0 && lead > 0 {
                sample
                    .attributes
                    .set(&sample_keys::TRIM_START, std::mem::take(&mut lead));
            }
            if frames == 0 && sample.flags.discontinuity {
                // A decoder that still holds a block from before makes an overlap of two things that do not belong together.
                let overlap = u64::from(self.mapping.preroll);
                sample.attributes.set(&sample_keys::TRIM_END, overlap);
            }
            if end > kept {
                sample
                    .attributes
                    .set(&sample_keys::TRIM_END, (end - kept).unsigned_abs());
            }
            into.push_back((self.id, sample));
            at = end;
        }
        self.place = Place::At(last);
        self.end = last.saturating_add(self.offset);
        self.gap = false;
    }
}

fn base_of(mapping: &Mapping) -> TimeBase {
    // The mappings refuse a rate of zero.
    TimeBase::per_second(mapping.rate).unwrap_or(TimeBase::TICKS)
}
