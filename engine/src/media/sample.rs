//! One unit of media: a compressed packet, a picture, or a run of PCM frames.

use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use super::payload::Payload;
use super::time::MediaTime;

/// The attribute keys of samples that the project's own components use.
pub mod sample_keys {
    use crate::media::Key;

    /// PCM frames to drop from the start of what this compressed audio sample decodes to; what is left over is dropped from
    /// the samples that follow. The sample's time is that of its first frame before trimming.
    pub const TRIM_START: Key<u64> = Key::new("trim_start");
    /// PCM frames to drop from the end of what this compressed audio sample decodes to.
    pub const TRIM_END: Key<u64> = Key::new("trim_end");
    /// Byte position of the payload in its container, for messages and for matching with an index.
    pub const BYTE_POSITION: Key<u64> = Key::new("byte_position");
}

/// Marks on a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleFlags {
    /// Decoding can start here.
    pub key: bool,
    /// What came before is not continuous with this sample.
    pub discontinuity: bool,
    /// The sample is needed for decoding only and lies before the position that was asked for: decode, do not render.
    pub preroll: bool,
    /// The container says, or the decoder found, that the payload is damaged.
    pub corrupt: bool,
}

/// One unit of media with its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it is presented, on the source's timeline.
    pub time: MediaTime,
    /// When it is decoded, where that differs from `time`.
    pub decode_time: Option<MediaTime>,
    /// How long it lasts; zero where nothing says.
    pub duration: MediaTime,
    /// Marks.
    pub flags: SampleFlags,
    /// The bytes.
    pub payload: Payload,
    /// Whatever else a component attached; transforms keep it by contract.
    pub attributes: Attributes,
}

impl Sample {
    /// A sample without marks or attributes.
    pub fn new(time: MediaTime, duration: MediaTime, payload: impl Into<Payload>) -> Self {
        Self {
            time,
            decode_time: None,
            duration,
            flags: SampleFlags::default(),
            payload: payload.into(),
            attributes: Attributes::new(),
        }
    }

    /// A sample with this one's times, marks and attributes and another payload.
    #[must_use]
    pub fn with_payload(&self, payload: impl Into<Payload>) -> Self {
        Self {
            time: self.time,
            decode_time: self.decode_time,
            duration: self.duration,
            flags: self.flags,
            payload: payload.into(),
            attributes: self.attributes.clone(),
        }
    }

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it ends on the timeline.
    pub fn end_time(&self) -> MediaTime {
        self.time + self.duration
    }

    /// Maps the values of a 16-bit PCM payload; an odd last byte is dropped.
    #[must_use]
    pub fn map_i16(&self, mut map: impl FnMut(i16) -> i16) -> Self {
        let input = self.payload.to_bytes();
        let mut output = Vec::with_capacity(input.len());
        for pair in input.chunks_exact(2) {
            output.extend_from_slice(&map(i16::from_le_bytes([pair[0], pair[1]])).to_le_bytes());
        }
        self.with_payload(output)
    }
}
