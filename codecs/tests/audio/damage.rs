//! Damaged clips, and packets of noise: errors, never a panic, a hang or memory without bound.

use std::collections::BTreeMap;

use portcullis_engine::{
    MajorType, MediaSource, MediaTime, Output, Registry, Role, Sample, Settings, StreamId,
};

use crate::clip::{Decoded, decode, media, open, registry, rows};

const EXTENSIONS: [&str; 6] = ["wav", "flac", "mp3", "adts", "opus", "ogg"];

/// Random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// A clip with a few bytes changed, some of it repeated, or its end missing.
fn mutant(clip: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = clip.to_vec();
    for _ in 0..=random.below(8) {
        // The headers are where the interesting fields are.
        let reach = if random.below(2) == 0 {
            256
        } else {
            bytes.len()
        };
        let at = random.below(reach.min(bytes.len()));
        match random.below(6) {
            0 => bytes[at] = random.below(256) as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
            3 => {
                let to = (at + random.below(64)).min(bytes.len());
                let part = bytes[at..to].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let to = (at + random.below(64)).min(bytes.len());
                bytes.drain(at..to);
            }
            _ if random.below(8) == 0 => bytes.truncate(at),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

fn all_sound(registry: &Registry, mut source: Box<dyn MediaSource>) -> Vec<Decoded> {
    let streams = source.presentation().streams.iter();
    let count = streams
        .filter(|stream| stream.major() == MajorType::Audio)
        .count();
    (0..count.min(1))
        .filter_map(|nth| decode(registry, source.as_mut(), nth).ok())
        .collect()
}

#[test]
fn damaged_files_end_as_expected() {
    let Some(media) = media() else { return };
    let registry = registry();
    let mut wrong = Vec::new();
    for (file, row) in rows("bad/BAD.json", &EXTENSIONS) {
        for seekable in [true, false] {
            let bytes = std::fs::read(media.join(&file)).unwrap();
            let (frames, error) = match open(&registry, &file, bytes, seekable) {
                Err(error) => (0, Some(error)),
                Ok(source) => {
                    let decoded = all_sound(&registry, source).pop().unwrap_or_default();
                    (decoded.frames(), decoded.errors.into_iter().next())
                }
            };
            println!("{file} {seekable}: {frames} frames, {error:?}");
            let fits = match row["expect"].as_str() {
                Some("error") => frames == 0 && error.is_some(),
                // The cut FLAC and Ogg clips end before their first frame or page of sound does.
                Some("partial") => {
                    let whole = row["bytes"].as_u64() > Some(1000)
                        && ["wav", "mp3", "adts"].iter().any(|e| file.ends_with(e));
                    error.is_some() && (frames > 0 || !whole)
                }
                _ => true,
            };
            if !fits {
                wrong.push(format!(
                    "{file} ({}): {frames} frames, {error:?}",
                    row["expect"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_mutant_panics_or_grows() {
    let Some(media) = media() else { return };
    let registry = registry();
    let count: usize = std::env::var("MUTANTS").map_or(77, |count| count.parse().unwrap());
    let mut gave_up = BTreeMap::new();
    for (name, keep) in [
        ("audio/wav_s16.wav", 2000),
        ("audio/wav_rf64.wav", 2000),
        ("audio/wav_s16_51_extensible.wav", 2000),
        ("audio/flac16.flac", 14_000),
        ("audio/flac24_96k.flac", 22_000),
        ("audio/mp3_cbr_id3.mp3", 5000),
        ("audio/mp3_vbr_apic.mp3", 5000),
        ("audio/mp3_mpeg2_mono_22k.mp3", 3000),
        ("audio/aac.adts", 4000),
        ("audio/vorbis.ogg", 9000),
        ("audio/opus.opus", 4000),
        ("audio/opus_hybrid_24k_5.1.opus", 4000),
        ("audio/flac_in_ogg.oga", 16_000),
    ] {
        let mut clip = std::fs::read(media.join(name)).unwrap();
        clip.truncate(keep);
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ keep as u64);
        for round in 0..count {
            let bytes = mutant(&clip, &mut random);
            let len = bytes.len();
            let Ok(source) = open(&registry, name, bytes, round % 2 == 0) else {
                continue;
            };
            for decoded in all_sound(&registry, source) {
                assert!(
                    decoded.bytes.len() <= 64 << 20,
                    "{name} {round}: {} bytes of {len}",
                    decoded.bytes.len()
                );
                for error in decoded.errors.iter().map(ToString::to_string) {
                    if let Some((_, why)) = error.split_once("gave up: ") {
                        *gave_up.entry(format!("{name}: {why}")).or_insert(0) += 1;
                    }
                }
            }
        }
    }
    println!("libraries that panicked: {gave_up:#?}");
}

/// A decoder that was given noise still decodes what is whole after it, or says why not.
#[test]
fn packets_of_noise_are_refused_one_by_one() {
    let Some(media) = media() else { return };
    let registry = registry();
    let rounds: usize = std::env::var("MUTANTS").map_or(100, |count| count.parse().unwrap());
    let mut gave_up = BTreeMap::new();
    for name in [
        "audio/aac.adts",
        "audio/aac_lc.m4a",
        "audio/mp3_cbr_id3.mp3",
        "audio/flac16.flac",
        "audio/vorbis.ogg",
        "audio/opus.opus",
        "audio/opus_silk_mono.opus",
        "audio/opus_hybrid_24k_5.1.opus",
        "mp4/pcm_s16be.mov",
    ] {
        let bytes = std::fs::read(media.join(name)).unwrap();
        let mut source = open(&registry, name, bytes, true).unwrap();
        let stream = source
            .presentation()
            .nth_of(MajorType::Audio, 0)
            .unwrap()
            .clone();
        source.start(&[stream.id], Some(MediaTime::ZERO)).unwrap();
        let packets: Vec<(StreamId, Sample)> = std::iter::from_fn(|| source.read().unwrap())
            .take(40)
            .collect();
        let found = registry
            .candidates(|info| info.role == Role::Decoder && info.takes(stream.media_type.subtype));
        let mut decoder = registry
            .create_transform(found[0].info().class, &Settings::default())
            .unwrap();
        decoder.set_input(&stream.media_type).unwrap();
        let mut output = Output::default();
        let mut random = Random(0x1234_5678_9abc_def1);
        for round in 0..rounds {
            let whole = &packets[random.below(packets.len())].1;
            let bytes = match random.below(4) {
                0 => (0..random.below(600))
                    .map(|_| random.below(256) as u8)
                    .collect(),
                _ => mutant(&whole.payload.to_bytes(), &mut random),
            };
            let result = decoder.process(whole.with_payload(bytes), &mut output);
            if let Err(error) = result
                && let Some((_, why)) = error.to_string().split_once("gave up: ")
            {
                *gave_up.entry(format!("{name}: {why}")).or_insert(0) += 1;
            }
            let made: usize = output.take_samples().iter().map(Sample::len).sum();
            assert!(made <= 8 << 20, "{name} {round}: {made} bytes");
        }
        // Two packets, because the first one after an overlap may give nothing.
        let mut heard = 0;
        decoder.flush();
        for (_, sample) in &packets[1..4] {
            decoder.process(sample.clone(), &mut output).unwrap();
            heard += output.take_samples().len();
        }
        assert!(heard > 0, "{name} is silent after noise");
    }
    println!("libraries that panicked: {gave_up:#?}");
}

/// Headers of noise are refused when the type is set.
#[test]
fn private_data_of_noise_is_refused() {
    let Some(media) = media() else { return };
    let registry = registry();
    let rounds: usize = std::env::var("MUTANTS").map_or(100, |count| count.parse().unwrap());
    let mut gave_up = BTreeMap::new();
    for name in [
        "audio/aac_lc.m4a",
        "audio/flac16.flac",
        "audio/vorbis.ogg",
        "audio/opus_hybrid_24k_5.1.opus",
    ] {
        let bytes = std::fs::read(media.join(name)).unwrap();
        let mut source = open(&registry, name, bytes, true).unwrap();
        let stream = source
            .presentation()
            .nth_of(MajorType::Audio, 0)
            .unwrap()
            .clone();
        source.start(&[stream.id], Some(MediaTime::ZERO)).unwrap();
        let (_, sample) = source.read().unwrap().unwrap();
        let found = registry
            .candidates(|info| info.role == Role::Decoder && info.takes(stream.media_type.subtype));
        let mut random = Random(0x0bad_cafe_1234_5678);
        for _ in 0..rounds {
            let data = mutant(&stream.media_type.private_data().unwrap(), &mut random);
            let input = stream
                .media_type
                .clone()
                .with(&portcullis_engine::keys::PRIVATE_DATA, data.into());
            let mut decoder = registry
                .create_transform(found[0].info().class, &Settings::default())
                .unwrap();
            let mut output = Output::default();
            let outcome = decoder
                .set_input(&input)
                .and_then(|_| decoder.process(sample.clone(), &mut output));
            if let Err(error) = outcome
                && let Some((_, why)) = error.to_string().split_once("gave up: ")
            {
                *gave_up.entry(format!("{name}: {why}")).or_insert(0) += 1;
            }
        }
    }
    println!("libraries that panicked: {gave_up:#?}");
}
