//! Another rate, aligned in time: what the filter delays is cut off at the start and fetched at the end.

use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Resampler};

/// The greatest common divisor of two rates, which are not zero.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Frames that are resampled together, about.
const CHUNK: usize = 1024;

/// A resampler with the frames that wait for a whole chunk.
pub(super) struct Resampling {
    resampler: Fft<f32>,
    /// Waiting frames of each channel.
    waiting: Vec<Vec<f32>>,
    made: Vec<Vec<f32>>,
    /// Frames that still have to be dropped: the filter's delay.
    to_drop: usize,
}

impl std::fmt::Debug for Resampling {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Resampling")
            .field("resampler", &self.resampler)
            .field("to_drop", &self.to_drop)
            .finish_non_exhaustive()
    }
}

impl Resampling {
    pub(super) fn new(from: u32, to: u32, channels: usize) -> Result<Self, String> {
        // The filter's delay is half of a chunk. Only for an even number of the smallest blocks is that a whole number of
        // frames on both sides; otherwise the output would be off by a fraction of a frame.
        let block = (from / gcd(from, to)) as usize;
        let chunk = 2 * block * CHUNK.div_ceil(2 * block);
        let resampler = Fft::new(from as usize, to as usize, chunk, channels, FixedSync::Both)
            .map_err(|error| error.to_string())?;
        let made = vec![vec![0.0; resampler.output_frames_max()]; channels];
        Ok(Self {
            to_drop: resampler.output_delay(),
            waiting: vec![Vec::new(); channels],
            made,
            resampler,
        })
    }

    /// Takes interleaved frames and answers those that are ready.
    pub(super) fn push(&mut self, values: &[f32]) -> Vec<f32> {
        let channels = self.waiting.len();
        for (channel, waiting) in self.waiting.iter_mut().enumerate() {
            waiting.extend(values.iter().skip(channel).step_by(channels));
        }
        let mut ready = Vec::new();
        while self.waiting[0].len() >= self.resampler.input_frames_next() {
            if !self.step(&mut ready) {
                break;
            }
        }
        ready
    }

    /// Answers exactly the `frames` that are left, from what waits and silence behind it, and starts anew.
    pub(super) fn finish(&mut self, frames: usize) -> Vec<f32> {
        let channels = self.waiting.len();
        let mut ready = Vec::new();
        while ready.len() < frames.saturating_mul(channels) {
            let needed = self.resampler.input_frames_next();
            for waiting in &mut self.waiting {
                waiting.resize(waiting.len().max(needed), 0.0);
            }
            if !self.step(&mut ready) {
                break;
            }
        }
        ready.truncate(frames.saturating_mul(channels));
        self.reset();
        ready
    }

    pub(super) fn reset(&mut self) {
        self.resampler.reset();
        self.to_drop = self.resampler.output_delay();
        for waiting in &mut self.waiting {
            waiting.clear();
        }
    }

    /// Resamples one chunk; `false` if the resampler refuses, which it does for wrong sizes only.
    fn step(&mut self, ready: &mut Vec<f32>) -> bool {
        let channels = self.waiting.len();
        let (frames_in, frames_out) = (self.waiting[0].len(), self.made[0].len());
        let done = match (
            SequentialSliceOfVecs::new(&self.waiting, channels, frames_in),
            SequentialSliceOfVecs::new_mut(&mut self.made, channels, frames_out),
        ) {
            (Ok(input), Ok(mut output)) => {
                self.resampler
                    .process_into_buffer(&input, &mut output, None)
            }
            _ => return false,
        };
        let Ok((used, made)) = done else {
            return false;
        };
        if used == 0 {
            return false;
        }
        for waiting in &mut self.waiting {
            waiting.drain(..used.min(waiting.len()));
        }
        let from = self.to_drop.min(made);
        self.to_drop -= from;
        for frame in from..made {
            ready.extend(self.made.iter().map(|channel| channel[frame]));
        }
        true
    }
}
