//! Samples that wait to be delivered, in the order of the file.
//!
//! A picture whose length nothing says lasts until the next one is shown, so it waits until that one is known, and everything behind
//! it with it. How long that takes is bounded by how far the codec reorders pictures, and by bytes.

use std::collections::VecDeque;

use portcullis_engine::{MediaTime, Sample, StreamId};

/// The samples that wait.
#[derive(Debug)]
pub(crate) struct Queue {
    samples: VecDeque<Queued>,
    tracks: Vec<TrackQueue>,
    bytes: u64,
    max_bytes: u64,
}

#[derive(Debug)]
struct Queued {
    id: StreamId,
    sample: Sample,
    /// The next picture gives it its length.
    open: bool,
}

#[derive(Debug, Default)]
struct TrackQueue {
    /// Pictures that can precede one in the file and are shown after it.
    reorder: usize,
    /// When the last pictures are shown, delivered ones too, in the order of the file.
    times: VecDeque<MediaTime>,
    /// The length that was given last.
    last: MediaTime,
}

/// Times that are kept of a track: more than the pictures of any group that is reordered.
const MAX_TIMES: usize = 64;
/// Samples that wait at most.
const MAX_SAMPLES: usize = 4096;

impl Queue {
    /// An empty queue of tracks that reorder so far, which holds back at most `max_bytes`.
    pub(crate) fn new(reorder: impl Iterator<Item = usize>, max_bytes: u64) -> Self {
        let track = |reorder| TrackQueue {
            reorder,
            ..TrackQueue::default()
        };
        Self {
            samples: VecDeque::new(),
            tracks: reorder.map(track).collect(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Samples that wait.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// The first sample of a track that waits.
    pub(crate) fn first(&self, id: StreamId) -> Option<&Sample> {
        let mut of_track = self.samples.iter().filter(|queued| queued.id == id);
        of_track.next().map(|queued| &queued.sample)
    }

    /// When the last samples of a track are shown, in order of time.
    pub(crate) fn times(&self, track: usize) -> Vec<MediaTime> {
        let mut times: Vec<_> = self.tracks[track].times.iter().copied().collect();
        times.sort_unstable();
        times
    }

    /// Appends a sample; `open` where its length is to be found.
    pub(crate) fn push(&mut self, id: StreamId, sample: Sample, open: bool) {
        self.bytes += sample.len() as u64;
        let times = &mut self.tracks[id.0 as usize].times;
        if times.len() == MAX_TIMES {
            times.pop_front();
        }
        times.push_back(sample.time);
        self.samples.push_back(Queued { id, sample, open });
    }

    /// The next sample, unless it waits for its length; with `ended` nothing waits any more.
    pub(crate) fn pop(&mut self, ended: bool) -> Option<(StreamId, Sample)> {
        let front = self.samples.front_mut()?;
        let track = &mut self.tracks[front.id.0 as usize];
        if front.open {
            let full = self.bytes > self.max_bytes || self.samples.len() > MAX_SAMPLES;
            let front = self.samples.front_mut()?;
            if !track.close(&mut front.sample, ended || full) {
                return None;
            }
        }
        let front = self.samples.pop_front()?;
        self.bytes -= front.sample.len() as u64;
        Some((front.id, front.sample))
    }

    /// What follows does not follow on what waits: gives everything its length.
    pub(crate) fn interrupt(&mut self) {
        for queued in self.samples.iter_mut().filter(|queued| queued.open) {
            self.tracks[queued.id.0 as usize].close(&mut queued.sample, true);
            queued.open = false;
        }
        for track in &mut self.tracks {
            track.times.clear();
        }
    }

    /// Drops the samples of tracks that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(StreamId) -> bool) {
        self.samples.retain(|queued| wanted(queued.id));
        let bytes = self.samples.iter().map(|queued| queued.sample.len() as u64);
        self.bytes = bytes.sum();
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
        self.bytes = 0;
        for track in &mut self.tracks {
            track.times.clear();
        }
    }
}

impl TrackQueue {
    /// Gives a picture its length, where the one that is shown after it is known or `must`; the last one lasts as the one before.
    fn close(&mut self, sample: &mut Sample, must: bool) -> bool {
        let later = || self.times.iter().filter(|time| **time > sample.time);
        if later().count() <= self.reorder && !must {
            return false;
        }
        if let Some(next) = later().min() {
            self.last = *next - sample.time;
        }
        sample.duration = self.last;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(millis: i64) -> Sample {
        Sample::new(MediaTime::from_millis(millis), MediaTime::ZERO, vec![0; 10])
    }

    fn lengths(reorder: usize, times: &[i64]) -> Vec<i64> {
        let mut queue = Queue::new([reorder].into_iter(), 1000);
        let mut found = Vec::new();
        let mut take = |queue: &mut Queue, ended| {
            while let Some((_, sample)) = queue.pop(ended) {
                found.push(sample.duration.ticks() / 10_000);
            }
        };
        for time in times {
            queue.push(StreamId(0), picture(*time), true);
            take(&mut queue, false);
        }
        take(&mut queue, true);
        found
    }

    #[test]
    fn a_picture_lasts_until_the_next_one_is_shown() {
        assert_eq!(lengths(0, &[0, 33, 67, 167]), [33, 34, 100, 100]);
        // I P B B P in the order of the file.
        assert_eq!(lengths(1, &[0, 90, 30, 60, 120]), [30, 30, 30, 30, 30]);
        assert_eq!(lengths(0, &[5]), [0]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut queue = Queue::new([16].into_iter(), 35);
        for time in 0..4 {
            queue.push(StreamId(0), picture(time), true);
            assert_eq!(queue.pop(false).is_some(), time == 3);
        }
        queue.retain(|_| false);
        assert_eq!((queue.bytes(), queue.len()), (0, 0));
    }
}
