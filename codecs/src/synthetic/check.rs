//! A sink that takes what a pattern source makes, and nothing else: it finds the sample that was lost, repeated, moved or
//! damaged on its way.

use std::collections::BTreeMap;

use portcullis_engine::{
    Component, ComponentInfo, Error, MediaSink, MediaType, Payload, Registry, Result, Sample,
    Subtype,
};
use serde::{Deserialize, Serialize};

use super::Pattern;

pub(crate) fn register(registry: &mut Registry) {
    registry.sink::<PatternCheck>();
}

/// What has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternCheckSettings {
    /// Bytes of a sample.
    pub size: u32,
    /// Samples of each stream.
    pub count: u64,
    /// Whether every byte is looked at, as the source wrote them all; otherwise a sample's number and length.
    pub whole: bool,
}

/// Fails at the first sample that is not the next one of its stream, and at an end before the last.
#[derive(Debug)]
pub struct PatternCheck {
    settings: PatternCheckSettings,
    /// Number of the next sample of each stream.
    next: BTreeMap<u32, u64>,
}

impl Component for PatternCheck {
    type Settings = PatternCheckSettings;
    const INFO: ComponentInfo = ComponentInfo::sink(
        "synthetic.check",
        "Takes what synthetic.pattern makes, each sample once and in order",
    )
    .accepts(&[Subtype::PATTERN]);

    fn new(settings: PatternCheckSettings) -> Result<Self> {
        if settings.size < 8 {
            return Err(Error::invalid_argument(
                "synthetic.check: size is 8 bytes or more",
            ));
        }
        Ok(Self {
            settings,
            next: BTreeMap::new(),
        })
    }
}

impl MediaSink for PatternCheck {
    fn set_type(&mut self, stream: u32, _: &MediaType) -> Result<()> {
        self.next.entry(stream).or_default();
        Ok(())
    }

    fn render(&mut self, stream: u32, sample: Sample) -> Result<()> {
        let next = self.next.entry(stream).or_default();
        let (number, size) = (*next, self.settings.size as usize);
        let found = number_of(&sample.payload);
        let is_good = sample.len() == size
            && found == Some(number)
            && (!self.settings.whole || Pattern::is_sample(&sample.payload.to_bytes(), number));
        if !is_good {
            let len = sample.len();
            let found = found.map_or("no sample".to_owned(), |found| format!("sample {found}"));
            let what =
                format!("sample {number} of {size} bytes has to come, {found} of {len} bytes came");
            return Err(Error::malformed(number, what));
        }
        *next += 1;
        Ok(())
    }

    fn end_of_stream(&mut self, stream: u32) -> Result<()> {
        // From the beginning when it is played again.
        let came = self.next.insert(stream, 0).unwrap_or(0);
        if came != self.settings.count {
            let what = format!(
                "the stream ends after {came} of {} samples",
                self.settings.count
            );
            return Err(Error::malformed(came, what));
        }
        Ok(())
    }
}

/// The number that a sample begins with, without a copy of what another process shares.
fn number_of(payload: &Payload) -> Option<u64> {
    match payload {
        Payload::Bytes(bytes) => bytes.first_chunk::<8>().copied().map(u64::from_le_bytes),
        Payload::View(view) => view.read_u64(0),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_engine::{MediaSource, StreamId};

    use super::*;
    use crate::synthetic::PatternSettings;

    fn samples() -> Vec<Sample> {
        let mut source = Pattern::new(PatternSettings {
            count: 3,
            ..PatternSettings::default()
        })
        .expect("in range");
        source.start(&[StreamId(0)], None).expect("starts");
        std::iter::from_fn(|| source.read().expect("reads"))
            .map(|(_, sample)| sample)
            .collect()
    }

    /// What the sink says of these samples and their end.
    fn check(whole: bool, samples: Vec<Sample>) -> Result<()> {
        let settings = PatternCheckSettings {
            size: 188,
            count: 3,
            whole,
        };
        let mut sink = PatternCheck::new(settings)?;
        for _ in 0..2 {
            for sample in &samples {
                sink.render(0, sample.clone())?;
            }
            sink.end_of_stream(0)?;
        }
        Ok(())
    }

    #[test]
    fn takes_each_sample_once_in_order_and_whole() {
        for whole in [true, false] {
            check(whole, samples()).expect("is as it has to be");
            let mut missing = samples();
            missing.remove(1);
            let mut cut_off = samples();
            cut_off.pop();
            let mut repeated = samples();
            repeated[2] = repeated[1].clone();
            let mut swapped = samples();
            swapped.swap(0, 1);
            let mut short = samples();
            short[1].payload = short[1].payload.to_bytes().slice(..187).into();
            for wrong in [missing, cut_off, repeated, swapped, short] {
                assert!(check(whole, wrong).is_err());
            }
            let mut damaged = samples();
            let mut bytes = damaged[1].payload.to_bytes().to_vec();
            bytes[100] ^= 1;
            damaged[1].payload = bytes.into();
            assert_eq!(check(whole, damaged).is_err(), whole);
        }
    }
}
