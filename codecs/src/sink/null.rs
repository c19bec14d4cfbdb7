//! A sink that takes everything, counts it and keeps nothing.

use std::collections::BTreeMap;

use portcullis_engine::{
    Component, ComponentInfo, Error, MediaSink, MediaType, Registry, Result, Sample,
};
use serde::{Deserialize, Serialize};

pub(crate) fn register(registry: &mut Registry) {
    registry.sink::<NullSink>();
}

/// How the null sink behaves.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NullSettings {
    /// Take samples as fast as they come, whatever the clock says.
    pub rateless: bool,
    /// Read one word of every 64 bytes, as a consumer that looks at the content would.
    pub touch: bool,
    /// Copy what another process can still write into private memory first, as a reader does.
    pub copy: bool,
}

/// What was taken of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCount {
    /// Samples.
    pub samples: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// How often the stream ended.
    pub ends: u64,
    /// The sum of the words that were read, where content is touched.
    pub checksum: u64,
}

/// Takes samples of any number of streams of any type.
#[derive(Debug)]
pub struct NullSink {
    settings: NullSettings,
    streams: BTreeMap<u32, StreamCount>,
}

impl NullSink {
    /// What was taken of a stream.
    pub fn count(&self, stream: u32) -> StreamCount {
        self.streams.get(&stream).copied().unwrap_or_default()
    }
}

impl Component for NullSink {
    type Settings = NullSettings;
    const INFO: ComponentInfo =
        ComponentInfo::sink("sink.null", "Counts samples and drops them").inline();

    fn new(settings: NullSettings) -> Result<Self> {
        Ok(Self {
            settings,
            streams: BTreeMap::new(),
        })
    }
}

impl MediaSink for NullSink {
    fn set_type(&mut self, stream: u32, _: &MediaType) -> Result<()> {
        self.streams.entry(stream).or_default();
        Ok(())
    }

    fn render(&mut self, stream: u32, mut sample: Sample) -> Result<()> {
        if self.settings.copy {
            sample.payload = sample.payload.into_private();
        }
        let Some(count) = self.streams.get_mut(&stream) else {
            return Err(Error::invalid_request(format!(
                "stream {stream} has no type"
            )));
        };
        count.samples += 1;
        count.bytes = count.bytes.saturating_add(sample.len() as u64);
        if self.settings.touch {
            count.checksum = count.checksum.wrapping_add(sum_of_lines(&sample));
        }
        Ok(())
    }

    fn end_of_stream(&mut self, stream: u32) -> Result<()> {
        self.streams.entry(stream).or_default().ends += 1;
        Ok(())
    }

    fn finalize(&mut self) -> Result<()> {
        Ok(())
    }

    fn is_rateless(&self) -> bool {
        self.settings.rateless
    }
}

/// The sum of the first word of every 64 bytes, without a copy of what another process shares.
fn sum_of_lines(sample: &Sample) -> u64 {
    use portcullis_engine::Payload;
    match &sample.payload {
        Payload::Bytes(bytes) => bytes
            .chunks(64)
            .filter_map(|line| line.first_chunk::<8>())
            .fold(0, |sum: u64, word| {
                sum.wrapping_add(u64::from_le_bytes(*word))
            }),
        Payload::View(view) => {
            let (mut sum, mut at) = (0_u64, 0);
            let mut words = [0; 256];
            loop {
                let count = view.read_u64s(at, 64, &mut words);
                sum = words[..count].iter().copied().fold(sum, u64::wrapping_add);
                if count < words.len() {
                    return sum;
                }
                at += count * 64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_engine::{MediaTime, Subtype};

    use super::*;

    #[test]
    fn counts_by_stream() {
        let settings = NullSettings {
            touch: true,
            ..NullSettings::default()
        };
        let mut sink = NullSink::new(settings).expect("new");
        let sound = MediaType::audio(Subtype::PCM_S16, 48_000, 2);
        let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![1; 80]);
        assert!(sink.render(1, sample.clone()).is_err(), "no type yet");
        sink.set_type(1, &sound).expect("any type");
        sink.render(1, sample.clone()).expect("taken");
        sink.render(1, sample).expect("taken");
        sink.end_of_stream(1).expect("counted");
        let count = sink.count(1);
        assert_eq!((count.samples, count.bytes, count.ends), (2, 160, 1));
        assert_eq!(count.checksum, 4 * 0x0101_0101_0101_0101);
        assert_eq!(sink.count(0), StreamCount::default());
    }
}
