//! Multiplies PCM by a constant.

use portcullis_engine::{
    Component, ComponentInfo, Error, MediaType, Output, Registry, Result, Sample, SampleFormat,
    Subtype, Transform,
};
use serde::{Deserialize, Serialize};

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Gain>();
}

/// How much.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GainSettings {
    /// The factor; 1.0 changes nothing.
    pub factor: f32,
}

/// Multiplies 16-bit or float PCM by a factor; integers saturate.
#[derive(Debug)]
pub struct Gain {
    factor: f32,
    format: Option<SampleFormat>,
}

impl Component for Gain {
    type Settings = GainSettings;
    const INFO: ComponentInfo =
        ComponentInfo::transform("synthetic.gain", "Multiplies PCM by a constant")
            .accepts(&[Subtype::PCM_S16, Subtype::PCM_F32])
            .inline();

    fn new(settings: GainSettings) -> Result<Self> {
        if !settings.factor.is_finite() {
            return Err(Error::invalid_argument("synthetic.gain: factor is finite"));
        }
        Ok(Self {
            factor: settings.factor,
            format: None,
        })
    }
}

impl Transform for Gain {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        match input.sample_format() {
            Some(format @ (SampleFormat::S16 | SampleFormat::F32)) => self.format = Some(format),
            _ => return Err(Error::invalid_type(input, "16-bit or float PCM is needed")),
        }
        Ok(vec![input.clone()])
    }

    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let bytes = input.payload.to_bytes();
        let width = match self.format {
            Some(format) => format.bytes(),
            None => return Err(Error::invalid_request("samples before the input type")),
        };
        let whole = &bytes[..bytes.len() - bytes.len() % width];
        let mut buffer = output.allocate(whole.len());
        if width == 2 {
            for (from, to) in whole.chunks_exact(2).zip(buffer.chunks_exact_mut(2)) {
                let value = f32::from(i16::from_le_bytes([from[0], from[1]])) * self.factor;
                // `as` saturates.
                to.copy_from_slice(&(value.round() as i16).to_le_bytes());
            }
        } else {
            for (from, to) in whole.chunks_exact(4).zip(buffer.chunks_exact_mut(4)) {
                let value = f32::from_le_bytes([from[0], from[1], from[2], from[3]]) * self.factor;
                to.copy_from_slice(&value.to_le_bytes());
            }
        }
        output.push(input.with_payload(buffer));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use portcullis_engine::MediaTime;

    use super::*;

    fn amplify(factor: f32, subtype: Subtype, payload: Vec<u8>) -> Vec<u8> {
        let mut gain = Gain::new(GainSettings { factor }).expect("finite");
        gain.set_input(&MediaType::audio(subtype, 48_000, 1))
            .expect("PCM");
        let mut output = Output::default();
        let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload);
        gain.process(sample, &mut output).expect("processed");
        output.take_samples()[0].payload.to_bytes().to_vec()
    }

    #[test]
    fn integers_saturate_and_floats_do_not() {
        let loud: Vec<u8> = [100i16, -30_000, 30_000]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let expected: Vec<u8> = [200i16, i16::MIN, i16::MAX]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(amplify(2.0, Subtype::PCM_S16, loud), expected);
        let float = 0.75f32.to_le_bytes().to_vec();
        assert_eq!(amplify(2.0, Subtype::PCM_F32, float), 1.5f32.to_le_bytes());
    }

    #[test]
    fn other_types_are_refused() {
        let mut gain = Gain::new(GainSettings { factor: 1.0 }).expect("finite");
        let error = gain.set_input(&MediaType::audio(Subtype::AAC, 48_000, 2));
        assert!(error.is_err());
        assert!(Gain::new(GainSettings { factor: f32::NAN }).is_err());
    }
}
