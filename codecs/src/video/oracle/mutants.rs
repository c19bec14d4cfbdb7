//! Damaged samples: a decoder answers every one of them, in time, and decodes whole ones afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_engine::{ContentLimits, ErrorKind, Output, Subtype};

use super::{Clip, annex_b, clip, decode, decoder, media};

/// A small generator: the same mutants in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to four changes: bits, bytes, cuts, repeats, most of them in the first bytes where the heads are.
fn mutate(payload: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = payload.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let reach = if random.below(2) == 0 {
            48
        } else {
            bytes.len()
        };
        let at = random.below(reach.min(bytes.len()));
        match random.below(8) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = random.next() as u8,
            4 => bytes[at] = [0, 0xff, 0x80, 0x7f][random.below(4)],
            5 => bytes.truncate(at),
            6 => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes.into()
}

/// What a run of mutants showed.
#[derive(Debug, Default)]
struct Outcome {
    pictures: usize,
    errors: BTreeMap<String, usize>,
    slowest: Duration,
}

fn run(clip: &Clip, rounds: usize, seed: u64) -> Outcome {
    let mut random = Random(seed);
    let mut outcome = Outcome::default();
    for _ in 0..rounds {
        let mut decoder = decoder(clip.media_type.subtype);
        decoder.set_input(&clip.media_type).expect("a whole type");
        let limits = ContentLimits {
            max_pixels: 1 << 20,
            ..ContentLimits::default()
        };
        let mut output = Output::new(
            std::sync::Arc::new(portcullis_engine::media::HeapAllocator),
            limits,
        );
        let mut offset = random.below(clip.samples.len().saturating_sub(8));
        if random.below(4) > 0 {
            offset = 0;
        }
        for sample in clip.samples.iter().skip(offset).take(8) {
            let mut sample = sample.clone();
            if random.below(3) == 0 {
                sample.payload = mutate(&sample.payload.to_bytes(), &mut random).into();
            }
            let start = Instant::now();
            if let Err(error) = decoder.process(sample, &mut output) {
                let text = match error.kind() {
                    ErrorKind::Undecodable { what, .. } => what.to_string(),
                    other => other.to_string(),
                };
                *outcome.errors.entry(text).or_default() += 1;
            }
            outcome.slowest = outcome.slowest.max(start.elapsed());
            outcome.pictures += output.take_samples().len();
        }
        let _ = decoder.drain(&mut output);
        outcome.pictures += output.take_samples().len();
    }
    outcome
}

#[test]
fn mutants_are_answered() {
    let Some(media) = media() else { return };
    // More for a longer search: 100 rounds of 8 samples take a second or two.
    let rounds = std::env::var("MUTANT_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(25);
    let seed = std::env::var("MUTANT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x9e37_79b9_7f4a_7c15);
    let clips = [
        ("tiny", clip(&media, "mp4/tiny_prog.mp4", Subtype::H264)),
        (
            "high",
            clip(
                &media,
                "mp4/h264high_cabac_bpyr_8x8_slices.mp4",
                Subtype::H264,
            ),
        ),
        (
            "baseline",
            annex_b(&media, "third_party/jvt_h264/MR1_MW_A.264"),
        ),
        ("vp9", clip(&media, "mp4/vp9.mp4", Subtype::VP9)),
        (
            "vp9 10 bit",
            clip(&media, "mkv/vp9_profile2_10bit.webm", Subtype::VP9),
        ),
        ("av1", clip(&media, "mp4/av1_opus.mp4", Subtype::AV1)),
        (
            "av1 10 bit",
            clip(&media, "mp4/av1_10bit.mp4", Subtype::AV1),
        ),
        (
            "av1 grain",
            clip(&media, "mkv/av1_svt_720_filmgrain.mkv", Subtype::AV1),
        ),
    ];
    let only = std::env::var("MUTANT_ONLY").ok();
    for (name, clip) in &clips {
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let outcome = run(clip, rounds, seed);
        eprintln!("{name}: {outcome:#?}");
        assert!(outcome.pictures > 0, "{name}: nothing was decoded");
        // A decoder that was given damage before decodes a whole clip as ever.
        assert!(decode(clip).errors.is_empty(), "{name}");
    }
}
