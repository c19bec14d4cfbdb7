//! What of a decoded run of PCM is kept: encoder delay and padding are cut off as the demuxer says.

use std::ops::Range;

use portcullis_engine::{Sample, sample_keys};

/// Applies `TRIM_START` and `TRIM_END` to what compressed samples decode to.
#[derive(Debug, Default)]
pub(super) struct Trimmer {
    /// PCM frames still to be dropped from the start of what comes.
    pending: u64,
}

impl Trimmer {
    /// The part to keep of the `frames` that `sample` decoded to.
    pub(super) fn keep(&mut self, sample: &Sample, frames: usize) -> Range<usize> {
        self.take_up(sample);
        let start = self.drop_front(frames as u64) as usize;
        let from_end = sample.attributes.get(&sample_keys::TRIM_END).unwrap_or(0);
        let end = (frames as u64).saturating_sub(from_end) as usize;
        start..end.max(start)
    }

    /// Counts a sample that could not be decoded: the `frames` that it stood for are gone.
    pub(super) fn lose(&mut self, sample: &Sample, frames: u64) {
        self.take_up(sample);
        self.drop_front(frames);
    }

    /// Forgets what is left over: the position changes.
    pub(super) fn clear(&mut self) {
        self.pending = 0;
    }

    fn take_up(&mut self, sample: &Sample) {
        let more = sample.attributes.get(&sample_keys::TRIM_START).unwrap_or(0);
        self.pending = self.pending.saturating_add(more);
    }

    fn drop_front(&mut self, frames: u64) -> u64 {
        let dropped = self.pending.min(frames);
        self.pending -= dropped;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_engine::MediaTime;

    fn sample(start: u64, end: u64) -> Sample {
        let mut sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0]);
        sample.attributes.set(&sample_keys::TRIM_START, start);
        sample.attributes.set(&sample_keys::TRIM_END, end);
        sample
    }

    #[test]
    fn what_is_left_over_is_dropped_from_the_samples_that_follow() {
        let mut trim = Trimmer::default();
        assert_eq!(trim.keep(&sample(1500, 0), 1024), 1024..1024);
        assert_eq!(trim.keep(&sample(0, 0), 1024), 476..1024);
        assert_eq!(trim.keep(&sample(0, 24), 1024), 0..1000);
        assert_eq!(trim.keep(&sample(1000, 100), 1024), 1000..1000);
        assert_eq!(trim.keep(&sample(u64::MAX, u64::MAX), 10), 10..10);
    }

    #[test]
    fn a_lost_sample_takes_its_share() {
        let mut trim = Trimmer::default();
        trim.lose(&sample(1500, 0), 1024);
        assert_eq!(trim.keep(&sample(0, 0), 1024), 476..1024);
    }
}
