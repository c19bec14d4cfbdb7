//! MP3 files that are written here: stale headers, files behind each other, tails.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::component::{MemorySource, OpenContext};
use portcullis_engine::{ByteStreamHandler, Error, MediaSource, Sample, keys, sample_keys};

use super::Mp3;

/// MPEG-1, layer III, 64 kbit/s, 48 kHz, stereo: frames of 192 bytes.
const HEADER: [u8; 4] = [0xff, 0xfb, 0x54, 0x00];
const FRAME: usize = 192;
const PER_FRAME: u64 = 1152;

/// Frames of silence.
pub(super) fn silence(count: usize) -> Vec<u8> {
    let mut frame = HEADER.to_vec();
    frame.resize(FRAME, 0);
    frame.repeat(count)
}

/// A header frame that counts `frames`, with a delay of 576 and a padding of 1000.
fn header(kind: &[u8; 4], frames: u32) -> Vec<u8> {
    let mut bytes = silence(1);
    bytes[36..40].copy_from_slice(kind);
    bytes[43] = 0x0f;
    bytes[44..48].copy_from_slice(&frames.to_be_bytes());
    bytes[48..52].copy_from_slice(&((frames + 1) * FRAME as u32).to_be_bytes());
    bytes[156..160].copy_from_slice(b"Lavf");
    let packed = 576_u32 << 12 | 1000;
    bytes[177..180].copy_from_slice(&packed.to_be_bytes()[1..]);
    bytes
}

fn file(kind: &[u8; 4], stated: u32, frames: usize) -> Vec<u8> {
    [header(kind, stated), silence(frames)].concat()
}

fn open(bytes: Vec<u8>, seekable: bool) -> Box<dyn MediaSource> {
    let input = if seekable {
        MemorySource::new(bytes)
    } else {
        MemorySource::forward_only(bytes)
    };
    let context = OpenContext::default();
    Mp3 {}.open(Box::new(input), &context).unwrap()
}

fn drain(source: &mut dyn MediaSource) -> (Vec<Sample>, Option<Error>) {
    let mut samples = Vec::new();
    loop {
        match source.read() {
            Ok(Some((_, sample))) => samples.push(sample),
            Ok(None) => return (samples, None),
            Err(error) => return (samples, Some(error)),
        }
    }
}

/// PCM frames that remain of all samples.
fn kept(samples: &[Sample]) -> u64 {
    let trimmed = |sample: &Sample| {
        let trim = |key| sample.attributes.get(key).unwrap_or(0);
        trim(&sample_keys::TRIM_START) + trim(&sample_keys::TRIM_END)
    };
    samples.len() as u64 * PER_FRAME - samples.iter().map(trimmed).sum::<u64>()
}

fn bit_rate(source: &dyn MediaSource) -> Option<u64> {
    let stream = &source.presentation().streams[0];
    stream.media_type.attributes.get(&keys::BIT_RATE)
}

#[test]
fn the_stated_length_cuts_off_the_padding() {
    for seekable in [true, false] {
        let (samples, error) = drain(&mut *open(file(b"Info", 20, 20), seekable));
        assert_eq!((samples.len(), error), (20, None));
        assert_eq!(kept(&samples), 20 * PER_FRAME - 576 - 1000);
    }
}

#[test]
fn sound_behind_a_stale_count_is_kept() {
    // Only a little more than stated, and so much that the header is not believed at all.
    for (stated, padding) in [(20, 1000 - 529), (5, 0)] {
        let (samples, error) = drain(&mut *open(file(b"Xing", stated, 21), true));
        assert_eq!((samples.len(), error), (21, None));
        assert_eq!(kept(&samples), 21 * PER_FRAME - 1105 - padding);
    }
    // Without a known length there is no telling, but nothing behind is lost.
    let (samples, _) = drain(&mut *open(file(b"Xing", 5, 21), false));
    assert_eq!(kept(&samples), 21 * PER_FRAME - 1105 - (1000 - 529));
}

#[test]
fn files_behind_each_other_are_all_played() {
    let one = file(b"Info", 20, 20);
    let mut source = open([&one[..], &one].concat(), true);
    let (samples, error) = drain(&mut *source);
    assert_eq!((samples.len(), error), (41, None));
    assert_eq!(kept(&samples), 41 * PER_FRAME - 1105);
}

#[test]
fn info_means_one_bit_rate() {
    assert_eq!(bit_rate(&*open(file(b"Info", 20, 20), true)), Some(64_000));
    // The mean, over the header frame's bytes too.
    assert_eq!(bit_rate(&*open(file(b"Xing", 20, 20), true)), Some(67_200));
}
