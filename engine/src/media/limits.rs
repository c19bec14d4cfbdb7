//! Limits on what content may make a pipeline do, in every placement.
//!
//! How much was made is counted where it is made ([`Usage`]): by each source, of everything that it delivers, and for all
//! decoders of a session together, and for all its other transforms together. So a limit holds whether or not anything is
//! decoded, and a picture that is decoded and then scaled counts once at each.

use serde::{Deserialize, Serialize};

use super::sample::Sample;
use super::time::MediaTime;
use crate::error::{Error, Result};

/// What untrusted content may ask for before it is refused with `LimitExceeded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContentLimits {
    /// Pixels of one picture. Default: 8192 x 4608.
    pub max_pixels: u64,
    /// Streams of one presentation. Default: 64.
    pub max_tracks: u32,
    /// Length of a presentation, as its container declares it and as the times of its samples show. Default: 24 hours.
    pub max_duration: MediaTime,
    /// Payload bytes that a source may deliver, all decoders of a session put out, and all its other transforms.
    /// Default: 1 TiB.
    pub max_output_bytes: u64,
    /// Samples that a source may deliver, all decoders of a session put out, and all its other transforms.
    /// Default: 100 million.
    pub max_samples: u64,
    /// Bytes of one compressed sample. Default: 64 MiB.
    pub max_sample_bytes: u64,
    /// Bytes of a container's index and headers that are held in memory. Default: 64 MiB.
    pub max_header_bytes: u64,
    /// Bytes that a source may hold back of one stream while another one is asked for. Default: 64 MiB.
    pub max_interleave_bytes: u64,
}

impl Default for ContentLimits {
    fn default() -> Self {
        Self {
            max_pixels: 8192 * 4608,
            max_tracks: 64,
            max_duration: MediaTime::from_secs(24 * 3600),
            max_output_bytes: 1 << 40,
            max_samples: 100_000_000,
            max_sample_bytes: 64 << 20,
            max_header_bytes: 64 << 20,
            max_interleave_bytes: 64 << 20,
        }
    }
}

/// What was made so far, from the first sample on: a seek gives nothing back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    samples: u64,
    bytes: u64,
}

impl Usage {
    /// Counts a sample.
    ///
    /// # Errors
    /// `LimitExceeded`; the sample is one too many then.
    pub fn add(&mut self, sample: &Sample, limits: &ContentLimits) -> Result<()> {
        self.samples = self.samples.saturating_add(1);
        self.bytes = self.bytes.saturating_add(sample.len() as u64);
        check("samples", limits.max_samples, self.samples)?;
        check("output bytes", limits.max_output_bytes, self.bytes)?;
        let end = sample.time.ticks().saturating_add(sample.duration.ticks());
        limits.check_length(MediaTime::from_ticks(end))
    }
}

impl ContentLimits {
    /// Refuses a presentation that is longer than `max_duration`.
    pub fn check_length(&self, length: MediaTime) -> Result<()> {
        if length > self.max_duration {
            let seconds = |time: MediaTime| time.to_duration().as_secs();
            let (most, found) = (seconds(self.max_duration), seconds(length));
            return Err(Error::limit("duration in seconds", most, found));
        }
        Ok(())
    }

    /// Refuses a picture of more than `max_pixels`, or of no pixels.
    pub fn check_picture(&self, width: u32, height: u32) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::invalid_argument(format!(
                "a picture of {width}x{height} pixels"
            )));
        }
        check(
            "pixels",
            self.max_pixels,
            u64::from(width) * u64::from(height),
        )
    }

    /// Refuses more than `max_tracks` streams.
    pub fn check_tracks(&self, tracks: u64) -> Result<()> {
        check("tracks", u64::from(self.max_tracks), tracks)
    }

    /// Refuses a compressed sample of more than `max_sample_bytes`.
    pub fn check_sample(&self, bytes: u64) -> Result<()> {
        check("sample bytes", self.max_sample_bytes, bytes)
    }

    /// Refuses headers of more than `max_header_bytes`.
    pub fn check_header(&self, bytes: u64) -> Result<()> {
        check("header bytes", self.max_header_bytes, bytes)
    }
}

fn check(limit: &'static str, max: u64, found: u64) -> Result<()> {
    if found > max {
        return Err(Error::limit(limit, max, found));
    }
    Ok(())
}
