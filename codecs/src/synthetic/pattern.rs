//! A source of counting bytes: measures what a pipeline costs besides its components.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_engine::media::HeapAllocator;
use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    Component, ComponentInfo, Error, MajorType, MediaSource, MediaTime, MediaType,
    PresentationDescriptor, Registry, Result, Sample, SampleAllocator, SampleBuffer,
    StreamDescriptor, StreamId, Subtype, TimeBase,
};
use serde::{Deserialize, Serialize};

pub(crate) fn register(registry: &mut Registry) {
    registry.source::<Pattern>();
}

/// How much of a sample is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Touch {
    /// Every byte: what a decoder does.
    #[default]
    All,
    /// Every byte, all but the first eight the same: one fill, so that what is measured is not the pattern.
    Fill,
    /// Only the sample's number in its first eight bytes; the rest is one shared block that is written once. Measures
    /// the pipeline alone.
    Header,
}

/// What the pattern source makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatternSettings {
    /// Bytes of a sample, 8 to 256 MiB.
    pub size: u32,
    /// Samples of each stream.
    pub count: u64,
    /// Time from one sample to the next.
    pub interval: MediaTime,
    /// Streams, 1 to 64.
    pub streams: u32,
    /// How much is written.
    pub touch: Touch,
}

impl Default for PatternSettings {
    fn default() -> Self {
        Self {
            size: 188,
            count: 1000,
            interval: MediaTime::from_millis(1),
            streams: 1,
            touch: Touch::All,
        }
    }
}

/// Makes `count` samples for each stream. Sample `n` starts with `n` as a little-endian `u64`; the bytes behind it count
/// on from the low byte of `n`, unless less is touched.
pub struct Pattern {
    settings: PatternSettings,
    presentation: PresentationDescriptor,
    /// The selected streams with the number of their next sample; the one whose turn it is stands first.
    next: VecDeque<(StreamId, u64)>,
    allocator: Arc<dyn SampleAllocator>,
    /// The bytes 0..=255 over and over, long enough for any start.
    counting: Bytes,
}

impl Pattern {
    /// Whether a payload is sample `number`'s.
    pub fn is_sample(payload: &[u8], number: u64) -> bool {
        payload
            .split_first_chunk::<8>()
            .is_some_and(|(head, rest)| {
                u64::from_le_bytes(*head) == number
                    && rest
                        .iter()
                        .zip(1u8..=255)
                        .all(|(byte, offset)| *byte == (number as u8).wrapping_add(offset))
                    && rest
                        .chunks(256)
                        .all(|chunk| chunk[..] == rest[..chunk.len()])
            })
    }

    fn payload(&self, number: u64) -> Bytes {
        let size = self.settings.size as usize;
        let mut buffer: SampleBuffer = self.allocator.allocate(size);
        let (head, rest) = buffer.split_at_mut(8);
        head.copy_from_slice(&number.to_le_bytes());
        match self.settings.touch {
            Touch::All => {
                let start = usize::from((number as u8).wrapping_add(1));
                for chunk in rest.chunks_mut(self.counting.len() - 256) {
                    chunk.copy_from_slice(&self.counting[start..start + chunk.len()]);
                }
            }
            Touch::Fill => rest.fill(number as u8),
            Touch::Header => {}
        }
        buffer.freeze()
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pattern")
            .field("settings", &self.settings)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Component for Pattern {
    type Settings = PatternSettings;
    const INFO: ComponentInfo =
        ComponentInfo::source("synthetic.pattern", "Makes samples of counting bytes")
            .produces(&[Subtype::PATTERN]);

    fn new(settings: PatternSettings) -> Result<Self> {
        let refuse = |what| {
            Err(Error::invalid_argument(format!(
                "synthetic.pattern: {what}"
            )))
        };
        if !(8..=256 << 20).contains(&settings.size) {
            return refuse("size is 8 bytes to 256 MiB");
        }
        if !(1..=64).contains(&settings.streams) {
            return refuse("streams is 1 to 64");
        }
        if settings.interval < MediaTime::ZERO {
            return refuse("interval is not negative");
        }
        let duration = length(&settings);
        let streams = (0..settings.streams)
            .map(|id| {
                let media_type = MediaType::new(MajorType::Data, Subtype::PATTERN);
                let mut stream = StreamDescriptor::new(StreamId(id), media_type, TimeBase::TICKS);
                stream.duration = Some(duration);
                stream.sample_count = Some(settings.count);
                stream
            })
            .collect();
        Ok(Self {
            settings,
            presentation: PresentationDescriptor {
                streams,
                duration: Some(duration),
                characteristics: Characteristics {
                    live: false,
                    can_seek: true,
                    can_pause: true,
                },
                ..PresentationDescriptor::default()
            },
            next: VecDeque::new(),
            allocator: Arc::new(HeapAllocator),
            counting: (0..=255u8).cycle().take(256 + (64 << 10)).collect(),
        })
    }
}

impl MediaSource for Pattern {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn use_memory(&mut self, memory: Arc<dyn SampleAllocator>) {
        self.allocator = memory;
    }

    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        for id in selected {
            if self.presentation.stream(*id).is_none() {
                return Err(Error::invalid_argument(format!("no stream {id}")));
            }
        }
        let duration = length(&self.settings);
        let number = match position {
            None => None,
            Some(position) if position < MediaTime::ZERO || position > duration => {
                return Err(
                    portcullis_engine::ErrorKind::InvalidPosition { position, duration }.into(),
                );
            }
            // The sample that lasts at the position.
            Some(position) => Some(
                position
                    .ticks()
                    .checked_div(self.settings.interval.ticks())
                    .unwrap_or(0) as u64,
            ),
        };
        self.next = selected
            .iter()
            .map(|id| {
                let before = self.next.iter().find(|(known, _)| known == id);
                (*id, number.or(before.map(|(_, next)| *next)).unwrap_or(0))
            })
            .collect();
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        let Some((id, number)) = self.next.pop_front() else {
            return Ok(None);
        };
        if number >= self.settings.count {
            // The streams take turns: when one is at its end the others may still have samples.
            if self
                .next
                .iter()
                .any(|(_, number)| *number < self.settings.count)
            {
                self.next.push_back((id, number));
                return self.read();
            }
            self.next.push_front((id, number));
            return Ok(None);
        }
        self.next.push_back((id, number + 1));
        let mut sample = Sample::new(
            time_of(&self.settings, number),
            self.settings.interval,
            self.payload(number),
        );
        sample.flags.key = true;
        Ok(Some((id, sample)))
    }
}

fn time_of(settings: &PatternSettings, number: u64) -> MediaTime {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    MediaTime::from_ticks(settings.interval.ticks().saturating_mul(number))
}

fn length(settings: &PatternSettings) -> MediaTime {
    time_of(settings, settings.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(settings: PatternSettings) -> Pattern {
        Pattern::new(settings).expect("in range")
    }

    #[test]
    fn every_byte_counts() {
        for size in [8, 9, 188, 3 * 65_536 + 17] {
            let mut source = source(PatternSettings {
                size,
                count: 300,
                ..PatternSettings::default()
            });
            source.start(&[StreamId(0)], None).expect("starts");
            let mut number = 0;
            while let Some((_, sample)) = source.read().expect("reads") {
                let bytes = sample.payload.to_bytes();
                assert_eq!(bytes.len(), size as usize);
                assert!(Pattern::is_sample(&bytes, number), "{number} of {size}");
                assert!(!Pattern::is_sample(&bytes, number + 1));
                number += 1;
            }
            assert_eq!(number, 300);
        }
    }

    #[test]
    fn streams_take_turns_and_a_position_starts_at_its_sample() {
        let mut source = source(PatternSettings {
            streams: 2,
            count: 5,
            ..PatternSettings::default()
        });
        let both = [StreamId(0), StreamId(1)];
        source
            .start(&both, Some(MediaTime::from_ticks(35_000)))
            .expect("inside");
        let mut seen = Vec::new();
        while let Some((id, sample)) = source.read().expect("reads") {
            seen.push((id.0, sample.time.ticks() / 10_000));
        }
        assert_eq!(seen, [(0, 3), (1, 3), (0, 4), (1, 4)]);
        assert!(source.read().expect("still at the end").is_none());
        source.start(&both, None).expect("goes on: at the end");
        assert!(source.read().expect("reads").is_none());
        assert!(source.start(&both, Some(MediaTime::from_secs(1))).is_err());
        assert!(source.start(&[StreamId(2)], None).is_err());
    }
}
