//! What reading a stream gave.

use std::fmt::Write as _;

use futures::StreamExt;
use md5::{Digest, Md5};
use portcullis::{
    Error, MajorType, MediaTime, MediaType, SampleFormat, SourceReader, StreamSelector,
};

/// Errors of one stream after which reading it ends.
const MOST_ERRORS: usize = 5000;

/// What reading a stream gave.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Whether there is such a stream.
    pub(crate) listed: bool,
    /// Whether samples were delivered at all, or the stream was refused before.
    pub(crate) refused: bool,
    pub(crate) media_type: Option<MediaType>,
    /// Length of the stream that its container states.
    pub(crate) stated: Option<MediaTime>,
    /// Time and hash of each sample.
    pub(crate) samples: Vec<(MediaTime, String)>,
    /// All payloads of sound in a row.
    pub(crate) sound: Vec<u8>,
    pub(crate) errors: Vec<Error>,
}

impl Outcome {
    pub(crate) fn refused(error: Error) -> Self {
        Self {
            listed: true,
            refused: true,
            errors: vec![error],
            ..Self::default()
        }
    }

    /// What differs from the same in another placement.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let errors = |outcome: &Self| {
            outcome
                .errors
                .iter()
                .map(|error| format!("{:?}", error.kind()))
                .collect::<Vec<_>>()
        };
        let (ours, theirs) = (errors(self), errors(other));
        if ours != theirs {
            let at = ours
                .iter()
                .zip(&theirs)
                .position(|(a, b)| a != b)
                .unwrap_or(ours.len().min(theirs.len()));
            return Some(format!(
                "{} errors and {}, from the {at}th: {:?} and {:?}",
                ours.len(),
                theirs.len(),
                ours.get(at),
                theirs.get(at)
            ));
        }
        if self.samples != other.samples {
            let at = self
                .samples
                .iter()
                .zip(&other.samples)
                .position(|(a, b)| a != b);
            return Some(format!(
                "{} samples and {}, unlike at {at:?}",
                self.samples.len(),
                other.samples.len()
            ));
        }
        if (self.listed, self.refused, &self.media_type)
            != (other.listed, other.refused, &other.media_type)
        {
            return Some(format!("{:?} and {:?}", self.media_type, other.media_type));
        }
        None
    }

    pub(crate) fn format(&self) -> Option<SampleFormat> {
        self.media_type.as_ref().and_then(MediaType::sample_format)
    }

    /// PCM frames.
    pub(crate) fn frames(&self) -> u64 {
        let channels = self
            .media_type
            .as_ref()
            .and_then(MediaType::channels)
            .unwrap_or(1)
            .max(1);
        let frame = self.format().map_or(1, SampleFormat::bytes) as u64 * u64::from(channels);
        self.sound.len() as u64 / frame
    }

    /// The sound as floats.
    pub(crate) fn floats(&self) -> Option<Vec<f32>> {
        match self.format()? {
            SampleFormat::F32 => Some(
                self.sound
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .collect(),
            ),
            SampleFormat::S16 => {
                let value = |bytes: &[u8; 2]| f32::from(i16::from_le_bytes(*bytes)) / 32768.0;
                Some(self.sound.as_chunks::<2>().0.iter().map(value).collect())
            }
            _ => None,
        }
    }
}

/// Reads a stream to its end, errors and all.
pub(crate) async fn read(reader: &SourceReader, selector: StreamSelector) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(descriptor) = selector.find(reader.presentation()) else {
        return outcome;
    };
    outcome.listed = true;
    outcome.stated = descriptor.duration;
    let mut samples = match reader.samples(selector).await {
        Ok(samples) => samples,
        Err(error) => {
            let stated = outcome.stated;
            return Outcome {
                stated,
                ..Outcome::refused(error)
            };
        }
    };
    let sound = descriptor.major() == MajorType::Audio;
    while let Some(item) = samples.next().await {
        match item {
            Ok(sample) => {
                let bytes = sample.payload.to_bytes();
                outcome.samples.push((sample.time, hash(&bytes)));
                if sound {
                    outcome.sound.extend_from_slice(&bytes);
                }
            }
            Err(error) => outcome.errors.push(error),
        }
        assert!(
            outcome.errors.len() < MOST_ERRORS,
            "errors without end: {:?}",
            outcome.errors.last()
        );
    }
    outcome.media_type = Some(samples.media_type().clone());
    outcome
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}
