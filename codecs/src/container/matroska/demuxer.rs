//! Clusters to samples, and the walk over block heads that finds a position.

use bytes::Bytes;
use portcullis_engine::{
    ContentLimits, Error, ErrorKind, MajorType, MediaTime, Result, Sample, StreamId, TimeBase,
    sample_keys,
};

use super::block::BlockHead;
use super::ebml::{Element, signed, unsigned};
use super::header::Header;
use super::ids;
use super::queue::Queue;
use super::recover;
use super::track::Track;
use crate::container::reader::Reader;

/// Reads clusters and hands out samples.
#[derive(Debug)]
pub(crate) struct Demuxer {
    pub(crate) reader: Reader,
    pub(crate) limits: ContentLimits,
    pub(crate) header: Header,
    pub(crate) time_base: TimeBase,
    cluster: Option<Cluster>,
    pub(crate) queue: Queue,
    /// Which tracks are delivered, and from which byte position on.
    gates: Vec<Option<u64>>,
    /// Where the first block of each track is, once a walk from the beginning has seen it.
    first_blocks: Vec<Option<u64>>,
    /// Everything from the first cluster on has been passed in this walk.
    from_beginning: bool,
    /// Nothing was delivered yet, and no position asked for.
    fresh: bool,
    /// The end, or what ends it: told after the queue is empty.
    end: Option<Result<()>>,
    /// Where the step that is taken begins.
    step_at: u64,
    /// The first damage that was passed over: it is told at the end.
    damage: Option<Error>,
    /// How often damage was passed over.
    losses: usize,
    /// Tracks of which something was lost since their last sample.
    lost: Vec<bool>,
    /// Clusters that were passed: time in units and byte position, in order.
    pub(crate) seen: Vec<(i64, u64)>,
}

/// The cluster that is being read.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    at: u64,
    end: Option<u64>,
    time: Option<i64>,
}

/// A block without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPlace {
    /// Index of its track.
    pub(crate) track: usize,
    /// Byte position of the block's element, or of its group.
    pub(crate) at: u64,
    /// Byte position of the cluster.
    pub(crate) cluster_at: u64,
    pub(crate) time: MediaTime,
    pub(crate) key: bool,
}

/// What a block and its group say besides the payload.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    key: bool,
    /// In units of timestamps.
    duration: Option<u64>,
    /// In nanoseconds; at the start where negative.
    discard: i64,
}

/// How much damage is passed over: more is no media.
const MAX_LOSSES: usize = 256;
/// Samples and bytes that are read ahead for what the header does not say.
const MAX_AHEAD: (usize, u64) = (512, 2 << 20);
/// Pictures of a track by which its frame rate is told.
const FRAMES_AHEAD: usize = 20;
/// How many passed clusters are remembered.
const MAX_SEEN: usize = 1 << 16;

impl Demuxer {
    /// Reads up to the first cluster.
    pub(crate) fn open(mut reader: Reader, limits: ContentLimits) -> Result<Self> {
        let header = Header::read(&mut reader, &limits)?;
        let tracks = header.tracks.len();
        Ok(Self {
            reader,
            limits,
            time_base: header.time_base(),
            cluster: None,
            queue: Queue::new(
                header.tracks.iter().map(Track::reorder),
                limits.max_interleave_bytes,
            ),
            gates: header
                .tracks
                .iter()
                .map(|track| track.refused.is_none().then_some(0))
                .collect(),
            first_blocks: vec![None; tracks],
            from_beginning: true,
            fresh: true,
            end: None,
            step_at: 0,
            damage: None,
            losses: 0,
            lost: vec![false; tracks],
            seen: Vec::new(),
            header,
        })
    }

    /// Whether delivery would begin with the first sample.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Reads the first samples into the queue: enough to tell when each stream begins and how fast pictures follow each other.
    pub(crate) fn read_ahead(&mut self) {
        while self.end.is_none()
            && self.seen.len() < 3
            && self.queue.len() < MAX_AHEAD.0
            && self.queue.bytes() < MAX_AHEAD.1.min(self.limits.max_interleave_bytes)
            && self.header.tracks.iter().enumerate().any(|(index, track)| {
                let wanted = match track.media_type.major {
                    _ if self.gates[index].is_none() => 0,
                    MajorType::Video if track.default_duration.is_none() => FRAMES_AHEAD,
                    MajorType::Video | MajorType::Audio => 1,
                    _ => 0,
                };
                self.queue.times(index).len() < wanted
            })
        {
            self.advance();
        }
    }

    /// Delivers the tracks that have a gate, from that byte position on.
    pub(crate) fn set_gates(&mut self, gates: Vec<Option<u64>>) {
        self.gates = gates;
        let gates = &self.gates;
        self.queue.retain(|id| gates[id.0 as usize].is_some());
    }

    /// Changes which tracks are delivered; the others go on from where they are.
    pub(crate) fn widen_gates(&mut self, gates: Vec<Option<u64>>) {
        let merged = gates.iter().zip(&self.gates);
        let merged = merged.map(|(new, old)| new.map(|new| old.unwrap_or(new)));
        self.set_gates(merged.collect());
    }

    /// The next sample of the gated tracks; `None` at the end and after an error.
    pub(crate) fn next(&mut self) -> Result<Option<(StreamId, Sample)>> {
        self.fresh = false;
        loop {
            if let Some(next) = self.queue.pop(self.end.is_some()) {
                return Ok(Some(next));
            }
            match &mut self.end {
                Some(end) => return std::mem::replace(end, Ok(())).map(|()| None),
                None => self.advance(),
            }
        }
    }

    /// Takes one element; damage is kept, and reading goes on with the next cluster.
    fn advance(&mut self) {
        let goes_on = match self.step(None) {
            Err(error) if error.is_content() => {
                self.damage.get_or_insert(error);
                self.recover()
            }
            other => other,
        };
        self.end = match goes_on {
            Ok(true) => return,
            Ok(false) => Some(self.damage.take().map_or(Ok(()), Err)),
            Err(error) => Some(Err(error)),
        };
    }

    /// Goes to the next cluster behind damage; `false` where there is none.
    fn recover(&mut self) -> Result<bool> {
        self.queue.interrupt();
        self.lost.fill(true);
        for track in &mut self.header.tracks {
            track.length.reset();
        }
        self.losses += 1;
        if self.losses > MAX_LOSSES {
            return Ok(false);
        }
        let end = self.cluster.take().and_then(|cluster| cluster.end);
        let from = self.step_at.saturating_add(1);
        let end = end.filter(|end| *end > self.step_at);
        recover::go_to_next(&mut self.reader, from, end, self.header.end)
    }

    /// Goes to a cluster.
    pub(crate) fn go_to(&mut self, cluster_at: u64) -> Result<()> {
        self.reader.seek(cluster_at)?;
        self.cluster = None;
        self.queue.clear();
        self.fresh = false;
        self.end = None;
        self.damage = None;
        self.losses = 0;
        self.lost.fill(false);
        self.from_beginning = cluster_at == self.header.clusters_at;
        for track in &mut self.header.tracks {
            track.length.reset();
        }
        Ok(())
    }

    /// Goes to a byte position where a cluster should be; `false` where there is none.
    pub(crate) fn go_to_cluster(&mut self, at: u64) -> Result<bool> {
        self.go_to(at)?;
        let element = Element::peek(&mut self.reader)?;
        Ok(element.is_some_and(|element| element.id == ids::CLUSTER))
    }

    /// Walks over the heads of blocks, until `visit` answers `false` or the end comes. Damage is passed over: who reads there will
    /// be told.
    pub(crate) fn walk(&mut self, mut visit: impl FnMut(&BlockPlace) -> bool) -> Result<()> {
        loop {
            let mut place = None;
            match self.step(Some(&mut place)) {
                Ok(true) if place.as_ref().is_none_or(&mut visit) => {}
                Ok(_) => return Ok(()),
                Err(error) if error.is_content() => {
                    if !self.recover()? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one element; `false` at the end. With `place` blocks are only looked at.
    fn step(&mut self, place: Option<&mut Option<BlockPlace>>) -> Result<bool> {
        let at = self.reader.position();
        self.step_at = at;
        if self
            .cluster
            .is_some_and(|cluster| cluster.end.is_some_and(|end| at >= end))
        {
            self.cluster = None;
        }
        if self.cluster.is_none() && self.header.end.is_some_and(|end| at >= end) {
            // Whatever stands behind the segment may be anything, but not another one.
            if let Ok(Some(element)) = Element::peek(&mut self.reader) {
                self.refuse_another(&element);
            }
            return Ok(false);
        }
        let Some(element) = Element::peek(&mut self.reader)? else {
            let cluster = self.cluster.and_then(|cluster| cluster.end);
            let (what, end) = match (cluster, self.header.end) {
                (Some(end), _) => ("cluster", end),
                (None, Some(end)) => ("segment", end),
                (None, None) => return Ok(false),
            };
            return Err(Error::truncated(
                at,
                format!("the {what}, which should last to byte {end}"),
            ));
        };
        let Some(cluster) = self.cluster else {
            match element.id {
                ids::CLUSTER => self.enter_cluster(&element)?,
                ids::EBML | ids::SEGMENT => {
                    self.refuse_another(&element);
                    return Ok(false);
                }
                ids::CUES => {
                    self.header.cues_at.get_or_insert(element.at);
                    element.skip(&mut self.reader)?;
                }
                _ => element.skip(&mut self.reader)?,
            }
            return Ok(true);
        };
        if cluster.end.is_none() && ids::ends_cluster(element.id) {
            self.cluster = None;
            return Ok(true);
        }
        if element.id == ids::CLUSTER && recover::is_cluster(&mut self.reader, self.header.end)? {
            let what = format!("a cluster inside of the one at byte {}", cluster.at);
            self.damage
                .get_or_insert(Error::malformed(element.at, what));
            self.cluster = None;
            return Ok(true);
        }
        if let (Some(end), Some(child_end)) = (cluster.end, element.known_end())
            && child_end > end
        {
            return Err(Error::malformed(
                element.at,
                format!("element {:#X} reaches out of its cluster", element.id),
            ));
        }
        match element.id {
            ids::TIMESTAMP => {
                let time = self.integer(&element)?;
                let time = i64::try_from(time).unwrap_or(i64::MAX);
                self.cluster = Some(Cluster {
                    time: Some(time),
                    ..cluster
                });
                if self.seen.len() < MAX_SEEN
                    && self.seen.last().is_none_or(|&(_, last)| last < cluster.at)
                {
                    self.seen.push((time, cluster.at));
                }
            }
            ids::SIMPLE_BLOCK => {
                let head = BlockHead::read(&element, &mut self.reader)?;
                let group = Group {
                    key: head.is_key(),
                    ..Group::default()
                };
                self.block(cluster, &element, &element, head, group, place)?;
            }
            ids::BLOCK_GROUP => self.group(cluster, &element, place)?,
            _ => element.skip(&mut self.reader)?,
        }
        Ok(true)
    }

    /// Keeps for the end that another document or segment follows, which is not played.
    fn refuse_another(&mut self, element: &Element) {
        if matches!(element.id, ids::EBML | ids::SEGMENT) {
            let error = Error::new(ErrorKind::UnsupportedByteStream {
                what: "Matroska with a second segment".into(),
            });
            let why = format!("it begins at byte {}, the first one was read", element.at);
            self.damage.get_or_insert(error.because(why));
        }
    }

    fn enter_cluster(&mut self, element: &Element) -> Result<()> {
        element.enter(&mut self.reader)?;
        self.cluster = Some(Cluster {
            at: element.at,
            end: element.known_end(),
            time: None,
        });
        Ok(())
    }

    /// A block with what its group says of it.
    fn group(
        &mut self,
        cluster: Cluster,
        element: &Element,
        place: Option<&mut Option<BlockPlace>>,
    ) -> Result<()> {
        let end = element.end()?;
        element.enter(&mut self.reader)?;
        let mut group = Group {
            key: true,
            ..Group::default()
        };
        let mut block = None;
        while self.reader.position() < end {
            let Some(child) = Element::peek(&mut self.reader)? else {
                return Err(element.inside(Error::truncated(self.reader.position(), "")));
            };
            if child.end()? > end {
                return Err(Error::malformed(
                    child.at,
                    format!("element {:#X} reaches out of its block group", child.id),
                ));
            }
            match child.id {
                ids::BLOCK if block.is_none() => {
                    let head = BlockHead::read(&child, &mut self.reader)?;
                    // The payload waits for what the group says behind it.
                    let payload = match place {
                        None if self.gate(head.track, element.at).is_some() => {
                            Some(self.payload(&child, head)?)
                        }
                        _ => None,
                    };
                    child.skip(&mut self.reader)?;
                    block = Some((child, head, payload));
                }
                ids::BLOCK_DURATION => {
                    group.duration = Some(self.integer(&child)?).filter(|&units| units != 0);
                }
                ids::REFERENCE_BLOCK => {
                    group.key = false;
                    child.skip(&mut self.reader)?;
                }
                ids::DISCARD_PADDING => {
                    let bytes = child.read(&mut self.reader, 8)?;
                    group.discard = signed(&bytes).unwrap_or(0);
                }
                _ => child.skip(&mut self.reader)?,
            }
        }
        let Some((child, head, payload)) = block else {
            return Ok(());
        };
        match payload {
            Some(payload) => {
                let (track, time) = self.track_and_time(cluster, &child, head)?;
                self.deliver(track, time, element.at, head, group, payload)
            }
            None => self.look(cluster, element, &child, head, group, place),
        }
    }

    /// A block whose payload is next.
    fn block(
        &mut self,
        cluster: Cluster,
        element: &Element,
        block: &Element,
        head: BlockHead,
        group: Group,
        place: Option<&mut Option<BlockPlace>>,
    ) -> Result<()> {
        if place.is_some() || self.gate(head.track, element.at).is_none() {
            self.look(cluster, element, block, head, group, place)?;
            return block.skip(&mut self.reader);
        }
        let (track, time) = self.track_and_time(cluster, block, head)?;
        let payload = self.payload(block, head)?;
        self.deliver(track, time, element.at, head, group, payload)
    }

    /// Notes where a block is that is not delivered.
    fn look(
        &mut self,
        cluster: Cluster,
        element: &Element,
        block: &Element,
        head: BlockHead,
        group: Group,
        place: Option<&mut Option<BlockPlace>>,
    ) -> Result<()> {
        if self.index_of(head.track).is_none() {
            // A track that no entry describes.
            return Ok(());
        }
        let (track, time) = self.track_and_time(cluster, block, head)?;
        self.note_first(track, element.at);
        if let Some(place) = place {
            *place = Some(BlockPlace {
                track,
                at: element.at,
                cluster_at: cluster.at,
                time: self.time_base.to_time(time),
                key: group.key || self.header.tracks[track].all_key(),
            });
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        index: usize,
        units: i64,
        at: u64,
        head: BlockHead,
        group: Group,
        payload: Bytes,
    ) -> Result<()> {
        let frames = head.frames(&payload)?;
        self.note_first(index, at);
        let is_first = self.first_blocks[index] == Some(at);
        let track = &mut self.header.tracks[index];
        let mut time = self.time_base.to_time(units);
        let block_duration = group.duration.map(|duration| {
            let end = units.saturating_add(i64::try_from(duration).unwrap_or(i64::MAX));
            let whole = self.time_base.to_time(end) - time;
            MediaTime::from_ticks(whole.ticks() / frames.len() as i64)
        });
        let last = frames.len() - 1;
        for (number, (frame, frame_at)) in frames.into_iter().enumerate() {
            let frame = track.restore(frame);
            let own_duration = track.frame_duration(&frame);
            let duration = block_duration.unwrap_or(own_duration);
            let mut sample = Sample::new(time, duration, frame);
            sample.flags.key = group.key || track.all_key();
            if self.lost[index] {
                // Nothing of it can be decoded until the next key picture.
                if !sample.flags.key {
                    time += duration;
                    continue;
                }
                sample.flags.discontinuity = true;
                self.lost[index] = false;
            }
            let attributes = &mut sample.attributes;
            attributes.set(&sample_keys::BYTE_POSITION, frame_at);
            if track.is_audio() {
                let mut lead = 0;
                if number == 0 && is_first {
                    lead = track.lead();
                }
                if number == 0 && group.discard < 0 {
                    lead = lead.saturating_add(track.pcm_frames(group.discard.unsigned_abs()));
                }
                if lead > 0 {
                    attributes.set(&sample_keys::TRIM_START, lead);
                }
                if number == last && group.discard > 0 {
                    let tail = track.pcm_frames(group.discard.unsigned_abs());
                    attributes.set(&sample_keys::TRIM_END, tail);
                }
            }
            let open = block_duration.is_none() && track.lasts_until_next();
            self.queue.push(StreamId(index as u32), sample, open);
            time += duration;
        }
        Ok(())
    }

    fn payload(&mut self, block: &Element, head: BlockHead) -> Result<Bytes> {
        self.limits
            .check_sample(head.len)
            .map_err(|error| error.because(format!("in the block at byte {}", block.at)))?;
        self.reader
            .read_bytes(head.len)
            .map_err(|error| block.inside(error))
    }

    fn track_and_time(
        &self,
        cluster: Cluster,
        block: &Element,
        head: BlockHead,
    ) -> Result<(usize, i64)> {
        let Some(time) = cluster.time else {
            return Err(Error::malformed(
                block.at,
                "a block before its cluster's timestamp",
            ));
        };
        let Some(index) = self.index_of(head.track) else {
            return Err(Error::malformed(
                block.at,
                format!("a block of track {}, which no entry describes", head.track),
            ));
        };
        let delay = self.header.tracks[index].delay_units;
        let time = time.saturating_add(i64::from(head.relative));
        Ok((index, time.saturating_sub(delay)))
    }

    fn note_first(&mut self, track: usize, at: u64) {
        if self.from_beginning {
            self.first_blocks[track].get_or_insert(at);
        }
    }

    fn index_of(&self, number: u64) -> Option<usize> {
        self.header.tracks.iter().position(|t| t.number == number)
    }

    /// The track's index, where a block at byte `at` of it is delivered.
    fn gate(&self, number: u64, at: u64) -> Option<usize> {
        let index = self.index_of(number)?;
        self.gates[index].filter(|&gate| at >= gate).map(|_| index)
    }

    fn integer(&mut self, element: &Element) -> Result<u64> {
        let bytes = element.read(&mut self.reader, 8)?;
        unsigned(&bytes).ok_or_else(|| Error::malformed(element.at, "not an integer"))
    }
}
