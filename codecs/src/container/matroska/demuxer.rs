//! Clusters to samples, and the walk over block heads that finds a position.

use std::collections::VecDeque;

use bytes::Bytes;
use portcullis_engine::{
    ContentLimits, Error, MediaTime, Result, Sample, StreamId, TimeBase, sample_keys,
};

use super::block::BlockHead;
use super::ebml::{Element, signed, unsigned};
use super::header::Header;
use super::ids;
use crate::container::reader::Reader;

/// Reads clusters and hands out samples.
#[derive(Debug)]
pub(crate) struct Demuxer {
    pub(crate) reader: Reader,
    pub(crate) limits: ContentLimits,
    pub(crate) header: Header,
    pub(crate) time_base: TimeBase,
    cluster: Option<Cluster>,
    queue: VecDeque<(StreamId, Sample)>,
    /// Which tracks are delivered, and from which byte position on.
    gates: Vec<Option<u64>>,
    /// Where the first block of each track is, once a walk from the beginning has seen it.
    first_blocks: Vec<Option<u64>>,
    /// Everything from the first cluster on has been passed in this walk.
    from_beginning: bool,
    /// The end, or what ends it: told after the queue is empty.
    end: Option<Result<()>>,
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
            queue: VecDeque::new(),
            gates: header
                .tracks
                .iter()
                .map(|track| track.refused.is_none().then_some(0))
                .collect(),
            first_blocks: vec![None; tracks],
            from_beginning: true,
            end: None,
            seen: Vec::new(),
            header,
        })
    }

    /// Whether no cluster was entered yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.reader.position() == self.header.clusters_at
    }

    /// Delivers the tracks that have a gate, from that byte position on.
    pub(crate) fn set_gates(&mut self, gates: Vec<Option<u64>>) {
        self.gates = gates;
        let gates = &self.gates;
        self.queue.retain(|(id, _)| gates[id.0 as usize].is_some());
    }

    /// Changes which tracks are delivered; the others go on from where they are.
    pub(crate) fn widen_gates(&mut self, gates: Vec<Option<u64>>) {
        let merged = gates.iter().zip(&self.gates);
        let merged = merged.map(|(new, old)| new.map(|new| old.unwrap_or(new)));
        self.set_gates(merged.collect());
    }

    /// The next sample of the gated tracks; `None` at the end and after an error.
    pub(crate) fn next(&mut self) -> Result<Option<(StreamId, Sample)>> {
        loop {
            if let Some(next) = self.queue.pop_front() {
                return Ok(Some(next));
            }
            match &mut self.end {
                Some(end) => return std::mem::replace(end, Ok(())).map(|()| None),
                None => match self.step(None) {
                    Ok(true) => {}
                    Ok(false) => self.end = Some(Ok(())),
                    Err(error) => self.end = Some(Err(error)),
                },
            }
        }
    }

    /// Goes to a cluster.
    pub(crate) fn go_to(&mut self, cluster_at: u64) -> Result<()> {
        self.reader.seek(cluster_at)?;
        self.cluster = None;
        self.queue.clear();
        self.end = None;
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

    /// Walks over the heads of blocks, until `visit` answers `false` or the end comes. Damage ends the walk too: who reads
    /// there will be told.
    pub(crate) fn walk(&mut self, mut visit: impl FnMut(&BlockPlace) -> bool) -> Result<()> {
        loop {
            let mut place = None;
            match self.step(Some(&mut place)) {
                Ok(true) if place.as_ref().is_none_or(&mut visit) => {}
                Ok(_) => return Ok(()),
                Err(error) if error.is_content() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one element; `false` at the end. With `place` blocks are only looked at.
    fn step(&mut self, place: Option<&mut Option<BlockPlace>>) -> Result<bool> {
        let at = self.reader.position();
        if self
            .cluster
            .is_some_and(|cluster| cluster.end.is_some_and(|end| at >= end))
        {
            self.cluster = None;
        }
        if self.cluster.is_none() && self.header.end.is_some_and(|end| at >= end) {
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
                // Another document follows this one.
                ids::EBML | ids::SEGMENT => return Ok(false),
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
            self.queue.push_back((StreamId(index as u32), sample));
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
